# SPDX-License-Identifier: MIT
"""fio in a guest on a raw file in the host's memory, and on that file itself.

The file is in tmpfs, so what is measured is the way between guest and host.  Exits
and interrupts are counted in a window inside each run, while fio is at work.
"""
import subprocess
from statistics import median

from session import Exits, GuestFailed, memory_kib
from table import ratio, spread, table

SUMMARY = "4 KiB random reads and writes by fio in the guest"
REPS = 3
MEMORY_MIB = 512
QUEUES = 2
RUNTIME_S, RAMP_S = 3, 1
TESTS = ["randread:1:1", "randread:32:1", "randread:32:2",
         "randwrite:1:1", "randwrite:32:1", "randwrite:32:2"]
QUICK = TESTS[:3]
# Ours twice: with the disk's events where Linux puts them, and each queue's on the virtual
# CPU whose requests it has, where QEMU's disk has its interrupts by itself.
OURS = {"xenolith": "", "xenolith-own-events": "events=own"}
MONITORS = [*OURS, "qemu-pc", "file"]


def items(reps, quick):
    tests = QUICK if quick else TESTS
    return [{"vmm": v, "rep": r, "tests": tests}
            for r in range(reps) for v in MONITORS]


def prepare(session):
    session.fetch(["vmlinuz", "fio.cpio"])
    session.disk_make()
    session.warm(str(session.build / "src/cmd/xenolith"), "qemu-system-x86_64", "fio")


def parse(line):
    """One line of fio's terse output, version 3, with latencies counted from submission."""
    f = line.split(";")
    if len(f) < 100:
        raise GuestFailed(f"fio: {line}")
    # where a direction's 41 fields begin; the one that did nothing has no I/Os
    at = 5 if int(f[5]) else 46
    percentiles = dict(p.split("%=") for p in f[at + 12:at + 32] if "%=" in p)
    at_percent = {float(k): float(v) for k, v in percentiles.items()}
    return {"iops": float(f[at + 2]), "mean_us": float(f[at + 34]), "p50_us": at_percent[50.0],
            "p99_us": at_percent[99.0]}


