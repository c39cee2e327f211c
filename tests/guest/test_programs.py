# SPDX-License-Identifier: MIT
"""What programs of a stock userland expect of their kernel, with the kernel in
either ring.  The programs are in programs/."""
from harness import Guest, several

TRIALS = {
    "32-bit program": "compat32",
    "ptrace: system calls, memory and registers": "ptrace syscalls",
    "ptrace: single steps": "ptrace steps",
    "ptrace: watchpoint": "ptrace watchpoint",
    "segments of an LDT": "segments",
    "bad pointers are EFAULT": "badptr pointers",
    "bad frames kill the program only": "badptr frames",
    "no kernel address can be read": "badptr probes",
    "AVX registers are kept apart": "vector",
    "no wake-up is lost between vCPUs": "processors wakeups",
    "time does not run backwards between vCPUs": "processors clock",
}


def trials(world, ring):
    # a behaviour's name ends at a colon on the console
    lines = "".join(f"try '{title(name, ring)}' {command}\n" for name, command in TRIALS.items())
    guest = Guest(world, lines + "true\n", vcpus=2, ring=ring).create()
    yield from guest.tried([title(name, ring) for name in TRIALS])


def title(name, ring):
    return f"ring {ring} {name}".replace(":", ",")


@several(*[title(name, 3) for name in TRIALS])
def test_ring_3(world):
    return trials(world, 3)


@several(*[title(name, 1) for name in TRIALS])
def test_ring_1(world):
    return trials(world, 1)
