# SPDX-License-Identifier: MIT
"""backend=process: a disk's engine in a process of its own, which may die at any time."""
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import time

from harness import Guest, Skip, need, wait_for

SIZE_MIB = 64


@contextlib.contextmanager
def loop_device(image):
    made = subprocess.run(["losetup", "--show", "-f", image], text=True, capture_output=True,
                          check=False)
    if made.returncode:
        raise Skip(f"no loop device: {made.stderr.strip()}")
    try:
        yield made.stdout.strip()
    finally:
        subprocess.run(["losetup", "-d", made.stdout.strip()], check=False)


def node(world, guest, name, vdev=51712):
    return world.store("xenstore-read",
                       f"/local/domain/0/backend/vbd/{guest.domid}/{vdev}/{name}").strip()


def process_of(world, guest, other_than=0):
    """The process that serves xvda, by now another than that one."""
    def probe():
        pid = int(node(world, guest, "process"))
        return pid if pid not in (0, other_than) else None
    return wait_for("a process for the disk", probe)


def status_of(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: rest.split() for key, _, rest in (line.partition(":") for line in lines)}


def is_gone(pid):
    try:
        return "Z" in status_of(pid)["State"]
    except (FileNotFoundError, ProcessLookupError):
        return True


def parent_of(pid):
    return int(status_of(pid)["PPid"][0])


def nr_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def verify(runtime_s, jobs=2):
    """fio writes, and reads what it has written, all the time."""
    return f"""
tools xvdz
disk xvda
echo @@ there
fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite \\
    --bsrange=512-64k --numjobs={jobs} --offset_increment={SIZE_MIB // jobs}m \\
    --size={SIZE_MIB // jobs}m --time_based --runtime={runtime_s} --allow_file_create=0 \\
    --serialize_overlap=1 --verify=crc32c --verify_fatal=1 --verify_backlog=64 \\
    >/tmp/fio 2>&1
status=$?
[ $status = 0 ] || cat /tmp/fio
echo "@@ fio $status"
"""


def test_it_is_confined(world):
    image = world.image("disk", SIZE_MIB)
    guest = Guest(world, "disk xvda; echo @@ there; sleep 600",
                  disks=[f"{image},raw,xvda,w,backend=process"]).create()
    guest.expect(r"^@@ there")
    pid = process_of(world, guest)
    status = status_of(pid)
    need(status["Seccomp"] == ["2"] and status["NoNewPrivs"] == ["1"], f"it is not: {status}")
    need(status["CapEff"] == status["CapPrm"] == ["0" * 16], f"capabilities: {status}")
    need(all(id != "0" for id in status["Uid"] + status["Gid"]), f"it is root: {status}")
    for tid in os.listdir(f"/proc/{pid}/task"):
        text = pathlib.Path(f"/proc/{pid}/task/{tid}/status").read_text()
        need("Seccomp:\t2" in text, f"thread {tid} is not confined")
    root = os.readlink(f"/proc/{pid}/root")
    need(not os.listdir(f"/proc/{pid}/root/"), f"its root {root} is not empty")
    for space in ("net", "mnt", "ipc"):
        need(os.readlink(f"/proc/{pid}/ns/{space}") != os.readlink(f"/proc/self/ns/{space}"),
             f"it is in the host's {space} namespace")
    world.xl("destroy", "guest")
    wait_for("its end", lambda: is_gone(pid))


def killed_under_load(world, disk, kills, seed, **keys):
    """Kills the disk's process so many times while fio verifies."""
    guest = Guest(world, verify(runtime_s=kills * 1.5), vcpus=2, memory=512, tools=True,
                  words="xen_blkfront.max_queues=2", disks=[f"{disk},backend=process"],
                  **keys).create()
    guest.expect(r"^@@ there")
    rng = random.Random(seed)
    pids = [process_of(world, guest)]
    parent = parent_of(pids[0])
    held = nr_descriptors(parent)
    for _ in range(kills):
        time.sleep(rng.random())
        os.kill(pids[-1], signal.SIGKILL)
        pids.append(process_of(world, guest, pids[-1]))
    need(node(world, guest, "process-deaths") == str(kills), "deaths are counted wrongly")
    need(nr_descriptors(parent) == held, "descriptors are left behind")
    need("@@ fio" not in guest.console(), "fio ended before the last death")
    need(guest.expect(r"^@@ fio (\d+)").group(1) == "0", f"fio: {guest.last_words()}")
    guest.finished()
    wait_for("the end of all of them", lambda: all(map(is_gone, pids)))


