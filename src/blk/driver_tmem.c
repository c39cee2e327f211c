/* SPDX-License-Identifier: MIT */
/* A disk whose pages are in a pool that all guests of a run-time directory share, compressed,
 * and each once: meant for their swap, which is much the same in many guests, and may be lost
 * when a guest's process ends.  The pool is tmem_pool.h; here is what a disk adds to it.
 *
 * A page of the disk is a slot, one word of the process's own: zero, or filled with one 32-bit
 * word, neither of which is in the pool; or the number of an object that is.  A slot holds the
 * object once.  Whoever takes its number out of a slot holds it a second time before looking into
 * it, then looks whether the slot still says so; whoever replaces it drops what was there
 * afterwards.  A page written as a whole is exchanged.  One that is written in part is read,
 * changed, stored and compared-and-exchanged while the old object is held, so that no number can
 * have come back meanwhile; when another queue was faster, all that is done once more.  Nobody
 * waits, nothing is allocated but room in the pool, and the kernel is asked for something when the
 * pool or its index grows, and ten times a second while it is full.
 *
 * Data is copied out of the guest's memory before it is looked at: it may change meanwhile. */
#include "blk/driver_tmem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "blk/driver.h"
#include "blk/tmem_pool.h"

#define PAGE_BYTES ((unsigned)PAGE_SIZE)
/* so that how often a disk has one object always fits its counter */
#define TMEM_DISK_MAX_BYTES (4096 * GIB)

enum slot_kind { SLOT_ZERO, SLOT_FILLED, SLOT_OBJECT };

struct tmem {
    struct tmem_user *user;
    uint64_t *slots;
    size_t slots_bytes;
};

/* ---- slots ---- */

static enum slot_kind slot_kind(uint64_t slot)
{
    return (enum slot_kind)(slot & 3);
}

/* The word, or the object. */
static uint32_t slot_value(uint64_t slot)
{
    return (uint32_t)(slot >> 32);
}

static uint64_t slot_make(enum slot_kind kind, uint32_t value)
{
    return (uint64_t)value << 32 | kind;
}

static bool is_filled(const uint8_t *page, uint32_t *word)
{
    uint32_t first, at;

    memcpy(&first, page, sizeof(first));
    for (unsigned i = sizeof(at); i < PAGE_BYTES; i += sizeof(at)) {
        memcpy(&at, page + i, sizeof(at));
        if (at != first)
            return false;
    }
    *word = first;
    return true;
}

static void fill(uint8_t *page, uint32_t word)
{
    for (unsigned i = 0; i < PAGE_BYTES; i += sizeof(word))
        memcpy(page + i, &word, sizeof(word));
}

/* A slot for what is in page.  0 or -ENOSPC. */
static int slot_store(struct tmem *t, struct tmem_hand *h, const uint8_t *page, uint64_t credit,
                      uint64_t *slot)
{
    uint32_t value;
    int rc;

    if (is_filled(page, &value)) {
        *slot = slot_make(value ? SLOT_FILLED : SLOT_ZERO, value);
        return 0;
    }
    rc = tmem_store(t->user, h, page, credit, &value);
    *slot = slot_make(SLOT_OBJECT, value);
    return rc;
}

static void slot_drop(struct tmem *t, struct tmem_hand *h, uint64_t slot)
{
    if (slot_kind(slot) == SLOT_OBJECT)
        tmem_drop(t->user, h, slot_value(slot));
}

/* A page of the disk is another from now on; what it was is dropped. */
static void slot_replaced(struct tmem *t, struct tmem_hand *h, uint64_t was, uint64_t is)
{
    int pages = (slot_kind(is) == SLOT_OBJECT) - (slot_kind(was) == SLOT_OBJECT);
    int filled = (slot_kind(is) == SLOT_FILLED) - (slot_kind(was) == SLOT_FILLED);

    if (pages || filled)
        tmem_count(t->user, pages, filled);
    slot_drop(t, h, was);
}

static uint64_t slot_credit(struct tmem *t, uint64_t slot, unsigned times)
{
    return slot_kind(slot) == SLOT_OBJECT ? tmem_drop_bytes(t->user, slot_value(slot), times) : 0;
}

