/* SPDX-License-Identifier: MIT */
/* The grant table as it lies in memory, in either version: what the shim's calls and
 * the host's look-ups (gnttab_host.h) have in common.  Freestanding.
 *
 * Version 1 is an array of 8-byte entries whose flags hold the in-use bits.  Version 2
 * has 16-byte entries, and the in-use bits in words of their own, the status frames.
 * All of it is the guest's to write, at any time.
 *
 * Specification: <xen/grant_table.h> */
#ifndef XENOLITH_XEN_GNTTAB_ENTRY_H
#define XENOLITH_XEN_GNTTAB_ENTRY_H

#include "base/atomic.h"
#include "base/types.h"

#include <xen/xen.h>
#include <xen/grant_table.h>

#define GNTTAB_REFS_PER_FRAME_V1 (PAGE_SIZE / sizeof(struct grant_entry_v1))
#define GNTTAB_REFS_PER_FRAME_V2 (PAGE_SIZE / sizeof(union grant_entry_v2))
#define GNTTAB_STATUS_PER_FRAME  (PAGE_SIZE / sizeof(grant_status_t))
/* Status frames that go with so many frames of entries. */
#define GNTTAB_STATUS_FRAMES(nr_frames) \
    (((nr_frames) * GNTTAB_REFS_PER_FRAME_V2 + GNTTAB_STATUS_PER_FRAME - 1) / \
     GNTTAB_STATUS_PER_FRAME)

#define GTF_IN_USE (GTF_reading | GTF_writing)

/* In force; the shim writes, the host reads and does not trust. */
struct gnttab_state {
    uint32_t nr_frames;
    uint32_t version;
};

/* Frames for the largest table allowed, zero-filled, each array contiguous. */
struct gnttab_table {
    void *frames;                       /* nr_frames_max pages */
    grant_status_t *status;             /* GNTTAB_STATUS_FRAMES(nr_frames_max) pages */
    struct gnttab_state *state;
    uint32_t nr_frames_max;
};

/* 1 or 2, whatever the word says. */
static inline unsigned gnttab_version(const struct gnttab_table *t)
{
    /* pairs with the release in gnttab_set_version(): entries of that version */
    return load_acquire(&t->state->version) == 2 ? 2 : 1;
}

/* References that the frames in use have room for. */
static inline uint64_t gnttab_nr_refs(const struct gnttab_table *t, unsigned version)
{
    /* pairs with the release in gnttab_setup_table() */
    uint32_t nr = min_of(load_acquire(&t->state->nr_frames), t->nr_frames_max);

    return nr * (version == 2 ? GNTTAB_REFS_PER_FRAME_V2 : GNTTAB_REFS_PER_FRAME_V1);
}

static inline struct grant_entry_v1 *gnttab_v1(const struct gnttab_table *t, grant_ref_t ref)
{
    return (struct grant_entry_v1 *)t->frames + ref;
}

static inline union grant_entry_v2 *gnttab_v2(const struct gnttab_table *t, grant_ref_t ref)
{
    return (union grant_entry_v2 *)t->frames + ref;
}

/* Where the in-use bits of a reference are. */
static inline uint16_t *gnttab_in_use(const struct gnttab_table *t, unsigned version,
                                      grant_ref_t ref)
{
    return version == 2 ? &t->status[ref] : &gnttab_v1(t, ref)->flags;
}

/* For whom an entry is to be good, and for what. */
struct gnttab_want {
    domid_t by;
    bool write;
    bool copy;          /* by the hypervisor: then part of a page will do, and another's grant */
    bool pinned;        /* it is in use by the same domain: only writing is a question */
    uint16_t held;      /* in-use bits that are there rightly, and stay when this fails */
};

/* What an entry grants: a copy. */
struct gnttab_grant {
    uint64_t frame;
    uint16_t offset, length;    /* bytes of the frame; length is PAGE_SIZE for a whole page */
    bool transitive;            /* none of the above, but what that domain grants: */
    domid_t trans_domid;
    grant_ref_t trans_ref;
};

/* Judges entry ref, which the table has, and marks it as in use: 0.
 * -EINVAL: it does not grant access of that kind; -EPERM: it grants it to another, or
 * only for reading; -EAGAIN: the guest keeps changing it. */
int gnttab_entry_hold(const struct gnttab_table *t, unsigned version, grant_ref_t ref,
                      const struct gnttab_want *want, struct gnttab_grant *grant);
/* Takes in-use bits away; a locked instruction: uses of the page come before the guest
 * sees them go. */
void gnttab_entry_drop(const struct gnttab_table *t, unsigned version, grant_ref_t ref,
                       uint16_t bits);

#endif
