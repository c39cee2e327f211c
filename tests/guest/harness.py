# SPDX-License-Identifier: MIT
"""What the guest tests are written with: one test's world, and its guests.

Nothing here limits how fast a guest must be.  HANG_S only ends a test whose guest has
fallen silent, SPIN_S one whose guest talks on and never says what is waited for, both
long after anything that works would have answered.

XENOLITH_TEST_DISK_BACKEND=process has every disk served by a process of its own, which those
of test_images.py cannot be.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HANG_S = float(os.environ.get("XENOLITH_TEST_HANG_S", "120"))
SPIN_S = 3 * HANG_S
POLL_S = 0.02
MIB = 1 << 20


class Failure(Exception):
    """The behaviour under test is not there; the text says what was seen."""


class Skip(Exception):
    """This machine lacks something the test needs; the text names it."""


def several(*behaviours):
    """For a test function that yields (behaviour, None or an exception) for each."""
    def mark(function):
        function.behaviours = list(behaviours)
        return function
    return mark


def need(condition, text):
    if not condition:
        raise Failure(text)


def wait_for(what, probe, seconds=HANG_S):
    """What probe() returned once it was true."""
    end = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {seconds:.0f} s")
        time.sleep(POLL_S)


class World:
    """Run-time, log and scratch folders of one test, and the program in them."""

    def __init__(self, build, files):
        self.build = pathlib.Path(build).resolve()
        self.files = pathlib.Path(files).resolve()
        self.tmp = pathlib.Path(tempfile.mkdtemp(prefix="xt-"))
        self.run_dir = self.tmp / "run"
        self.log_dir = self.tmp / "log"
        self.env = dict(os.environ, XENOLITH_RUN_DIR=str(self.run_dir),
                        XENOLITH_LOG_DIR=str(self.log_dir))
        self.xenolith = str(self.build / "src/cmd/xenolith")
        self.children = []

    # ---- the program ----

    def xl(self, *words, status=0, **more):
        """Runs a command; holds it to its exit status.  None: any."""
        done = subprocess.run([self.xenolith, *map(str, words)], env=self.env, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=HANG_S,
                              check=False, **more)
        if status is not None and done.returncode != status:
            raise Failure(f"xenolith {' '.join(map(str, words))}: status {done.returncode}, "
                          f"wanted {status}: {done.stdout}{done.stderr}")
        return done

    def start(self, *words, **more):
        """The same in the background; ends with the test at the latest."""
        child = subprocess.Popen([self.xenolith, *map(str, words)], env=self.env, **more)
        self.children.append(child)
        return child

    def control(self, domid, command, **arguments):
        """One request to a guest's control socket."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(HANG_S)
            s.connect(str(self.run_dir / "guest" / str(domid) / "ctl.sock"))
            request = {"version": 1, "command": command, "arguments": arguments}
            s.sendall(json.dumps(request).encode() + b"\n")
            reply = json.loads(s.makefile().readline())
        need("return" in reply, f"{command}: {reply}")
        return reply["return"]

    def domids(self):
        """name -> number, as `list` prints them"""
        rows = [line.split() for line in self.xl("list").stdout.splitlines()[1:]]
        return {row[0]: int(row[1]) for row in rows}

    def row(self, name):
        """One guest's line of `list`: a dictionary by column; None when it is not there."""
        for line in self.xl("list").stdout.splitlines()[1:]:
            fields = line.split()
            if fields[0] == name:
                return dict(zip(("name", "id", "mem", "vcpus", "state", "time"), fields))
        return None

    def store(self, *words):
        """Xen's own client of the store: ("xenstore-read", PATH)..."""
        if not shutil.which(words[0]):
            raise Skip("no xenstore-utils")
        env = dict(self.env, XENSTORED_PATH=str(self.run_dir / "xenstored/socket"))
        return subprocess.run(words, env=env, text=True, capture_output=True, check=True,
                              timeout=HANG_S).stdout

    # ---- files ----

    def path(self, name):
        return self.tmp / name

    def image(self, name, size_mib, content=None):
        """A sparse image, or one that begins with content."""
        path = self.path(name)
        with open(path, "wb") as f:
            if content:
                f.write(content)
            f.truncate(size_mib * MIB)
        return path

    def log(self, name):
        try:
            return (self.log_dir / f"{name}.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    # ---- the end ----

    def keep_logs(self, folder):
        """For a test that failed: what there is to read about it."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in [*self.log_dir.glob("*.log"), *self.tmp.glob("*.cfg"),
                     *self.tmp.glob("*.script")]:
            shutil.copy(path, folder)

    def close(self):
        """Ends what the test left running and removes its files.  Nothing may stay."""
        try:
            for name in self.domids():
                self.xl("destroy", name)
            left = list((self.run_dir / "guest").glob("*"))
            need(not left, f"left in the registry: {left}")
        finally:
            for child in self.children:
                if child.poll() is None:
                    child.kill()
                child.wait()
            shutil.rmtree(self.tmp, ignore_errors=True)


class Guest:
    """A Debian guest that runs a script: see image/init.  A key that is None is left out."""

    def __init__(self, world, script="", name="guest", vcpus=1, memory=256, disks=(),
                 tools=False, words="", base="base.cpio", **keys):
        self.world = world
        self.name = name
        self.seen = 0
        self.script = world.path(f"{name}.script")
        self.script.write_text(script)
        self.initrd = initrd = world.path(f"{name}.cpio")
        here = pathlib.Path(__file__).parent
        subprocess.run([here / "mkinitrd", "with", world.files / base, self.script,
                        initrd], check=True, timeout=HANG_S)
        disks = list(disks)
        if tools:
            disks.append(f"{world.files / 'tools.img'},raw,xvdz,r")
        config = {"name": name, "kernel": str(world.files / "kernel/vmlinuz"),
                  "ramdisk": str(initrd), "memory": memory, "vcpus": vcpus,
                  "cmdline": f"console=hvc0 loglevel=4 panic=-1 {words}".strip(),
                  "disk": disks, "disk_backend": os.environ.get("XENOLITH_TEST_DISK_BACKEND"),
                  **keys}
        self.config = world.path(f"{name}.cfg")
        # JSON's strings, numbers and lists are xl.cfg's too
        self.config.write_text("".join(f"{key} = {json.dumps(value)}\n"
                                       for key, value in config.items()
                                       if value is not None))

    def create(self, *options):
        self.world.xl("create", "-q", *options, self.config)
        return self

    @property
    def domid(self):
        return self.world.domids().get(self.name)

    def console(self):
        return self.world.log(f"console-{self.name}").replace("\r", "")

    def alive(self):
        return self.world.xl("domid", self.name, status=None).returncode == 0

    def expect(self, pattern):
        """The next match of pattern in what the guest has printed since the last one."""
        regexp = re.compile(pattern, re.M)
        begun = heard = checked = time.monotonic()
        length = 0
        gone = False
        while True:
            console = self.console()
            found = regexp.search(console, self.seen)
            if found:
                self.seen = found.end()
                return found
            if gone:
                raise Failure(f"ended without '{pattern}'{self.last_words()}")
            now = time.monotonic()
            if len(console) > length:
                length, heard = len(console), now
            if now - heard > HANG_S or now - begun > SPIN_S:
                raise Failure(f"silent for {now - heard:.0f} s, no '{pattern}' in "
                              f"{now - begun:.0f} s{self.last_words()}")
            # not at every turn: it is a process each time
            if now - checked > 1:
                checked = now
                gone = not self.alive()
            time.sleep(POLL_S)

    def last_words(self):
        console = self.console().splitlines()[-12:]
        log = self.world.log(self.name).splitlines()[-6:]
        return "".join(f"\n    console: {line}" for line in console) + \
               "".join(f"\n    log: {line}" for line in log)

    def booted(self):
        self.expect(r"^@@ init ")
        return self

    def ended(self):
        wait_for(f"the end of {self.name}{self.last_words()}", lambda: not self.alive())

    def tried(self, behaviour):
        """None or an exception: what the next line of `try` says, which is about this."""
        verdict, said = self.expect(
            rf"^@@ (ok|not ok|skip) {re.escape(behaviour)}(?:: (.*))?$").groups()
        if verdict == "ok":
            return None
        return Skip(said) if verdict == "skip" else Failure(said)

    def finished(self):
        """The script has ended well, and the guest has powered off."""
        status = self.expect(r"^@@ status (\d+)").group(1)
        need(status == "0", f"the script ended with status {status}{self.last_words()}")
        self.ended()

    def kill_process(self):
        info = json.loads((self.world.run_dir / "guest" / str(self.domid) / "info").read_text())
        os.kill(info["pid"], signal.SIGKILL)
