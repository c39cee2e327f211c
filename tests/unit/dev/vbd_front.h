/* SPDX-License-Identifier: MIT */
/* A frontend for tests of the block backend: guest memory with a real grant
 * table, a ring of any order, and two eventfds in place of an event channel. */
#ifndef VBD_FRONT_H
#define VBD_FRONT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/atomic.h"
#include "blk/driver.h"
#include "dev/xen_vbd_abi.h"
#include "dev/xen_vbd_ring.h"
#include "mem/guest_mem.h"
#include "xen/gnttab_host.h"
#include "xen/hostport.h"

#define GUEST_PAGES  8192u
#define GRANT_FRAMES 16u
#define RAM_BASE     (1 * MIB)

/* Reference n grants page n. */
struct guest {
    struct guest_mem mem;
    struct gnttab_host grants;
    struct grant_entry_v1 *entries;
    struct gnttab_state state;
};

static inline void guest_init(struct guest *g)
{
    struct err e = { 0 };

    memset(g, 0, sizeof(*g));
    guest_mem_init(&g->mem);
    assert_int_equal(guest_mem_add(&g->mem, gpa(RAM_BASE),
                                   (GUEST_PAGES + GRANT_FRAMES) * PAGE_SIZE, "ram", false, &e), 0);
    g->entries = guest_mem_ptr(&g->mem, gpa(RAM_BASE + GUEST_PAGES * PAGE_SIZE),
                               GRANT_FRAMES * PAGE_SIZE);
    g->state = (struct gnttab_state){ .nr_frames = GRANT_FRAMES, .version = 1 };
    assert_int_equal(gnttab_host_init(&g->grants, &g->mem, &(struct gnttab_table){
                         .frames = g->entries, .state = &g->state, .nr_frames_max = GRANT_FRAMES,
                     }), 0);
}

static inline void guest_free(struct guest *g)
{
    gnttab_host_free(&g->grants);
    guest_mem_free(&g->mem);
}

static inline uint8_t *guest_page(struct guest *g, uint32_t page)
{
    return guest_mem_ptr(&g->mem, gpa(RAM_BASE + page * PAGE_SIZE), PAGE_SIZE);
}

static inline uint32_t guest_grant(struct guest *g, uint32_t page, bool readonly)
{
    struct grant_entry_v1 *e = &g->entries[page];

    e->domid = 0;
    e->frame = (uint32_t)((RAM_BASE >> PAGE_SHIFT) + page);
    store_release(&e->flags, (uint16_t)(GTF_permit_access | (readonly ? GTF_readonly : 0)));
    return page;
}

static inline bool guest_grant_in_use(struct guest *g, uint32_t ref)
{
    return load_acquire(&g->entries[ref].flags) & (GTF_reading | GTF_writing);
}

/* How many of all grants are in use. */
static inline unsigned guest_grants_in_use(struct guest *g)
{
    unsigned nr = 0;

    for (uint32_t i = 0; i < GUEST_PAGES; i++)
        nr += guest_grant_in_use(g, i);
    return nr;
}

/* The frontend's end of one ring.  Its pages are first_page, +2, +4 ...: not
 * neighbours. */
struct front {
    struct guest *guest;
    uint32_t first_page;
    unsigned nr_pages;
    uint32_t nr_entries;
    uint32_t req_prod, rsp_cons;
    void *page[VBD_RING_PAGES_MAX];
    struct xen_hostlink link;
    struct xen_hostwaker waker;         /* halted, unless a test says otherwise */
    struct xen_hostload load;           /* not known, unless a test says otherwise */
    struct xen_hostcall call;           /* used where a test lets vCPUs call */
    struct xen_hostport port;
};

static inline struct blkif_sring *front_sring(struct front *f)
{
    return f->page[0];
}

