/* SPDX-License-Identifier: MIT */
/* A request's way:
 *
 *   slot copied -> parsed -> judged -> pages taken -> steps submitted one after
 *   another -> pages given back -> response
 *
 * Steps: most requests have one.  BLKIF_OP_WRITE_BARRIER is flush, write, flush;
 * BLKIF_OP_FLUSH_DISKCACHE that carries data is flush, write.  A barrier also
 * orders the ring: it starts when everything taken before it is answered, and
 * nothing behind it is taken until it is (r->barrier).  Its promise is per ring,
 * as in Linux's backend.
 *
 * Every request that was taken is answered exactly once: by request_refuse() when
 * it is malformed, else by vbd_ring_complete() after its last or failing step. */
#include "dev/xen_vbd_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/atomic.h"

#define SECTORS_PER_PAGE (PAGE_SIZE / BLK_SECTOR_BYTES)

enum vbd_step { STEP_FLUSH_BEFORE = 1, STEP_DATA = 2, STEP_FLUSH_AFTER = 4 };

struct vbd_slot {
    uint64_t id;
    uint8_t operation;          /* the response's: of an indirect request, what it is for */
    uint8_t steps;              /* still to be submitted: enum vbd_step */
    uint8_t data_op;            /* enum blk_op of STEP_DATA */
    uint16_t record;            /* the slot of the record, or what stands for one */
    unsigned nr_holds;
};

/* ---- the shared words; the first page begins with struct blkif_sring ---- */

static struct blkif_sring *sring(const struct vbd_ring *r)
{
    return (struct blkif_sring *)(void *)r->page[0];
}

static uint32_t event_check(uint32_t event, uint32_t old, uint32_t new)
{
    return (uint32_t)(new - event) < (uint32_t)(new - old);
}

/* Ring pages need not be neighbours in memory, and slots may straddle them. */
static void slot_copy(const struct vbd_ring *r, uint32_t index, void *out)
{
    size_t entry = r->abi->entry_bytes;
    size_t at = offsetof(struct blkif_sring, ring) + (index & (r->nr_entries - 1)) * entry;
    size_t in_page = at & PAGE_MASK;
    size_t first = min_of(entry, (size_t)PAGE_SIZE - in_page);

    memcpy(out, r->page[at >> PAGE_SHIFT] + in_page, first);
    if (first < entry)
        memcpy((char *)out + first, r->page[(at >> PAGE_SHIFT) + 1], entry - first);
    /* what is judged is what was copied: the compiler may not read the slot again */
    barrier_compiler();
}

/* ---- the record: what becomes of a request, in the order that it asks for ---- */

/* A slot of it for the request that is the next one of the ring; there is one free. */
static uint16_t record_take(struct vbd_ring *r, const struct vbd_request *in)
{
    uint16_t index = r->record_free[--r->nr_record_free];
    struct vbd_record_slot *s = &r->record.slot[index];

    s->seq = r->req_cons;
    s->nr_holds = 0;
    s->request = *in;
    store_release(&s->state, VBD_RECORD_TAKEN);
    store_release(&r->record.head->req_cons, r->req_cons + 1);
    return index;
}

static void record_answer(struct vbd_ring *r, uint16_t index, uint32_t rsp)
{
    struct vbd_record_slot *s = &r->record.slot[index];

    s->rsp = rsp;
    store_release(&s->state, VBD_RECORD_ANSWERED);
    r->answered[r->nr_answered++] = index;
}

static void record_publishing(struct vbd_ring *r, uint32_t rsp_prod)
{
    store_release(&r->record.head->rsp_publishing, rsp_prod);
}

static void record_published(struct vbd_ring *r, uint32_t rsp_prod)
{
    while (r->nr_answered) {
        uint16_t index = r->answered[--r->nr_answered];

        store_release(&r->record.slot[index].state, VBD_RECORD_FREE);
        r->record_free[r->nr_record_free++] = index;
    }
    store_release(&r->record.head->rsp_published, rsp_prod);
}

static void record_holds(struct vbd_ring *r, const struct vbd_slot *slot)
{
    if (r->record.head)
        store_release(&r->record.slot[slot->record].nr_holds, (uint32_t)slot->nr_holds);
}

