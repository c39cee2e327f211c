# SPDX-License-Identifier: MIT
"""Disks that come, go, grow and shrink while Linux uses them."""
import hashlib
import json
import os
import subprocess
import time

from harness import MIB, Guest, Skip, need, wait_for
from test_disk import noise, sha256

# gone NAME: waits until the disk is not there
HELPERS = """
gone() {
    while [ -b /dev/$1 ]; do usleep 10000; done
}
size() {
    blockdev --getsize64 /dev/$1
}
"""


def rows(world, name="guest"):
    """The lines of block-list below its head."""
    done = world.xl("block-list", name)
    need(not done.stderr, done.stderr)
    return [line.split() for line in done.stdout.splitlines()[1:]]


def pid_of(world, guest):
    return json.loads((world.run_dir / "guest" / str(guest.domid) / "info").read_text())["pid"]


def held_by(pid):
    """Descriptors and threads of a process."""
    return [len(os.listdir(f"/proc/{pid}/{what}")) for what in ("fd", "task")]


def test_a_disk_comes_is_used_and_goes(world):
    """Two times, so that what the guest wrote is what it reads when the disk comes again."""
    image = world.image("disk", 16, noise(1, 16 * MIB))
    script = HELPERS + """
echo @@ ready
for i in 1 2; do
    disk xvdb
    echo @@ read $(size xvdb) $(sha256sum </dev/xvdb)
    dd if=/dev/urandom of=/tmp/noise bs=1M count=16 2>/dev/null
    dd if=/tmp/noise of=/dev/xvdb bs=1M conv=fsync 2>/dev/null
    echo @@ wrote $(sha256sum </tmp/noise)
    gone xvdb
    echo @@ gone
done
read x
"""
    guest = Guest(world, script, vcpus=2, memory=512).create()
    guest.expect(r"^@@ ready")
    before = held_by(pid_of(world, guest))
    need(rows(world) == [], "a guest without disks has some")
    for _ in range(2):
        expected = sha256(image)
        world.xl("block-attach", "guest", f"{image},raw,xvdb,w")
        size, read = guest.expect(r"^@@ read (\d+) (\w+)").groups()
        need(size == str(16 * MIB) and read == expected, f"{size} bytes, or the sums differ")
        wrote = guest.expect(r"^@@ wrote (\w+)").group(1)
        row, = rows(world)
        need(row[:4] == ["51728", "0", str(guest.domid), "4"] and int(row[4]) > 0 and
             int(row[5]) > 0 and row[6] == f"/local/domain/0/backend/vbd/{guest.domid}/51728",
             f"block-list: {row}")
        world.xl("block-detach", "guest", "xvdb")
        guest.expect(r"^@@ gone")
        need(rows(world) == [], "still listed")
        need(sha256(image) == wrote, "what the guest wrote is not there")
        # nobody has it any more
        subprocess.run(["flock", "-xn", image, "true"], check=True)
    wait_for("descriptors and threads to be as before",
             lambda: held_by(pid_of(world, guest)) == before)


def test_attaching_what_cannot_be(world):
    image = world.image("disk", 8)
    Guest(world, "read x", disks=[f"{image},raw,xvda,w"]).create()
    other = Guest(world, "read x", name="other").create()
    other.booted()
    for spec, said in ((f"{image},raw,xvdb,w", f"{image}: already in use by process"),
                       (f"{image}-none,raw,xvdb,w", "cannot be opened"),
                       (f"{world.tmp},raw,xvdb,w", "Is a directory")):
        done = world.xl("block-attach", "other", spec, status=1)
        need(said in done.stderr and "libxl_device_disk_add failed." in done.stderr, done.stderr)
        need(rows(world, "other") == [], "it is listed")
    done = world.xl("block-attach", "guest", f"{world.image('b', 8)},raw,xvda,w", status=1)
    need("has a disk 51712 already" in done.stderr, done.stderr)


def test_two_dozen_disks_one_after_the_other(world):
    """Whatever each takes, channels of the shim's included, is given back."""
    image = world.image("disk", 8)
    script = HELPERS + """
echo @@ ready
while :; do disk xvdb; dd if=/dev/xvdb of=/dev/null bs=4k count=4 2>/dev/null; gone xvdb; done
"""
    guest = Guest(world, script, vcpus=4, words="xen_blkfront.max_queues=4").create()
    guest.expect(r"^@@ ready")
    before = held_by(pid_of(world, guest))
    for _ in range(24):
        world.xl("block-attach", "guest", f"{image},raw,xvdb,r")
        wait_for("the connection", lambda: rows(world)[0][3] == "4")
        world.xl("block-detach", "guest", "51728")
    # the shim gives a channel back when the guest's processor gets to it
    wait_for("what was taken to be given back",
             lambda: held_by(pid_of(world, guest)) == before)


