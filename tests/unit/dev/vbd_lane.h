/* SPDX-License-Identifier: MIT */
/* Whole queue threads on a file, each with a frontend that behaves as a guest's driver does:
 * sleeping on interrupts, kicking only when asked to. */
#ifndef TESTS_UNIT_DEV_VBD_LANE_H
#define TESTS_UNIT_DEV_VBD_LANE_H

#include <fcntl.h>
#include <pthread.h>

#include "dev/xen_vbd_queue.h"
#include "vbd_front.h"

#define NR_QUEUES     4u
#define REGION_BYTES  (2 * MIB)         /* of the disk, per queue */
#define DEPTH         16u
#define SLOT_PAGES    8u                /* data pages per request in flight */
#define ROUNDS        400u

struct lane {
    struct front front;
    struct vbd_queue *queue;
    pthread_t thread;
    unsigned index, seed;
    uint32_t first_page;                /* of its data, and one list page per slot */
    uint64_t base;                      /* in the disk, bytes */
    uint8_t *model;                     /* what its region must hold */
    uint64_t shows, kicks, put_off;
    bool puts_off;                      /* doorbells, for ever, when it may */
    unsigned caller;                    /* the vCPU; 0 has the queue's events */
};

struct fixture {
    struct guest guest;
    struct blk_disk *disk;
    char path[64];
    int fault_fd;
    struct lane lane[NR_QUEUES];
};

static inline void open_filtered(struct fixture *f, const char *dir, const char *filters)
{
    struct err e = { 0 };
    int fd;

    snprintf(f->path, sizeof(f->path), "%s/xenolith-vbd-XXXXXX", dir);
    fd = mkstemp(f->path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)(NR_QUEUES * REGION_BYTES)), 0);
    close(fd);
    assert_int_equal(blk_disk_open(&(struct blk_spec){ .driver = "file", .path = f->path,
                                                       .filters = filters },
                                   &f->disk, &e), 0);
    f->fault_fd = eventfd(0, EFD_NONBLOCK);
    guest_init(&f->guest);
    for (uint32_t i = 0; i < GUEST_PAGES; i++)
        guest_grant(&f->guest, i, false);
}

static inline void open_disk(struct fixture *f, const char *dir)
{
    open_filtered(f, dir, NULL);
}

static inline void close_disk(struct fixture *f)
{
    guest_free(&f->guest);
    close(f->fault_fd);
    blk_disk_close(f->disk);
    unlink(f->path);
}

/* calls: this frontend's vCPUs may serve the queue themselves. */
static inline void lane_open_as(struct fixture *f, unsigned i, unsigned nr_pages, bool persistent,
                         uint64_t poll_max_ns, bool calls)
{
    struct lane *l = &f->lane[i];
    struct err e = { 0 };

    memset(l, 0, sizeof(*l));
    l->index = i;
    l->caller = 1;
    l->seed = 1000 + i;
    l->base = i * REGION_BYTES;
    l->first_page = 256 + i * 512;
    l->model = calloc(1, REGION_BYTES);
    front_init(&l->front, &f->guest, 4 + i * 40, nr_pages, UINT32_MAX - 100);
    l->front.port.call = calls ? &l->front.call : NULL;
    assert_int_equal(vbd_queue_start(&(struct vbd_queue_params){
        .disk = f->disk,
        .ring = {
            .abi = vbd_abi_find(NULL), .pages = l->front.page, .nr_pages = nr_pages,
            .grants = &f->guest.grants, .persistent = persistent,
        },
        .port = &l->front.port,
        .poll_max_ns = poll_max_ns,
        .fault_fd = f->fault_fd,
        .name = "test-q",
    }, &l->queue, &e), 0);
}

static inline void lane_open(struct fixture *f, unsigned i, unsigned nr_pages, bool persistent,
                      uint64_t poll_max_ns)
{
    lane_open_as(f, i, nr_pages, persistent, poll_max_ns, false);
}

static inline void lane_close(struct lane *l, struct vbd_queue_counters *last)
{
    vbd_queue_stop(l->queue, last);
    front_free(&l->front);
    free(l->model);
}

static inline void lane_show(struct lane *l)
{
    l->shows++;
    if (!front_publish(&l->front))
        return;
    /* as the shim on a vCPU that then never passes there again */
    barrier_full();
    if (l->puts_off && load_relaxed(&l->front.link.awake)) {
        l->put_off++;
        return;
    }
    if (load_relaxed(&l->front.link.call)) {
        bool served = xen_hostcall_ring(&l->front.call, l->caller);

        /* on its way back to the guest the shim takes what it has been made to look at */
        if (swap_acq_rel(&l->front.waker.attention, 0))
            swap_acq_rel(&l->front.link.pending, 0);
        if (served)
            return;
    }
    l->kicks++;
    front_kick(&l->front);
}

