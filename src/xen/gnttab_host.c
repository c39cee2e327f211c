/* SPDX-License-Identifier: MIT */
/* Mapping a grant is judging its entry and setting the in-use bits (gnttab_entry.c);
 * unmapping takes the bits away.
 *
 * The bits must be true: set for as long as anybody holds the page, or the guest
 * reuses a page that is still being written; and gone afterwards, or the guest can
 * never revoke the grant.  Several queues may hold one reference, so holders are
 * counted per reference, and the first and the last of them change the bits.  No
 * scheme can leave that to count and bits as two separate atomic words: after
 * the last holder's count reaches 0, a new holder may set the bits that the old
 * one is just about to clear, and there is no spare bit in the entry by which the
 * old one could tell.  So whoever changes a count marks it busy while it changes
 * the bits, a few instructions; others who want the same reference in that instant
 * wait.  Queues of a guest use references of their own, so they do not meet here,
 * and a guest that makes them meet slows its own requests.
 *
 * Clearing cannot fail: it is a single atomic AND, whatever the guest made of the
 * entry meanwhile.  Where the bits are, the version in force says; it cannot change
 * while a guest that follows the ABI has us hold anything. */
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "base/atomic.h"
#include "xen/gnttab_host.h"

#define WAIT_SPINS  100

#define COUNT_BUSY  ((uint64_t)1 << 63)
#define COUNT_WRITE ((uint64_t)1 << 32)     /* one holder for writing: bits 32-62 */
#define COUNT_READ  ((uint64_t)1)           /* one for reading: bits 0-31 */

/* By reference, whatever the version: a frame of version 1 has the most. */
#define COUNTS_REFS GNTTAB_REFS_PER_FRAME_V1

struct gnttab_host_counts {
    uint64_t holders[COUNTS_REFS];
};

int gnttab_host_init(struct gnttab_host *h, const struct guest_mem *mem,
                     const struct gnttab_table *table)
{
    *h = (struct gnttab_host){ .mem = mem, .table = *table };
    h->counts = calloc(table->nr_frames_max, sizeof(struct gnttab_host_counts *));
    return h->counts ? 0 : -ENOMEM;
}

void gnttab_host_free(struct gnttab_host *h)
{
    for (uint32_t i = 0; i < h->table.nr_frames_max; i++)
        free(h->counts[i]);
    free(h->counts);
    h->counts = NULL;
}

/* The counts of a reference and its neighbours, made on first use; NULL: no memory. */
static struct gnttab_host_counts *counts_get(struct gnttab_host *h, uint32_t ref)
{
    struct gnttab_host_counts **at = &h->counts[ref / COUNTS_REFS];
    struct gnttab_host_counts *c = load_acquire(at), *fresh;

