/* SPDX-License-Identifier: MIT */
#include "blk/driver_null.h"

#include <errno.h>

#include "blk/driver.h"

#define NULL_SIZE_DEFAULT_BYTES (1 * GIB)

static int size_judge(uint64_t size, struct err *e)
{
    if (!(size % BLK_SECTOR_BYTES) && size <= INT64_MAX)
        return 0;
    err_at(e, NULL, 0, "size");
    return err_set(e, EINVAL, "a null disk of %llu bytes: expected a multiple of %u",
                   (unsigned long long)size, BLK_SECTOR_BYTES);
}

static int null_open(const struct blk_spec *spec, struct blk_props *props, void **state,
                     struct err *e)
{
    uint64_t size = spec->size_bytes ? spec->size_bytes : NULL_SIZE_DEFAULT_BYTES;
    int rc = size_judge(size, e);

    if (rc)
        return rc;
    *props = (struct blk_props){
        .size_bytes = size,
        .physical_block_bytes = BLK_SECTOR_BYTES,
        .discard_granularity_bytes = BLK_SECTOR_BYTES,
        .readonly = spec->readonly,
        .can_flush = true,
        .can_discard = !spec->readonly && !spec->no_discard,
        .can_write_zeroes = !spec->readonly,
        .prompt = true,
    };
    *state = NULL;
    return 0;
}

static void null_close(void *state)
{
}

static int null_share(void *state)
{
    return -1;
}

static int null_resize(void *state, uint64_t size_bytes, struct blk_props *props, struct err *e)
{
    int rc = size_judge(size_bytes, e);

    if (!rc && size_bytes)
        blk_props_size_set(props, size_bytes);
    return rc;
}

static int null_queue_open(struct blk_queue *q, void **queue_state, struct err *e)
{
    *queue_state = NULL;
    return 0;
}

static void null_queue(struct blk_queue *q)
{
}

static void null_submit(struct blk_queue *q, struct blk_req *req)
{
    if (req->op == BLK_OP_READ)
        blk_req_zero(req);
    blk_req_done(q, req, 0);
}

const struct blk_driver blk_driver_null = {
    .name = "null",
    .summary = "reads zeroes, forgets writes",
    .open = null_open,
    .close = null_close,
    .share = null_share,
    .resize = null_resize,
    .queue_open = null_queue_open,
    .queue_close = null_queue,
    .submit = null_submit,
    .flush = null_queue,
    .poll = null_queue,
    .wait = blk_wait_fd,
};
