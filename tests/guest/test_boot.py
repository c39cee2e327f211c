# SPDX-License-Identifier: MIT
"""A stock kernel comes up, with the processors, the memory and the time it was given."""
import os
import time

from harness import Guest, need

HELLO = """
echo "@@ processors $(nproc)"
echo "@@ memory $(awk '/MemTotal/ { print $2 }' /proc/meminfo)"
"""

# What event channels carry, on both vCPUs, of which one goes and comes back: the store
# (which makes the disk appear), the disk, the console, timers, calls between vCPUs.
EVENTS = r"""
dmesg | sed -n 's/.*xen:events: Using \(.*\) ABI$/@@ abi \1/p'
disk xvda
for i in 1 2 3; do
    echo 0 >/sys/devices/system/cpu/cpu1/online && [ $(nproc) = 1 ] || exit 1
    echo 1 >/sys/devices/system/cpu/cpu1/online && [ $(nproc) = 2 ] || exit 1
    for mask in 1 2; do
        echo 3 >/proc/sys/vm/drop_caches
        taskset $mask dd if=/dev/xvda of=/dev/null bs=4k count=256 || exit 1
        taskset $mask sleep 0.1
    done
done
processors wakeups && echo "@@ all is well"
read x
"""

# Both vCPUs are busy: the time, and ticks (100 a second) that the host kept from them.
STEAL = """
ticks() { awk '/^cpu / { print $9 }' /proc/stat; cut -d' ' -f1 /proc/uptime; }
for i in 1 2; do (while :; do :; done) & done
set -- $(ticks)
sleep 4
echo "@@ ticks" $1 $2 $(ticks)
kill $(jobs -p)
"""


def boots(world, vcpus, **config):
    guest = Guest(world, HELLO, vcpus=vcpus, **config).create()
    seen = int(guest.expect(r"^@@ processors (\d+)").group(1))
    need(seen == vcpus, f"the guest sees {seen} processors of {vcpus}")
    return guest


def test_boots_with_1_vcpu(world):
    boots(world, 1).finished()


def test_boots_with_2_vcpus(world):
    boots(world, 2).finished()


def test_boots_with_8_vcpus(world):
    boots(world, 8, memory=512).finished()


def test_boots_with_64_vcpus(world):
    """As many as there can be."""
    boots(world, 64, memory=1024).finished()


def test_boots_with_128_mib(world):
    boots(world, 1, memory=128).finished()


def test_6_gib_of_memory(world):
    """Above 4 GiB too; populated only as it is touched."""
    guest = Guest(world, HELLO + "highmem || exit 1\n", vcpus=2, memory=6144).create()
    kib = int(guest.expect(r"^@@ memory (\d+)").group(1))
    need(kib > 5.7 * 1024 * 1024, f"the guest sees {kib} KiB")
    guest.finished()


def events_by(world, abi, words=""):
    """A kernel that says it uses this ABI works, and works again after a reboot."""
    image = world.image("disk", 4)
    guest = Guest(world, EVENTS, vcpus=2, words=words,
                  disks=[f"{image},raw,xvda,w"]).create()
    for boot in range(2):
        seen = guest.expect(r"^@@ abi (.*)").group(1)
        need(seen == abi, f"the guest's ABI is {seen}")
        guest.expect(r"^@@ all is well")
        if boot == 0:
            world.xl("reboot", "guest")


def test_fifo_event_channels(world):
    events_by(world, "FIFO-based")


def test_2_level_event_channels(world):
    events_by(world, "2-level", "xen.fifo_events=0")


def ring_of(world, ring):
    guest = Guest(world, "read x", ring=ring).create().booted()
    return world.control(guest.domid, "info")["ring"]


def test_kernel_in_ring_3(world):
    seen = ring_of(world, 3)
    need(seen == 3, f"the guest says ring {seen}")


def test_kernel_in_ring_1(world):
    seen = ring_of(world, 1)
    need(seen == 1, f"the guest says ring {seen}")


def test_time_keeps_up_with_the_host(world):
    script = """
echo "@@ wall $(date +%s)"
for i in 1 2 3 4 5; do sleep 1; done
echo "@@ uptime $(cut -d' ' -f1 /proc/uptime)"
read x
"""
    guest = Guest(world, script, vcpus=2).create()
    wall = int(guest.expect(r"^@@ wall (\d+)").group(1))
    need(abs(wall - time.time()) < 5, f"the guest's date is {wall}, the host's {time.time()}")
    up = float(guest.expect(r"^@@ uptime ([\d.]+)").group(1))
    # uptime counts from a moment after the start of the guest, so it may only be behind
    lived = world.control(guest.domid, "info")["uptime_ns"] / 1e9
    need(lived - 4 < up < lived + 0.5, f"up for {up} s by the guest's clock, {lived} s by ours")


def test_what_the_host_keeps_is_steal_time(world):
    """Two busy vCPUs on one of the host's processors."""
    all_cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_cpus)})    # which the guest's process inherits
    try:
        guest = Guest(world, STEAL, vcpus=2).create()
    finally:
        os.sched_setaffinity(0, all_cpus)
    ticks = guest.expect(r"^@@ ticks (\d+) ([\d.]+) (\d+) ([\d.]+)").groups()
    stolen = (int(ticks[2]) - int(ticks[0])) / 100
    lived = float(ticks[3]) - float(ticks[1])
    # one of them always waits; the ticks they had tell nothing, Linux loses some of those
    need(lived / 2 < stolen < 1.5 * lived, f"{stolen} s were stolen from 2 vCPUs in {lived} s")
    guest.finished()
