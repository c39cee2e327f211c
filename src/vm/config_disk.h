/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_VM_CONFIG_DISK_H
#define XENOLITH_VM_CONFIG_DISK_H

#include "vm/config.h"
#include "vm/xlcfg.h"

/* Reads disk=[...] into c->disks and refuses what cannot be served.  On failure
 * what was read so far stays in c, for vm_config_free(). */
int vm_config_disks_read(struct vm_config *c, const struct xlcfg_setting *disk,
                         struct err *e);

/* Refuses a disk that cannot be served; one that can may get another target, what xl makes
 * of it, and another driver, what its target or format takes.  An empty drive is left to the
 * caller. */
int vm_config_disk_judge(struct vm_disk *d, struct err *e);

/* The image's format as QEMU calls it; NULL where the disk is just the bytes of its target. */
const char *vm_config_disk_image_format(const struct vm_disk *d);

#endif
