# SPDX-License-Identifier: MIT
"""Debian's PV GRUB as the guest's kernel: it finds its configuration on the guest's disk,
and starts the kernel that is there, so that a disk image boots as it is."""
import pathlib
import shutil
import subprocess

from harness import Guest, HANG_S, Skip, need

GRUB = pathlib.Path("/usr/lib/grub-xen/grub-x86_64-xen.bin")
MENU = """
set timeout=0
menuentry "Debian" {
    linux /boot/vmlinuz console=hvc0 loglevel=4 panic=-1 from=grub
    initrd /boot/initrd
}
"""
# the disk that GRUB has read and left is there for the kernel as well
SCRIPT = """
grep -q from=grub /proc/cmdline || exit 1
disk xvda
mkdir /mnt
mount -t ext4 -o ro /dev/xvda /mnt || exit 1
cat /mnt/boot/message
echo "@@ processors $(nproc)"
"""


def disk_image(world, guest):
    """A file system with the kernel, its RAM disk and GRUB's menu, without partitions."""
    boot = world.path("root") / "boot"
    (boot / "grub").mkdir(parents=True)
    shutil.copy(world.files / "stock/vmlinuz", boot / "vmlinuz")
    shutil.copy(guest.initrd, boot / "initrd")
    (boot / "grub/grub.cfg").write_text(MENU)
    (boot / "message").write_text("@@ hello from the disk\n")
    image = world.path("disk.img")
    subprocess.run(["mke2fs", "-qq", "-t", "ext4", "-d", boot.parent, image, "96m"], check=True,
                   stdout=subprocess.DEVNULL, timeout=HANG_S)
    return image


def test_pv_grub_starts_the_kernel_on_the_disk(world):
    if not GRUB.exists():
        raise Skip("no grub-xen-host")
    image = world.path("disk.img")
    guest = Guest(world, SCRIPT, vcpus=2, base="stock.cpio", kernel=str(GRUB), ramdisk=None,
                  cmdline=None, disks=[f"{image},raw,xvda,w"])
    disk_image(world, guest)
    guest.create()
    guest.expect("^@@ hello from the disk$")
    seen = int(guest.expect(r"^@@ processors (\d+)").group(1))
    need(seen == 2, f"the guest sees {seen} processors of 2")
    guest.finished()