def test_several_disks_at_once_keep_apart(world):
    names = [f"xvd{letter}" for letter in "bcdefgh"]
    images = {name: world.image(name, 4, noise(i, 4 * MIB)) for i, name in enumerate(names)}
    script = HELPERS + "".join(f"""
disk {name}
echo @@ {name} $(sha256sum </dev/{name})
""" for name in names) + "read x"
    guest = Guest(world, script, vcpus=2).create()
    for name in reversed(names):
        world.xl("block-attach", "guest", images[name], "raw", name, "r")
    for name in names:
        need(guest.expect(rf"^@@ {name} (\w+)").group(1) == sha256(images[name]),
             f"{name} is another disk")
    world.xl("block-detach", "guest", "xvde")
    need([row[0] for row in rows(world)] == [str(51712 + 16 * n) for n in (7, 6, 5, 3, 2, 1)],
         f"{rows(world)}")


def test_a_mounted_disk_goes_and_the_guest_lives(world):
    """Linux lets go even of a disk that is mounted; who uses it gets errors."""
    image = world.image("disk", 16)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    script = HELPERS + """
disk xvdb
mkdir /mnt && mount -t ext4 /dev/xvdb /mnt && echo here >/mnt/file && sync
echo @@ mounted
gone xvdb
dd if=/dev/urandom of=/mnt/more bs=64k count=4 conv=fsync 2>/dev/null || echo @@ refused
echo @@ alive
read x
"""
    guest = Guest(world, script, vcpus=2).create()
    world.xl("block-attach", "guest", f"{image},raw,xvdb,w")
    guest.expect(r"^@@ mounted")
    world.xl("block-detach", "guest", "xvdb")
    guest.expect(r"^@@ refused")
    guest.expect(r"^@@ alive")
    need(rows(world) == [], "still listed")
    subprocess.run(["e2fsck", "-fp", image], check=False, capture_output=True)
    listed = subprocess.run(["debugfs", "-R", "cat file", image], check=True, text=True,
                            capture_output=True).stdout
    need(listed == "here\n", f"what was synced is not there: {listed}")


def test_a_guest_that_does_not_answer_keeps_its_disk_but_for_force(world):
    """One that is paused; what it was asked for it does when it runs again."""
    image = world.image("disk", 8)
    script = HELPERS + """
for i in 1 2; do
    disk xvdb
    echo @@ there
    gone xvdb
    echo @@ gone
done
read x
"""
    guest = Guest(world, script, vcpus=2).create()
    world.xl("block-attach", "guest", f"{image},raw,xvdb,w")
    guest.expect(r"^@@ there")
    wait_for("the connection", lambda: rows(world)[0][3] == "4")
    world.xl("pause", "guest")
    begun = time.monotonic()
    done = world.xl("block-detach", "guest", "xvdb", status=1)
    need(9 < time.monotonic() - begun, "it did not wait for the guest")
    need("libxl_device_disk_safe_remove failed." in done.stderr, done.stderr)
    need(len(rows(world)) == 1, "it is not listed any more")
    world.xl("unpause", "guest")
    guest.expect(r"^@@ gone")
    wait_for("the end of the disk", lambda: rows(world) == [])
    world.xl("block-attach", "guest", f"{image},raw,xvdb,w")
    guest.expect(r"^@@ there")
    wait_for("the connection", lambda: rows(world)[0][3] == "4")
    world.xl("pause", "guest")
    world.xl("block-detach", "--force", "guest", "xvdb")
    need(rows(world) == [], "still listed")
    subprocess.run(["flock", "-xn", image, "true"], check=True)
    world.xl("unpause", "guest")
    guest.expect(r"^@@ gone")


def test_detaching_under_load(world):
    """fio is busy when its disk goes, asked for and by force; the next disk works, though
    Linux stops its queues, full as they are, before it lets go of a disk."""
    image = world.image("disk", 64)
    script = HELPERS + """
tools xvdz
for i in 1 2 3 4 5 6 7 8; do
    disk xvdb
    echo @@ there
    fio --name=l --filename=/dev/xvdb --direct=1 --ioengine=libaio --iodepth=32 --rw=randrw \\
        --bs=4k --numjobs=2 --size=32m --time_based --runtime=600 \\
        --allow_file_create=0 >/tmp/fio 2>&1
    echo @@ fio $?
    gone xvdb
    echo @@ gone
done
"""
    guest = Guest(world, script, vcpus=2, memory=512, tools=True,
                  words="xen_blkfront.max_queues=2").create()
    for force in (*[()] * 6, ("--force",), ()):
        world.xl("block-attach", "guest", f"{image},raw,xvdb,w")
        guest.expect(r"^@@ there")
        time.sleep(1)
        world.xl("block-detach", *force, "guest", "xvdb")
        need(guest.expect(r"^@@ fio (\d+)").group(1) != "0", "fio saw no error")
        guest.expect(r"^@@ gone")
        subprocess.run(["flock", "-xn", image, "true"], check=True)
    guest.finished()


