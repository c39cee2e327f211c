/* SPDX-License-Identifier: MIT */
/* One blkif ring (xen/io/blkif.h, xen/io/ring.h), seen from the backend: requests
 * in, engine requests out, responses back.  It belongs to one thread, the one
 * that owns the engine's queue.
 *
 * The guest can write every byte of the ring at any time.  So: a slot is copied
 * once and only the copy is looked at; the producer index is read once per
 * batch, and one that claims more requests than the ring has room for stops this
 * ring for good (vbd_ring_fault()); any index is a valid start.  A malformed
 * request gets an error response and costs nobody else anything.
 *
 * A ring never has more requests taken and not answered than slots, so the
 * engine's queue, opened with vbd_ring_nr_entries() requests, never runs out. */
#ifndef XENOLITH_DEV_XEN_VBD_RING_H
#define XENOLITH_DEV_XEN_VBD_RING_H

#include "base/err.h"
#include "blk/queue.h"
#include "dev/xen_vbd_abi.h"
#include "dev/xen_vbd_grants.h"
#include "dev/xen_vbd_record.h"

#define VBD_RING_ORDER_MAX 4u
#define VBD_RING_PAGES_MAX (1u << VBD_RING_ORDER_MAX)

struct vbd_slot;

/* Written by the owner only, to be read from any thread. */
struct vbd_ring_counters {
    uint64_t requests;          /* taken */
    uint64_t segments;
    uint64_t bytes;             /* read and written with success */
    uint64_t errors;            /* responses that were not BLKIF_RSP_OKAY */
    uint64_t notifies;          /* response batches the guest wanted to hear of */
    uint64_t grants_held;       /* persistent ones, now */
};

struct vbd_ring {
    /* constant */
    const struct vbd_abi *abi;
    struct blk_queue *queue;
    uint8_t *page[VBD_RING_PAGES_MAX];
    uint32_t nr_entries;                /* a power of two */
    struct vbd_slot *slot;              /* by request index */
    struct vbd_hold *hold;              /* VBD_SEGMENTS_MAX for each: vbd_slot's .record */

    uint32_t req_cons;
    uint32_t rsp_prod;                  /* private; rsp_published is what the guest sees */
    uint32_t rsp_published;
    struct blk_req *barrier;            /* taken; nothing is taken after it until it is over */
    bool barrier_started;
    bool closed;                        /* vbd_ring_close() */
    const char *fault;                  /* why the ring was stopped; NULL: it was not */
    struct vbd_grants grants;
    struct vbd_ring_counters counters;
    struct vbd_record record;           /* head NULL: there is none */
    struct vbd_record_left left;        /* of another life, to be done before all else ... */
    unsigned left_at;                   /* from here on */
    unsigned nr_record_free, nr_answered;
    uint16_t record_free[VBD_RECORD_ENTRIES_MAX], answered[VBD_RECORD_ENTRIES_MAX];
    struct blkif_request_segment segment[VBD_SEGMENTS_MAX];    /* of the request being judged */
};

struct vbd_ring_params {
    const struct vbd_abi *abi;
    void *const *pages;                 /* host addresses, one per ring page */
    unsigned nr_pages;                  /* a power of two up to VBD_RING_PAGES_MAX */
    struct gnttab_host *grants;
    bool persistent;
    const struct vbd_record *record;    /* of this ring, and nobody else's now; NULL: none */
};

/* Requests a ring of nr_pages has room for. */
uint32_t vbd_ring_nr_entries(const struct vbd_abi *abi, unsigned nr_pages);

/* Continues where the shared indexes stand, or the record.  0 or -ENOMEM. */
int vbd_ring_init(struct vbd_ring *r, const struct vbd_ring_params *p);
/* The engine's queue, whose complete callback must be vbd_ring_complete with r. */
void vbd_ring_set_queue(struct vbd_ring *r, struct blk_queue *queue);
/* Takes no more requests; those taken (in another life too) still get their answers, and those
 * that the ring holds by now get an error at once: a frontend may wait for them. */
void vbd_ring_close(struct vbd_ring *r);
/* Nothing may be in flight. */
void vbd_ring_free(struct vbd_ring *r);

/* Takes up to max requests and submits them to the engine (not yet flushed).
 * How many were taken. */
unsigned vbd_ring_take(struct vbd_ring *r, unsigned max);
/* How many of the requests taken the guest has not seen answered, as it says: a hint. */
uint32_t vbd_ring_guest_depth(const struct vbd_ring *r);
/* Whether something waits for vbd_ring_take() though the ring has nothing new. */
static inline bool vbd_ring_has_taken(const struct vbd_ring *r)
{
    return r->barrier != NULL || r->left_at < r->left.nr;
}
void vbd_ring_complete(void *ring, struct blk_req *req);

/* Shows the guest all responses so far.  True when it asked to be notified. */
bool vbd_ring_publish(struct vbd_ring *r);

/* Asks the guest to notify of its next request.  True when there is one already:
 * then do not sleep. */
bool vbd_ring_arm(struct vbd_ring *r);

/* Why the ring was stopped, NULL while it runs.  Text is constant. */
static inline const char *vbd_ring_fault(const struct vbd_ring *r)
{
    return r->fault;
}

#endif
