/* SPDX-License-Identifier: MIT */
/* A grant table as simply as it can be said: what the guest wrote, who uses it, and what
 * follows from that, every time anew.  Written from Xen's header and from what Xen 4.17
 * answers, to hold src/xen/gnttab*.c to; one step at a time, so without a word on races. */
#ifndef XENOLITH_TESTS_GNTTAB_MODEL_H
#define XENOLITH_TESTS_GNTTAB_MODEL_H

#include <errno.h>

#include "gnttab_guest.h"

#define MODEL_REFS (FRAMES_MAX * 512)

struct model_entry {
    uint32_t word[4];           /* as the guest wrote it, in the version's layout */
    unsigned host_readers, host_writers, own_readers, own_writers;
    uint64_t own_mfn;           /* while it is mapped */
};

struct model_handle {
    grant_ref_t ref;
    uint32_t kinds;             /* 0: free */
    bool readonly;
};

struct model {
    unsigned version;
    uint32_t nr_frames;
    bool status_mapped;
    struct model_entry e[MODEL_REFS];
    struct model_handle handle[GNTTAB_HANDLES_MAX];
    uint8_t ram[RAM_PAGES * PAGE_SIZE];
};

static inline uint32_t model_nr_refs(const struct model *m)
{
    return m->nr_frames * (m->version == 1 ? 512 : 256);
}

static inline uint16_t model_flags(const struct model_entry *e)
{
    return (uint16_t)e->word[0];
}

static inline domid_t model_domid(const struct model_entry *e)
{
    return (domid_t)(e->word[0] >> 16);
}

static inline uint64_t model_frame(const struct model *m, const struct model_entry *e)
{
    return m->version == 1 ? e->word[1] : e->word[2] | (uint64_t)e->word[3] << 32;
}

static inline uint16_t model_use(const struct model_entry *e)
{
    if (e->host_writers || e->own_writers)
        return GTF_reading | GTF_writing;
    return e->host_readers || e->own_readers ? GTF_reading : 0;
}

static inline bool model_frame_ok(uint64_t mfn)
{
    return mfn >= RAM_MFN && mfn < RAM_MFN + RAM_PAGES;
}

/* ---- the host's use ---- */

static inline int model_host_map(struct model *m, grant_ref_t ref, bool write)
{
    struct model_entry *e = &m->e[ref % MODEL_REFS];

    if (ref >= model_nr_refs(m) || (model_flags(e) & GTF_type_mask) != GTF_permit_access ||
        (model_flags(e) & GTF_sub_page))
        return -EINVAL;
    if (model_domid(e) != 0 || (write && (model_flags(e) & GTF_readonly)))
        return -EPERM;
    if (!model_frame_ok(model_frame(m, e)))
        return -EFAULT;
    *(write ? &e->host_writers : &e->host_readers) += 1;
    return 0;
}

/* ---- the guest's own ---- */

struct model_part {
    uint64_t mfn;
    unsigned offset, length;
};

/* Who wants to use an own grant may, and what of it. */
static inline int16_t model_own(const struct model *m, grant_ref_t ref, bool write, bool copy,
                                struct model_part *part)
{
    const struct model_entry *e = &m->e[ref % MODEL_REFS];
    unsigned type = model_flags(e) & GTF_type_mask;
    bool mapped = e->own_readers || e->own_writers;

