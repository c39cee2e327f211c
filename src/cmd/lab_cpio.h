/* SPDX-License-Identifier: MIT */
/* Writes an initramfs: a cpio archive in the "newc" format
 * (Documentation/driver-api/early-userspace/buffer-format.rst in Linux). */
#ifndef XENOLITH_CMD_LAB_CPIO_H
#define XENOLITH_CMD_LAB_CPIO_H

#include "base/types.h"

/* A growing archive in memory.  A failed allocation is remembered and told by
 * lab_cpio_finish(), so callers need not check every step. */
struct lab_cpio {
    uint8_t *data;
    size_t size_bytes;
    size_t room_bytes;
    uint32_t nr_entries;
    int error;              /* 0 or the first -errno */
};

void lab_cpio_init(struct lab_cpio *c);
void lab_cpio_free(struct lab_cpio *c);

/* path is relative, without a leading slash; its parents must have been added
 * before.  mode holds the permission bits.  Everything belongs to root and dates
 * from the epoch, so equal input gives equal bytes. */
void lab_cpio_add_dir(struct lab_cpio *c, const char *path, uint32_t mode);
void lab_cpio_add_file(struct lab_cpio *c, const char *path, uint32_t mode,
                       const void *data, size_t size_bytes);
/* A character device node. */
void lab_cpio_add_char_device(struct lab_cpio *c, const char *path, uint32_t mode,
                              uint32_t major, uint32_t minor);

/* Adds the trailer.  0, -ENOMEM, or -EFBIG when a file is larger than the format
 * can say (4 GiB).  After it data and size_bytes are the archive. */
int lab_cpio_finish(struct lab_cpio *c);

#endif
