/* SPDX-License-Identifier: MIT */
/* One line of disk=[...]: xl-disk-configuration(5), with some of our own:
 * driver=, size=, quota=, pool=, reconnect=, filter=, persistent-grants and backend=process.
 * Syntax only; what Xenolith can serve is judged in config_disk.c. */
#ifndef XENOLITH_VM_DISK_SPEC_H
#define XENOLITH_VM_DISK_SPEC_H

#include "base/err.h"
#include "vm/config.h"

#define VM_DISK_SPEC_BLANKS " \t\n"     /* that do not count before a parameter */

/* Reads spec into *out, whose strings the caller then frees with
 * vm_disk_spec_free(); line is left 0.  vdev is for a spec that names none; NULL: it must.
 * On failure *out holds nothing and e the text, not the place.  0, -EINVAL, -ERANGE or -ENOMEM. */
int vm_disk_spec_parse(const char *spec, const char *vdev, struct vm_disk *out, struct err *e);
void vm_disk_spec_free(struct vm_disk *d);

/* The number that stands for a virtual device in xenstore and blkif:
 * xen-vbd-interface(7).  Takes xvdX[N], dX[pN], sdX[N], hdX[N] or the number
 * itself.  -EINVAL when vdev is none of these or out of its range. */
int vm_disk_vdev_number(const char *vdev, unsigned *number);

#endif