def test_a_disk_grows_and_shrinks_before_the_guests_eyes(world):
    image = world.image("disk", 8)
    script = HELPERS + """
disk xvda
echo @@ size $(size xvda)
for mib in 24 40 4; do
    until [ $(size xvda) = $((mib << 20)) ]; do usleep 10000; done
    dd if=/dev/urandom of=/tmp/last bs=1M count=1 2>/dev/null
    dd if=/tmp/last of=/dev/xvda bs=1M seek=$((mib - 1)) oflag=direct 2>/dev/null &&
        echo @@ wrote $mib $(sha256sum </tmp/last)
done
dd if=/dev/xvda of=/dev/null bs=1M skip=4 count=1 iflag=direct 2>/dev/null
"""
    guest = Guest(world, script, vcpus=2, disks=[f"{image},raw,xvda,w"]).create()
    need(guest.expect(r"^@@ size (\d+)").group(1) == str(8 * MIB), "not of 8 MiB")

    def wrote(mib):
        seen = guest.expect(rf"^@@ wrote {mib} (\w+)").group(1)
        need(os.stat(image).st_size == mib * MIB, f"{os.stat(image).st_size} bytes")
        need(hashlib.sha256(image.read_bytes()[-MIB:]).hexdigest() == seen, "the sums differ")

    done = world.xl("block-resize", "guest", "xvda", "24M")
    need(done.stdout == f"xvda: {24 * MIB} bytes\n", done.stdout)
    wrote(24)
    os.truncate(image, 40 * MIB)
    world.xl("block-resize", "guest", "xvda")
    wrote(40)
    world.xl("block-resize", "guest", "xvda", "4M")
    wrote(4)
    guest.finished()


def test_a_block_device_of_the_host_needs_no_command(world):
    """The kernel says that it has grown, as to Xen's own backend; then it is cut."""
    image = world.image("disk", 8)
    made = subprocess.run(["losetup", "--show", "-f", image], text=True, capture_output=True,
                          check=False)
    if made.returncode:
        raise Skip(f"no loop device: {made.stderr.strip()}")
    loop = made.stdout.strip()
    script = HELPERS + """
disk xvda
for mib in 8 24 16; do
    until [ $(size xvda) = $((mib << 20)) ]; do usleep 10000; done
    dd if=/dev/zero of=/dev/xvda bs=1M seek=$((mib - 1)) count=1 oflag=direct 2>/dev/null &&
        echo @@ wrote $mib
done
"""
    try:
        guest = Guest(world, script, vcpus=2, disks=[f"{loop},raw,xvda,w"]).create()
        guest.expect(r"^@@ wrote 8")
        done = world.xl("block-resize", "guest", "xvda", "24M", status=1)
        need("by the host's means" in done.stderr, done.stderr)
        for mib in (24, 16):
            os.truncate(image, mib * MIB)
            subprocess.run(["losetup", "-c", loop], check=True)
            guest.expect(rf"^@@ wrote {mib}")
        guest.finished()
    finally:
        subprocess.run(["losetup", "-d", loop], check=False)


def test_sizes_change_under_load(world):
    """fio writes and verifies while the disk grows, and shrinks down to fio's end of it."""
    image = world.image("disk", 64)
    script = HELPERS + """
tools xvdz
disk xvda
echo @@ there
fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite \\
    --bsrange=512-64k --size=48m --verify=crc32c --verify_backlog=128 --verify_fatal=1 \\
    --loops=3 --minimal >/tmp/fio 2>&1
echo "@@ fio $? $(grep -v '^3;' /tmp/fio | head -n 3 | tr '\\n' ' ')"
"""
    guest = Guest(world, script, vcpus=2, memory=512, tools=True,
                  disks=[f"{image},raw,xvda,w"]).create()
    guest.expect(r"^@@ there")
    nr = 0
    while "@@ fio" not in guest.console():
        world.xl("block-resize", "guest", "xvda", f"{(128, 48, 96, 64)[nr % 4]}M")
        nr += 1
    status, said = guest.expect(r"^@@ fio (\d+) ?(.*)$").groups()
    need(status == "0", f"fio: status {status}: {said}")
    need(nr >= 4, f"fio ended after {nr} sizes")
    guest.finished()


def test_a_guest_that_reboots_has_the_disks_it_had_at_last(world):
    a, b = world.image("a", 8), world.image("b", 12)
    script = """
disk xvdb
echo @@ disks $(cd /dev; ls -d xvd?)
read x
"""
    guest = Guest(world, script, disks=[f"{a},raw,xvda,w"]).create()
    guest.booted()
    world.xl("block-attach", "guest", f"{b},raw,xvdb,w")
    need(guest.expect(r"^@@ disks (.*)").group(1).split() == ["xvda", "xvdb"], "not both")
    world.xl("block-detach", "guest", "xvda")
    first = guest.domid
    world.xl("reboot", "guest")
    need(guest.expect(r"^@@ disks (.*)").group(1).split() == ["xvdb"], "not what it had")
    need(guest.domid != first and [row[0] for row in rows(world)] == ["51728"],
         f"{first}, then {guest.domid}: {rows(world)}")