    if (ref >= model_nr_refs(m))
        return GNTST_bad_gntref;
    *part = (struct model_part){ e->own_mfn, 0, PAGE_SIZE };
    if (mapped && (!write || e->own_writers))
        return GNTST_okay;
    if (write && (model_flags(e) & GTF_readonly))
        return GNTST_general_error;
    if (mapped)
        return GNTST_okay;
    if (model_domid(e) != SELF)
        return GNTST_general_error;
    if (type == GTF_transitive && copy && m->version == 2) {
        if ((uint16_t)e->word[1] != 0)
            return GNTST_general_error;
        return e->word[2] < 512 ? GNTST_general_error : GNTST_bad_gntref;
    }
    if (type != GTF_permit_access || ((model_flags(e) & GTF_sub_page) && !copy))
        return GNTST_general_error;
    part->mfn = model_frame(m, e);
    if ((model_flags(e) & GTF_sub_page) && m->version == 2) {
        part->offset = (uint16_t)e->word[1];
        part->length = e->word[1] >> 16;
    }
    return model_frame_ok(part->mfn) ? GNTST_okay : GNTST_bad_page;
}

static inline int16_t model_host_ref(grant_ref_t ref)
{
    return ref < 512 ? GNTST_general_error : GNTST_bad_gntref;
}

static inline int16_t model_map(struct model *m, const struct gnttab_map_grant_ref *op,
                                int16_t tables_answer, unsigned *handle)
{
    const uint32_t kinds = op->flags & (GNTMAP_host_map | GNTMAP_device_map);
    bool readonly = op->flags & GNTMAP_readonly;
    struct model_part part;
    int16_t status;

    if (!kinds)
        return GNTST_bad_gntref;
    if (op->dom == 0)
        return model_host_ref(op->ref);
    if (op->dom != SELF)
        return GNTST_bad_domain;
    for (*handle = 0; *handle < GNTTAB_HANDLES_MAX && m->handle[*handle].kinds; ++*handle)
        ;
    if (*handle == GNTTAB_HANDLES_MAX)
        return GNTST_no_device_space;
    status = model_own(m, op->ref, !readonly, false, &part);
    if (status == GNTST_okay && (kinds & GNTMAP_host_map))
        status = tables_answer;
    if (status != GNTST_okay)
        return status;
    m->handle[*handle] = (struct model_handle){ op->ref, kinds, readonly };
    m->e[op->ref].own_mfn = part.mfn;
    *(readonly ? &m->e[op->ref].own_readers : &m->e[op->ref].own_writers) += 1;
    return GNTST_okay;
}

/* bus: 0, or the address that was said. */
static inline int16_t model_unmap(struct model *m, unsigned handle, bool host, uint64_t bus,
                                  int16_t tables_answer)
{
    struct model_handle *h = &m->handle[handle % GNTTAB_HANDLES_MAX];
    struct model_entry *e = &m->e[h->ref];
    uint32_t kinds = 0;

    if (handle >= GNTTAB_HANDLES_MAX || !h->kinds)
        return GNTST_bad_handle;
    if (bus && (h->kinds & GNTMAP_device_map)) {
        if (bus != e->own_mfn << PAGE_SHIFT)
            return GNTST_general_error;
        kinds |= GNTMAP_device_map;
    }
    if (host && (h->kinds & GNTMAP_host_map)) {
        if (tables_answer != GNTST_okay)
            return tables_answer;
        kinds |= GNTMAP_host_map;
    }
    if (!kinds)
        return GNTST_okay;
    h->kinds &= ~kinds;
    if (!h->kinds)
        *(h->readonly ? &e->own_readers : &e->own_writers) -= 1;
    return GNTST_okay;
}

static inline int16_t model_copy_domain(const struct gnttab_copy_ptr *p, bool by_ref)
{
    if (!by_ref)
        return p->domid == DOMID_SELF ? GNTST_okay : GNTST_permission_denied;
    return p->domid == DOMID_SELF || p->domid == SELF || p->domid == 0 ? GNTST_okay :
           GNTST_bad_domain;
}

static inline int16_t model_copy_end(const struct model *m, const struct gnttab_copy_ptr *p,
                                     bool by_ref, bool write, struct model_part *part)
{
    int16_t status = GNTST_okay;

    *part = (struct model_part){ p->u.gmfn, 0, PAGE_SIZE };
    if (by_ref)
        status = p->domid == 0 ? model_host_ref(p->u.ref) :
                 model_own(m, p->u.ref, write, true, part);
    if (status == GNTST_okay && !model_frame_ok(part->mfn))
        status = GNTST_bad_page;
    if (status == GNTST_okay && write && part->mfn == RAM_MFN + TABLE_PAGE)
        status = GNTST_general_error;
    return status;
}

