# SPDX-License-Identifier: MIT
"""What cannot work is refused: a message that names it, xl's exit status, and
nothing left behind."""
from harness import Guest, need


def refused(world, status, *named, config):
    """create fails with that status and a message that has all of named."""
    said = world.xl("create", "-q", config, status=status).stderr
    for text in named:
        need(str(text) in said, f"no '{text}' in: {said}")
    need(len(said.strip().splitlines()) <= 2, f"more than a message: {said}")
    need(world.domids() == {}, "the guest is listed")
    need(not list((world.run_dir / "guest").glob("*")), "an entry is left")


def test_missing_kernel(world):
    guest = Guest(world, kernel="/nonesuch/kernel")
    refused(world, 3, "/nonesuch/kernel", "No such file", config=guest.config)


def test_missing_ramdisk(world):
    guest = Guest(world, ramdisk="/nonesuch/initrd")
    refused(world, 3, "/nonesuch/initrd", "No such file", config=guest.config)


def test_kernel_that_is_no_kernel(world):
    path = world.path("text")
    path.write_text("this is not a kernel\n" * 100)
    refused(world, 3, path, config=Guest(world, kernel=str(path)).config)


def test_elf_file_without_xen_notes(world):
    refused(world, 3, "/proc/self/exe", config=Guest(world, kernel="/proc/self/exe").config)


def test_truncated_kernel(world):
    whole = (world.files / "kernel/vmlinuz").read_bytes()
    path = world.path("cut")
    path.write_bytes(whole[:len(whole) // 2])
    refused(world, 3, path, config=Guest(world, kernel=str(path)).config)


def test_corrupt_payload(world):
    whole = bytearray((world.files / "kernel/vmlinuz").read_bytes())
    middle = len(whole) // 2
    whole[middle:middle + 4096] = bytes(4096)
    path = world.path("corrupt")
    path.write_bytes(whole)
    refused(world, 3, path, config=Guest(world, kernel=str(path)).config)


def test_missing_disk(world):
    guest = Guest(world, disks=["/nonesuch/disk,raw,xvda,w"])
    refused(world, 3, "/nonesuch/disk", config=guest.config)


def test_more_memory_than_there_can_be(world):
    guest = Guest(world, memory=16777216)
    refused(world, 3, "memory", config=guest.config)


def test_ramdisk_larger_than_memory(world):
    path = world.image("huge", 300)
    refused(world, 3, "ramdisk", "MiB", config=Guest(world, ramdisk=str(path)).config)


def test_less_memory_than_the_kernel_needs(world):
    refused(world, 3, "the guest has 32", config=Guest(world, memory=32).config)


def test_name_that_is_taken(world):
    guest = Guest(world, "read x").create("-p")
    first = guest.domid
    said = world.xl("create", "-q", guest.config, status=3).stderr
    need("guest" in said, said)
    need(world.domids() == {"guest": first}, f"{world.domids()}")
