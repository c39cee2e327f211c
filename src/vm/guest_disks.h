/* SPDX-License-Identifier: MIT */
/* The disks of one guest: those it was made with, and those that come and go while it runs.
 * On the loop's thread. */
#ifndef XENOLITH_VM_GUEST_DISKS_H
#define XENOLITH_VM_GUEST_DISKS_H

#include "blk/size_watch.h"
#include "dev/xen_vbd.h"
#include "vm/guest.h"

struct guest_disks {
    /* what all of them share; the fields of one disk are left out */
    struct xen_vbd_params common;
    const struct vm_config *config;
    void (*detached)(void *arg, unsigned vdev_number);
    void *arg;
    struct blk_size_watch *sizes;       /* from the first disk on a block device on */
    struct xen_vbd *vbd[VM_DISKS_MAX];
    unsigned nr;
};

/* -EEXIST when the guest has a disk of that number. */
int guest_disks_add(struct guest_disks *g, const struct vm_disk *d, bool bootable,
                    struct err *e);
/* As the functions of vm/guest.h. */
int guest_disks_detach(struct guest_disks *g, unsigned vdev_number, bool force, struct err *e);
int guest_disks_resize(struct guest_disks *g, unsigned vdev_number, uint64_t *size_bytes,
                       struct err *e);
unsigned guest_disks_list(const struct guest_disks *g, struct vm_guest_disk *out);
/* Requests in flight are completed first. */
void guest_disks_remove_all(struct guest_disks *g);

#endif
