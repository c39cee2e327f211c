# SPDX-License-Identifier: MIT
"""Disks: what is written is what is read, on both sides, whatever happens meanwhile."""
import hashlib
import os
import random
import subprocess

from harness import MIB, Failure, Guest, need

SIZE_MIB = 64


def noise(seed, size):
    return random.Random(seed).randbytes(size)


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") \
            else hashlib.sha256(f.read()).hexdigest()


def test_guest_reads_what_the_host_wrote(world):
    image = world.image("disk", SIZE_MIB, noise(1, SIZE_MIB * MIB))
    guest = Guest(world, "disk xvda; echo @@ sum $(sha256sum </dev/xvda)", vcpus=2,
                  disks=[f"{image},raw,xvda,r"]).create()
    seen = guest.expect(r"^@@ sum (\w+)").group(1)
    need(seen == sha256(image), "the sums differ")
    guest.finished()


def test_host_reads_what_the_guest_wrote(world):
    image = world.image("disk", SIZE_MIB)
    script = f"""
disk xvda
dd if=/dev/urandom of=/tmp/noise bs=1M count={SIZE_MIB} 2>/dev/null
echo @@ sum $(sha256sum </tmp/noise)
# at odd places and in odd sizes first, then all of it in order
for i in 1 3 5 7 11; do
    dd if=/tmp/noise of=/dev/xvda bs=$((i * 512)) skip=$((i * 9)) seek=$((i * 9)) count=99 \\
        conv=notrunc 2>/dev/null
done
dd if=/tmp/noise of=/dev/xvda bs=1M conv=fsync 2>/dev/null
"""
    guest = Guest(world, script, vcpus=2, memory=512, disks=[f"{image},raw,xvda,w"]).create()
    seen = guest.expect(r"^@@ sum (\w+)").group(1)
    guest.finished()
    need(seen == sha256(image), "the sums differ")


def persistent_grants(world, flag, expected):
    """The frontend keeps its grants, or it does not; data is whole either way."""
    image = world.image("disk", SIZE_MIB)
    script = f"""
disk xvda
echo "@@ persistent $(dmesg | grep -o 'persistent grants: [a-z]*' | tail -n 1)"
dd if=/dev/urandom of=/tmp/noise bs=1M count={SIZE_MIB} 2>/dev/null
dd if=/tmp/noise of=/dev/xvda bs=1M conv=fsync 2>/dev/null
echo @@ wrote $(sha256sum </tmp/noise)
echo 3 >/proc/sys/vm/drop_caches
echo @@ read $(sha256sum </dev/xvda)
"""
    guest = Guest(world, script, vcpus=2, memory=512,
                  disks=[f"{image},raw,xvda,w{flag}"]).create()
    said = guest.expect(r"^@@ persistent (.*)$").group(1).strip()
    need(said == f"persistent grants: {expected}", f"the frontend says: {said}")
    wrote = guest.expect(r"^@@ wrote (\w+)").group(1)
    read = guest.expect(r"^@@ read (\w+)").group(1)
    guest.finished()
    need(wrote == read == sha256(image), "the sums differ")


def test_no_persistent_grants_unless_asked_for(world):
    persistent_grants(world, "", "disabled")


def test_persistent_grants_when_asked_for(world):
    persistent_grants(world, ",persistent-grants", "enabled")


def test_grant_table_of_version_2(world):
    """The kernel takes it when told to, and data is whole with and without persistence."""
    for flag, kind in (("", "transient"), (",persistent-grants", "persistent")):
        image = world.image(kind, SIZE_MIB)
        script = f"""
disk xvda
echo "@@ $(dmesg | grep -o 'Grant tables using version [0-9]')"
dd if=/dev/urandom of=/tmp/noise bs=1M count={SIZE_MIB} 2>/dev/null
dd if=/tmp/noise of=/dev/xvda bs=1M conv=fsync 2>/dev/null
echo @@ wrote $(sha256sum </tmp/noise)
echo 3 >/proc/sys/vm/drop_caches
echo @@ read $(sha256sum </dev/xvda)
"""
        guest = Guest(world, script, name=kind, vcpus=2, memory=512,
                      words="grant_table.version=2",
                      disks=[f"{image},raw,xvda,w{flag}"]).create()
        said = guest.expect(r"^@@ Grant tables using version (\d)").group(1)
        need(said == "2", f"the kernel uses version {said}")
        wrote = guest.expect(r"^@@ wrote (\w+)").group(1)
        read = guest.expect(r"^@@ read (\w+)").group(1)
        guest.finished()
        need(wrote == read == sha256(image), f"the sums differ: {kind} grants")


