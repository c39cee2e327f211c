# SPDX-License-Identifier: MIT
"""How each monitor is started: one class per monitor.

command(guest) is the process whose standard output is the guest's console; its
main process is the one whose memory is measured, unless pid() says otherwise.
"""
import json
import os
import pathlib
import subprocess

QUIET = "loglevel=3 panic=-1"
DISK_BYTES = 256 << 20


class Guest:
    """What is to run: the same for every monitor."""

    def __init__(self, files, initrd, memory_mib, vcpus, disk=None, queues=1, words="",
                 kernel=None, keys=None, name="bench"):
        self.name = name
        self.files = files
        self.initrd = files / f"{initrd}.cpio"
        self.memory_mib = memory_mib
        self.vcpus = vcpus
        self.disk = disk
        self.queues = queues
        self.kernel = kernel            # in place of Linux
        self.keys = keys or {}          # of xl.cfg, which only ours has
        self.words = f"{QUIET} {words} {'disk=1' if disk else ''}".strip()


class Qemu:
    """-M pc, as most people run it; machine and kernel as the name says."""

    # rtc=off costs this kernel a timeout of 5 s
    MICROVM = "microvm,x-option-roms=off,pit=off,pic=off,isa-serial=on,rtc=on"

    def __init__(self, machine="pc", elf=False):
        self.machine = machine
        self.kernel = "vmlinux" if elf else "vmlinuz"

    def command(self, guest):
        microvm = self.machine == "microvm"
        words = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host",
                 "-M", self.MICROVM if microvm else self.machine,
                 "-m", str(guest.memory_mib), "-smp", str(guest.vcpus), "-nodefaults",
                 "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
                 "-kernel", guest.files / self.kernel, "-initrd", guest.initrd,
                 "-append", f"console=ttyS0 {guest.words}"]
        if microvm:
            words += ["-bios", "qboot.rom"]
        if guest.disk:
            device = "virtio-blk-device" if microvm else "virtio-blk-pci"
            # tmpfs of this kernel has no O_DIRECT, hence cache.direct=off
            words += ["-object", "iothread,id=t",
                      "-blockdev", f"driver=file,filename={guest.disk},node-name=d,"
                                   "aio=io_uring,cache.direct=off",
                      "-device", f"{device},drive=d,iothread=t,num-queues={guest.queues}"]
        return words

    def env(self):
        return None

    def pid(self, process):
        return process.pid

    def end(self, process):
        process.kill()

    def extra(self):
        return {}


class Xenolith:
    """Ours, with its defaults; the guest's process is a child of `run`."""

    def __init__(self, build, scratch, elf=False):
        self.program = build / "src/cmd/xenolith"
        self.kernel = "vmlinux" if elf else "vmlinuz"
        self.scratch = scratch
        self.run_dir = scratch / "run"
        self.name = None                # of the guest, once command() has been asked

    def command(self, guest):
        self.name = guest.name
        config = {"name": guest.name, "kernel": str(guest.kernel or guest.files / self.kernel),
                  "ramdisk": str(guest.initrd), "memory": guest.memory_mib,
                  "vcpus": guest.vcpus, "cmdline": f"console=hvc0 {guest.words}", **guest.keys}
        if guest.disk:
            config["disk"] = [f"{guest.disk},raw,xvda,w"]
            config["max_queues"] = guest.queues
        path = self.scratch / f"{guest.name}.cfg"
        # JSON's strings, numbers and lists are xl.cfg's too
        path.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in config.items()))
        return [self.program, "run", "-q", path]

    def env(self):
        return dict(os.environ, XENOLITH_RUN_DIR=str(self.run_dir),
                    XENOLITH_LOG_DIR=str(self.scratch / "log"))

    def pid(self, process):
        for info in (self.run_dir / "guest").glob("*/info"):
            found = json.loads(info.read_text())
            if found["name"] == self.name:
                return found["pid"]
        return process.pid

    def end(self, process):
        subprocess.run([self.program, "destroy", self.name], env=self.env(), check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def extra(self):
        """Processes that serve every guest of this host: name -> pid."""
        found = {}
        for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
            try:
                cmdline = (comm.parent / "cmdline").read_bytes()
            except OSError:
                continue
            if b"xenstored" in cmdline or "xenstore" in comm.read_text():
                found["xenstored"] = int(comm.parent.name)
        return found

    def log(self):
        path = self.scratch / f"log/{self.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""


class Kvmtool:
    """Only where LKVM names its program: Debian has no package of it.  Debian's cloud
    kernel gives it one virtual CPU: it has no CONFIG_X86_MPPARSE."""

    def __init__(self, program):
        self.program = program

    def command(self, guest):
        words = [self.program, "run", "--name", "bench", "--network", "mode=none",
                 "--console", "serial", "-m", str(guest.memory_mib), "-c", str(guest.vcpus),
                 "-k", guest.files / "vmlinuz", "-i", guest.initrd,
                 "-p", f"console=ttyS0 {guest.words}"]
        return words + (["-d", guest.disk] if guest.disk else [])

    env, pid, end, extra = Qemu.env, Qemu.pid, Qemu.end, Qemu.extra


def find(name, build, scratch):
    if name == "xenolith":
        return Xenolith(build, scratch)
    if name == "xenolith-elf":
        return Xenolith(build, scratch, elf=True)
    if name == "kvmtool":
        return Kvmtool(os.environ["LKVM"])
    return {"qemu-pc": Qemu(), "qemu-pc-elf": Qemu(elf=True),
            "qemu-microvm": Qemu("microvm"), "qemu-microvm-elf": Qemu("microvm", True)}[name]
