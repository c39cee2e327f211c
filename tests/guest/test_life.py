# SPDX-License-Identifier: MIT
"""A guest's life, as the commands see and steer it."""
import json
import os
import pty
import select
import subprocess
import time

from harness import HANG_S, Failure, Guest, need, wait_for

IDLE = "while :; do echo @@ tick; sleep 0.2; done"


def test_reboot_gives_a_new_guest(world):
    """The kernel asks for it, from inside; name kept, new number."""
    guest = Guest(world, "read x").create().booted()
    first = guest.domid
    world.xl("reboot", "guest")
    guest.booted()
    need(guest.domid is not None and guest.domid != first, f"{first}, then {guest.domid}")


def test_on_reboot_destroy_ends_it(world):
    guest = Guest(world, "reboot -f", on_reboot="destroy").create()
    guest.booted()
    guest.ended()
    need(guest.console().count("@@ init") == 1, "it ran again")


def test_a_console_ends_when_the_name_is_free(world):
    """As test runners do it: paused, console, unpause, and the next of the same name."""
    kernel = world.build / "tests/guest/pv/low"
    config = world.tmp / "low.cfg"
    config.write_text(f'name="low"\nloader="generic"\nmemory=128\nkernel="{kernel}"\n',
                      encoding="utf-8")
    for _ in range(20):
        world.xl("create", "-p", config)
        console = world.start("console", "low", stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE)
        world.xl("unpause", "low")
        out, _ = console.communicate(timeout=HANG_S)
        need(console.returncode == 0 and out.replace("\r", "").splitlines()[-1:] == ["PASS"],
             f"status {console.returncode}: {out}")


def test_panic_is_a_crash_that_on_crash_decides(world):
    guest = Guest(world, "echo c >/proc/sysrq-trigger", on_crash="preserve").create()
    guest.expect(r"Kernel panic - not syncing: sysrq triggered crash")
    row = wait_for("the crash in the list",
                   lambda: (world.row("guest") or {}).get("state", "").endswith("sc-") and
                   world.row("guest"))
    need(row["name"] == "guest", f"{row}")
    world.xl("destroy", "guest")
    need(guest.domid is None, "it is still listed")


def test_crash_restart(world):
    guest = Guest(world, """
[ -e /proc/sys/kernel ] && echo c >/proc/sysrq-trigger
""", on_crash="restart").create()
    first = guest.domid         # before it can have crashed
    guest.booted().booted()
    need(guest.domid != first, "the same number")
    world.xl("destroy", "guest")


def test_run_shows_the_console_and_ends_with_the_guest(world):
    guest = Guest(world, "echo @@ hello")
    done = world.xl("run", guest.config)
    need("@@ hello" in done.stdout, f"{done.stdout[-500:]}")
    guest = Guest(world, "echo c >/proc/sysrq-trigger")
    done = world.xl("run", guest.config, status=10)
    need("Kernel panic" in done.stdout, f"{done.stdout[-500:]}")


def test_ten_guests_at_once(world):
    guests = [Guest(world, "read x", name=f"guest{i}", memory=128,
                    disks=["driver=null,size=1G,vdev=xvda"]).create() for i in range(10)]
    for guest in guests:
        guest.booted()
    rows = world.domids()
    need(len(rows) == 10 and len(set(rows.values())) == 10, f"{rows}")
    for guest in guests:
        world.xl("shutdown", guest.name)
    for guest in guests:
        guest.ended()


def test_pause_stops_and_unpause_goes_on(world):
    guest = Guest(world, IDLE, vcpus=2).create()
    guest.expect(r"^@@ tick")
    world.xl("pause", "guest")
    need("p" in world.row("guest")["state"], f"{world.row('guest')}")
    time.sleep(0.5)     # what was in the ring is in the log now
    before = guest.console().count("tick")
    time.sleep(2)
    need(guest.console().count("tick") == before, "it prints while it is paused")
    world.xl("unpause", "guest")
    wait_for("a tick", lambda: guest.console().count("tick") > before)
    need("p" not in world.row("guest")["state"], f"{world.row('guest')}")