/* Reads what a slot says, which is held on success (slot_drop()).  0 or -EIO. */
static int slot_load(struct tmem *t, struct tmem_hand *h, uint64_t *at, uint8_t *page,
                     uint64_t *slot)
{
    int rc = 0;

    for (;;) {
        *slot = load_acquire(at);
        if (slot_kind(*slot) != SLOT_OBJECT) {
            fill(page, slot_value(*slot));
            return 0;
        }
        /* what a slot says is held: if this is not, the slot has changed */
        if (!tmem_hold(t->user, slot_value(*slot)))
            continue;
        if (load_acquire(at) == *slot)
            break;
        slot_drop(t, h, *slot);
    }
    rc = tmem_load(t->user, h, slot_value(*slot), page);
    if (rc)
        slot_drop(t, h, *slot);
    return rc;
}

/* ---- a request's vector, from its beginning to its end ---- */

struct cursor {
    const struct iovec *iov;
    size_t at;
};

static void cursor_copy(struct cursor *c, uint8_t *buf, size_t n, bool out)
{
    while (n) {
        size_t piece = min_of(n, c->iov->iov_len - c->at);
        uint8_t *guest = (uint8_t *)c->iov->iov_base + c->at;

        memcpy(out ? guest : buf, out ? buf : guest, piece);
        buf += piece;
        n -= piece;
        c->at += piece;
        if (c->at == c->iov->iov_len) {
            c->iov++;
            c->at = 0;
        }
    }
}

/* ---- pages ---- */

static int page_read(struct tmem *t, struct tmem_hand *h, uint64_t *at, struct cursor *c,
                     unsigned from, unsigned length)
{
    uint8_t *page = tmem_hand_page(h);
    uint64_t slot;
    int rc = slot_load(t, h, at, page, &slot);

    if (rc)
        return rc;
    slot_drop(t, h, slot);
    cursor_copy(c, page + from, length, true);
    return 0;
}

/* c NULL: zeroes. */
static int page_write(struct tmem *t, struct tmem_hand *h, uint64_t *at, struct cursor *c)
{
    uint8_t *page = tmem_hand_page(h);
    uint64_t slot = slot_make(SLOT_ZERO, 0);
    int rc = 0;

    if (c) {
        cursor_copy(c, page, PAGE_BYTES, false);
        rc = slot_store(t, h, page, slot_credit(t, load_acquire(at), 1), &slot);
    } else if (load_acquire(at) == slot) {
        return 0;       /* untouched slots stay so: they take no memory */
    }
    if (!rc)
        slot_replaced(t, h, swap_acq_rel(at, slot), slot);
    return rc;
}

static int page_change(struct tmem *t, struct tmem_hand *h, uint64_t *at, struct cursor *c,
                       unsigned from, unsigned length)
{
    uint8_t *page = tmem_hand_page(h), data[PAGE_BYTES];
    uint64_t was, is;
    int rc;

    if (c)
        cursor_copy(c, data, length, false);
    else
        memset(data, 0, length);
    for (;;) {
        uint64_t expected;

        rc = slot_load(t, h, at, page, &was);
        if (rc)
            return rc;
        memcpy(page + from, data, length);
        rc = slot_store(t, h, page, slot_credit(t, was, 2), &is);
        if (rc)
            break;
        expected = was;
        if (__atomic_compare_exchange_n(at, &expected, is, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED)) {
            slot_replaced(t, h, was, is);
            break;
        }
        slot_drop(t, h, is);
        slot_drop(t, h, was);
    }
    slot_drop(t, h, was);
    return rc;
}

/* ---- the driver ---- */

static int range_judge(const struct blk_spec *spec, struct err *e)
{
    uint64_t size = spec->size_bytes;

    if (size && size % BLK_SECTOR_BYTES == 0 && size <= TMEM_DISK_MAX_BYTES)
        return 0;
    err_at(e, NULL, 0, "size");
    return err_set(e, EINVAL, "a tmem disk of %llu bytes: expected a multiple of %u, at most 4T",
                   (unsigned long long)size, BLK_SECTOR_BYTES);
}

