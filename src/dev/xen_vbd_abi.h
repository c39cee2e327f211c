/* SPDX-License-Identifier: MIT */
/* The layout of blkif's ring entries, which depends on the guest's machine ABI,
 * against one form of request that does not.  Another ABI is one more row. */
#ifndef XENOLITH_DEV_XEN_VBD_ABI_H
#define XENOLITH_DEV_XEN_VBD_ABI_H

#include <string.h>

#include "base/types.h"

#include <xen/xen.h>
#include <xen/io/blkif.h>

/* feature-max-indirect-segments: one page of descriptors holds twice as many */
#define VBD_SEGMENTS_MAX 256u

/* A request as the host sees it: a private copy, not yet judged. */
struct vbd_request {
    uint64_t id;
    uint8_t operation;          /* as in the ring, to be echoed: BLKIF_OP_* */
    uint8_t data_operation;     /* the same, or what an indirect request is for */
    uint8_t indirect;           /* 0: no; no bool, since records of them are not believed */
    unsigned nr_segments;
    uint64_t sector;
    uint64_t nr_sectors;        /* BLKIF_OP_DISCARD */
    struct blkif_request_segment segment[BLKIF_MAX_SEGMENTS_PER_REQUEST];
    grant_ref_t indirect_ref[BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST];
};

#define VBD_ENTRY_BYTES_MAX 112u

struct vbd_abi {
    const char *protocol;       /* the frontend's "protocol" node */
    unsigned entry_bytes;       /* of a ring slot */
    unsigned response_bytes;
    /* entry is a private copy of a slot */
    void (*parse)(const void *entry, struct vbd_request *out);
    void (*respond)(void *entry, uint64_t id, uint8_t operation, int16_t status);
};

/* The row for a "protocol" node's text (NULL: no such node); NULL: unknown. */
const struct vbd_abi *vbd_abi_find(const char *protocol);

#endif