def test_killing_it_under_load_loses_nothing(world):
    image = world.image("disk", SIZE_MIB)
    killed_under_load(world, f"{image},raw,xvda,w", 20, 1)


def test_killing_it_while_the_kernel_works_for_it_loses_nothing(world):
    """A block device, with direct I/O: what was asked for goes on when the process is dead."""
    image = world.image("disk", SIZE_MIB)
    with loop_device(image) as loop:
        killed_under_load(world, f"{loop},raw,xvda,w,persistent-grants", 20, 2)


def test_what_dies_again_and_again_is_given_up(world):
    """Then requests fail, the operator is told, and the disk can be taken away and given back."""
    image = world.image("disk", 8)
    script = """
disk xvda
echo @@ there
while dd if=/dev/xvda of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null; do usleep 1000; done
echo @@ refused
while [ -b /dev/xvda ]; do usleep 10000; done
disk xvda
dd if=/dev/xvda of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null && echo @@ read
"""
    line = f"{image},raw,xvda,w,backend=process"
    guest = Guest(world, script, disks=[line]).create()
    guest.expect(r"^@@ there")
    pid = process_of(world, guest)
    for _ in range(31):
        os.kill(pid, signal.SIGKILL)
        pid = process_of(world, guest, pid)
    os.kill(pid, signal.SIGKILL)
    guest.expect(r"^@@ refused")
    need("died 32 times" in node(world, guest, "error"), "the operator is not told")
    need(node(world, guest, "process") == "0", "there is one")
    world.xl("block-detach", "guest", "xvda")
    world.xl("block-attach", "guest", line)
    guest.expect(r"^@@ read")
    guest.finished()


def test_it_goes_with_the_guests_process(world):
    """However that ends; and the image is free then."""
    image = world.image("disk", SIZE_MIB)
    for end in ("destroy", "kill", "stopped"):
        guest = Guest(world, "disk xvda; echo @@ there; cat /dev/xvda >/dev/null; read x",
                      name=end, disks=[f"{image},raw,xvda,w,backend=process"]).create()
        guest.expect(r"^@@ there")
        pid = process_of(world, guest)
        if end == "stopped":        # it neither answers nor ends by itself
            os.kill(pid, signal.SIGSTOP)
        if end == "kill":
            os.kill(parent_of(pid), signal.SIGKILL)
        else:
            world.xl("destroy", end)
        wait_for("its end", lambda: is_gone(pid))
        subprocess.run(["flock", "-xn", image, "true"], check=True)


def test_disks_of_other_kinds_live_on(world):
    """Memory keeps what it had, a limit goes on, another size is one for good."""
    image = world.image("disk", 8)
    script = """
disk xvda; disk xvdb; disk xvdc
echo @@ there
dd if=/dev/urandom of=/dev/xvda bs=1M count=8 oflag=direct 2>/dev/null
a=$(sha256sum </dev/xvda)
blkdiscard -o 1M -l 1M /dev/xvda
cp /dev/xvda /tmp/before
echo @@ written
disk xvdd
echo 3 >/proc/sys/vm/drop_caches
cmp /dev/xvda /tmp/before && [ "$a" != "$(sha256sum </dev/xvda)" ] && echo @@ whole
until [ $(blockdev --getsize64 /dev/xvdb) = $((16 << 20)) ]; do usleep 10000; done
dd if=/dev/zero of=/dev/xvdb bs=1M seek=15 count=1 oflag=direct 2>/dev/null && echo @@ grown
t=$(date +%s)
dd if=/dev/xvdc of=/dev/null bs=4k count=150 iflag=direct 2>/dev/null
echo @@ took $(($(date +%s) - t))
"""
    disks = ["driver=ram,size=8M,vdev=xvda", f"{image},raw,xvdb,w",
             "driver=null,size=8M,vdev=xvdc,filter=qos:iops=50"]
    guest = Guest(world, script, disks=disks, disk_backend="process").create()
    guest.expect(r"^@@ written")
    for vdev in (51712, 51728, 51744):
        pid = int(node(world, guest, "process", vdev))
        os.kill(pid, signal.SIGKILL)
        wait_for("another", lambda: int(node(world, guest, "process", vdev)) not in (0, pid))
    world.xl("block-attach", "guest", "driver=null,size=8M,vdev=xvdd,backend=Domain-0")
    guest.expect(r"^@@ whole")
    world.xl("block-resize", "guest", "xvdb", "16M")
    need(os.stat(image).st_size == 16 << 20, "the image is not larger")
    guest.expect(r"^@@ grown")
    took = int(guest.expect(r"^@@ took (\d+)").group(1))
    need(2 <= took <= 6, f"150 requests took {took} s")
    guest.finished()