/* Goes on where the last one ended. */
static void record_open(struct vbd_ring *r, struct gnttab_host *grants)
{
    const struct vbd_record *record = &r->record;
    struct vbd_record_head *head = record->head;

    if (vbd_record_adopt(record, &sring(r)->rsp_prod, grants, &r->left)) {
        r->left.nr = 0;
        r->fault = "the record of the requests is damaged";
        return;
    }
    for (unsigned i = 0; i < record->nr_entries; i++)
        if (record->slot[i].state == VBD_RECORD_FREE)
            r->record_free[r->nr_record_free++] = (uint16_t)i;
    r->req_cons = head->req_cons;
    r->rsp_prod = r->rsp_published = head->rsp_published;
    if (head->faulted) {
        head->fault[sizeof(head->fault) - 1] = 0;
        r->fault = head->fault;
    }
}

/* ---- answers ---- */

static void response_write(struct vbd_ring *r, uint16_t record, uint64_t id, uint8_t operation,
                           int16_t status)
{
    uint8_t rsp[VBD_ENTRY_BYTES_MAX];
    size_t size = r->abi->response_bytes;
    size_t at = offsetof(struct blkif_sring, ring) +
                (r->rsp_prod & (r->nr_entries - 1)) * r->abi->entry_bytes;
    size_t in_page = at & PAGE_MASK;
    size_t first = min_of(size, (size_t)PAGE_SIZE - in_page);

    r->abi->respond(rsp, id, operation, status);
    memcpy(r->page[at >> PAGE_SHIFT] + in_page, rsp, first);
    if (first < size)
        memcpy(r->page[(at >> PAGE_SHIFT) + 1], rsp + first, size - first);
    if (r->record.head)
        record_answer(r, record, r->rsp_prod);
    r->rsp_prod++;
    if (status != BLKIF_RSP_OKAY)
        store_relaxed(&r->counters.errors, r->counters.errors + 1);
}

uint32_t vbd_ring_nr_entries(const struct vbd_abi *abi, unsigned nr_pages)
{
    size_t room = nr_pages * PAGE_SIZE - offsetof(struct blkif_sring, ring);
    uint32_t nr = 1;

    while (nr * 2 * abi->entry_bytes <= room)
        nr *= 2;
    return nr;
}

static size_t holds_size_bytes(const struct vbd_ring *r)
{
    return (size_t)r->nr_entries * VBD_SEGMENTS_MAX * sizeof(*r->hold);
}

static int holds_init(struct vbd_ring *r)
{
    void *at;

    if (r->record.head) {
        r->hold = r->record.hold;
        return 0;
    }
    /* mmap: what is not used takes no memory, and few requests are of full length */
    at = mmap(NULL, holds_size_bytes(r), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
              0);
    r->hold = at == MAP_FAILED ? NULL : at;
    return r->hold ? 0 : -ENOMEM;
}

static void holds_free(struct vbd_ring *r)
{
    if (r->hold && !r->record.head)
        munmap(r->hold, holds_size_bytes(r));
}

int vbd_ring_init(struct vbd_ring *r, const struct vbd_ring_params *p)
{
    memset(r, 0, sizeof(*r));
    r->abi = p->abi;
    for (unsigned i = 0; i < p->nr_pages; i++)
        r->page[i] = p->pages[i];
    r->nr_entries = vbd_ring_nr_entries(p->abi, p->nr_pages);
    r->slot = calloc(r->nr_entries, sizeof(*r->slot));
    if (!r->slot)
        return -ENOMEM;
    if (p->record)
        r->record = *p->record;
    if (holds_init(r) ||
        vbd_grants_init(&r->grants, p->grants, p->persistent, r->record.kept)) {
        holds_free(r);
        free(r->slot);
        return -ENOMEM;
    }
    r->rsp_prod = r->rsp_published = r->req_cons = load_relaxed(&sring(r)->rsp_prod);
    if (p->record)
        record_open(r, p->grants);
    return 0;
}

void vbd_ring_set_queue(struct vbd_ring *r, struct blk_queue *queue)
{
    r->queue = queue;
}

void vbd_ring_free(struct vbd_ring *r)
{
    vbd_grants_free(&r->grants);
    holds_free(r);
    free(r->slot);
}

/* ---- judging ---- */

static void request_refuse(struct vbd_ring *r, struct blk_req *req, int16_t status)
{
    const struct vbd_slot *slot = &r->slot[req->index];

    response_write(r, slot->record, slot->id, slot->operation, status);
    blk_req_put(r->queue, req);
}

