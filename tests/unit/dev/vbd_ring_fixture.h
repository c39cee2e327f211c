/* SPDX-License-Identifier: MIT */
/* A ring by itself, on the test's own thread, over a driver that keeps every request
 * until it is told to finish it. */
#ifndef TESTS_UNIT_DEV_VBD_RING_FIXTURE_H
#define TESTS_UNIT_DEV_VBD_RING_FIXTURE_H

#include "vbd_front.h"

#define DISK_BYTES (64 * MIB)
#define RING_PAGE  4u           /* pages 4, 6, 8 ... are the ring's */
#define DATA_PAGE  64u          /* data from here on */

/* ---- the driver: a disk in memory, finished by hand ---- */

struct held_disk {
    uint8_t *data;
    bool automatic;             /* finish within submit() */
    int result;                 /* of what is finished */
    struct blk_req *req[512];
    unsigned nr;
    enum blk_op log[1024];      /* in order of submission */
    unsigned nr_log;
    unsigned nr_iov_last;
};

static inline void held_finish(struct blk_queue *q, struct held_disk *h, struct blk_req *req)
{
    uint8_t *at = h->data + req->offset_bytes;

    for (unsigned i = 0; !h->result && i < req->nr_iov; i++) {
        if (req->op == BLK_OP_READ)
            memcpy(req->iov[i].iov_base, at, req->iov[i].iov_len);
        else if (req->op == BLK_OP_WRITE)
            memcpy(at, req->iov[i].iov_base, req->iov[i].iov_len);
        at += req->iov[i].iov_len;
    }
    if (req->op == BLK_OP_DISCARD && !h->result)
        memset(at, 0, req->length_bytes);
    blk_req_done(q, req, h->result);
}

static inline void held_submit(struct blk_queue *q, struct blk_req *req)
{
    struct held_disk *h = q->disk_state;

    h->log[h->nr_log++ % array_size(h->log)] = req->op;
    h->nr_iov_last = req->nr_iov;
    if (h->automatic)
        held_finish(q, h, req);
    else
        h->req[h->nr++] = req;
}

static inline int held_queue_open(struct blk_queue *q, void **state, struct err *e)
{
    return 0;
}

static inline void held_nothing(struct blk_queue *q)
{
}

static const struct blk_driver held_driver = {
    .name = "held", .summary = "for tests", .queue_open = held_queue_open,
    .queue_close = held_nothing, .submit = held_submit, .flush = held_nothing,
    .poll = held_nothing, .wait = blk_wait_fd,
};

/* ---- the fixture ---- */

struct fixture {
    struct guest guest;
    struct front front;
    struct held_disk held;
    struct blk_disk disk;
    struct blk_queue *queue;
    struct vbd_ring ring;
};

static inline void open_ring(struct fixture *f, unsigned nr_pages, uint32_t start, bool persistent)
{
    struct blk_queue_params qp = {
        .max_iov = VBD_SEGMENTS_MAX, .wake_fd = -1, .complete = vbd_ring_complete,
        .arg = &f->ring,
    };
    struct err e = { 0 };

    memset(f, 0, sizeof(*f));
    guest_init(&f->guest);
    for (uint32_t i = DATA_PAGE; i < GUEST_PAGES; i++)
        guest_grant(&f->guest, i, false);
    front_init(&f->front, &f->guest, RING_PAGE, nr_pages, start);
    f->held.data = calloc(1, DISK_BYTES);
    f->held.automatic = true;
    f->disk = (struct blk_disk){
        .driver = &held_driver, .state = &f->held,
        .props = { .size_bytes = DISK_BYTES, .can_flush = true, .can_discard = true },
    };
    assert_int_equal(vbd_ring_init(&f->ring, &(struct vbd_ring_params){
        .abi = vbd_abi_find(NULL), .pages = f->front.page, .nr_pages = nr_pages,
        .grants = &f->guest.grants, .persistent = persistent,
    }), 0);
    qp.nr_reqs = f->ring.nr_entries;
    assert_int_equal(blk_queue_open(&f->disk, &qp, &f->queue, &e), 0);
    vbd_ring_set_queue(&f->ring, f->queue);
}

static inline void finish_all(struct fixture *f)
{
    while (f->held.nr)
        held_finish(f->queue, &f->held, f->held.req[--f->held.nr]);
    blk_queue_reap(f->queue);
}

static inline void close_ring(struct fixture *f)
{
    vbd_ring_close(&f->ring);
    do {
        vbd_ring_take(&f->ring, 1);
        finish_all(f);
    } while (blk_queue_nr_inflight(f->queue));
    vbd_ring_free(&f->ring);
    /* every page taken was given back */
    assert_int_equal(guest_grants_in_use(&f->guest), 0);
    blk_queue_close(f->queue);
    free(f->held.data);
    front_free(&f->front);
    guest_free(&f->guest);
}

/* The backend's turn; true when the frontend is to be notified. */
static inline bool turn(struct fixture *f)
{
    while (vbd_ring_take(&f->ring, 7) + blk_queue_reap(f->queue))
        ;
    return vbd_ring_publish(&f->ring);
}

#define run(f, request, out) run_bytes(f, request, sizeof(*(request)), out)

static inline int16_t run_bytes(struct fixture *f, const void *request, size_t size,
                                struct blkif_response *out)
{
    struct blkif_response rsp;

    front_put_bytes(&f->front, request, size);
    front_publish(&f->front);
    turn(f);
    assert_true(front_get(&f->front, &rsp));
    if (out)
        *out = rsp;
    return rsp.status;
}

static inline struct blkif_request_indirect indirect(struct fixture *f, uint8_t op,
                                                     uint64_t sector, uint32_t list_page,
                                                     uint32_t first_page, uint16_t nr)
{
    struct blkif_request_segment *seg = (void *)guest_page(&f->guest, list_page);
    struct blkif_request_indirect r;

    memset(&r, 0, sizeof(r));
    r.operation = BLKIF_OP_INDIRECT;
    r.indirect_op = op;
    r.nr_segments = nr;
    r.id = 99;
    r.sector_number = sector;
    r.indirect_grefs[0] = list_page;
    for (unsigned i = 0; i < nr && i < 512; i++)
        seg[i] = (struct blkif_request_segment){ first_page + i, 0, 7 };
    return r;
}

#endif