static inline int16_t model_copy(struct model *m, const struct gnttab_copy *op)
{
    bool from_ref = op->flags & GNTCOPY_source_gref, to_ref = op->flags & GNTCOPY_dest_gref;
    int16_t status = model_copy_domain(&op->source, from_ref);
    struct model_part from, to;

    if (status == GNTST_okay)
        status = model_copy_domain(&op->dest, to_ref);
    if (status == GNTST_okay)
        status = model_copy_end(m, &op->source, from_ref, false, &from);
    if (status == GNTST_okay)
        status = model_copy_end(m, &op->dest, to_ref, true, &to);
    if (status != GNTST_okay)
        return status;
    if (op->source.offset + op->len > 4096 || op->dest.offset + op->len > 4096)
        return GNTST_bad_copy_arg;
    if (op->source.offset < from.offset || op->dest.offset < to.offset ||
        op->source.offset + op->len > (int)(from.offset + from.length) ||
        op->dest.offset + op->len > (int)(to.offset + to.length))
        return GNTST_general_error;
    memmove(&m->ram[(to.mfn - RAM_MFN) * PAGE_SIZE + op->dest.offset],
            &m->ram[(from.mfn - RAM_MFN) * PAGE_SIZE + op->source.offset], op->len);
    return GNTST_okay;
}

/* ---- the table ---- */

static inline int16_t model_swap(struct model *m, grant_ref_t a, grant_ref_t b)
{
    if (a >= model_nr_refs(m) || b >= model_nr_refs(m))
        return GNTST_bad_gntref;
    if (a != b) {
        uint32_t was[4];

        if (model_use(&m->e[a]) || model_use(&m->e[b]))
            return GNTST_eagain;
        memcpy(was, m->e[a].word, sizeof(was));
        memcpy(m->e[a].word, m->e[b].word, sizeof(was));
        memcpy(m->e[b].word, was, sizeof(was));
    }
    return GNTST_okay;
}

static inline void model_convert(struct model_entry *e, unsigned to)
{
    uint32_t header = e->word[0], frame = to == 2 ? e->word[1] : e->word[2];

    if (to == 1 && (header & GTF_type_mask) != GTF_permit_access)
        header = frame = 0;
    memset(e->word, 0, sizeof(e->word));
    e->word[0] = header;
    e->word[to == 2 ? 2 : 1] = frame;
}

static inline int model_set_version(struct model *m, uint32_t version)
{
    if (version != 1 && version != 2)
        return -EINVAL;
    if (version == m->version)
        return 0;
    for (unsigned i = 8; i < model_nr_refs(m); i++)
        if (model_use(&m->e[i]))
            return -EBUSY;
    for (unsigned i = 0; i < 8 && version == 1; i++)
        if ((model_flags(&m->e[i]) & GTF_type_mask) == GTF_transitive ||
            ((model_flags(&m->e[i]) & GTF_type_mask) == GTF_permit_access && m->e[i].word[3]))
            return -ERANGE;
    if (version == 1 && m->status_mapped)
        return -EBUSY;
    for (unsigned i = 0; i < MODEL_REFS; i++) {
        if (i < 8)
            model_convert(&m->e[i], (unsigned)version);
        else
            memset(m->e[i].word, 0, sizeof(m->e[i].word));
    }
    m->version = version;
    return 0;
}

static inline int16_t model_grow(struct model *m, uint32_t nr)
{
    if (nr > FRAMES_MAX)
        return GNTST_general_error;
    m->nr_frames = nr > m->nr_frames ? nr : m->nr_frames;
    return GNTST_okay;
}

#endif