static inline void front_init(struct front *f, struct guest *g, uint32_t first_page,
                              unsigned nr_pages, uint32_t start)
{
    memset(f, 0, sizeof(*f));
    f->guest = g;
    f->first_page = first_page;
    f->nr_pages = nr_pages;
    for (unsigned i = 0; i < nr_pages; i++) {
        f->page[i] = guest_page(g, first_page + 2 * i);
        guest_grant(g, first_page + 2 * i, false);
    }
    /* what the official macro says the ring has room for */
    f->nr_entries = (uint32_t)__CONST_RING_SIZE(blkif, nr_pages * PAGE_SIZE);
    f->req_prod = f->rsp_cons = start;
    front_sring(f)->req_prod = front_sring(f)->rsp_prod = start;
    front_sring(f)->req_event = front_sring(f)->rsp_event = start + 1;
    f->port = (struct xen_hostport){
        .kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
        .irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
        .link = &f->link,
        .wakers = &f->waker,
        .nr_wakers = 1,
        .links = &f->link,
        .load = &f->load,
    };
    f->waker.state = XEN_HOSTWAKER_HALTED;
}

static inline void front_free(struct front *f)
{
    close(f->port.kick_fd);
    close(f->port.irq_fd);
}

static inline void front_bytes(struct front *f, uint32_t index, void *buf, size_t len, bool put)
{
    size_t at = offsetof(struct blkif_sring, ring) +
                (index % f->nr_entries) * sizeof(union blkif_sring_entry);

    for (size_t i = 0; i < len; i++, at++) {
        uint8_t *shared = (uint8_t *)f->page[at / PAGE_SIZE] + at % PAGE_SIZE;

        if (put)
            *shared = ((uint8_t *)buf)[i];
        else
            ((uint8_t *)buf)[i] = *shared;
    }
}

/* Writes a request of any kind into the next slot; not yet shown to the backend. */
#define front_put(f, request) front_put_bytes(f, request, sizeof(*(request)))

static inline void front_put_bytes(struct front *f, const void *request, size_t size)
{
    union blkif_sring_entry entry;

    memset(&entry, 0, sizeof(entry));
    memcpy(&entry, request, size);
    front_bytes(f, f->req_prod++, &entry, sizeof(entry), true);
}

/* Shows what was put; true when the backend wants to be notified. */
static inline bool front_publish(struct front *f)
{
    uint32_t old = front_sring(f)->req_prod, new = f->req_prod;

    store_release(&front_sring(f)->req_prod, new);
    barrier_full();
    return new - load_relaxed(&front_sring(f)->req_event) < new - old;
}

/* The next response, if there is one. */
static inline bool front_get(struct front *f, struct blkif_response *rsp)
{
    if (load_acquire(&front_sring(f)->rsp_prod) == f->rsp_cons)
        return false;
    front_bytes(f, f->rsp_cons++, rsp, sizeof(*rsp), false);
    return true;
}

/* Asks to be notified of the next response; true when there is one already. */
static inline bool front_arm(struct front *f)
{
    store_relaxed(&front_sring(f)->rsp_event, f->rsp_cons + 1);
    barrier_full();
    return load_relaxed(&front_sring(f)->rsp_prod) != f->rsp_cons;
}

static inline void front_kick(struct front *f)
{
    const uint64_t one = 1;

    assert_int_equal(write(f->port.kick_fd, &one, sizeof(one)), sizeof(one));
}

/* Sleeps until the backend raises the interrupt, and takes the event. */
static inline void front_sleep(struct front *f)
{
    struct pollfd p = { .fd = f->port.irq_fd, .events = POLLIN };
    uint64_t n;

    poll(&p, 1, -1);
    assert_int_equal(read(f->port.irq_fd, &n, sizeof(n)), sizeof(n));
    swap_acq_rel(&f->port.link->pending, 0);
}

/* A request whose nr segments are whole pages from first_page on, granted. */
static inline struct blkif_request front_request(struct front *f, uint8_t op, uint64_t id,
                                                 uint64_t sector, uint32_t first_page,
                                                 uint8_t nr)
{
    struct blkif_request r;

    memset(&r, 0, sizeof(r));
    r.operation = op;
    r.id = id;
    r.sector_number = sector;
    r.nr_segments = nr;
    for (unsigned i = 0; i < nr && i < BLKIF_MAX_SEGMENTS_PER_REQUEST; i++)
        r.seg[i] = (struct blkif_request_segment){
            .gref = first_page + i, .first_sect = 0, .last_sect = 7,
        };
    return r;
}

#endif