static struct vbd_hold *slot_holds(const struct vbd_ring *r, const struct vbd_slot *slot)
{
    return r->hold + (size_t)slot->record * VBD_SEGMENTS_MAX;
}

static void holds_give(struct vbd_ring *r, const struct blk_req *req)
{
    struct vbd_slot *slot = &r->slot[req->index];
    const struct vbd_hold *hold = slot_holds(r, slot);

    for (unsigned i = 0; i < slot->nr_holds; i++)
        vbd_grants_give(&r->grants, &hold[i]);
    slot->nr_holds = 0;
    record_holds(r, slot);
}

/* The next page of a request.  It is in the record as soon as it may be in use. */
static int hold_take(struct vbd_ring *r, struct vbd_slot *slot, uint32_t ref, bool write,
                     void **page)
{
    int rc;

    slot->nr_holds++;
    record_holds(r, slot);
    rc = vbd_grants_take(&r->grants, ref, write, page, &slot_holds(r, slot)[slot->nr_holds - 1]);
    if (rc)
        slot->nr_holds--;
    return rc;
}

/* A private copy of an indirect request's descriptors in r->segment. */
static int indirect_copy(struct vbd_ring *r, struct blk_req *req, const struct vbd_request *in)
{
    void *page;
    int rc;

    _Static_assert(VBD_SEGMENTS_MAX * sizeof(struct blkif_request_segment) <= PAGE_SIZE,
                   "descriptors of the longest request fit one page");
    rc = hold_take(r, &r->slot[req->index], in->indirect_ref[0], false, &page);
    if (rc)
        return rc;
    memcpy(r->segment, page, in->nr_segments * sizeof(r->segment[0]));
    barrier_compiler();     /* as in slot_copy() */
    holds_give(r, req);
    return 0;
}

/* Takes the pages of segments into req's vector, joining neighbours.  0, or
 * -errno with nothing taken. */
static int segments_take(struct vbd_ring *r, struct blk_req *req,
                         const struct blkif_request_segment *segment, unsigned nr, bool write)
{
    struct vbd_slot *slot = &r->slot[req->index];
    uint64_t bytes = 0;

    for (unsigned i = 0; i < nr; i++) {
        unsigned first = segment[i].first_sect, last = segment[i].last_sect;
        struct iovec *tail = req->nr_iov ? &req->iov[req->nr_iov - 1] : NULL;
        size_t len = (last - first + 1) * BLK_SECTOR_BYTES;
        void *page;
        char *base;
        int rc = first > last || last >= SECTORS_PER_PAGE ? -EINVAL :
                 hold_take(r, slot, segment[i].gref, write, &page);

        if (rc) {
            holds_give(r, req);
            return rc;
        }
        base = (char *)page + first * BLK_SECTOR_BYTES;
        if (tail && (char *)tail->iov_base + tail->iov_len == base)
            tail->iov_len += len;
        else
            req->iov[req->nr_iov++] = (struct iovec){ base, len };
        bytes += len;
    }
    req->length_bytes = bytes;
    return 0;
}

/* Whether sectors can be counted in bytes; whether they are the disk's is for
 * the engine to judge. */
static bool sectors_count(uint64_t sectors)
{
    return sectors <= UINT64_MAX / BLK_SECTOR_BYTES;
}

/* Reads, writes, and what carries data like them.  0 or -errno. */
static int data_prepare(struct vbd_ring *r, struct blk_req *req, const struct vbd_request *in)
{
    struct vbd_slot *slot = &r->slot[req->index];
    const struct blkif_request_segment *segment = in->segment;
    unsigned nr_max = in->indirect ? VBD_SEGMENTS_MAX : BLKIF_MAX_SEGMENTS_PER_REQUEST;
    int rc;

    if (!in->nr_segments || in->nr_segments > nr_max || !sectors_count(in->sector))
        return -EINVAL;
    req->offset_bytes = in->sector * BLK_SECTOR_BYTES;
    if (in->indirect) {
        rc = indirect_copy(r, req, in);
        if (rc)
            return rc;
        segment = r->segment;
    }
    slot->data_op = in->data_operation == BLKIF_OP_READ ? BLK_OP_READ : BLK_OP_WRITE;
    slot->steps |= STEP_DATA;
    /* a read of the disk writes memory */
    rc = segments_take(r, req, segment, in->nr_segments, slot->data_op == BLK_OP_READ);
    if (!rc)
        store_relaxed(&r->counters.segments, r->counters.segments + in->nr_segments);
    return rc;
}