static int slots_make(struct tmem *t, uint64_t size, struct err *e)
{
    t->slots_bytes = (size_t)(div_round_up(size, PAGE_SIZE) * sizeof(*t->slots));
    t->slots = mmap(NULL, t->slots_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (t->slots == MAP_FAILED)
        return err_set(e, errno, "no room for a tmem disk of %llu bytes: %s",
                       (unsigned long long)size, strerror(errno));
    madvise(t->slots, t->slots_bytes, MADV_NOHUGEPAGE);
    return 0;
}

static int tmem_open(const struct blk_spec *spec, struct blk_props *props, void **state,
                     struct err *e)
{
    uint64_t size = spec->size_bytes;
    struct tmem *t;
    int rc = range_judge(spec, e);

    if (rc)
        return rc;
    t = malloc(sizeof(*t));
    if (!t)
        return err_set(e, ENOMEM, "out of memory");
    rc = slots_make(t, size, e);
    if (!rc) {
        rc = tmem_pool_join(&(struct tmem_pool_params){
            .run_dir = spec->run_dir, .label = spec->label, .size_bytes = size,
            .quota_bytes = spec->quota_bytes, .pool_bytes = spec->pool_bytes,
        }, &t->user, e);
        if (rc)
            munmap(t->slots, t->slots_bytes);
    }
    if (rc) {
        free(t);
        return rc;
    }
    *props = (struct blk_props){
        .size_bytes = size,
        .physical_block_bytes = size % PAGE_SIZE ? BLK_SECTOR_BYTES : PAGE_BYTES,
        .discard_granularity_bytes = PAGE_BYTES,
        .readonly = spec->readonly,
        .can_flush = true,
        .can_discard = !spec->readonly && !spec->no_discard,
        .can_write_zeroes = !spec->readonly,
        .prompt = true,
    };
    *state = t;
    return 0;
}

static void tmem_close(void *state)
{
    struct tmem *t = state;

    tmem_pool_leave(t->user);
    munmap(t->slots, t->slots_bytes);
    free(t);
}

static int tmem_queue_open(struct blk_queue *q, void **queue_state, struct err *e)
{
    struct tmem *t = q->disk_state;

    *queue_state = tmem_hand_create(t->user);
    return *queue_state ? 0 : err_set(e, ENOMEM, "out of memory");
}

static void tmem_queue_close(struct blk_queue *q)
{
    struct tmem *t = q->disk_state;

    tmem_hand_free(t->user, q->queue_state);
}

static int range_do(struct tmem *t, struct tmem_hand *h, const struct blk_req *req)
{
    struct cursor vector = { .iov = req->iov };
    struct cursor *c = req->op == BLK_OP_READ || req->op == BLK_OP_WRITE ? &vector : NULL;
    uint64_t offset = req->offset_bytes, end = offset + req->length_bytes;
    int rc = 0;

    while (offset < end && !rc) {
        uint64_t *at = &t->slots[offset / PAGE_SIZE];
        unsigned from = (unsigned)(offset % PAGE_SIZE);
        unsigned length = (unsigned)min_of(PAGE_SIZE - from, end - offset);

        if (req->op == BLK_OP_READ)
            rc = page_read(t, h, at, c, from, length);
        else if (length == PAGE_BYTES)
            rc = page_write(t, h, at, c);
        else
            rc = page_change(t, h, at, c, from, length);
        offset += length;
    }
    return rc;
}

static void tmem_submit(struct blk_queue *q, struct blk_req *req)
{
    int rc = 0;

    /* a flush: there is nothing below memory */
    if (req->op != BLK_OP_FLUSH)
        rc = range_do(q->disk_state, q->queue_state, req);
    blk_req_done(q, req, rc);
}

static void tmem_queue(struct blk_queue *q)
{
}

const struct blk_driver blk_driver_tmem = {
    .name = "tmem",
    .summary = "compressed in memory that guests share, gone with the process that serves it",
    .open = tmem_open,
    .close = tmem_close,
    .queue_open = tmem_queue_open,
    .queue_close = tmem_queue_close,
    .submit = tmem_submit,
    .flush = tmem_queue,
    .poll = tmem_queue,
    .wait = blk_wait_fd,
};