def test_grant_table_of_version_1_where_there_is_no_other(world):
    image = world.image("disk", 8)
    script = "disk xvda; echo \"@@ $(dmesg | grep -o 'Grant tables using version [0-9]')\""
    guest = Guest(world, script, words="grant_table.version=2", max_grant_version=1,
                  disks=[f"{image},raw,xvda,w"]).create()
    said = guest.expect(r"^@@ Grant tables using version (\d)").group(1)
    guest.finished()
    need(said == "1", f"the kernel uses version {said}")


def test_disks_behind_filters(world):
    """Data is whole and the base untouched, a limit holds, and a hang ends with the guest."""
    image = world.image("base", SIZE_MIB, noise(2, SIZE_MIB * MIB))
    before = sha256(image)
    filters = ["qos:iops=1000000", "delay:time=50us:up-to=500us", "verify",
               f"cow:file={world.path('overlay')}"]
    script = f"""
disk xvda
disk xvdb
disk xvdc
echo @@ base $(sha256sum </dev/xvda)
dd if=/dev/urandom of=/tmp/noise bs=1M count={SIZE_MIB // 2} 2>/dev/null
dd if=/tmp/noise of=/dev/xvda bs=1M seek=7 conv=fsync 2>/dev/null
echo @@ wrote $(sha256sum </tmp/noise)
echo 3 >/proc/sys/vm/drop_caches
echo @@ read $(dd if=/dev/xvda bs=1M skip=7 count={SIZE_MIB // 2} 2>/dev/null | sha256sum)
read began rest </proc/uptime
dd if=/dev/xvdb of=/dev/null bs=4k count=100 iflag=direct 2>/dev/null
read ended rest </proc/uptime
echo @@ took $began $ended
dd if=/dev/xvdc of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null &
sleep 1
echo @@ hangs $(cat /sys/block/xvdc/inflight)
read x
"""
    guest = Guest(world, script, vcpus=2, memory=512, disks=[
        f"{image},raw,xvda,w," + ",".join(f"filter={f}" for f in filters),
        "driver=ram,size=1M,vdev=xvdb,filter=qos:iops=50:iops-burst=1",
        # the partition scan's reads pass
        "driver=ram,size=1M,vdev=xvdc,filter=fault:op=read:sectors=0-7:nth=2:error=hang"])
    guest.create()
    need(guest.expect(r"^@@ base (\w+)").group(1) == before, "the base reads differently")
    wrote = guest.expect(r"^@@ wrote (\w+)").group(1)
    need(guest.expect(r"^@@ read (\w+)").group(1) == wrote, "the sums differ")
    took = guest.expect(r"^@@ took ([\d.]+) ([\d.]+)")
    seconds = float(took.group(2)) - float(took.group(1))
    need(1.9 <= seconds <= 6, f"100 reads at 50 per second took {seconds} s")
    need(guest.expect(r"^@@ hangs +(\d+)").group(1) == "1", "nothing hangs")
    world.xl("destroy", guest.name)
    need(sha256(image) == before, "the base has changed")
    need(os.path.getsize(world.path("overlay")) > SIZE_MIB * MIB, "there is no overlay")


def test_a_queue_for_each_vcpu(world):
    image = world.image("disk", 8)
    guest = Guest(world, "disk xvda; echo @@ queues $(ls /sys/block/xvda/mq | wc -l); read x",
                  vcpus=4, disks=[f"{image},raw,xvda,w"], words="xen_blkfront.max_queues=4")
    guest.create()
    seen = guest.expect(r"^@@ queues (\d+)").group(1)
    need(seen == "4", f"{seen} queues")


def test_data_is_whole_while_vcpus_come_and_go(world):
    """fio writes and verifies on 4 queues while 3 of 4 vCPUs go off- and online."""
    image = world.image("disk", 256)
    script = """
tools xvdz
disk xvda
fio --name=v --filename=/dev/xvda --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite \
    --bsrange=512-128k --numjobs=4 --size=48m --offset_increment=64m --verify=crc32c \
    --verify_backlog=256 --verify_fatal=1 --loops=2 --group_reporting --minimal \
    >/tmp/fio 2>&1 &
pid=$!
n=0
while kill -0 $pid 2>/dev/null; do
    for cpu in 1 2 3; do
        echo 0 >/sys/devices/system/cpu/cpu$cpu/online
        sleep 0.1
    done
    for cpu in 3 1 2; do
        echo 1 >/sys/devices/system/cpu/cpu$cpu/online
        sleep 0.1
    done
    n=$((n + 1))
done
wait $pid
status=$?
echo "@@ rounds $n"
echo "@@ fio $status $(grep -v '^3;' /tmp/fio | head -n 3 | tr '\\n' ' ')"
echo "@@ online $(nproc)"
"""
    guest = Guest(world, script, vcpus=4, memory=768, tools=True,
                  disks=[f"{image},raw,xvda,w"]).create()
    rounds = int(guest.expect(r"^@@ rounds (\d+)").group(1))
    status, said = guest.expect(r"^@@ fio (\d+) ?(.*)$").groups()
    need(status == "0", f"fio: status {status}: {said}")
    need(rounds >= 2, f"fio ended before vCPUs had gone and come twice ({rounds})")
    online = guest.expect(r"^@@ online (\d+)").group(1)
    need(online == "4", f"{online} of 4 vCPUs are online")
    guest.finished()


