# SPDX-License-Identifier: MIT
"""Images in formats that qemu-nbd opens for us, and exports of other NBD servers."""
import json
import os
import shutil
import signal
import subprocess

from harness import Failure, Guest, Skip, need, wait_for

SIZE_MIB = 64


def programs(*names):
    for name in names:
        if not shutil.which(name):
            raise Skip(f"no {name}: tests/need test")


def made(world, name, kind):
    path = world.path(name)
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, path, f"{SIZE_MIB}M"], check=True)
    return path


def raw_sum(world, path, kind):
    """Of what the image holds, as another program reads it."""
    raw = world.path("raw")
    subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", path, raw], check=True)
    seen = subprocess.run(["sha256sum", raw], check=True, capture_output=True, text=True)
    raw.unlink()
    return seen.stdout.split()[0]


WRITE = f"""
disk xvda
dd if=/dev/urandom of=/tmp/noise bs=1M count={SIZE_MIB} 2>/dev/null
dd if=/tmp/noise of=/dev/xvda bs=1M conv=fsync 2>/dev/null
echo @@ wrote $(sha256sum </tmp/noise)
echo 3 >/proc/sys/vm/drop_caches
echo @@ read $(sha256sum </dev/xvda)
"""


def test_qcow2_holds_what_the_guest_wrote(world):
    programs("qemu-nbd", "qemu-img", "qemu-io")
    image = made(world, "disk.qcow2", "qcow2")
    script = WRITE + """
echo @@ queues $(ls /sys/block/xvda/mq | wc -l)
echo found >/tmp/word
dd if=/tmp/word of=/dev/xvda bs=512 seek=7 conv=sync,fsync 2>/dev/null
dd if=/dev/xvda bs=512 skip=7 count=1 2>/dev/null | grep -q found
echo @@ wrote $(sha256sum </dev/xvda)
"""
    guest = Guest(world, script, vcpus=2, memory=512, disks=[f"{image},qcow2,xvda,w"]).create()
    wrote = guest.expect(r"^@@ wrote (\w+)").group(1)
    need(guest.expect(r"^@@ read (\w+)").group(1) == wrote, "the guest reads something else")
    # qemu-nbd answers for flushes across connections, so there is one for each vCPU
    queues = guest.expect(r"^@@ queues (\d+)").group(1)
    need(queues == "2", f"{queues} queues")
    wrote = guest.expect(r"^@@ wrote (\w+)").group(1)
    guest.finished()
    need(raw_sum(world, image, "qcow2") == wrote, "qemu-img reads something else")
    word = "found\n".encode().hex(" ")
    said = subprocess.run(["qemu-io", "-f", "qcow2", "-r", "-c", "read -v 3584 512", image],
                          check=True, capture_output=True, text=True).stdout
    need(word in said, f"qemu-io: {said}")
    checked = subprocess.run(["qemu-img", "check", "-q", image], check=False)
    need(checked.returncode == 0, f"qemu-img check: status {checked.returncode}")


def test_qcow2_of_a_guest_that_reboots_or_is_destroyed(world):
    programs("qemu-nbd", "qemu-img")
    image = made(world, "disk.qcow2", "qcow2")
    base = made(world, "base.qcow2", "qcow2")
    script = """
disk xvda
n=$(dd if=/dev/xvda bs=512 count=1 2>/dev/null | tr -d '\\000')
echo "@@ life ${n:-0}"
[ "${n:-0}" != 1 ] || { echo "@@ here"; sleep 1000; }
printf 1 | dd of=/dev/xvda bs=512 conv=sync,fsync 2>/dev/null
reboot -f
"""
    guest = Guest(world, script, disks=[f"{image},qcow2,xvda,w", f"{base},qcow2,xvdb,r"]).create()
    guest.expect(r"^@@ life 0")
    guest.expect(r"^@@ life 1")
    guest.expect(r"^@@ here")
    # a second writer is refused, and so is a reader of what is written
    for access in "wr":
        said = world.xl("create", "-q", Guest(world, "", name="other",
                        disks=[f"{image},qcow2,xvda,{access}"]).config, status=None)
        need(said.returncode != 0 and "in use" in said.stderr, f"{access}: {said.stderr}")
    world.xl("destroy", "guest")
    info = subprocess.run(["qemu-img", "info", "--output=json", image], check=True,
                          capture_output=True, text=True).stdout
    need(json.loads(info)["format"] == "qcow2", info)


def test_an_nbd_server_that_is_killed_and_comes_back(world):
    programs("qemu-nbd", "qemu-img")
    image = made(world, "disk.raw", "raw")
    sock = world.path("nbd.sock")

    def serve():
        child = subprocess.Popen(["qemu-nbd", "--persistent", "--shared=0", "--format=raw",
                                  f"--socket={sock}", image], stderr=subprocess.DEVNULL)
        world.children.append(child)
        wait_for("qemu-nbd", sock.exists)
        return child

    server = serve()
    target = f"driver=nbd,vdev=xvda,access=rw,reconnect=100,target=nbd+unix:///?socket={sock}"
    guest = Guest(world, "disk xvda; echo @@ begin; for i in 1 2 3; do\n" + WRITE + "done",
                  vcpus=2, memory=512, disks=[target]).create()
    guest.expect(r"^@@ begin")
    for _ in range(3):
        server.send_signal(signal.SIGKILL)
        server.wait()
        os.unlink(sock)
        server = serve()
        wrote = guest.expect(r"^@@ wrote (\w+)").group(1)
        need(guest.expect(r"^@@ read (\w+)").group(1) == wrote, "the guest reads something else")
    guest.finished()
    server.terminate()
    server.wait()
    need(raw_sum(world, image, "raw") == wrote, "the image holds something else")
    need("connected again" in world.log("guest"), "the guest's process noticed nothing")


def test_what_keeps_a_disk_from_being_served_is_said(world):
    programs("qemu-nbd")
    image = world.image("disk", 1)
    for line, part in ((f"{image},qcow2,xvda,w", "not in qcow2 format"),
                       ("vdev=xvda,target=nbd+unix:///?socket=/nonexistent", "no connection")):
        done = world.xl("create", "-q", Guest(world, "", disks=[line]).config, status=None)
        if done.returncode == 0 or part not in done.stderr:
            raise Failure(f"{line}: {done.stderr}")
