# SPDX-License-Identifier: MIT
"""The lab's side of a benchmark: starts guests, reads their consoles, counts."""
import os
import pathlib
import re
import select
import shutil
import subprocess
import tempfile
import time

import vmm

# A guest that says nothing for so long is taken for dead.
SILENCE_S = 60
KVM_STATS = pathlib.Path("/sys/kernel/debug/kvm")
USER_EXITS = pathlib.Path("/sys/kernel/debug/tracing/events/kvm/kvm_userspace_exit/trigger")


class GuestFailed(Exception):
    """The guest or its monitor did not do what it was started for."""


class Running:
    """A guest that has been started, and its console."""

    def __init__(self, monitor, guest):
        self.monitor = monitor
        self.guest = guest
        self.tail = ""
        self.buffer = b""
        env = monitor.env()
        command = [str(w) for w in monitor.command(guest)]
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        env=env)

    def line(self):
        """The next line of the console."""
        fd = self.process.stdout.fileno()
        while b"\n" not in self.buffer:
            if not select.select([fd], [], [], SILENCE_S)[0]:
                raise GuestFailed(f"silent for {SILENCE_S} s; {self.last_words()}")
            data = os.read(fd, 65536)
            if not data:
                raise GuestFailed(f"ended with status {self.process.wait()}; "
                                  f"{self.last_words()}")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        text = line.decode(errors="replace").strip("\r")
        self.tail = f"{self.tail[-400:]} | {text}"
        return text

    def event(self):
        """The words of the next line that is meant for us."""
        while True:
            line = self.line()
            if "@@ " in line:
                return line.split("@@ ", 1)[1].split(" ")

    def expect(self, word):
        words = self.event()
        if words[0] != word:
            self.failed(f"wanted {word}, got {' '.join(words)}")
        return words[1:]

    def failed(self, why):
        raise GuestFailed(f"{why}; {self.last_words()}")

    @staticmethod
    def now():
        return time.monotonic()

    def last_words(self):
        log = getattr(self.monitor, "log", str)()
        return f"console:{self.tail} log: {' | '.join(log.splitlines()[-4:])}"

    def pid(self):
        return self.monitor.pid(self.process)

    def end(self):
        self.monitor.end(self.process)
        try:
            self.process.wait(timeout=SILENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Session:
    """One lab: what the guests boot is in memory, as are the disk and the programs."""

    def __init__(self, build):
        self.build = build
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="bench-"))
        self.files = self.scratch / "files"
        self.disk = self.scratch / "disk"

    def fetch(self, names):
        self.files.mkdir(exist_ok=True)
        for name in names:
            shutil.copy(self.build / "bench/files" / name, self.files)

    def disk_make(self):
        """The same file for everybody, written once so that no block is a hole."""
        chunk = os.urandom(1 << 20)
        with open(self.disk, "wb") as f:
            for _ in range(vmm.DISK_BYTES >> 20):
                f.write(chunk)

    def warm(self, *programs):
        """Reads programs and their libraries, which come from the host's disk."""
        for program in programs:
            program = shutil.which(program)
            listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
            for path in [program, *re.findall(r"(/\S+)", listed.stdout)]:
                with open(path, "rb") as f:
                    while f.read(1 << 20):
                        pass

    def guest(self, initrd, memory_mib, vcpus, queues=0, words="", **more):
        return vmm.Guest(self.files, initrd, memory_mib, vcpus,
                         disk=self.disk if queues else None, queues=queues, words=words,
                         **more)

    def start(self, name, guest):
        return Running(vmm.find(name, self.build, self.scratch), guest)


# ---- counters ----

class Exits:
    """What KVM counts on this host, where one guest runs."""

    NAMES = ("exits", "halt_exits", "irq_exits", "irq_injections", "insn_emulation")

    def __init__(self):
        USER_EXITS.write_text("hist:keys=reason\n")

    def close(self):
        USER_EXITS.write_text("!hist:keys=reason\n")

    def read(self):
        now = {n: int((KVM_STATS / n).read_text()) for n in self.NAMES}
        hist = (USER_EXITS.parent / "hist").read_text()
        now["user_exits"] = sum(int(n) for n in re.findall(r"hitcount:\s*(\d+)", hist))
        return now


def memory_kib(pid, ram_bytes):
    """Resident memory of a process besides its guest's RAM: all, and what only it has;
    and the same by mapping, largest first.

    The guest's RAM is the memfd of that name, or else every mapping that is at least
    as large as it."""
    rss = private = 0
    parts = {}
    header, fields = None, {}
    lines = pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines()
    for line in lines + ["0-0 end"]:
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            if header and not (fields["Size"] << 10 >= ram_bytes or "xenolith-ram" in header):
                rss += fields["Rss"]
                private += fields["Private_Dirty"] + fields["Private_Clean"]
                name = " ".join(header.split()[5:]) or "anonymous"
                parts[name] = parts.get(name, 0) + fields["Rss"]
            header, fields = line, {}
        else:
            key, value = line.split(":", 1)
            if value.endswith(" kB"):
                fields[key] = int(value[:-3])
    largest = sorted(parts.items(), key=lambda p: -p[1])
    return {"rss_kib": rss, "private_kib": private, "parts": largest[:24]}