def test_read_only_disk_refuses_writes(world):
    image = world.image("disk", 8, b"as it was")
    before = sha256(image)
    script = """
disk xvda
echo @@ ro $(blockdev --getro /dev/xvda)
dd if=/dev/zero of=/dev/xvda bs=4k count=1 conv=fsync 2>/dev/null && echo @@ written
true
"""
    guest = Guest(world, script, disks=[f"{image},raw,xvda,r"]).create()
    need(guest.expect(r"^@@ ro (\d)").group(1) == "1", "it is not read-only to the guest")
    guest.finished()
    need("@@ written" not in guest.console() and sha256(image) == before, "it was written")


def test_discard_frees_blocks(world):
    image = world.image("disk", SIZE_MIB, noise(2, SIZE_MIB * MIB))
    script = f"""
disk xvda
blkdiscard -o {16 * MIB} -l {32 * MIB} /dev/xvda
dd if=/dev/xvda bs=1M skip=16 count=32 2>/dev/null | tr -d '\\000' | wc -c | sed 's/^/@@ left /'
"""
    before = os.stat(image).st_blocks
    guest = Guest(world, script, vcpus=2, disks=[f"{image},raw,xvda,w"]).create()
    left = guest.expect(r"^@@ left (\d+)").group(1)
    need(left == "0", f"{left} bytes of what was discarded can still be read")
    guest.finished()
    freed = (before - os.stat(image).st_blocks) * 512
    need(freed >= 30 * MIB, f"{freed} bytes were freed")


def test_null_disk_reads_zeros(world):
    script = """
disk xvda
echo @@ size $(blockdev --getsize64 /dev/xvda)
dd if=/dev/urandom of=/dev/xvda bs=64k count=16 conv=fsync 2>/dev/null
echo @@ left $(dd if=/dev/xvda bs=64k count=16 2>/dev/null | tr -d '\\000' | wc -c)
"""
    guest = Guest(world, script, disks=["driver=null,size=100G,vdev=xvda"]).create()
    need(int(guest.expect(r"^@@ size (\d+)").group(1)) == 100 << 30, "not of 100 GiB")
    need(guest.expect(r"^@@ left (\d+)").group(1) == "0", "not zeros")
    guest.finished()


def test_full_host_disk_is_an_error_of_that_request(world):
    """ENOSPC below the image; the guest and the rest of its disk go on."""
    full = world.path("full")
    full.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", full], check=True,
                       capture_output=True)
    except subprocess.CalledProcessError as e:
        raise Failure(f"no tmpfs of its own: {e.stderr}") from e
    try:
        image = full / "disk"
        with open(image, "wb") as f:
            f.truncate(64 * MIB)
        script = """
disk xvda
dd if=/dev/urandom of=/tmp/noise bs=1M count=4 2>/dev/null
dd if=/tmp/noise of=/dev/xvda bs=1M count=4 oflag=direct 2>/dev/null || echo @@ too early
dd if=/dev/zero of=/dev/xvda bs=1M seek=8 count=40 oflag=direct 2>/dev/null && echo @@ no error
dd if=/dev/xvda of=/tmp/back bs=1M count=4 iflag=direct 2>/dev/null
cmp /tmp/noise /tmp/back && echo "@@ whole"
"""
        guest = Guest(world, script, vcpus=2, disks=[f"{image},raw,xvda,w,no-discard"]).create()
        guest.expect(r"^@@ whole")
        guest.finished()
        for bad in ("@@ too early", "@@ no error"):
            need(bad not in guest.console(), bad)
    finally:
        world.close()
        subprocess.run(["umount", "-l", full], check=False)


