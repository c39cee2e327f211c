/* SPDX-License-Identifier: MIT */
/* Mapping a grant is: copy the 8-byte entry in one load, judge the copy, and set
 * the in-use bits with one compare-and-exchange of the same 8 bytes, so that what
 * was judged is what was granted when the bits went in.  Unmapping takes the bits
 * away.
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
 * A guest that follows the ABI changes an entry under us at most by revoking it and
 * granting anew, each once; MAP_TRIES changes during one look-up are an entry that
 * is being played with.  Clearing cannot fail: it is a single atomic AND, whatever
 * the guest made of the entry meanwhile. */
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "base/atomic.h"
#include "xen/gnttab.h"
#include "xen/gnttab_host.h"

#define MAP_TRIES   5
#define WAIT_SPINS  100

#define COUNT_BUSY  ((uint64_t)1 << 63)
#define COUNT_WRITE ((uint64_t)1 << 32)     /* one holder for writing: bits 32-62 */
#define COUNT_READ  ((uint64_t)1)           /* one for reading: bits 0-31 */

struct gnttab_host_counts {
    uint64_t holders[GNTTAB_REFS_PER_FRAME];
};

union entry {
    struct grant_entry_v1 e;
    uint64_t raw;
};

int gnttab_host_init(struct gnttab_host *h, const struct guest_mem *mem, void *frames,
                     const uint32_t *nr_frames, uint32_t nr_frames_max)
{
    *h = (struct gnttab_host){
        .mem = mem, .entries = frames, .nr_frames = nr_frames, .nr_frames_max = nr_frames_max,
    };
    h->counts = calloc(nr_frames_max, sizeof(*h->counts));
    return h->counts ? 0 : -ENOMEM;
}

void gnttab_host_free(struct gnttab_host *h)
{
    for (uint32_t i = 0; i < h->nr_frames_max; i++)
        free(h->counts[i]);
    free(h->counts);
    h->counts = NULL;
}

/* The counts of a frame of references, made on its first use; NULL: no memory. */
static struct gnttab_host_counts *counts_get(struct gnttab_host *h, uint32_t frame)
{
    struct gnttab_host_counts *c = load_acquire(&h->counts[frame]), *fresh;

    if (likely(c))
        return c;
    fresh = calloc(1, sizeof(*fresh));
    if (!fresh)
        return NULL;
    /* pairs with the acquire above: zeroes first; of two threads one wins */
    if (__atomic_compare_exchange_n(&h->counts[frame], &c, fresh, false, __ATOMIC_ACQ_REL,
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

/* Judges a copy of an entry; the page on success. */
static int entry_judge(const struct gnttab_host *h, const union entry *copy, bool write,
                       void **page)
{
    if ((copy->e.flags & (GTF_type_mask | GTF_sub_page)) != GTF_permit_access)
        return -EINVAL;
    if (copy->e.domid != 0 || (write && copy->e.flags & GTF_readonly))
        return -EPERM;
    *page = guest_mem_ptr(h->mem, gpa((uint64_t)copy->e.frame << PAGE_SHIFT), PAGE_SIZE);
    return *page ? 0 : -EFAULT;
}

/* Sets the in-use bits in the entry as it was judged. */
static int entry_hold(const struct gnttab_host *h, uint32_t ref, bool write, void **page)
{
    uint64_t *raw = (uint64_t *)(void *)&h->entries[ref];
    union entry copy = { .raw = load_acquire(raw) };

    for (unsigned try = 0; try < MAP_TRIES; try++) {
        union entry held;
        int ret = entry_judge(h, &copy, write, page);

        if (ret)
            return ret;
        held = copy;
        held.e.flags |= write ? GTF_reading | GTF_writing : GTF_reading;
        /* Also when the bits are set already: the exchange proves that the entry
         * still is what was judged, and orders the bits before any use of the page. */
        if (__atomic_compare_exchange_n(raw, &copy.raw, held.raw, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_ACQUIRE))
            return 0;
    }
    return -EAGAIN;
}

int gnttab_host_map(struct gnttab_host *h, uint32_t ref, bool write, void **page)
{
    /* pairs with the release in gnttab_setup_table() */
    uint32_t nr_frames = min_of(load_acquire(h->nr_frames), h->nr_frames_max);
    uint32_t frame = ref / GNTTAB_REFS_PER_FRAME;
    struct gnttab_host_counts *c;
    uint64_t *holders, n;
    int ret;

    if (frame >= nr_frames)
        return -EINVAL;
    c = counts_get(h, frame);
    if (!c)
        return -ENOMEM;
    holders = &c->holders[ref % GNTTAB_REFS_PER_FRAME];
    n = holders_enter(holders);
    ret = entry_hold(h, ref, write, page);
    if (!ret)
        n += write ? COUNT_WRITE : COUNT_READ;
    holders_leave(holders, n);
    return ret;
}

void gnttab_host_unmap(struct gnttab_host *h, uint32_t ref, bool write)
{
    struct gnttab_host_counts *c = load_acquire(&h->counts[ref / GNTTAB_REFS_PER_FRAME]);
    uint64_t *holders = &c->holders[ref % GNTTAB_REFS_PER_FRAME];
    uint64_t n = holders_enter(holders);
    uint16_t gone = 0;

    /* the caller maps what it unmaps */
    assert(write ? n >= COUNT_WRITE : (n & (COUNT_WRITE - 1)) != 0);
    n -= write ? COUNT_WRITE : COUNT_READ;
    if (n < COUNT_WRITE)
        gone |= GTF_writing;
    if (!n)
        gone |= GTF_reading;
    /* a locked instruction: uses of the page come before the guest sees the bits go */
    if (gone)
        fetch_and(&h->entries[ref].flags, (uint16_t)~gone);
    holders_leave(holders, n);
}
