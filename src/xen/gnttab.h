/* SPDX-License-Identifier: MIT */
/* The grant table of one guest, as its hypercalls see it.  Freestanding; the host
 * takes grants without any call, through xen/gnttab_host.h.
 *
 * The table is version 1, as on a Xen host with gnttab=max-ver:1.  Its frames are
 * one contiguous array that the surroundings provide for the largest table
 * allowed; how many of them the guest has asked for is a word that the host can
 * see too.  The domain is unprivileged and no other domain grants it anything.  What
 * it grants itself it can map, by the surroundings' page tables (gnttab_map.c).
 *
 * Specification: <xen/grant_table.h>, and Xen 4.17's answers. */
#ifndef XENOLITH_XEN_GNTTAB_H
#define XENOLITH_XEN_GNTTAB_H

#include "base/spinlock.h"
#include "base/types.h"

#include <xen/xen.h>
#include <xen/grant_table.h>

#define GNTTAB_REFS_PER_FRAME (PAGE_SIZE / sizeof(struct grant_entry_v1))

#define GNTTAB_HANDLES_MAX 256

/* The page tables that grants are mapped in.  flags are GNTMAP_*, results GNTST_*. */
struct gnttab_mapper {
    bool (*frame_ok)(void *ctx, uint64_t mfn);
    /* host_addr: an address, or with GNTMAP_contains_pte the machine address of an entry */
    int16_t (*map)(void *ctx, uint64_t host_addr, uint32_t flags, uint64_t mfn);
    /* The mapping must be as it was made.  new_addr 0: nothing takes its place; else the
     * mapping at that address does, which is then nowhere else. */
    int16_t (*unmap)(void *ctx, uint64_t host_addr, uint64_t new_addr, uint32_t flags,
                     uint64_t mfn);
};

struct gnttab_handle {
    grant_ref_t ref;
    uint32_t flags;                     /* GNTMAP_*; no kind of mapping: free */
    uint64_t mfn;
};

struct gnttab {
    struct grant_entry_v1 *entries;     /* nr_frames_max pages, zero-filled, shared */
    uint64_t first_mfn;                 /* machine frame of the first page */
    uint32_t nr_frames_max;
    uint32_t *nr_frames;                /* in use; shared with the host, which reads it */
    struct spinlock lock;               /* growing *nr_frames, handles */
    domid_t self;
    const struct gnttab_mapper *mapper; /* NULL: own grants cannot be mapped */
    void *mapper_ctx;
    uint32_t nr_handles;                /* in use */
    struct gnttab_handle handle[GNTTAB_HANDLES_MAX];
};

/* Starts with one frame, as Xen does.  entries and nr_frames must outlive t. */
void gnttab_init(struct gnttab *t, struct grant_entry_v1 *entries, uint64_t first_mfn,
                 uint32_t nr_frames_max, uint32_t *nr_frames, domid_t self);

/* Grants frame to domain `to` in a reserved entry (GNTTAB_RESERVED_CONSOLE,
 * GNTTAB_RESERVED_XENSTORE) before the guest runs, as toolstacks do. */
void gnttab_seed(struct gnttab *t, grant_ref_t ref, domid_t to, uint32_t frame);

/* mapper and ctx must outlive t; called with a lock held. */
void gnttab_mapper_set(struct gnttab *t, const struct gnttab_mapper *mapper, void *ctx);

/* A grant of frame mfn is mapped, and not read-only. */
bool gnttab_maps_writable(struct gnttab *t, uint64_t mfn);

/* Machine frame of the index-th page of the table, index < nr_frames_max. */
static inline uint64_t gnttab_frame_mfn(const struct gnttab *t, uint32_t index)
{
    return t->first_mfn + index;
}

/* HYPERVISOR_grant_table_op(cmd, args, count): op is the caller's copy of one
 * element; its status and results are filled.  0: go on with the next element;
 * -errno: the hypercall ends with it.  Most faults are in the status only.
 *
 * setup_table: when status is GNTST_okay, the caller then writes nr_frames frame
 * numbers, gnttab_frame_mfn(t, 0...), to op->frame_list, and on a fault there makes
 * the status GNTST_bad_virt_addr. */
int gnttab_setup_table(struct gnttab *t, struct gnttab_setup_table *op);
int gnttab_query_size(struct gnttab *t, struct gnttab_query_size *op);
/* -ESRCH, -EPERM: op->dom is not this domain. */
int gnttab_get_version(struct gnttab *t, struct gnttab_get_version *op);
/* op->version becomes the version in force.  -EINVAL: neither 1 nor 2; -ENOSYS: 2. */
int gnttab_set_version(struct gnttab *t, struct gnttab_set_version *op);
/* Version 2's: there are none. */
int gnttab_get_status_frames(struct gnttab *t, struct gnttab_get_status_frames *op);
/* Exchanges two entries of the own table; GNTST_eagain while one is in use. */
int gnttab_swap_grant_ref(struct gnttab *t, struct gnttab_swap_grant_ref *op);
/* -EINVAL, -EOPNOTSUPP; never in a status. */
int gnttab_cache_flush(struct gnttab *t, struct gnttab_cache_flush *op);
/* Use of own grants; the caller flushes TLBs after what unmaps. */
int gnttab_map_grant_ref(struct gnttab *t, struct gnttab_map_grant_ref *op);
int gnttab_unmap_grant_ref(struct gnttab *t, struct gnttab_unmap_grant_ref *op);
int gnttab_unmap_and_replace(struct gnttab *t, struct gnttab_unmap_and_replace *op);
/* Use of others' grants, of which there are none. */
int gnttab_transfer(struct gnttab *t, struct gnttab_transfer *op);
int gnttab_copy(struct gnttab *t, struct gnttab_copy *op);

/* How to treat a command: for each element, copy arg_bytes in, gnttab_op_call(),
 * and with copy_back the same bytes out whatever it returned; -EFAULT when a copy
 * fails.  A count above INT_MAX is -EINVAL. */
enum gnttab_count {
    GNTTAB_COUNT_ARRAY,     /* that many elements */
    GNTTAB_COUNT_ONE,       /* anything but 1 is -EINVAL */
    GNTTAB_COUNT_UNUSED,    /* one element, count is not looked at */
};
#define GNTTAB_OP_ARG_BYTES_MAX 40
struct gnttab_op_shape {
    uint8_t arg_bytes;
    bool copy_back;
    enum gnttab_count count;
};
/* NULL: no such command, -ENOSYS. */
const struct gnttab_op_shape *gnttab_op_shape(unsigned cmd);
/* arg is 8-byte aligned and holds the shape's arg_bytes. */
int gnttab_op_call(struct gnttab *t, unsigned cmd, void *arg);

#endif
