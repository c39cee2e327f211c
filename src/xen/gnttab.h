/* SPDX-License-Identifier: MIT */
/* The grant table of one guest, as its hypercalls see it.  Freestanding; the host
 * takes grants without any call, through xen/gnttab_host.h.
 *
 * The table is version 1 until the guest asks for 2 (gnttab_version.c).  The domain is
 * unprivileged and domain 0 grants it nothing.  What it grants itself it can map, by the
 * surroundings' page tables (gnttab_map.c), and copy (gnttab_copy.c); and so what other
 * guests grant it, whose tables only the surroundings can reach (gnttab_peer.c).
 *
 * Specification: <xen/grant_table.h>, and Xen 4.17's answers. */
#ifndef XENOLITH_XEN_GNTTAB_H
#define XENOLITH_XEN_GNTTAB_H

#include "base/spinlock.h"
#include "base/types.h"
#include "xen/gnttab_entry.h"

#include <xen/xen.h>
#include <xen/grant_table.h>

#define GNTTAB_MAP_KINDS   (GNTMAP_host_map | GNTMAP_device_map)    /* a handle with none is free */
#define GNTTAB_HANDLES_MAX 256          /* of mappings of own grants */
#define GNTTAB_PEER_HANDLES_MAX 8192    /* of other guests'; their numbers follow */

/* Xen's limit where its command line does not say otherwise. */
#define GNTTAB_FRAMES_MAX 64

/* The memory and the page tables of the guest.  flags are GNTMAP_*, results GNTST_*. */
struct gnttab_mapper {
    bool (*frame_ok)(void *ctx, uint64_t mfn);
    /* Also to be written to: it is no page table. */
    bool (*frame_writable)(void *ctx, uint64_t mfn);
    /* Both frames are as asked for, the bytes within them; they may overlap. */
    void (*copy)(void *ctx, uint64_t to, uint64_t from, uint64_t bytes);
    /* Some entry of the page tables leads to one of the frames. */
    bool (*frames_mapped)(void *ctx, uint64_t first_mfn, uint64_t nr);
    /* host_addr: an address, or with GNTMAP_contains_pte the machine address of an entry */
    int16_t (*map)(void *ctx, uint64_t host_addr, uint32_t flags, uint64_t mfn);
    /* The mapping must be as it was made.  new_addr 0: nothing takes its place; else the
     * mapping at that address does, which is then nowhere else. */
    int16_t (*unmap)(void *ctx, uint64_t host_addr, uint64_t new_addr, uint32_t flags,
                     uint64_t mfn);
};

/* One end of a copy that needs the surroundings: a held grant, or a frame of the domain's. */
#define GNTTAB_NO_HOLD UINT32_MAX
struct gnttab_peer_end {
    uint32_t hold;                      /* or GNTTAB_NO_HOLD, and */
    uint64_t mfn;
    uint32_t offset;                    /* of the first byte, in the frame */
};

/* Other guests and their tables.  Called without a lock, since each may wait for another
 * process.  Results are GNTST_*; GNTST_bad_domain: there is no such guest. */
struct gnttab_peers {
    bool (*exists)(void *ctx, domid_t domid);
    /* Marks the entry as in use and shows its page as frame *mfn, until unmap(). */
    int16_t (*map)(void *ctx, domid_t domid, grant_ref_t ref, bool write, uint64_t *mfn);
    void (*unmap)(void *ctx, uint64_t mfn);
    /* Marks it, for copies, until drop(). */
    int16_t (*hold)(void *ctx, domid_t domid, grant_ref_t ref, bool write,
                    struct gnttab_grant *grant, uint32_t *hold);
    void (*drop)(void *ctx, uint32_t hold);
    int16_t (*copy)(void *ctx, const struct gnttab_peer_end *from,
                    const struct gnttab_peer_end *to, uint32_t bytes);
};

struct gnttab_handle {
    grant_ref_t ref;
    uint32_t flags;                     /* GNTMAP_*; no kind of mapping: free */
    uint64_t mfn;
    bool busy;                          /* a peer's, which is being mapped or unmapped */
};

struct gnttab_params {
    struct gnttab_table table;
    uint64_t first_mfn;                 /* machine frame of the first page of entries */
    uint64_t status_mfn;                /* and of the first status frame */
    unsigned version_max;
    domid_t self;
};

struct gnttab {
    struct gnttab_params p;
    struct spinlock lock;               /* changing p.table.state; swaps, copies, handles */
    const struct gnttab_mapper *mapper; /* NULL: own grants cannot be used */
    void *mapper_ctx;
    uint32_t nr_handles;                /* in use */
    struct gnttab_handle handle[GNTTAB_HANDLES_MAX];
    const struct gnttab_peers *peers;   /* NULL: no other guests */
    void *peers_ctx;
    uint32_t peer_handle_next;          /* look from here for a free one */
    struct gnttab_handle peer_handle[GNTTAB_PEER_HANDLES_MAX];
};

