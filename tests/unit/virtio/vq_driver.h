/* SPDX-License-Identifier: MIT */
/* A driver of virtqueues, split and packed, for tests: it owns the guest's memory and follows
 * the rules of sections 2.7 and 2.8, so that a test can break them one by one. */
#ifndef VQ_DRIVER_H
#define VQ_DRIVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/atomic.h"
#include "virtio/virtqueue.h"

/* Two regions that meet, so that buffers can lie across: each from a file of its own. */
#define RAM_BASE   (1 * GIB)
#define RAM_BYTES  (256 * KIB)
#define RAM_OWNER  0x7f0000000000ull
#define RING_MAX   256u

struct vq_ram {
    struct shared_mem mem;
    int fd[2];
};

static inline void ram_open(struct vq_ram *ram)
{
    struct err e = { 0 };

    shared_mem_init(&ram->mem);
    for (unsigned i = 0; i < 2; i++) {
        ram->fd[i] = memfd_create("ram", MFD_CLOEXEC);
        assert_true(ram->fd[i] >= 0);
        assert_int_equal(ftruncate(ram->fd[i], RAM_BYTES), 0);
        assert_int_equal(shared_mem_add(&ram->mem, &(struct shared_mem_slot){
            .base = gpa(RAM_BASE + i * RAM_BYTES), .size_bytes = RAM_BYTES,
            .owner_address = RAM_OWNER + i * RAM_BYTES * 4 }, ram->fd[i], &e), 0);
    }
}

static inline void ram_close(struct vq_ram *ram)
{
    shared_mem_free(&ram->mem);
    close(ram->fd[0]);
    close(ram->fd[1]);
}

static inline void *ram_at(struct vq_ram *ram, uint64_t address)
{
    uint64_t len = 1;
    unsigned hint = 0;
    void *host = shared_mem_ptr(&ram->mem, gpa(address), &len, &hint);

    assert_non_null(host);
    return host;
}

/* The rings lie at the beginning of the first region. */
#define AT_DESC     RAM_BASE
#define AT_DRIVER   (RAM_BASE + 8 * KIB)
#define AT_DEVICE   (RAM_BASE + 12 * KIB)
#define AT_TABLES   (RAM_BASE + 64 * KIB)      /* indirect ones, 512 bytes for each id */

struct vq_piece { uint64_t at; uint32_t len; bool write; };

struct vq_driver {
    struct vq_ram *ram;
    struct virtqueue_params p;
    uint16_t avail_idx, used_idx;   /* split: counting on; packed: positions */
    bool avail_wrap, used_wrap;
    uint16_t avail_shown, old_shown;
    unsigned nr_free;
    uint16_t next_free;             /* split: descriptors are used round */
    uint16_t nr_descs[RING_MAX];    /* of the chain with this id */
    bool busy[RING_MAX];
};

static inline struct vring_desc *split_desc(struct vq_driver *d) { return d->p.desc; }
static inline struct vring_avail *split_avail(struct vq_driver *d) { return d->p.driver; }
static inline struct vring_used *split_used(struct vq_driver *d) { return d->p.device; }
static inline struct vring_packed_desc *packed_desc(struct vq_driver *d) { return d->p.desc; }

static inline void driver_open(struct vq_driver *d, struct vq_ram *ram, bool packed,
                               bool event_idx, unsigned num, uint16_t start)
{
    memset(d, 0, sizeof(*d));
    d->ram = ram;
    d->nr_free = num;
    d->p = (struct virtqueue_params){
        .mem = &ram->mem, .packed = packed, .event_idx = event_idx, .indirect = true,
        .num = num, .desc = ram_at(ram, AT_DESC), .driver = ram_at(ram, AT_DRIVER),
        .device = ram_at(ram, AT_DEVICE),
    };
    memset(ram_at(ram, AT_DESC), 0, 16 * KIB);
    if (packed) {
        d->avail_idx = d->used_idx = start % num;
        d->avail_wrap = d->used_wrap = true;
        d->p.base = (uint32_t)(d->avail_idx | 0x8000u) * 0x10001u;
        /* what lies before was used in this lap */
        for (unsigned i = 0; i < d->avail_idx; i++)
            packed_desc(d)[i].flags = 1u << 7 | 1u << 15;
    } else {
        d->avail_idx = d->used_idx = d->avail_shown = d->old_shown = start;
        split_avail(d)->idx = split_used(d)->idx = start;
        d->p.base = start;
    }
}

static inline void table_write(struct vq_driver *d, uint16_t id, const struct vq_piece *piece,
                               unsigned nr)
{
    struct vring_desc *table = ram_at(d->ram, AT_TABLES + id * 512ull);

    for (unsigned i = 0; i < nr; i++) {
        uint16_t write = piece[i].write ? VRING_DESC_F_WRITE : 0;

        if (d->p.packed)
            ((struct vring_packed_desc *)table)[i] = (struct vring_packed_desc){
                piece[i].at, piece[i].len, 0, write };
        else
            table[i] = (struct vring_desc){
                piece[i].at, piece[i].len,
                (uint16_t)(write | (i + 1 < nr ? VRING_DESC_F_NEXT : 0)), (uint16_t)(i + 1) };
    }
}

static inline uint16_t id_take(struct vq_driver *d)
{
    for (uint16_t i = 0; i < d->p.num; i++)
        if (!d->busy[i])
            return i;
    fail_msg("no free id");
    return 0;
}

/* Adds one buffer, which a packed queue shows at once, a split one when it is told; its id, or
 * -1 when there is no room. */
