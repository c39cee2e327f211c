/* SPDX-License-Identifier: MIT */
/* A disk is one anonymous mapping, whose pages the kernel makes as they are written: what was
 * never written takes none, and reads as zeroes.  Discard gives pages back.  So does writing
 * zeroes, but for the parts of pages at either end.
 *
 * Huge pages are declined: a guest that writes a sector here and there would fill 2 MiB for
 * each, and a discarded page could be put back by the kernel's own joining of pages.
 *
 * A disk to be shared is a memfd that both processes map: its pages outlive the one that serves
 * it, and are given back by another name.
 *
 * Queues copy to and from the mapping without a word to each other.  Where requests overlap
 * while in flight, each sector holds any of what was written, as on any disk. */
#include "blk/driver_ram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blk/driver.h"

struct ram {
    uint8_t *base;
    size_t mapped_bytes;
    int fd;                     /* of the mapping; -1: it is anonymous */
};

static int ram_no_room(uint64_t size, struct err *e)
{
    return err_set(e, errno, "no room for a ram disk of %llu bytes: %s", (unsigned long long)size,
                   strerror(errno));
}

/* The file that another process has, or is to have; else none. */
static int ram_file(struct ram *ram, const struct blk_spec *spec, struct err *e)
{
    ram->fd = -1;
    if (spec->handed)
        ram->fd = fcntl(spec->handed->fd, F_DUPFD_CLOEXEC, 0);
    else if (spec->to_share)
        ram->fd = memfd_create("xenolith-ram-disk", MFD_CLOEXEC);
    else
        return 0;
    if (ram->fd < 0)
        return ram_no_room(spec->size_bytes, e);
    if (!spec->handed && ftruncate(ram->fd, (off_t)align_up(spec->size_bytes, PAGE_SIZE))) {
        ram_no_room(spec->size_bytes, e);
        close(ram->fd);
        return -e->code;
    }
    return 0;
}

static int ram_map(struct ram *ram, const struct blk_spec *spec, struct err *e)
{
    int rc = ram_file(ram, spec, e);

    if (rc)
        return rc;
    ram->mapped_bytes = align_up(spec->size_bytes, PAGE_SIZE);
    ram->base = mmap(NULL, ram->mapped_bytes, PROT_READ | PROT_WRITE,
                     (ram->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | MAP_NORESERVE,
                     ram->fd, 0);
    if (ram->base == MAP_FAILED) {
        ram_no_room(spec->size_bytes, e);
        if (ram->fd >= 0)
            close(ram->fd);
        return -e->code;
    }
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
    rc = ram_map(ram, spec, e);
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
    if (ram->fd >= 0)
        close(ram->fd);
    free(ram);
}

static int ram_share(void *state)
{
    const struct ram *ram = state;

    return ram->fd;
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
static int ram_zero(const struct ram *ram, uint8_t *from, uint64_t length)
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
    return madvise(first, (size_t)(last - first),
                   ram->fd < 0 ? MADV_DONTNEED : MADV_REMOVE) ? -errno : 0;
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
        rc = ram_zero(ram, at, req->length_bytes);
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
    .share = ram_share,
    .queue_open = ram_queue_open,
    .queue_close = ram_queue,
    .submit = ram_submit,
    .flush = ram_queue,
    .poll = ram_queue,
    .wait = blk_wait_fd,
};
