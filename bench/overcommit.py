# SPDX-License-Identifier: MIT
"""What two guests get done together, for one at a time.

hackbench keeps the kernel's locks busy.  A host of two processors runs one guest with two
virtual CPUs, then a second like it besides.  A lock whose holder, or whose next in line, has no
processor holds everybody up; a guest that says so (PV spinlocks) lets the host run another.
"""
import threading
from statistics import median

from session import GuestFailed
from table import spread, table

SUMMARY = "hackbench in two guests at once, with PV spinlocks and without"
INITRD = "locks"
PACKAGES = {"hackbench": "rt-tests"}
REPS = 3
MEMORY_MIB = 512
VCPUS = 2
WINDOW_S = 12
HACKBENCH = "-T_-g_2_-l_100"        # the kernel passes no words with spaces
# by what is measured: whose guest, and words for its kernel
KINDS = {"xenolith": ("xenolith", ""), "xenolith-nopvspin": ("xenolith", "xen_nopvspin"),
         "qemu-pc": ("qemu-pc", "")}


def items(reps, quick):
    return [{"vmm": v, "rep": r} for r in range(1 if quick else reps) for v in KINDS]


def prepare(session):
    session.fetch(["vmlinuz", f"{INITRD}.cpio"])
    session.warm(str(session.build / "src/cmd/xenolith"), "qemu-system-x86_64")


def start(session, vmm, words, name):
    words = f"bench=locks hackbench={HACKBENCH} {words}"
    running = session.start(vmm, session.guest(INITRD, MEMORY_MIB, VCPUS, words=words, name=name))
    running.expect("init")
    running.expect("round")
    return running


def rates(guests):
    """Rounds a second of each, in the same window."""
    begun = guests[0].now()
    ends = [[] for _ in guests]
    failed = []

    def watch(running, at):
        try:
            while running.now() - begun < WINDOW_S:
                running.expect("round")
                at.append(running.now())
        except GuestFailed as failure:
            failed.append(failure)

    threads = [threading.Thread(target=watch, args=pair) for pair in zip(guests, ends)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]
    if min(len(at) for at in ends) < 3:
        guests[0].failed(f"not three rounds of hackbench in {WINDOW_S} s")
    return [(len(at) - 1) / (at[-1] - at[0]) for at in ends]


def measure(session, item):
    vmm, words = KINDS[item["vmm"]]
    with start(session, vmm, words, "one") as one:
        alone = rates([one])[0]
        with start(session, vmm, words, "two") as two:
            both = rates([one, two])
    loss = 1 - sum(both) / alone
    return {"alone": alone, "both": both, "loss": loss,
            "brief": f"{alone:.2f} rounds/s alone, {both[0]:.2f} and {both[1]:.2f} together"}


def report(samples, out):
    got = {}
    for s in samples:
        got.setdefault(s["item"]["vmm"], []).append(s)
    out(f"Rounds of hackbench a second, guests of {VCPUS} vCPUs on a host of two processors: "
        "median [least..most]")
    table(out, ["guests", "one", "two, together", "lost, %"],
          [[v, spread([s["alone"] for s in found], 2),
            spread([sum(s["both"]) for s in found], 2),
            spread([100 * s["loss"] for s in found], 1)] for v, found in got.items()])
    return {f"loss_{v.replace('-', '_')}": f"{median(s['loss'] for s in found):.3f}"
            for v, found in got.items()}
