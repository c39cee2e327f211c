/* SPDX-License-Identifier: MIT */
/* A disk is one anonymous mapping, whose pages the kernel makes as they are written: what was
 * never written takes none, and reads as zeroes.  Discard gives pages back.  So does writing
 * zeroes, but for the parts of pages at either end.
 *
 * Huge pages are declined: a guest that writes a sector here and there would fill 2 MiB for
 * each, and a discarded page could be put back by the kernel's own joining of pages.
 *
 * Queues copy to and from the mapping without a word to each other.  Where requests overlap
 * while in flight, each sector holds any of what was written, as on any disk. */
#include "blk/driver_ram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "blk/driver.h"

struct ram {
    uint8_t *base;
    size_t mapped_bytes;
};

static int ram_map(struct ram *ram, uint64_t size, struct err *e)
{
    ram->mapped_bytes = align_up(size, PAGE_SIZE);
    ram->base = mmap(NULL, ram->mapped_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ram->base == MAP_FAILED)
        return err_set(e, errno, "no room for a ram disk of %llu bytes: %s",
                       (unsigned long long)size, strerror(errno));
    /* advice: a kernel that knows none of it works as well */
    madvise(ram->base, ram->mapped_bytes, MADV_NOHUGEPAGE);
    madvise(ram->base, ram->mapped_bytes, MADV_DONTDUMP);
    return 0;
}

static int ram_open(const struct blk_spec *spec, struct blk_props *props, void **state,
                    struct err *e)
{
    uint64_t size = spec->size_bytes;
    struct ram *ram;
    int rc;

    if (!size || size % BLK_SECTOR_BYTES || size > INT64_MAX - PAGE_SIZE) {
        err_at(e, NULL, 0, "size");
        return err_set(e, EINVAL, "a ram disk of %llu bytes: expected a multiple of %u",
                       (unsigned long long)size, BLK_SECTOR_BYTES);
    }
    ram = malloc(sizeof(*ram));
    if (!ram)
        return err_set(e, ENOMEM, "out of memory");
    rc = ram_map(ram, size, e);
    if (rc) {
        free(ram);
        return rc;
    }
    *props = (struct blk_props){
        .size_bytes = size,
        .physical_block_bytes = size % PAGE_SIZE ? BLK_SECTOR_BYTES : (uint32_t)PAGE_SIZE,
        .discard_granularity_bytes = (uint32_t)PAGE_SIZE,
        .readonly = spec->readonly,
        .can_flush = true,
        .can_discard = !spec->readonly && !spec->no_discard,
        .can_write_zeroes = !spec->readonly,
        .prompt = true,
    };
    *state = ram;
    return 0;
}

static void ram_close(void *state)
{
    struct ram *ram = state;

    munmap(ram->base, ram->mapped_bytes);
    free(ram);
}

static int ram_queue_open(struct blk_queue *q, void **queue_state, struct err *e)
{
    *queue_state = NULL;
    return 0;
}

static void ram_queue(struct blk_queue *q)
{
}

/* Makes a range read as zeroes; the pages that lie in it go back to the host.  0 or -errno. */
static int ram_zero(uint8_t *from, uint64_t length)
{
    uint8_t *end = from + length;
    uint8_t *first = (uint8_t *)align_up((uintptr_t)from, (uintptr_t)PAGE_SIZE);
    uint8_t *last = (uint8_t *)align_down((uintptr_t)end, (uintptr_t)PAGE_SIZE);

    if (first >= last) {
        memset(from, 0, length);
        return 0;
    }
    memset(from, 0, (size_t)(first - from));
    memset(last, 0, (size_t)(end - last));
    return madvise(first, (size_t)(last - first), MADV_DONTNEED) ? -errno : 0;
}

static void ram_submit(struct blk_queue *q, struct blk_req *req)
{
    const struct ram *ram = q->disk_state;
    uint8_t *at = ram->base + req->offset_bytes;
    int rc = 0;

    switch (req->op) {
    case BLK_OP_READ:
        for (unsigned i = 0; i < req->nr_iov; at += req->iov[i++].iov_len)
            memcpy(req->iov[i].iov_base, at, req->iov[i].iov_len);
        break;
    case BLK_OP_WRITE:
        for (unsigned i = 0; i < req->nr_iov; at += req->iov[i++].iov_len)
            memcpy(at, req->iov[i].iov_base, req->iov[i].iov_len);
        break;
    case BLK_OP_DISCARD:
    case BLK_OP_WRITE_ZEROES:
        rc = ram_zero(at, req->length_bytes);
        break;
    default:
        break;      /* a flush: there is nothing below memory */
    }
    blk_req_done(q, req, rc);
}

const struct blk_driver blk_driver_ram = {
    .name = "ram",
    .summary = "in memory, gone with the process that serves it",
    .open = ram_open,
    .close = ram_close,
    .queue_open = ram_queue_open,
    .queue_close = ram_queue,
    .submit = ram_submit,
    .flush = ram_queue,
    .poll = ram_queue,
    .wait = blk_wait_fd,
};
