/* SPDX-License-Identifier: MIT */
/* Opening a raw image or a block device of the host, and finding out what it can
 * do. */
#ifndef XENOLITH_BLK_FILE_IMAGE_H
#define XENOLITH_BLK_FILE_IMAGE_H

#include "base/err.h"
#include "blk/disk.h"

struct file_image {
    int fd;
    int claim_fd;               /* file_claim.h */
    uint64_t data_end_bytes;    /* the file's length when opened: it may end inside
                                 * the disk's last sector */
    bool in_memory;             /* tmpfs, ramfs: system calls on it do not wait */
    bool block_device;
    bool direct;
};

/* 0 or -errno with e naming the file. */
int file_image_open(const struct blk_spec *spec, struct file_image *img,
                    struct blk_props *props, struct err *e);
void file_image_close(struct file_image *img);

#endif
