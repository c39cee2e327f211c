/* SPDX-License-Identifier: MIT */
/* Opening a raw image or a block device of the host, finding out what it can do, and
 * following its size. */
#ifndef XENOLITH_BLK_FILE_IMAGE_H
#define XENOLITH_BLK_FILE_IMAGE_H

#include <pthread.h>

#include "base/err.h"
#include "blk/disk.h"

struct file_image {
    int fd;
    int claim_fd;               /* file_claim.h; -1: another process has claimed it */
    bool handed;                /* by another process, which has this one confined */
    int keep_fd;                /* blk_handed; the caller's */
    uint64_t data_end_bytes;    /* the file's length when its size was taken: it may end
                                 * inside the disk's last sector */
    pthread_mutex_t size_lock;  /* for whoever changes the file's length */
    bool in_memory;             /* tmpfs, ramfs: system calls on it do not wait */
    bool block_device;
    bool direct;
};

/* 0 or -errno with e naming the file. */
int file_image_open(const struct blk_spec *spec, struct file_image *img,
                    struct blk_props *props, struct err *e);
void file_image_close(struct file_image *img);

/* As blk_disk_resize(). */
int file_image_resize(struct file_image *img, uint64_t size_bytes, struct blk_props *props,
                      struct err *e);
/* A write that was judged by a larger size has come after a smaller one: takes what it
 * appended off the file.  Any thread. */
void file_image_trim(struct file_image *img, const struct blk_props *props);

#endif
