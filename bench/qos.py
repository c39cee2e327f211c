# SPDX-License-Identifier: MIT
"""The filter `qos`: what is set and what comes, through `xenolith blk`, on this machine."""
import pathlib
import shutil
import tempfile
from statistics import median

import vhost_user_load
from table import spread, table

SUMMARY = "the rates that filter=qos is set to, and those that come, over vhost-user"
REPS = 3
ON_HOST = True
PACKAGES = {}
BLOCK_BYTES = 4096
DEPTH = 32
WARMUP = 0.5
# a limit; requests of 4 KiB per second that it stands for; how long to look, in seconds
LIMITS = {"10": ("iops=10", 10, 5), "1000": ("iops=1000", 1000, 3),
          "50000": ("iops=50000", 50000, 3),
          "100M": (f"bps={100 << 20}", (100 << 20) / BLOCK_BYTES, 3)}


def items(reps, quick):
    limits = [l for l in LIMITS if l != "10"] if quick else LIMITS
    return [{"vmm": "xenolith", "limit": l, "queues": q}
            for _ in range(reps) for l in limits for q in (1, 2)]


class Stage:
    """A folder for the socket, which goes away with it."""

    def __init__(self, build):
        self.xenolith = build / "src/cmd/xenolith"
        self.client = build / "bench/client/vhost-user-client"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="xb-"))
        self.socket = self.folder / "s"

    def close(self):
        shutil.rmtree(self.folder)


def prepare(build):
    return Stage(build)


def measure(stage, item):
    option, wanted, seconds = LIMITS[item["limit"]]
    got = vhost_user_load.run(
        [stage.xenolith, "blk", "--vhost-user", stage.socket, "--disk",
         f"driver=ram,size=1G,filter=qos:{option}"],
        stage.client, stage.socket, (DEPTH, "sleep", seconds, WARMUP), item["queues"])
    if "error" in got:
        return got
    return {"iops": got["iops"], "wanted": wanted, "queue_iops": got["queue_iops"],
            "least": got["second_least"], "most": got["second_most"],
            "cpu_us": got["server_cpu_us"],
            "brief": f"{got['iops']:.1f} of {wanted:.0f}, {got['second_least']} to "
                     f"{got['second_most']} in a second"}


def report(samples, out):
    got = {}        # (limit, queues) -> samples in their order
    for s in samples:
        got.setdefault((s["item"]["limit"], s["item"]["queues"]), []).append(s)
    out(f"4 KiB reads, {DEPTH} at a time on each queue: median [least..most]; the seconds are all")
    out("that begin on a multiple of 10 ms; CPU is the server's, all of it, in per cent of one")
    rows, figures = [], {}
    for (limit, queues), mine in got.items():
        wanted = mine[0]["wanted"]
        off = [abs(s["iops"] / wanted - 1) * 100 for s in mine]
        rows.append([LIMITS[limit][0], queues, f"{wanted:.0f}",
                     spread([s["iops"] for s in mine], 1), f"{median(off):.2f}",
                     f"{min(s['least'] for s in mine)}..{max(s['most'] for s in mine)}",
                     f"{min(min(s['queue_iops']) / max(s['queue_iops']) for s in mine):.2f}",
                     f"{median(s['cpu_us'] * s['iops'] / 1e4 for s in mine):.1f}"])
        figures[f"{limit}_q{queues}_reached"] = f"{median(s['iops'] for s in mine) / wanted:.4f}"
    table(out, ["limit", "queues", "set", "reached", "off %", "in any second",
                "least queue / most", "CPU %"], rows)
    return figures
