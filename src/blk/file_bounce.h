/* SPDX-License-Identifier: MIT */
/* O_DIRECT wants memory that is aligned; a firmware or a boot loader does not know that.  What
 * such a request moves goes through a buffer of the queue's, one request at a time, which is
 * as fast as it has to be. */
#ifndef XENOLITH_BLK_FILE_BOUNCE_H
#define XENOLITH_BLK_FILE_BOUNCE_H

#include "blk/queue.h"

struct file_bounce {
    uint8_t *buffer;                        /* NULL: never needed */
    struct blk_req *owner;                  /* whose turn it is */
    struct blk_req *waiting, **waiting_tail;
};

/* 0 or -ENOMEM.  Memory is taken when it is used. */
int file_bounce_open(struct file_bounce *b);
void file_bounce_close(struct file_bounce *b);

/* Whether what is left of a read or write lies in memory that O_DIRECT may refuse. */
static inline bool file_bounce_needed(const struct file_bounce *b, const struct blk_req *req)
{
    uintptr_t bits = 0;

    if (!b->buffer)
        return false;
    for (unsigned i = 0; i < req->nr_iov; i++)
        bits |= (uintptr_t)req->iov[i].iov_base | req->iov[i].iov_len;
    return bits % BLK_SECTOR_BYTES;
}

/* What is to be read or written in req's place, in *piece.  False: it waits its turn. */
bool file_bounce_begin(struct file_bounce *b, struct blk_req *req, struct iovec *piece);
/* The attempt gave result: bytes or -errno.  The buffer is free again. */
void file_bounce_end(struct file_bounce *b, struct blk_req *req, int64_t result);
/* Who has waited longest, if the buffer is free; it waits no more. */
struct blk_req *file_bounce_next(struct file_bounce *b);

#endif
