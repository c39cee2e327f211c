/* SPDX-License-Identifier: MIT */
/* What the fuzzers of this room have in common: the script they are given, and a disk whose
 * driver checks what reaches it: that all memory is the guest's, that vectors have the lengths
 * they claim, and that nothing is beyond the disk's end. */
#ifndef WATCHED_DISK_H
#define WATCHED_DISK_H

#include <stdlib.h>
#include <string.h>

#include "blk/driver.h"

#define DISK_SECTORS 4096u
#define HELD_MAX     512u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define require(x) do { if (!(x)) abort(); } while (0)

struct input { const uint8_t *at; size_t left; };

static inline uint32_t take(struct input *in, unsigned bytes)
{
    uint32_t v = 0;

    for (; bytes && in->left; bytes--, in->left--)
        v = v << 8 | *in->at++;
    return v;
}

struct watched_disk {
    struct blk_disk disk;
    const uint8_t *ram;             /* the guest's */
    size_t ram_bytes;
    unsigned max_iov;
    bool later;                     /* keep requests until told */
    int result;
    struct blk_req *held[HELD_MAX];
    unsigned nr_held;
    unsigned nr_submitted, nr_done;
};

static inline void watched_check(const struct watched_disk *w, const struct blk_req *req)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < req->nr_iov; i++) {
        const uint8_t *base = req->iov[i].iov_base;

        require(base >= w->ram && req->iov[i].iov_len <= w->ram_bytes &&
                base + req->iov[i].iov_len <= w->ram + w->ram_bytes);
        sum += req->iov[i].iov_len;
    }
    if (req->op == BLK_OP_READ || req->op == BLK_OP_WRITE)
        require(sum == req->length_bytes && req->nr_iov <= w->max_iov);
    if (req->op != BLK_OP_FLUSH)
        require(req->offset_bytes + req->length_bytes <= DISK_SECTORS * BLK_SECTOR_BYTES);
}

static inline void watched_finish(struct blk_queue *q, struct watched_disk *w,
                                  struct blk_req *req)
{
    if (req->op == BLK_OP_READ)
        for (unsigned i = 0; i < req->nr_iov; i++)
            memset(req->iov[i].iov_base, 0x5a, req->iov[i].iov_len);
    w->nr_done++;
    blk_req_done(q, req, w->result);
}

static inline void watched_submit(struct blk_queue *q, struct blk_req *req)
{
    struct watched_disk *w = q->disk_state;

    watched_check(w, req);
    w->nr_submitted++;
    if (w->later) {
        require(w->nr_held < HELD_MAX);
        w->held[w->nr_held++] = req;
    } else {
        watched_finish(q, w, req);
    }
}

static inline int watched_queue_open(struct blk_queue *q, void **state, struct err *e)
{
    return 0;
}

static inline void watched_nothing(struct blk_queue *q)
{
}

static inline void watched_init(struct watched_disk *w, const uint8_t *ram, size_t ram_bytes,
                                unsigned max_iov, bool can_write_zeroes)
{
    static const struct blk_driver driver = {
        .name = "watched", .summary = "checks", .queue_open = watched_queue_open,
        .queue_close = watched_nothing, .submit = watched_submit, .flush = watched_nothing,
        .poll = watched_nothing, .wait = blk_wait_fd,
    };

    *w = (struct watched_disk){
        .ram = ram, .ram_bytes = ram_bytes, .max_iov = max_iov,
        .disk = { .driver = &driver, .state = w,
                  .props = { .size_bytes = DISK_SECTORS * BLK_SECTOR_BYTES, .can_flush = true,
                             .can_discard = true, .can_write_zeroes = can_write_zeroes } },
    };
}

static inline void watched_finish_held(struct watched_disk *w, struct blk_queue *q)
{
    while (w->nr_held)
        watched_finish(q, w, w->held[--w->nr_held]);
    blk_queue_reap(q);
}

#endif
