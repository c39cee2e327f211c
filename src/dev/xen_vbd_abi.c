/* SPDX-License-Identifier: MIT */
#include "dev/xen_vbd_abi.h"

#include <xen/io/protocols.h>

_Static_assert(sizeof(union blkif_sring_entry) == VBD_ENTRY_BYTES_MAX, "blkif entry");
_Static_assert(sizeof(struct blkif_response) == 16, "blkif response");
_Static_assert(sizeof(struct blkif_request_indirect) <= VBD_ENTRY_BYTES_MAX, "blkif indirect");

static void native_parse(const void *entry, struct vbd_request *out)
{
    const struct blkif_request *req = entry;
    const struct blkif_request_discard *discard = entry;
    const struct blkif_request_indirect *indirect = entry;

    out->id = req->id;
    out->operation = req->operation;
    out->data_operation = req->operation;
    out->indirect = false;
    out->nr_segments = 0;
    out->sector = req->sector_number;
    out->nr_sectors = 0;
    switch (req->operation) {
    case BLKIF_OP_DISCARD:
        out->nr_sectors = discard->nr_sectors;
        break;
    case BLKIF_OP_INDIRECT:
        out->id = indirect->id;
        out->data_operation = indirect->indirect_op;
        out->indirect = true;
        out->nr_segments = indirect->nr_segments;
        out->sector = indirect->sector_number;
        memcpy(out->indirect_ref, indirect->indirect_grefs, sizeof(out->indirect_ref));
        break;
    default:
        out->nr_segments = req->nr_segments;
        memcpy(out->segment, req->seg, sizeof(out->segment));
        break;
    }
}

static void native_respond(void *entry, uint64_t id, uint8_t operation, int16_t status)
{
    struct blkif_response rsp;

    memset(&rsp, 0, sizeof(rsp));   /* padding goes to the guest too */
    rsp.id = id;
    rsp.operation = operation;
    rsp.status = status;
    memcpy(entry, &rsp, sizeof(rsp));
}

static const struct vbd_abi abi_table[] = {
    {
        .protocol = XEN_IO_PROTO_ABI_X86_64,
        .entry_bytes = sizeof(union blkif_sring_entry),
        .response_bytes = sizeof(struct blkif_response),
        .parse = native_parse,
        .respond = native_respond,
    },
};

const struct vbd_abi *vbd_abi_find(const char *protocol)
{
    /* without the node: the native one, which here is x86_64 */
    for (unsigned i = 0; i < array_size(abi_table); i++)
        if (!protocol || !strcmp(abi_table[i].protocol, protocol))
            return &abi_table[i];
    return NULL;
}