static inline struct blkif_response lane_wait(struct lane *l)
{
    struct blkif_response rsp;

    while (!front_get(&l->front, &rsp))
        if (!front_arm(&l->front))
            front_sleep(&l->front);
    return rsp;
}

static inline void lane_put(struct lane *l, unsigned slot, uint8_t op, uint64_t offset,
                            unsigned pages)
{
    uint32_t data = l->first_page + slot * SLOT_PAGES;
    uint32_t list = l->first_page + DEPTH * SLOT_PAGES + slot;

    if (slot % 2) {
        struct blkif_request_segment *seg = (void *)guest_page(l->front.guest, list);
        struct blkif_request_indirect r;

        memset(&r, 0, sizeof(r));
        r.operation = BLKIF_OP_INDIRECT;
        r.indirect_op = op;
        r.nr_segments = (uint16_t)pages;
        r.id = slot;
        r.sector_number = (l->base + offset) / 512;
        r.indirect_grefs[0] = list;
        for (unsigned i = 0; i < pages; i++)
            seg[i] = (struct blkif_request_segment){ data + i, 0, 7 };
        front_put(&l->front, &r);
    } else {
        struct blkif_request r = front_request(&l->front, op, slot, (l->base + offset) / 512,
                                               data, (uint8_t)pages);

        front_put(&l->front, &r);
    }
}

/* Slots own disjoint parts of the region, so what each must read is known. */
static inline void *lane_main(void *arg)
{
    struct lane *l = arg;
    uint64_t part = REGION_BYTES / DEPTH;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t offset[DEPTH];
        unsigned pages[DEPTH], done = 0;
        bool write[DEPTH];

        for (unsigned s = 0; s < DEPTH; s++) {
            uint8_t *buf = guest_page(l->front.guest, l->first_page + s * SLOT_PAGES);

            pages[s] = 1 + (unsigned)rand_r(&l->seed) % SLOT_PAGES;
            offset[s] = s * part + (uint64_t)rand_r(&l->seed) %
                        ((part - SLOT_PAGES * PAGE_SIZE) / 512) * 512;
            write[s] = rand_r(&l->seed) % 2;
            for (unsigned i = 0; i < pages[s] * PAGE_SIZE; i += 64)
                buf[i] = (uint8_t)rand_r(&l->seed);
            if (write[s])
                memcpy(l->model + offset[s], buf, pages[s] * PAGE_SIZE);
            lane_put(l, s, write[s] ? BLKIF_OP_WRITE : BLKIF_OP_READ, offset[s], pages[s]);
            if (rand_r(&l->seed) % 4 == 0)
                lane_show(l);
        }
        lane_show(l);
        while (done < DEPTH) {
            struct blkif_response rsp = lane_wait(l);
            unsigned s = (unsigned)rsp.id;

            done++;
            if (rsp.status != BLKIF_RSP_OKAY || s >= DEPTH)
                return "a request failed";
            if (!write[s] && memcmp(guest_page(l->front.guest, l->first_page + s * SLOT_PAGES),
                                    l->model + offset[s], pages[s] * PAGE_SIZE))
                return "data differs";
        }
    }
    return NULL;
}

/* Asleep for good, once the last windows have passed: the counters stand still. */
static inline void wait_until_asleep(const struct lane *l, struct vbd_queue_counters *after)
{
    struct vbd_queue_counters before;

    do {
        vbd_queue_counters(l->queue, &before);
        usleep(20000);
        vbd_queue_counters(l->queue, after);
    } while (memcmp(&before, after, sizeof(before)));
}

/* More run than there are processors: the thread sleeps at once, and looks by itself. */
static inline void crowd_begin(struct lane *l)
{
    store_relaxed(&l->front.load.nr_links, 1u);
    store_relaxed(&l->front.load.host_cpus, 1u);
    store_relaxed(&l->front.waker.state, XEN_HOSTWAKER_RUNNING);
    l->puts_off = true;
}

/* Asks for one thing at a time, as a guest does that waits for each. */
static inline void ask_one_by_one(struct lane *l, unsigned nr_requests)
{
    for (unsigned i = 0; i < nr_requests; i++) {
        lane_put(l, 0, i % 2 ? BLKIF_OP_READ : BLKIF_OP_WRITE, 0, 1);
        lane_show(l);
        assert_int_equal(lane_wait(l).status, BLKIF_RSP_OKAY);
        front_arm(&l->front);   /* says what it has seen, as drivers do */
    }
}

#endif