static inline int driver_add(struct vq_driver *d, const struct vq_piece *piece, unsigned nr,
                             bool indirect)
{
    uint16_t id, first, head_flags = 0, *head = NULL;
    struct vq_piece table;

    if (d->nr_free < (indirect ? 1 : nr))
        return -1;
    id = first = id_take(d);
    if (indirect) {
        table_write(d, id, piece, nr);
        table = (struct vq_piece){ AT_TABLES + id * 512ull, nr * 16, false };
        piece = &table;
        nr = 1;
    }
    for (unsigned i = 0; i < nr; i++) {
        uint16_t flags = (uint16_t)((indirect ? VRING_DESC_F_INDIRECT : 0) |
                                    (piece[i].write ? VRING_DESC_F_WRITE : 0) |
                                    (i + 1 < nr ? VRING_DESC_F_NEXT : 0));

        if (d->p.packed) {
            struct vring_packed_desc *desc = &packed_desc(d)[d->avail_idx];

            flags |= (uint16_t)(d->avail_wrap ? 1u << 7 : 1u << 15);
            store_relaxed(&desc->addr, piece[i].at);
            store_relaxed(&desc->len, piece[i].len);
            store_relaxed(&desc->id, id);
            if (i)
                store_relaxed(&desc->flags, flags);
            else {
                head = &desc->flags;
                head_flags = flags;
            }
            if (++d->avail_idx == d->p.num) {
                d->avail_idx = 0;
                d->avail_wrap = !d->avail_wrap;
            }
        } else {
            /* the chain is linked through ids that are free */
            uint16_t at = id;

            d->busy[at] = true;
            if (i + 1 < nr)
                id = id_take(d);
            split_desc(d)[at] = (struct vring_desc){ piece[i].at, piece[i].len, flags, id };
        }
    }
    d->busy[first] = true;
    d->nr_descs[first] = (uint16_t)nr;
    d->nr_free -= nr;
    if (d->p.packed)
        store_release(head, head_flags);    /* pairs with virtqueue_packed_take() */
    else
        split_avail(d)->ring[d->avail_idx++ & (d->p.num - 1)] = first;
    return first;
}

/* Shows the device all that was added.  Whether it wants to be notified. */
static inline bool driver_show(struct vq_driver *d)
{
    struct vring_packed_desc_event *e = d->p.device;
    uint16_t old = d->avail_shown, new = d->avail_idx;

    if (d->p.packed) {
        barrier_full();
        return load_relaxed(&e->flags) != VRING_PACKED_EVENT_FLAG_DISABLE;
    }
    store_release(&split_avail(d)->idx, new);
    barrier_full();
    d->avail_shown = new;
    if (d->p.event_idx) {
        const uint16_t *event = (void *)((char *)d->p.device + 4 + d->p.num * 8ull);

        return vring_need_event(load_relaxed(event), new, old);
    }
    return !(load_relaxed(&split_used(d)->flags) & VRING_USED_F_NO_NOTIFY);
}

/* Asks for a notification of the next used buffer. */
static inline void driver_arm(struct vq_driver *d)
{
    struct vring_packed_desc_event *e = d->p.driver;

    if (d->p.packed) {
        store_relaxed(&e->off_wrap,
                      (uint16_t)(d->used_idx | (d->used_wrap ? 0x8000u : 0)));
        store_release(&e->flags, (uint16_t)(d->p.event_idx ? VRING_PACKED_EVENT_FLAG_DESC
                                                           : VRING_PACKED_EVENT_FLAG_ENABLE));
    } else if (d->p.event_idx) {
        store_relaxed(&split_avail(d)->ring[d->p.num], d->used_idx);
    } else {
        split_avail(d)->flags = 0;
    }
    barrier_full();
}

static inline void driver_disarm(struct vq_driver *d)
{
    struct vring_packed_desc_event *e = d->p.driver;

    if (d->p.packed)
        e->flags = VRING_PACKED_EVENT_FLAG_DISABLE;
    else if (!d->p.event_idx)
        split_avail(d)->flags = VRING_AVAIL_F_NO_INTERRUPT;
    else
        split_avail(d)->ring[d->p.num] = (uint16_t)(d->used_idx - 1);
}

static inline void split_release(struct vq_driver *d, uint16_t id)
{
    for (unsigned n = d->nr_descs[id], at = id; n--; at = split_desc(d)[at].next)
        d->busy[at] = false;
}

/* The next used buffer's id, -1: there is none. */
static inline int driver_used(struct vq_driver *d, uint32_t *len)
{
    uint16_t id;

    if (d->p.packed) {
        struct vring_packed_desc *desc = &packed_desc(d)[d->used_idx];
        uint16_t flags = load_acquire(&desc->flags);

        if (!!(flags & 1u << 7) != d->used_wrap || !!(flags & 1u << 15) != d->used_wrap)
            return -1;
        id = desc->id;
        *len = desc->len;
        assert_true(id < d->p.num && d->busy[id]);
        d->busy[id] = false;
        d->used_idx = (uint16_t)(d->used_idx + d->nr_descs[id]);
        if (d->used_idx >= d->p.num) {
            d->used_idx = (uint16_t)(d->used_idx - d->p.num);
            d->used_wrap = !d->used_wrap;
        }
    } else {
        struct vring_used_elem *elem = &split_used(d)->ring[d->used_idx & (d->p.num - 1)];

        if (load_acquire(&split_used(d)->idx) == d->used_idx)
            return -1;
        assert_true(elem->id < d->p.num && d->busy[elem->id]);
        id = (uint16_t)elem->id;
        *len = elem->len;
        d->used_idx++;
        split_release(d, id);
    }
    d->nr_free += d->nr_descs[id];
    return id;
}

#endif
