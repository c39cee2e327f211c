/* SPDX-License-Identifier: MIT */
/* Inside the lab: one virtual machine that never runs, for as long as the lab lives. */
#ifndef XENOLITH_LAB_KVM_HOLD_H
#define XENOLITH_LAB_KVM_HOLD_H

/* Makes the machine; it is gone with this process.  Returns 0, or -errno with what
 * failed in *what (a constant). */
int kvm_hold(const char **what);

#endif