def test_created_paused_runs_nothing(world):
    guest = Guest(world, IDLE).create("-p")
    need(world.row("guest")["state"] == "--p---", f"{world.row('guest')}")
    need(guest.console() == "", "it has printed something")
    world.xl("unpause", "guest")
    guest.booted()


def test_console_is_interactive(world):
    """A shell behind `xenolith console` on a terminal, left with Ctrl-]."""
    guest = Guest(world, "setsid cttyhack sh").create().booted()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(world.xenolith, ["xenolith", "console", "guest"], world.env)
    seen = b""
    end = time.monotonic() + HANG_S

    def expect(text):
        nonlocal seen
        while text not in seen:
            if time.monotonic() > end:
                raise Failure(f"no {text} in {seen[-300:]}")
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 4096)
        seen = seen.split(text, 1)[1]

    try:
        os.write(terminal, b"\r")
        expect(b"# ")
        os.write(terminal, b"echo $((6 * 7))x\r")
        expect(b"42x")
        os.write(terminal, b"\x1d")
        wait_for("the end of the command", lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)
    finally:
        os.close(terminal)
    need(guest.alive(), "leaving the console ended the guest")


def test_list_has_xls_columns(world):
    Guest(world, IDLE, vcpus=2, memory=200).create().booted()
    title, line = world.xl("list").stdout.splitlines()
    need(title.split() == ["Name", "ID", "Mem", "VCPUs", "State", "Time(s)"], title)
    row = world.row("guest")
    need((row["mem"], row["vcpus"]) == ("200", "2"), line)
    need(line[40:46].strip() == row["id"] and len(row["state"]) == 6, line)
    need(float(row["time"]) > 0, line)
    need(world.xl("domid", "guest").stdout == f"{row['id']}\n", "domid")
    need(world.xl("domname", row["id"]).stdout == "guest\n", "domname")
    listed = json.loads(world.xl("list", "-l").stdout)
    need([g["domid"] for g in listed] == [int(row["id"])], "list -l")
    need(listed[0]["config"]["c_info"]["name"] == "guest", "list -l")


def test_shutdown_waits(world):
    guest = Guest(world, "read x").create().booted()
    said = world.xl("shutdown", "-w", "guest").stderr
    need("has been shut down" in said or "has been destroyed" in said, said)
    guest.ended()


def test_destroy_returns_when_it_is_gone(world):
    image = world.image("disk", 8)
    Guest(world, IDLE, disks=[f"{image},raw,xvda,w"]).create().booted()
    world.xl("destroy", "guest")
    need(world.domids() == {}, f"{world.domids()}")
    # the name and the disk are free at once
    Guest(world, IDLE, disks=[f"{image},raw,xvda,w"]).create()


def test_xens_own_tool_reads_the_store(world):
    image = world.image("disk", 8)
    guest = Guest(world, "disk xvda; echo @@ there; read x", disks=[f"{image},raw,xvda,w"])
    guest.create().expect("^@@ there")
    tree = world.store("xenstore-ls", "-f", f"/local/domain/{guest.domid}")
    root = f"/local/domain/{guest.domid}"
    for line in (f'{root}/name = "guest"', f'{root}/device/vbd/51712/state = "4"'):
        need(line in tree, f"no {line} in:\n{tree}")


def test_killed_process_leaves_the_registry_usable(world):
    image = world.image("disk", 8)
    guest = Guest(world, IDLE, disks=[f"{image},raw,xvda,w"]).create().booted()
    guest.kill_process()
    wait_for("the end of the killed guest", lambda: not guest.alive())
    need(world.domids() == {}, f"{world.domids()}")
    again = Guest(world, "disk xvda", disks=[f"{image},raw,xvda,w"]).create()
    again.seen = len(again.console().split("@@ status")[0])
    again.finished()
