# SPDX-License-Identifier: MIT
"""What a guest's kernel does for its programs, and what its hypervisor does for it.

The same kernel is a PV guest of ours and QEMU's guest, so the ratio is what being a PV guest
costs.  A small kernel of our own makes hypercalls, in each of the rings that a kernel may
run in.  Exits of the virtual CPUs are counted while a call is made over and over; as many as
there are in the same time when none is made, timers and the host's own, are taken off.
"""
from statistics import median

from session import Exits
from table import ratio, spread, table

SUMMARY = "system calls, faults, forks and hypercalls: time and exits of each"
INITRD = "calls"
REPS = 3
MEMORY_MIB = 512
VCPUS = 2
RUNTIME_S = 1
OURS, PEER = "xenolith", "qemu-pc"
# Ours with the kernel that makes hypercalls, by the ring it runs in.
RINGS = {"xenolith-ring1": "1", "xenolith-ring3": "3"}


def items(reps, quick):
    return [{"vmm": v, "rep": r} for r in range(1 if quick else reps)
            for v in (OURS, PEER, *RINGS)]


def prepare(session):
    session.fetch(["vmlinuz", f"{INITRD}.cpio"])
    session.warm(str(session.build / "src/cmd/xenolith"), "qemu-system-x86_64")


def start(session, vmm):
    if vmm not in RINGS:
        guest = session.guest(INITRD, MEMORY_MIB, VCPUS, words=f"bench=calls runtime={RUNTIME_S}")
        running = session.start(vmm, guest)
        running.expect("init")
        return running
    kernel = session.build / "bench/guest/xen-calls"
    guest = session.guest(INITRD, MEMORY_MIB, 1, kernel=kernel, keys={"ring": RINGS[vmm]})
    return session.start(OURS, guest)


def measure(session, item):
    calls, marks, idle = {}, {}, 0
    exits = Exits()
    try:
        with start(session, item["vmm"]) as running:
            while True:
                words = running.event()
                if words[0] == "mark":
                    marks[words[1]] = dict(exits.read(), at=running.now(), calls=int(words[3]))
                elif words[0] == "call":
                    window = {k: marks["2"][k] - marks["1"][k] for k in marks["1"]}
                    made = window["exits"] - idle * window["at"]
                    if words[1] == "none":
                        idle = window["exits"] / window["at"]
                    else:
                        calls[words[1]] = {"ns": float(words[2]),
                                           "exits": max(0, made) / window["calls"]}
                elif words[0] == "done":
                    break
                else:
                    running.failed(" ".join(words))
    finally:
        exits.close()
    return {"calls": calls, "idle": idle,
            "brief": f"{len(calls)} calls, without them {idle:.0f} exits/s"}


def report(samples, out):
    got = {}        # (call, vmm) -> list of results
    for s in samples:
        for call, r in s["calls"].items():
            got.setdefault((call, s["item"]["vmm"]), []).append(r)
    figures = {}
    out(f"Linux, {VCPUS} vCPUs")
    compare(out, got, OURS, PEER, figures)
    out("Hypercalls of a small kernel, 1 vCPU")
    compare(out, got, *RINGS, figures)
    return figures


def compare(out, got, ours, other, figures):
    """A table of two columns of calls; adds to figures."""
    def mid(call, vmm, key):
        return median(r[key] for r in got.get((call, vmm), [{key: 0}]))

    calls = list(dict.fromkeys(call for call, vmm in got if vmm in (ours, other)))
    table(out, ["ns of one, and exits", ours, other, "ratio", f"exits, {ours}",
                f"exits, {other}"],
          [[c, *(spread([r["ns"] for r in got.get((c, v), [])]) for v in (ours, other)),
            ratio(mid(c, ours, "ns"), mid(c, other, "ns")),
            *(f"{mid(c, v, 'exits'):.5f}" if (c, v) in got else "-" for v in (ours, other))]
           for c in calls])
    for c in calls:
        key = c.replace("-", "_")
        for v in (ours, other):
            if (c, v) in got:
                name = f"{key}_{v.replace('-', '_')}"
                figures[f"{name}_ns"] = f"{mid(c, v, 'ns'):.0f}"
                figures[f"{name}_exits"] = f"{mid(c, v, 'exits'):.5f}"
        if (c, ours) in got and (c, other) in got:
            name = f"{key}_{ours}_vs_{other}".replace("-", "_")
            figures[name] = ratio(mid(c, ours, "ns"), mid(c, other, "ns"))