static int discard_prepare(struct vbd_ring *r, struct blk_req *req, const struct vbd_request *in)
{
    struct vbd_slot *slot = &r->slot[req->index];

    if (!sectors_count(in->sector) || !sectors_count(in->nr_sectors))
        return -EINVAL;
    req->offset_bytes = in->sector * BLK_SECTOR_BYTES;
    req->length_bytes = in->nr_sectors * BLK_SECTOR_BYTES;
    slot->data_op = BLK_OP_DISCARD;
    slot->steps = STEP_DATA;
    return 0;
}

/* What the request's operation makes of it: its steps, and its data. */
static int request_prepare(struct vbd_ring *r, struct blk_req *req, const struct vbd_request *in)
{
    struct vbd_slot *slot = &r->slot[req->index];

    switch (in->data_operation) {
    case BLKIF_OP_READ:
    case BLKIF_OP_WRITE:
        return data_prepare(r, req, in);
    case BLKIF_OP_WRITE_BARRIER:
    case BLKIF_OP_FLUSH_DISKCACHE:
        if (in->indirect)
            return -EINVAL;
        slot->steps = STEP_FLUSH_BEFORE;
        if (!in->nr_segments)
            return 0;
        if (in->data_operation == BLKIF_OP_WRITE_BARRIER)
            slot->steps |= STEP_FLUSH_AFTER;
        return data_prepare(r, req, in);
    case BLKIF_OP_DISCARD:
        return in->indirect ? -EINVAL : discard_prepare(r, req, in);
    default:
        return in->indirect ? -EINVAL : -EOPNOTSUPP;
    }
}

/* ---- running ---- */

static int16_t status_of(int result)
{
    return !result ? BLKIF_RSP_OKAY : result == -EOPNOTSUPP ? BLKIF_RSP_EOPNOTSUPP
                                                            : BLKIF_RSP_ERROR;
}

static void step_submit(struct vbd_ring *r, struct blk_req *req)
{
    struct vbd_slot *slot = &r->slot[req->index];
    uint8_t step = slot->steps & -slot->steps;      /* the lowest bit comes first */

    slot->steps &= (uint8_t)~step;
    req->op = step == STEP_DATA ? (enum blk_op)slot->data_op : BLK_OP_FLUSH;
    blk_req_submit(r->queue, req);
}

void vbd_ring_complete(void *ring, struct blk_req *req)
{
    struct vbd_ring *r = ring;
    struct vbd_slot *slot = &r->slot[req->index];

    if (!req->result && (req->op == BLK_OP_READ || req->op == BLK_OP_WRITE))
        store_relaxed(&r->counters.bytes, r->counters.bytes + req->length_bytes);
    if (!req->result && slot->steps) {
        step_submit(r, req);
        blk_queue_flush(r->queue);
        return;
    }
    holds_give(r, req);
    if (req == r->barrier) {
        r->barrier = NULL;
        r->barrier_started = false;
    }
    response_write(r, slot->record, slot->id, slot->operation, status_of(req->result));
    blk_req_put(r->queue, req);
}

/* record: in the record; without one, any number. */
static void request_take(struct vbd_ring *r, const struct vbd_request *in, uint16_t record)
{
    struct blk_req *req = blk_req_get(r->queue, in->nr_segments <= VBD_SEGMENTS_MAX
                                                ? in->nr_segments : 0);
    struct vbd_slot *slot = &r->slot[req->index];
    int rc;

    *slot = (struct vbd_slot){ .id = in->id, .operation = in->data_operation,
                               .record = r->record.head ? record : (uint16_t)req->index };
    rc = request_prepare(r, req, in);
    if (rc)
        request_refuse(r, req, status_of(rc));
    else if (in->operation == BLKIF_OP_WRITE_BARRIER)
        r->barrier = req;
    else
        step_submit(r, req);
}

/* True when nothing may be taken: a barrier waits or runs. */
static bool barrier_holds(struct vbd_ring *r)
{
    if (!r->barrier)
        return false;
    if (!r->barrier_started && !blk_queue_nr_inflight(r->queue)) {
        r->barrier_started = true;
        step_submit(r, r->barrier);
    }
    return true;
}

