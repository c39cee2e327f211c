# SPDX-License-Identifier: MIT
"""From the start of the monitor's process to the first line of the guest's init."""
import os
from statistics import median

from table import ratio, spread, table

SUMMARY = "time from the monitor's start to the guest's init"
INITRD = "small"
REPS = 5
MEMORY_MIB = 256
# A kernel as distributions ship it, compressed, and its ELF image: like against like.
OURS = ["xenolith", "xenolith-elf"]
PEERS = ["qemu-pc", "qemu-pc-elf", "qemu-microvm-elf"]


def items(reps, quick):
    vmms = ["xenolith", "qemu-pc"] if quick else OURS + PEERS
    if os.environ.get("LKVM"):
        vmms.append("kvmtool")
    return [{"vmm": v, "rep": r} for r in range(reps) for v in vmms]


def prepare(session):
    session.fetch(["vmlinuz", "vmlinux", f"{INITRD}.cpio"])
    session.warm(str(session.build / "src/cmd/xenolith"), "qemu-system-x86_64")


def measure(session, item):
    guest = session.guest(INITRD, MEMORY_MIB, 1, words="bench=boot")
    with session.start(item["vmm"], guest) as running:
        running.expect("init")
        seconds = running.now() - running.started
    return {"seconds": seconds, "brief": f"{seconds:.2f} s"}


def report(samples, out):
    by_vmm = {}
    for s in samples:
        by_vmm.setdefault(s["item"]["vmm"], []).append(s["seconds"])
    out(f"Boot to init, 1 vCPU, {MEMORY_MIB} MiB, Debian's cloud kernel, seconds: "
        "median [least..most]")
    table(out, ["monitor", "seconds", "runs"],
          [[v, spread(t, 2), len(t)] for v, t in by_vmm.items()])
    mid = {v: median(t) for v, t in by_vmm.items()}
    figures = {f"{v.replace('-', '_')}_s": f"{t:.2f}" for v, t in mid.items()}
    for v in mid:
        ours = "xenolith-elf" if v.endswith("-elf") else "xenolith"
        if v not in OURS and ours in mid:
            figures[f"boot_vs_{v.replace('-', '_')}"] = ratio(mid[ours], mid[v])
    return figures