def test_image_cut_short_is_an_error_of_what_is_gone(world):
    """EIO below the image; the guest and the rest of its disk go on."""
    image = world.image("disk", 32, noise(3, 32 * MIB))
    kept = hashlib.sha256(image.read_bytes()[:8 * MIB]).hexdigest()
    script = """
disk xvda
echo @@ ready
while dd if=/dev/xvda of=/dev/null bs=4k skip=6144 count=1 iflag=direct 2>/tmp/why; do
    usleep 50000
done
echo @@ gone $(grep -o "Input/output error" /tmp/why)
echo @@ left $(dd if=/dev/xvda bs=1M count=8 iflag=direct 2>/dev/null | sha256sum)
"""
    guest = Guest(world, script, vcpus=2, disks=[f"{image},raw,xvda,w"]).create()
    guest.expect(r"^@@ ready")
    os.truncate(image, 8 * MIB)
    need(guest.expect(r"^@@ gone (.*)").group(1).strip() == "Input/output error", "another error")
    need(guest.expect(r"^@@ left (\w+)").group(1) == kept, "what was left reads differently")
    guest.finished()


def test_disk_in_use_for_writing_is_refused(world):
    image = world.image("disk", 8)
    Guest(world, "read x", disks=[f"{image},raw,xvda,w"]).create()
    for access in ("w", "r"):
        other = Guest(world, name="other", disks=[f"{image},raw,xvda,{access}"])
        said = world.xl("create", "-q", other.config, status=3).stderr
        need(str(image) in said, f"the message does not name {image}: {said}")
        need(list(world.domids()) == ["guest"], "the second guest is listed")
    Guest(world, "read x", name="brave", disks=[f"{image},raw,xvda,w!"]).create()


def test_disk_can_be_read_by_several(world):
    image = world.image("disk", 8)
    for name in ("one", "two"):
        Guest(world, "read x", name=name, disks=[f"{image},raw,xvda,r"]).create()
    need(sorted(world.domids()) == ["one", "two"], f"{world.domids()}")


def tmem(world):
    """What `xenolith tmem` says of the pool, by key."""
    lines = world.xl("tmem").stdout.splitlines()
    return {key.strip(): value.strip() for key, colon, value in
            (line.partition(":") for line in lines) if colon}


def test_guests_swap_to_memory_that_they_share(world):
    """Two guests whose memory holds the same swap it to pages that are there once; what one had
    goes with it, also when its process is killed, and the other's stays."""
    size = 144
    content = b"".join(random.Random(n).randbytes(1536) + bytes([n % 251 + 1]) * 2560
                       for n in range(size * MIB // 4096))
    image = world.image("same", size, content)
    script = f"""
disk xvda
disk xvdb
mkdir /same
mount -t tmpfs -o size={size + 4}m none /same
mkswap /dev/xvdb >/dev/null
swapon /dev/xvdb
dd if=/dev/xvda of=/same/data bs=1M iflag=direct 2>/dev/null
# more than there is room for beside it
dd if=/dev/xvda of=/same/more bs=1M count=4 iflag=direct 2>/dev/null
echo @@ swapped $(awk '/xvdb/ {{ print $4 }}' /proc/swaps)
read x
echo @@ sum $(sha256sum </same/data)
read x
"""
    guests = [Guest(world, script, name=name, memory=192,
                    disks=[f"{image},raw,xvda,r",
                           "driver=tmem,size=256M,quota=128M,pool=512M,vdev=xvdb"]).create()
              for name in ("one", "two")]
    swapped = [int(guest.expect(r"^@@ swapped (\d+)").group(1)) for guest in guests]
    pool = tmem(world)
    need(min(swapped) > 16 * 1024, f"only {swapped} kB were swapped out")
    need(pool["disks"] == "2", f"the pool has {pool['disks']} disks")
    stored, unique = int(pool["pages_stored"]), int(pool["pages_unique"])
    # but for pages of zeroes, and those that are on their way
    need(stored >= sum(swapped) // 4 * 0.9, f"{stored} pages are stored, of {swapped} kB")
    # each has swapped most of the same; what else they have is their own
    need(float(pool["dedup_ratio"]) > 1.25, f"{stored} pages are stored as {unique}")
    need(int(pool["compressed_kb"]) * 1.6 < unique * 4, f"{pool['compressed_kb']} kB are stored")
    guests[1].kill_process()
    need(tmem(world)["disks"] == "1", "a killed guest's disk is still listed")
    console = world.start("console", "one", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    console.stdin.write(b"\n")
    console.stdin.flush()
    need(guests[0].expect(r"^@@ sum (\w+)").group(1) == sha256(image), "the sums differ")
    world.xl("destroy", guests[0].name)
    need("No disk" in world.xl("tmem").stdout, "the pool outlives its last user")
