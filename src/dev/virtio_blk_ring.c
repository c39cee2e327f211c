/* SPDX-License-Identifier: MIT */
/* A request is a chain: pieces to read, which begin with the header, then pieces to write,
 * which end with the status byte; the data is what is left of either.  How it is cut into
 * pieces is the driver's business (section 2.6.4). */
#include "dev/virtio_blk_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/atomic.h"

#define SEGMENTS_MAX 1u         /* of a discard or write-zeroes: what the device announces */

struct vblk_slot {
    uint8_t *status;
    uint32_t in_bytes;          /* the status included */
    uint16_t id, nr_descs, inflight;
    uint16_t nr_written;        /* pieces in ring->written */
};

/* What a chain is made of. */
struct vblk_request {
    struct virtio_blk_outhdr header;
    struct iovec *out, *in;     /* the data */
    unsigned nr_out, nr_in;
    struct vblk_slot slot;
};

static void count(uint64_t *counter, uint64_t n)
{
    store_relaxed(counter, *counter + n);
}

unsigned vblk_ring_nr_reqs(unsigned num)
{
    return min_of(num, BLK_QUEUE_REQS_MAX);
}

static size_t written_bytes(const struct vblk_ring *r)
{
    return (size_t)r->nr_reqs * VBLK_IOV_MAX * sizeof(*r->written);
}

int vblk_ring_init(struct vblk_ring *r, const struct vblk_ring_params *p)
{
    r->queue = NULL;
    r->nr_reqs = vblk_ring_nr_reqs(p->vq.num);
    r->writethrough = p->writethrough;
    r->serial = p->serial;
    r->closed = false;
    r->written = NULL;
    r->counters = (struct vblk_ring_counters){ 0 };
    r->slot = calloc(r->nr_reqs, sizeof(*r->slot));
    if (!r->slot)
        return -ENOMEM;
    if (p->vq.log) {
        /* mmap: what is not used takes no memory */
        r->written = mmap(NULL, written_bytes(r), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (r->written == MAP_FAILED) {
            free(r->slot);
            return -ENOMEM;
        }
    }
    virtqueue_init(&r->vq, &p->vq);
    return 0;
}

void vblk_ring_set_queue(struct vblk_ring *r, struct blk_queue *queue)
{
    r->queue = queue;
}

void vblk_ring_close(struct vblk_ring *r)
{
    r->closed = true;
}

void vblk_ring_free(struct vblk_ring *r)
{
    if (r->written)
        munmap(r->written, written_bytes(r));
    free(r->slot);
}

/* ---- answering ---- */

static void answer(struct vblk_ring *r, const struct vblk_slot *slot, uint8_t status)
{
    store_relaxed(slot->status, status);
    if (unlikely(r->vq.p.log))
        virtqueue_log(&r->vq, slot->status, 1);
    /* what was not written is not said to be: of a failed read, nothing is known */
    virtqueue_put(&r->vq, slot->id, slot->nr_descs, slot->inflight,
                  status == VIRTIO_BLK_S_OK ? slot->in_bytes : 0);
    if (unlikely(status != VIRTIO_BLK_S_OK))
        count(&r->counters.errors, 1);
}

static uint8_t status_of(int result)
{
    return !result ? VIRTIO_BLK_S_OK : result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP
                                                             : VIRTIO_BLK_S_IOERR;
}

void vblk_ring_complete(void *ring, struct blk_req *req)
{
    struct vblk_ring *r = ring;
    struct vblk_slot *slot = &r->slot[req->index];

    if (unlikely(slot->nr_written)) {
        const struct iovec *iov = r->written + (size_t)req->index * VBLK_IOV_MAX;

        for (unsigned i = 0; i < slot->nr_written; i++)
            virtqueue_log(&r->vq, iov[i].iov_base, iov[i].iov_len);
    }
    answer(r, slot, status_of(req->result));
    blk_req_put(r->queue, req);
}

/* ---- judging ---- */

/* The first bytes of *iov go to `to`; *iov and *nr become what is left.  False: too short. */
static bool pieces_read(struct iovec **iov, unsigned *nr, void *to, size_t bytes)
{
    char *at = to;

    while (bytes && *nr) {
        size_t n = min_of(bytes, (*iov)->iov_len);

        memcpy(at, (*iov)->iov_base, n);
        at += n;
        bytes -= n;
        (*iov)->iov_base = (char *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
        if (!(*iov)->iov_len) {
            (*iov)++;
            (*nr)--;
        }
    }
    barrier_compiler();     /* what is judged is what was copied */
    return !bytes;
}

static uint64_t pieces_bytes(const struct iovec *iov, unsigned nr)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < nr; i++)
        bytes += iov[i].iov_len;
    return bytes;
}

/* Takes header and status off the chain.  False: they are not there. */
static bool chain_parse(struct virtqueue_chain *c, struct vblk_request *q)
{
    struct iovec *last;
    uint64_t in_bytes;

    q->out = c->iov;
    q->nr_out = c->nr_out;
    q->in = c->iov + c->nr_out;
    q->nr_in = c->nr_in;
    if (!q->nr_in || !pieces_read(&q->out, &q->nr_out, &q->header, sizeof(q->header)))
        return false;
    in_bytes = pieces_bytes(q->in, q->nr_in);
    last = &q->in[q->nr_in - 1];
    last->iov_len--;
    q->slot = (struct vblk_slot){
        .status = (uint8_t *)last->iov_base + last->iov_len,
        .in_bytes = (uint32_t)min_of(in_bytes, (uint64_t)UINT32_MAX),
        .id = c->id, .nr_descs = c->nr_descs, .inflight = c->slot,
    };
    if (!last->iov_len)
        q->nr_in--;
    return true;
}