def measure_file(session, item):
    """What the host itself can do; tmpfs has no O_DIRECT to ask for."""
    results = {}
    for test in item["tests"]:
        pattern, depth, jobs = test.split(":")
        done = subprocess.run(
            ["fio", "--name=x", f"--filename={session.disk}", f"--rw={pattern}", "--bs=4k",
             f"--iodepth={depth}", f"--numjobs={jobs}", "--ioengine=libaio", "--time_based",
             f"--runtime={RUNTIME_S}", f"--ramp_time={RAMP_S}", "--group_reporting", "--thread",
             "--norandommap", "--randrepeat=0", f"--cpus_allowed=0-{int(jobs) - 1}",
             "--cpus_allowed_policy=split", "--lat_percentiles=1", "--clat_percentiles=0",
             "--output-format=terse", "--terse-version=3"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        results[test] = parse(done.stdout.splitlines()[-1])
    return {"tests": results, "brief": brief(results)}


def per_io(before, after):
    ios = after["ios"] - before["ios"]
    return {k: (after[k] - before[k]) / ios for k in after if k != "ios"} if ios > 0 else {}


def measure(session, item):
    if item["vmm"] == "file":
        return measure_file(session, item)
    vmm = "xenolith" if item["vmm"] in OURS else item["vmm"]
    words = f"bench=fio ramp={RAMP_S} runtime={RUNTIME_S} tests={','.join(item['tests'])} " \
            + OURS.get(item["vmm"], "")
    guest = session.guest("fio", MEMORY_MIB, QUEUES, QUEUES, words)
    results, marks = {}, {}
    exits = Exits()
    try:
        with session.start(vmm, guest) as running:
            running.expect("init")
            queues = int(running.expect("disk")[1])
            while True:
                words = running.event()
                if words[0] == "mark":
                    marks[words[1]] = dict(exits.read(), ios=int(words[2]), irqs=int(words[3]))
                elif words[0] == "fio":
                    results[words[1]] = dict(parse(" ".join(words[2:])),
                                             per_io=per_io(marks["1"], marks["2"]))
                elif words[0] == "done":
                    break
            memory = memory_kib(running.pid(), MEMORY_MIB << 20)
    finally:
        exits.close()
    return {"tests": results, "queues": queues, "rss_kib": memory["rss_kib"],
            "brief": brief(results)}


def brief(results):
    return ", ".join(f"{t} {r['iops']:.0f} IOPS {r['mean_us']:.0f} us"
                     for t, r in results.items())


def report(samples, out):
    got = {}        # (test, vmm) -> list of results
    for s in samples:
        for test, r in s["tests"].items():
            got.setdefault((test, s["item"]["vmm"]), []).append(r)
    tests = [t for t in TESTS if any(k[0] == t for k in got)]
    vmms = [v for v in MONITORS if any(k[1] == v for k in got)]

    def column(test, vmm, key):
        return [r[key] for r in got.get((test, vmm), [])]

    def mid(test, vmm, key):
        values = column(test, vmm, key)
        return median(values) if values else 0

    out(f"fio, libaio, 4 KiB, {QUEUES} vCPUs, {QUEUES} queues, raw file in memory: "
        "median [least..most]")
    table(out, ["pattern:depth:jobs", "monitor", "IOPS", "mean us", "p50 us", "p99 us",
                "IOPS / the file's"],
          [[t, v, *(spread(column(t, v, k)) for k in ("iops", "mean_us", "p50_us", "p99_us")),
            ratio(mid(t, v, "iops"), mid(t, "file", "iops"))] for t in tests for v in vmms])

    counters = ("exits", "user_exits", "irqs", "halt_exits", "irq_exits", "irq_injections",
                "insn_emulation")
    out("Per I/O: exits of the virtual CPUs, those of them to user space, interrupts of the "
        "disk in the guest")
    rows = []
    for t in tests:
        for v in vmms:
            counts = [r["per_io"] for r in got.get((t, v), []) if r.get("per_io")]
            if counts:
                rows.append([t, v, *(f"{median(c[k] for c in counts):.3f}" for k in counters)])
    table(out, ["pattern:depth:jobs", "monitor", *counters], rows)
    return figures_of(tests, vmms, mid, got)


def figures_of(tests, vmms, mid, got):
    figures = {}
    for t in tests:
        pattern, depth, jobs = t.split(":")
        key = f"{pattern.replace('rand', '')}_qd{depth}_j{jobs}"
        for v in vmms:
            name = v.replace("-", "_")
            figures[f"{key}_{name}_iops"] = f"{mid(t, v, 'iops'):.0f}"
            figures[f"{key}_{name}_mean_us"] = f"{mid(t, v, 'mean_us'):.0f}"
        for v in OURS:
            figures.update(figures_of_ours(f"{key}{v.removeprefix('xenolith').replace('-', '_')}",
                                           t, v, mid, got))
    for v in OURS:
        one, two = mid("randread:32:1", v, "iops"), mid("randread:32:2", v, "iops")
        if one and two:
            name = v.removeprefix("xenolith").replace("-", "_")
            figures[f"read{name}_two_queues_vs_one"] = ratio(two, one)
    return figures


def figures_of_ours(key, test, vmm, mid, got):
    figures = {}
    what = "mean_us" if test.split(":")[1] == "1" else "iops"
    ours, peers = mid(test, vmm, what), mid(test, "qemu-pc", what)
    if ours and peers:
        figures[f"{key}_{what}_vs_qemu"] = ratio(ours, peers)
    counts = [r["per_io"] for r in got.get((test, vmm), []) if r.get("per_io")]
    if counts:
        for k in ("exits", "user_exits", "irqs"):
            figures[f"{key}_{k}_per_io"] = f"{median(c[k] for c in counts):.3f}"
    return figures
