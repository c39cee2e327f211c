/* SPDX-License-Identifier: MIT */
/* Linux patches its own text when the first virtual machine of a host appears and when
 * the last one goes: a branch in the scheduler (preempt notifiers), and one in KVM
 * while any vCPU has its APIC switched off, as each has before it first runs.  The
 * patch is a breakpoint for a moment.  QEMU before 8.1 does not lock a page of code
 * while it translates it: a processor that comes by in that moment may keep a
 * translation of the breakpoint for ever, and its kernel, which finds none in memory,
 * sends it back to the same place each time.  L1 then serves interrupts and does
 * nothing else.
 *
 * With a virtual machine held, whose one vCPU never runs, neither branch changes. */
#include "kvm_hold.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

int kvm_hold(const char **what)
{
    int kvm, vm;

    *what = "/dev/kvm";
    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        return -errno;
    *what = "KVM_CREATE_VM";
    vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0)
        return -errno;
    /* a vCPU has an APIC only where there is an I/O APIC for it */
    *what = "KVM_CREATE_IRQCHIP";
    if (ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0)
        return -errno;
    *what = "KVM_CREATE_VCPU";
    if (ioctl(vm, KVM_CREATE_VCPU, 0) < 0)
        return -errno;
    return 0;
}
