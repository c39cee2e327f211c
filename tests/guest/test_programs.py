# SPDX-License-Identifier: MIT
"""What programs of a stock userland expect of their kernel, with the kernel in
either ring.  The programs are in programs/."""
from harness import Failure, Guest, several

TRIALS = {
    "32-bit program": "compat32",
    "ptrace of system calls, memory and registers": "ptrace syscalls",
    "ptrace with single steps": "ptrace steps",
    "ptrace with a watchpoint": "ptrace watchpoint",
    "segments of an LDT": "segments",
    "bad pointers are EFAULT": "badptr pointers",
    "bad frames kill the program only": "badptr frames",
    "no kernel address can be read": "badptr probes",
    "AVX registers are kept apart": "vector",
    "no wake-up is lost between vCPUs": "processors wakeups",
    "time does not run backwards between vCPUs": "processors clock",
}


def trials(world, ring):
    """All in one guest; a program that takes the guest with it fails, and those behind it
    get another guest."""
    rest = list(TRIALS.items())
    while rest:
        script = "".join(f"try '{title(name, ring)}' {command}\n" for name, command in rest)
        guest = Guest(world, script, name=f"guest{len(rest)}", vcpus=2, ring=ring).create()
        while rest:
            name = title(rest.pop(0)[0], ring)
            try:
                yield name, guest.tried(name)
            except Failure as e:
                yield name, e
                break
        world.xl("destroy", guest.name, status=None)


def title(name, ring):
    return f"ring {ring}, {name}"


@several(*[title(name, 3) for name in TRIALS])
def test_ring_3(world):
    return trials(world, 3)


@several(*[title(name, 1) for name in TRIALS])
def test_ring_1(world):
    return trials(world, 1)