/* Starts with one frame, in version 1, as Xen does.  t is zero-filled, and of what it may grow
 * to nothing else is touched.  What p points to must outlive t. */
void gnttab_init(struct gnttab *t, const struct gnttab_params *p);

/* Grants frame to domain `to` in a reserved entry (GNTTAB_RESERVED_CONSOLE,
 * GNTTAB_RESERVED_XENSTORE) before the guest runs, as toolstacks do. */
void gnttab_seed(struct gnttab *t, grant_ref_t ref, domid_t to, uint32_t frame);

/* mapper and ctx must outlive t; called with a lock held. */
void gnttab_mapper_set(struct gnttab *t, const struct gnttab_mapper *mapper, void *ctx);

/* peers and ctx must outlive t.  Needs a mapper. */
void gnttab_peers_set(struct gnttab *t, const struct gnttab_peers *peers, void *ctx);

/* A grant of frame mfn is mapped, and not read-only. */
bool gnttab_maps_writable(struct gnttab *t, uint64_t mfn);

/* Machine frame of the index-th page of the table, or of its status frames. */
static inline uint64_t gnttab_frame_mfn(const struct gnttab *t, uint32_t index)
{
    return t->p.first_mfn + index;
}

static inline uint64_t gnttab_status_mfn(const struct gnttab *t, uint32_t index)
{
    return t->p.status_mfn + index;
}

/* Domain 0 has a table with one frame, as far as a guest can tell, and grants nothing:
 * what comes of using its reference ref. */
static inline int16_t gnttab_host_ref_status(grant_ref_t ref)
{
    return ref < GNTTAB_REFS_PER_FRAME_V1 ? GNTST_general_error : GNTST_bad_gntref;
}

/* Marks an own grant as in use, to be mapped or (copy) copied.  GNTST_bad_gntref: there is
 * none; GNTST_general_error: it does not grant that.  t->lock is held. */
int16_t gnttab_own_hold(const struct gnttab *t, grant_ref_t ref, bool write, bool copy,
                        struct gnttab_grant *grant);
/* And takes away what no mapping needs. */
void gnttab_own_drop(const struct gnttab *t, grant_ref_t ref);

/* domid is another guest, perhaps one that does not exist. */
static inline bool gnttab_is_peer(const struct gnttab *t, domid_t domid)
{
    return t->peers && domid != 0 && domid != t->p.self && domid < DOMID_FIRST_RESERVED;
}

/* It exists. */
bool gnttab_peer_exists(const struct gnttab *t, domid_t domid);
/* What comes of a grant that stands for another domain's: that is used for domain 0 only. */
int16_t gnttab_transitive_status(const struct gnttab_grant *g);
/* A free handle for a grant of the domain's own, with t->lock held; NULL: all are in use. */
struct gnttab_handle *gnttab_own_handle(struct gnttab *t);
/* A frame as one end of a copy: what of it may be used, and whether it may be at all. */
struct gnttab_part { uint16_t offset, length; };
int16_t gnttab_frame_status(const struct gnttab *t, uint64_t mfn, bool write);
int16_t gnttab_copy_status(const struct gnttab_copy *op, const struct gnttab_part *from,
                           const struct gnttab_part *to);
/* The two that need no lock, where another guest takes part. */
int16_t gnttab_peer_map(struct gnttab *t, struct gnttab_map_grant_ref *op);
int16_t gnttab_peer_copy(struct gnttab *t, const struct gnttab_copy *op);
/* The last mapping of the handle has gone, and it is busy.  Without the lock. */
void gnttab_peer_unmapped(struct gnttab *t, struct gnttab_handle *h);

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
/* op->version becomes the version in force.  -EINVAL: neither 1 nor 2; -ENOSYS: more than
 * this guest may have; -EBUSY: entries are in use, or version 2's status frames are mapped;
 * -ERANGE: a reserved entry is none that version 1 has. */
int gnttab_set_version(struct gnttab *t, struct gnttab_set_version *op);
/* Like setup_table: the frames are gnttab_status_mfn(t, 0...). */
int gnttab_get_status_frames(struct gnttab *t, struct gnttab_get_status_frames *op);
/* Exchanges two entries of the own table; GNTST_eagain while one is in use. */
int gnttab_swap_grant_ref(struct gnttab *t, struct gnttab_swap_grant_ref *op);
/* -EINVAL, -EOPNOTSUPP; never in a status. */
int gnttab_cache_flush(struct gnttab *t, struct gnttab_cache_flush *op);
/* Use of own and others' grants; the caller flushes TLBs after what unmaps. */
int gnttab_map_grant_ref(struct gnttab *t, struct gnttab_map_grant_ref *op);
int gnttab_unmap_grant_ref(struct gnttab *t, struct gnttab_unmap_grant_ref *op);
int gnttab_unmap_and_replace(struct gnttab *t, struct gnttab_unmap_and_replace *op);
/* Nobody accepts a frame. */
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
