/* SPDX-License-Identifier: MIT */
/* Marking an entry as in use, such that what was judged is what was granted when the
 * mark went in.
 *
 * An entry of version 1 is one 8-byte word: it is copied in one load, judged, and the
 * bits go in by one compare-and-exchange of the same word.
 *
 * In version 2 the mark is elsewhere.  It is made first, and the entry judged once more
 * after it.  A guest revokes by clearing the flags and then looking at the mark, so one
 * of the two sees the other; and since it lets an entry that is marked alone, the rest
 * of the entry is good when it is read after that.
 *
 * A guest that follows the ABI changes an entry under us at most by revoking it and
 * granting anew, each once; HOLD_TRIES changes during one look are an entry that is
 * being played with. */
#include <errno.h>

#include "xen/gnttab_entry.h"

#define HOLD_TRIES 5

union header {
    struct grant_entry_header h;
    uint32_t raw;
};

union entry_v1 {
    struct { struct grant_entry_header h; uint32_t frame; } e;
    uint64_t raw;
};

static int judge(struct grant_entry_header h, unsigned version, const struct gnttab_want *want)
{
    unsigned type = h.flags & GTF_type_mask;

    if (want->pinned)
        return want->write && (h.flags & GTF_readonly) ? -EPERM : 0;
    if (type != GTF_permit_access &&
        !(type == GTF_transitive && version == 2 && want->copy))
        return -EINVAL;
    if ((h.flags & GTF_sub_page) && !want->copy)
        return -EINVAL;
    if (h.domid != want->by || (want->write && (h.flags & GTF_readonly)))
        return -EPERM;
    return 0;
}

static uint16_t mark(const struct gnttab_want *want)
{
    return want->write ? GTF_reading | GTF_writing : GTF_reading;
}

static int hold_v1(const struct gnttab_table *t, grant_ref_t ref, const struct gnttab_want *want,
                   struct gnttab_grant *grant)
{
    uint64_t *raw = (uint64_t *)(void *)gnttab_v1(t, ref);
    union entry_v1 copy = { .raw = load_acquire(raw) };

    for (unsigned try = 0; try < HOLD_TRIES; try++) {
        union entry_v1 held = copy;
        int rc = judge(copy.e.h, 1, want);

        if (rc)
            return rc;
        held.e.h.flags |= mark(want);
        /* Also when the bits are set already: the exchange proves that the entry
         * still is what was judged, and orders the bits before any use of the page. */
        if (__atomic_compare_exchange_n(raw, &copy.raw, held.raw, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_ACQUIRE)) {
            *grant = (struct gnttab_grant){ .frame = copy.e.frame, .length = PAGE_SIZE };
            return 0;
        }
    }
    return -EAGAIN;
}

static struct grant_entry_header header(const union grant_entry_v2 *e)
{
    return (union header){ .raw = load_acquire((const uint32_t *)(const void *)e) }.h;
}

static int hold_v2(const struct gnttab_table *t, grant_ref_t ref, const struct gnttab_want *want,
                   struct gnttab_grant *grant)
{
    const union grant_entry_v2 *e = gnttab_v2(t, ref);
    struct grant_entry_header h = header(e);
    int rc = judge(h, 2, want);

    if (rc)
        return rc;
    /* a full barrier; pairs with the one of the guest between revoking and looking */
    fetch_or(&t->status[ref], mark(want));
    h = header(e);
    rc = judge(h, 2, want);
    if (rc) {
        gnttab_entry_drop(t, 2, ref, (uint16_t)(mark(want) & ~want->held));
        return rc;
    }
    *grant = (struct gnttab_grant){ .length = PAGE_SIZE };
    if ((h.flags & GTF_type_mask) == GTF_transitive) {
        grant->transitive = true;
        grant->trans_domid = load_relaxed(&e->transitive.trans_domid);
        grant->trans_ref = load_relaxed(&e->transitive.gref);
    } else if (h.flags & GTF_sub_page) {
        grant->frame = load_relaxed(&e->sub_page.frame);
        grant->offset = load_relaxed(&e->sub_page.page_off);
        grant->length = load_relaxed(&e->sub_page.length);
    } else {
        grant->frame = load_relaxed(&e->full_page.frame);
    }
    return 0;
}

int gnttab_entry_hold(const struct gnttab_table *t, unsigned version, grant_ref_t ref,
                      const struct gnttab_want *want, struct gnttab_grant *grant)
{
    return version == 2 ? hold_v2(t, ref, want, grant) : hold_v1(t, ref, want, grant);
}

void gnttab_entry_drop(const struct gnttab_table *t, unsigned version, grant_ref_t ref,
                       uint16_t bits)
{
    if (bits)
        fetch_and(gnttab_in_use(t, version, ref), (uint16_t)~bits);
}