    if (likely(c))
        return c;
    fresh = calloc(1, sizeof(*fresh));
    if (!fresh)
        return NULL;
    /* pairs with the acquire above: zeroes first; of two threads one wins */
    if (__atomic_compare_exchange_n(at, &c, fresh, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return fresh;
    free(fresh);
    return c;
}

/* Marks the count busy and returns what it was. */
static uint64_t holders_enter(uint64_t *holders)
{
    for (unsigned spins = 0; ; spins++) {
        uint64_t n = load_relaxed(holders);

        /* pairs with the release in holders_leave() */
        if (likely(!(n & COUNT_BUSY)) &&
            __atomic_compare_exchange_n(holders, &n, n | COUNT_BUSY, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED))
            return n;
        if (spins < WAIT_SPINS)
            cpu_relax();
        else
            sched_yield();      /* the other thread may have lost its processor */
    }
}

static void holders_leave(uint64_t *holders, uint64_t n)
{
    store_release(holders, n);
}

/* The in-use bits that so many holders need. */
static uint16_t holders_use(uint64_t n)
{
    if (n >= COUNT_WRITE)
        return GTF_IN_USE;
    return n ? GTF_reading : 0;
}

/* Sets the in-use bits of a reference that has n holders, and finds its page. */
static int entry_hold(const struct gnttab_host *h, unsigned version, uint32_t ref,
                      struct gnttab_want *want, uint64_t n, struct gnttab_grant *grant,
                      void **page)
{
    int rc;

    want->held = holders_use(n);
    rc = gnttab_entry_hold(&h->table, version, ref, want, grant);
    if (rc)
        return rc;
    *page = NULL;
    if (grant->transitive)
        return 0;
    if (!(grant->frame >> (64 - PAGE_SHIFT)))
        *page = guest_mem_ptr(h->mem, gpa(grant->frame << PAGE_SHIFT), PAGE_SIZE);
    if (*page)
        return 0;
    gnttab_entry_drop(&h->table, version, ref, (uint16_t)(GTF_IN_USE & ~want->held));
    return -EFAULT;
}

static int hold(struct gnttab_host *h, uint32_t ref, struct gnttab_want *want,
                struct gnttab_grant *grant, void **page)
{
    unsigned version = gnttab_version(&h->table);
    struct gnttab_host_counts *c;
    uint64_t *holders, n;
    int ret;

    if (ref >= gnttab_nr_refs(&h->table, version))
        return -EINVAL;
    c = counts_get(h, ref);
    if (!c)
        return -ENOMEM;
    holders = &c->holders[ref % COUNTS_REFS];
    n = holders_enter(holders);
    ret = entry_hold(h, version, ref, want, n, grant, page);
    if (!ret)
        n += want->write ? COUNT_WRITE : COUNT_READ;
    holders_leave(holders, n);
    return ret;
}

int gnttab_host_map(struct gnttab_host *h, uint32_t ref, bool write, void **page)
{
    struct gnttab_want want = { .by = 0, .write = write };
    struct gnttab_grant grant;

    return hold(h, ref, &want, &grant, page);
}

int gnttab_host_hold(struct gnttab_host *h, domid_t by, uint32_t ref, bool write, bool copy,
                     struct gnttab_grant *grant)
{
    struct gnttab_want want = { .by = by, .write = write, .copy = copy };
    void *page;

    return hold(h, ref, &want, grant, &page);
}

void gnttab_host_unmap(struct gnttab_host *h, uint32_t ref, bool write)
{
    struct gnttab_host_counts *c = load_acquire(&h->counts[ref / COUNTS_REFS]);
    uint64_t *holders = &c->holders[ref % COUNTS_REFS];
    uint64_t n = holders_enter(holders);
    unsigned version = gnttab_version(&h->table);

    /* the caller maps what it unmaps */
    assert(write ? n >= COUNT_WRITE : (n & (COUNT_WRITE - 1)) != 0);
    n -= write ? COUNT_WRITE : COUNT_READ;
    /* a version that a guest has changed all the same may not go that far */
    if (ref < gnttab_nr_refs(&h->table, version))
        gnttab_entry_drop(&h->table, version, ref, (uint16_t)(GTF_IN_USE & ~holders_use(n)));
    holders_leave(holders, n);
}

void gnttab_host_settle(struct gnttab_host *h, uint32_t ref)
{
    unsigned version = gnttab_version(&h->table);
    struct gnttab_host_counts *c;
    uint64_t *holders, n;

    if (ref >= gnttab_nr_refs(&h->table, version))
        return;
    c = load_acquire(&h->counts[ref / COUNTS_REFS]);
    if (!c) {       /* nobody here has ever held it */
        gnttab_entry_drop(&h->table, version, ref, GTF_IN_USE);
        return;
    }
    holders = &c->holders[ref % COUNTS_REFS];
    n = holders_enter(holders);
    gnttab_entry_drop(&h->table, version, ref, (uint16_t)(GTF_IN_USE & ~holders_use(n)));
    holders_leave(holders, n);
}
