/* SPDX-License-Identifier: MIT */
#include "blk/file_bounce.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define BOUNCE_BYTES ((size_t)256 * KIB)

int file_bounce_open(struct file_bounce *b)
{
    void *buffer = mmap(NULL, BOUNCE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (buffer == MAP_FAILED)
        return -ENOMEM;
    *b = (struct file_bounce){ .buffer = buffer };
    b->waiting_tail = &b->waiting;
    return 0;
}

void file_bounce_close(struct file_bounce *b)
{
    if (b->buffer)
        munmap(b->buffer, BOUNCE_BYTES);
}

/* Copies up to nr bytes between the buffer and the beginning of req's vector. */
static size_t copy(struct file_bounce *b, const struct blk_req *req, size_t nr, bool to_buffer)
{
    size_t at = 0;

    for (unsigned i = 0; i < req->nr_iov && at < nr; i++) {
        size_t n = min_of(nr - at, req->iov[i].iov_len);

        if (to_buffer)
            memcpy(b->buffer + at, req->iov[i].iov_base, n);
        else
            memcpy(req->iov[i].iov_base, b->buffer + at, n);
        at += n;
    }
    return at;
}

bool file_bounce_begin(struct file_bounce *b, struct blk_req *req, struct iovec *piece)
{
    size_t left = min_of(req->length_bytes - req->progress_bytes, (uint64_t)BOUNCE_BYTES);

    if (b->owner) {
        req->next = NULL;
        *b->waiting_tail = req;
        b->waiting_tail = &req->next;
        return false;
    }
    b->owner = req;
    if (req->op == BLK_OP_WRITE)
        copy(b, req, left, true);
    *piece = (struct iovec){ b->buffer, left };
    return true;
}

void file_bounce_end(struct file_bounce *b, struct blk_req *req, int64_t result)
{
    b->owner = NULL;
    if (result > 0 && req->op == BLK_OP_READ)
        copy(b, req, (size_t)result, false);
}

struct blk_req *file_bounce_next(struct file_bounce *b)
{
    struct blk_req *req = b->owner ? NULL : b->waiting;

    if (req) {
        b->waiting = req->next;
        if (!b->waiting)
            b->waiting_tail = &b->waiting;
        req->next = NULL;
    }
    return req;
}
