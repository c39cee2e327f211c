# SPDX-License-Identifier: MIT
"""Disks over vhost-user: `xenolith blk` beside qemu-storage-daemon, in turn, on this machine."""
import os
import pathlib
import shutil
import tempfile
from statistics import median

import vhost_user_load
from table import ratio, spread, table

SUMMARY = "4 KiB random reads over vhost-user, beside qemu-storage-daemon"
REPS = 5
ON_HOST = True
PACKAGES = {"qemu-storage-daemon": "qemu-system-common"}
SECONDS, WARMUP = 1.2, 0.3
DISK_BYTES = 1 << 30
# depth, and how the client waits; it runs on CPU 0, the server on CPU 1
LOADS = {"qd1": ["1", "sleep"], "qd32": ["32", "sleep"], "qd128": ["128", "sleep"],
         "poll1": ["1", "poll"]}
DISKS = ("null", "tmpfs", "file")
SERVERS = ("xenolith", "qsd")


def items(reps, quick):
    disks = DISKS[:2] if quick else DISKS
    return [{"vmm": s, "disk": d, "load": l}
            for _ in range(reps) for d in disks for l in LOADS for s in SERVERS]


class Stage:
    """Images, and a folder for sockets; both go away with it."""

    def __init__(self, build):
        self.build = build
        self.client = build / "bench/client/vhost-user-client"
        self.folders = [pathlib.Path(tempfile.mkdtemp(prefix="xb-")),
                        pathlib.Path(tempfile.mkdtemp(prefix="xb-", dir="/dev/shm"))]
        self.socket = self.folders[0] / "s"
        self.images = {"file": self.folders[0] / "image", "tmpfs": self.folders[1] / "image"}

    def image(self, disk):
        path = self.images[disk]
        if not path.exists():
            with open(path, "wb") as f:
                for _ in range(DISK_BYTES >> 20):
                    f.write(os.urandom(1 << 20))
                os.fsync(f.fileno())
        return path

    def server(self, vmm, disk):
        if vmm == "xenolith":
            spec = (f"driver=null,size={DISK_BYTES}" if disk == "null"
                    else f"{self.image(disk)},raw,xvda,w")
            return [self.build / "src/cmd/xenolith", "blk", "--vhost-user", self.socket,
                    "--disk", spec]
        node = (f"driver=null-co,node-name=n0,size={DISK_BYTES},read-zeroes=off"
                if disk == "null" else
                f"driver=file,node-name=n0,filename={self.image(disk)},aio=io_uring,"
                f"cache.direct={'on' if disk == 'file' else 'off'}")
        return ["qemu-storage-daemon", "--object", "iothread,id=t0", "--blockdev", node,
                "--export", "type=vhost-user-blk,id=e0,node-name=n0,addr.type=unix,"
                f"addr.path={self.socket},writable=on,num-queues=2,iothread=t0"]

    def close(self):
        for folder in self.folders:
            shutil.rmtree(folder)


def prepare(build):
    stage = Stage(build)
    for disk in stage.images:
        stage.image(disk)
    return stage


def measure(stage, item):
    got = vhost_user_load.run(stage.server(item["vmm"], item["disk"]), stage.client,
                              stage.socket, (*LOADS[item["load"]], SECONDS, WARMUP))
    if "error" in got:
        return got
    return {"iops": got["iops"], "p50_us": got["p50_us"], "p99_us": got["p99_us"],
            "cpu_us": got["server_cpu_us"],
            "brief": f"{got['iops']:.0f} IOPS, {got['p50_us']:.1f} us"}


def report(samples, out):
    got = {}        # (disk, load, server) -> samples in their order
    for s in samples:
        i = s["item"]
        got.setdefault((i["disk"], i["load"], i["vmm"]), []).append(s)
    cases = [(d, l) for d in DISKS for l in LOADS if any(k[:2] == (d, l) for k in got)]

    out("4 KiB random reads: median [least..most]; CPU is the server's, per read")
    rows, figures = [], {}
    for disk, load in cases:
        pair = [got.get((disk, load, server), []) for server in SERVERS]
        for server, mine in zip(SERVERS, pair):
            rows.append([f"{disk} {load}", server,
                         spread([s["iops"] / 1000 for s in mine], 1),
                         spread([s["p50_us"] for s in mine], 1),
                         spread([s["cpu_us"] for s in mine], 2)])
            if mine:
                figures[f"{disk}_{load}_{server}_iops"] = \
                    f"{median(s['iops'] for s in mine):.0f}"
        ratios = [a["iops"] / b["iops"] for a, b in zip(*pair)]
        if ratios:
            figures[f"{disk}_{load}_iops_vs_qsd"] = f"{median(ratios):.2f}"
            cpu = [median(s["cpu_us"] for s in mine) for mine in pair]
            figures[f"{disk}_{load}_cpu_vs_qsd"] = ratio(*cpu, digits=2)
            rows.append(["", "ratio", figures[f"{disk}_{load}_iops_vs_qsd"], "",
                         figures[f"{disk}_{load}_cpu_vs_qsd"]])
    table(out, ["disk and load", "server", "1000 IOPS", "p50 us", "CPU us"], rows)
    return figures
