# SPDX-License-Identifier: MIT
"""What a running guest costs its host beyond its own memory.

Resident memory of the monitor's process, shared libraries and all, without the
guest's RAM, after the guest has used its disk (64 requests in flight at a time).  The
RAM disk of the guest is small, since QEMU keeps a copy of it.
"""
import os
from statistics import median

from session import memory_kib
from table import ratio, spread, table

SUMMARY = "memory of the monitor beyond the guest's own"
INITRD = "small"
REPS = 2
MEMORY_MIB = 256
# name, vCPUs, queues (0: no disk)
SHAPES = [("none-1", 1, 0), ("none-2", 2, 0), ("disk-1", 1, 1), ("disk-2", 2, 2)]
# what the project has promised itself, KiB: so much, and so much per queue
TARGET_KIB, TARGET_QUEUE_KIB = 2.2 * 1024, 0.25 * 1024


def items(reps, quick):
    vmms = ["xenolith", "qemu-pc"] + (["kvmtool"] if os.environ.get("LKVM") else [])
    shapes = SHAPES[-1:] if quick else SHAPES
    return [{"vmm": v, "shape": s[0], "rep": r} for r in range(reps) for s in shapes
            for v in vmms]


def prepare(session):
    session.fetch(["vmlinuz", f"{INITRD}.cpio"])
    session.disk_make()


def measure(session, item):
    _, vcpus, queues = next(s for s in SHAPES if s[0] == item["shape"])
    guest = session.guest(INITRD, MEMORY_MIB, vcpus, queues, "bench=load")
    with session.start(item["vmm"], guest) as running:
        running.expect("init")
        if queues:
            running.expect("disk")
        running.expect("loaded")
        figures = memory_kib(running.pid(), guest.memory_mib << 20)
        figures["shared_kib"] = {name: memory_kib(pid, guest.memory_mib << 20)
                                 for name, pid in running.monitor.extra().items()}
    figures["brief"] = f"{figures['rss_kib']} KiB, {figures['private_kib']} of it its own"
    return figures


def report(samples, out):
    got = {}
    for s in samples:
        got.setdefault((s["item"]["shape"], s["item"]["vmm"]), []).append(s)
    out(f"KiB resident beyond the guest's {MEMORY_MIB} MiB: median [least..most]")
    rows = []
    for (shape, v), found in got.items():
        _, vcpus, queues = next(s for s in SHAPES if s[0] == shape)
        rows.append([v, vcpus, queues or "no disk", spread([s["rss_kib"] for s in found]),
                     spread([s["private_kib"] for s in found])])
    table(out, ["monitor", "vCPUs", "queues", "resident", "of it private"], rows)

    figures = {}
    for (shape, v), found in got.items():
        key = f"{v.replace('-', '_')}_{shape.replace('-', '_')}_kib"
        figures[key] = f"{median(s['rss_kib'] for s in found):.0f}"
        if v != "xenolith" and (shape, "xenolith") in got:
            ours = median(s["rss_kib"] for s in got[shape, "xenolith"])
            theirs = median(s["rss_kib"] for s in found)
            figures[f"{shape.replace('-', '_')}_vs_{v.replace('-', '_')}"] = ratio(ours, theirs)
    for shape, _, queues in SHAPES:
        if (shape, "xenolith") in got:
            ours = median(s["rss_kib"] for s in got[shape, "xenolith"])
            figures[f"{shape.replace('-', '_')}_vs_target"] = ratio(
                ours, TARGET_KIB + queues * TARGET_QUEUE_KIB)
    parts_show(got, out)
    return figures


def parts_show(got, out):
    """Where ours is, for whoever wants to make it smaller."""
    for (shape, v), found in got.items():
        if v != "xenolith":
            continue
        last = found[-1]
        text = ", ".join(f"{name.rsplit('/', 1)[-1]} {kib}" for name, kib in last["parts"] if kib)
        out(f"{shape}: KiB by mapping: {text}")
        for name, m in last["shared_kib"].items():
            out(f"{shape}: {name}, one for all guests: {m['rss_kib']} KiB, "
                f"{m['private_kib']} of it private")
    out("")