/* ---- running ---- */

static void data_submit(struct vblk_ring *r, struct vblk_request *q, enum blk_op op)
{
    const struct iovec *iov = op == BLK_OP_READ ? q->in : q->out;
    unsigned nr = op == BLK_OP_READ ? q->nr_in : q->nr_out;
    struct blk_req *req;

    /* what the engine counts in bytes must fit; whether it is the disk's, the engine judges */
    if (unlikely(nr > VBLK_IOV_MAX || q->header.sector > UINT64_MAX / BLK_SECTOR_BYTES)) {
        answer(r, &q->slot, VIRTIO_BLK_S_IOERR);
        return;
    }
    req = blk_req_get(r->queue, nr);
    req->op = op;
    req->offset_bytes = q->header.sector * BLK_SECTOR_BYTES;
    req->nr_iov = nr;
    for (unsigned i = 0; i < nr; i++) {
        req->iov[i] = iov[i];
        req->length_bytes += iov[i].iov_len;
    }
    req->fua = op == BLK_OP_WRITE && load_relaxed(r->writethrough);
    if (unlikely(r->written) && op == BLK_OP_READ) {
        /* the engine changes its own copy */
        memcpy(r->written + (size_t)req->index * VBLK_IOV_MAX, iov, nr * sizeof(*iov));
        q->slot.nr_written = (uint16_t)nr;
    }
    r->slot[req->index] = q->slot;
    blk_req_submit(r->queue, req);
}

/* Discard and write-zeroes: their data is a list of segments, which has one. */
static void range_submit(struct vblk_ring *r, struct vblk_request *q, enum blk_op op)
{
    uint32_t known = op == BLK_OP_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
    struct virtio_blk_discard_write_zeroes range;
    struct blk_req *req;

    if (pieces_bytes(q->out, q->nr_out) != SEGMENTS_MAX * sizeof(range) ||
        !pieces_read(&q->out, &q->nr_out, &range, sizeof(range)) ||
        range.sector > UINT64_MAX / BLK_SECTOR_BYTES) {
        answer(r, &q->slot, VIRTIO_BLK_S_IOERR);
        return;
    }
    if (range.flags & ~known) {
        answer(r, &q->slot, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    req = blk_req_get(r->queue, 0);
    req->op = op;
    req->offset_bytes = range.sector * BLK_SECTOR_BYTES;
    req->length_bytes = (uint64_t)range.num_sectors * BLK_SECTOR_BYTES;
    r->slot[req->index] = q->slot;
    blk_req_submit(r->queue, req);
}

static void flush_submit(struct vblk_ring *r, struct vblk_request *q)
{
    struct blk_req *req = blk_req_get(r->queue, 0);

    req->op = BLK_OP_FLUSH;
    r->slot[req->index] = q->slot;
    blk_req_submit(r->queue, req);
}

static void id_answer(struct vblk_ring *r, struct vblk_request *q)
{
    char id[VIRTIO_BLK_ID_BYTES] = "";
    size_t at = 0;

    memcpy(id, r->serial, strnlen(r->serial, sizeof(id)));
    for (unsigned i = 0; i < q->nr_in && at < sizeof(id); i++) {
        size_t n = min_of(sizeof(id) - at, q->in[i].iov_len);

        memcpy(q->in[i].iov_base, id + at, n);
        virtqueue_log(&r->vq, q->in[i].iov_base, n);
        at += n;
    }
    answer(r, &q->slot, VIRTIO_BLK_S_OK);
}

static void request_take(struct vblk_ring *r, struct virtqueue_chain *c)
{
    struct vblk_request q;

    if (unlikely(!chain_parse(c, &q))) {
        virtqueue_stop(&r->vq, "a request without a header or a status");
        return;
    }
    switch (q.header.type) {
    case VIRTIO_BLK_T_IN:
        data_submit(r, &q, BLK_OP_READ);
        break;
    case VIRTIO_BLK_T_OUT:
        data_submit(r, &q, BLK_OP_WRITE);
        break;
    case VIRTIO_BLK_T_FLUSH:
        flush_submit(r, &q);
        break;
    case VIRTIO_BLK_T_DISCARD:
        range_submit(r, &q, BLK_OP_DISCARD);
        break;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        range_submit(r, &q, BLK_OP_WRITE_ZEROES);
        break;
    case VIRTIO_BLK_T_GET_ID:
        id_answer(r, &q);
        break;
    default:
        answer(r, &q.slot, VIRTIO_BLK_S_UNSUPP);
        break;
    }
}

static bool has_room(const struct vblk_ring *r)
{
    return blk_queue_nr_inflight(r->queue) < r->nr_reqs;
}

unsigned vblk_ring_take(struct vblk_ring *r, unsigned max)
{
    struct virtqueue_chain c;
    unsigned nr = 0;

    if (unlikely(r->closed))
        return 0;
    for (; nr < max && has_room(r) && virtqueue_take(&r->vq, &c); nr++)
        request_take(r, &c);
    if (nr)
        count(&r->counters.requests, nr);
    return nr;
}

bool vblk_ring_publish(struct vblk_ring *r)
{
    if (!virtqueue_publish(&r->vq))
        return false;
    count(&r->counters.notifies, 1);
    return true;
}

bool vblk_ring_arm(struct vblk_ring *r)
{
    /* with no room, a completion is what ends the sleep */
    return !r->closed && virtqueue_arm(&r->vq) && has_room(r);
}
