/* SPDX-License-Identifier: MIT */
/* The kernel tells when a block device of the host has got another size (a uevent): disks on
 * one follow by themselves, as they do under Xen. */
#ifndef XENOLITH_BLK_SIZE_WATCH_H
#define XENOLITH_BLK_SIZE_WATCH_H

#include "base/loop.h"
#include "base/types.h"

struct blk_size_watch;

/* changed() comes on the loop's thread, when some block device has changed, or may have.  NULL
 * with errno set where the kernel does not tell, as perhaps in a container. */
struct blk_size_watch *blk_size_watch_create(struct loop *loop, void (*changed)(void *arg),
                                             void *arg);
/* NULL is allowed. */
void blk_size_watch_free(struct blk_size_watch *w);

/* Whether a uevent, len bytes of 0-terminated lines, says that a block device has another
 * size. */
bool blk_size_event(const char *msg, size_t len);

#endif