/* How many of those that another life has left; at most max. */
static unsigned left_take(struct vbd_ring *r, unsigned max)
{
    unsigned nr = 0;

    for (; nr < max && r->left_at < r->left.nr && !barrier_holds(r); nr++) {
        uint16_t slot = r->left.slot[r->left_at++];
        struct vbd_request in = r->record.slot[slot].request;

        barrier_compiler();     /* the copy is judged */
        request_take(r, &in, slot);
    }
    return nr;
}

/* Whether so many may have been produced.  With a record no less must have been seen answered,
 * which a frontend that follows the ABI cannot tell apart. */
static bool producer_possible(const struct vbd_ring *r, uint32_t prod)
{
    uint32_t rsp = r->record.head ? r->rsp_published : r->rsp_prod;

    return (uint32_t)(prod - rsp) <= r->nr_entries &&
           (uint32_t)(prod - r->req_cons) <= r->nr_entries;
}

/* The next request of the ring, and its slot in the record. */
static uint16_t ring_next(struct vbd_ring *r, struct vbd_request *in)
{
    /* of the ABIs' entry sizes, aligned for any of their fields */
    uint64_t entry[VBD_ENTRY_BYTES_MAX / sizeof(uint64_t)];
    uint16_t record = 0;

    slot_copy(r, r->req_cons, entry);
    r->abi->parse(entry, in);
    if (r->record.head)
        record = record_take(r, in);
    r->req_cons++;
    return record;
}

unsigned vbd_ring_take(struct vbd_ring *r, unsigned max)
{
    /* pairs with the frontend's barrier between slots and req_prod */
    uint32_t prod = load_acquire(&sring(r)->req_prod);
    unsigned left = left_take(r, max), nr = left;

    if (unlikely(r->fault || r->closed)) {
        barrier_holds(r);       /* one taken before still gets its answer */
        return nr;
    }
    if (unlikely(!producer_possible(r, prod))) {
        r->fault = "the frontend's request producer index is impossible";
        return nr;
    }
    while (nr < max && !barrier_holds(r) && r->req_cons != prod) {
        struct vbd_request in;
        uint16_t record = ring_next(r, &in);

        nr++;
        request_take(r, &in, record);
    }
    if (nr) {
        store_relaxed(&r->counters.requests, r->counters.requests + nr - left);
        store_relaxed(&r->counters.grants_held, (uint64_t)r->grants.nr_held);
    }
    barrier_holds(r);           /* the last one taken may start at once */
    return nr;
}

void vbd_ring_close(struct vbd_ring *r)
{
    /* pairs with the frontend's barrier between slots and req_prod */
    uint32_t prod = load_acquire(&sring(r)->req_prod);

    r->closed = true;
    if (r->fault || !producer_possible(r, prod))
        return;
    while (r->req_cons != prod) {
        struct vbd_request in;
        uint16_t record = ring_next(r, &in);

        response_write(r, record, in.id, in.data_operation, BLKIF_RSP_ERROR);
    }
}

uint32_t vbd_ring_guest_depth(const struct vbd_ring *r)
{
    /* having seen all answers, a guest asks to be told of the next */
    return r->req_cons + 1 - load_relaxed(&sring(r)->rsp_event);
}

bool vbd_ring_publish(struct vbd_ring *r)
{
    uint32_t old = r->rsp_published, new = r->rsp_prod;

    if (old == new)
        return false;
    r->rsp_published = new;
    if (r->record.head)
        record_publishing(r, new);
    /* pairs with the frontend's barrier after it reads rsp_prod */
    store_release(&sring(r)->rsp_prod, new);
    if (r->record.head)
        record_published(r, new);
    /* pairs with the frontend's between setting rsp_event and its last look at
     * rsp_prod: either it sees the responses or we see its wish */
    barrier_full();
    if (!event_check(load_relaxed(&sring(r)->rsp_event), old, new))
        return false;
    store_relaxed(&r->counters.notifies, r->counters.notifies + 1);
    return true;
}

bool vbd_ring_arm(struct vbd_ring *r)
{
    if (r->fault || r->closed)
        return false;
    store_relaxed(&sring(r)->req_event, r->req_cons + 1);
    /* pairs with the frontend's between req_prod and its look at req_event */
    barrier_full();
    return (load_relaxed(&sring(r)->req_prod) != r->req_cons || r->left_at < r->left.nr) &&
           !r->barrier;
}
