/* SPDX-License-Identifier: MIT */
/* A driver that writes anything into the virtqueues of a virtio block device, of both formats,
 * at any time, and a record of requests in flight that holds anything.  The input is a script:
 * four bytes of set-up, then commands.  The engine's driver underneath checks that all memory
 * it is given is the guest's, that vectors have the lengths they claim, and nothing reaches it
 * beyond the disk's end; after the script every request taken must have been answered once. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dev/virtio_blk_ring.h"
#include "virtio/inflight.h"
#include "watched_disk.h"

#define RAM_BASE     (1 * MIB)
#define RAM_BYTES    (64 * KIB)
#define AT_DESC      0u
#define AT_DRIVER    (4 * KIB)
#define AT_DEVICE    (6 * KIB)
#define NUM_MAX      128u

struct machine {
    struct shared_mem mem;
    uint8_t *ram;
    struct watched_disk watched;
    bool writethrough;
    uint8_t bits[8];
    struct dirty_log log;
};

static void machine_init(struct machine *m)
{
    struct err e = { 0 };
    int fd = memfd_create("ram", MFD_CLOEXEC);

    memset(m, 0, sizeof(*m));
    require(fd >= 0 && !ftruncate(fd, RAM_BYTES));
    /* two regions that are neighbours for the guest and for us, so that one check serves */
    m->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    require(m->ram != MAP_FAILED);
    require(!shared_mem_add(&m->mem, &(struct shared_mem_slot){
        .base = gpa(RAM_BASE), .size_bytes = RAM_BYTES / 2, .owner_address = 1 }, fd, &e));
    require(!shared_mem_add(&m->mem, &(struct shared_mem_slot){
        .base = gpa(RAM_BASE + RAM_BYTES / 2), .size_bytes = RAM_BYTES / 2,
        .owner_address = 1 + RAM_BYTES / 2, .file_offset_bytes = RAM_BYTES / 2 }, fd, &e));
    for (unsigned i = 0; i < 2; i++) {
        munmap(m->mem.region[i].map, m->mem.region[i].map_bytes);
        m->mem.region[i].map = m->mem.region[i].host = m->ram + i * RAM_BYTES / 2;
    }
    close(fd);
    watched_init(&m->watched, m->ram, RAM_BYTES, VBLK_IOV_MAX, true);
    m->log = (struct dirty_log){ .bits = m->bits, .size_bytes = sizeof(m->bits) };
}

/* A descriptor at a place of the ring that the device has not come to, made available. */
static void desc_add(struct machine *m, struct vblk_ring *r, struct input *in, unsigned ahead)
{
    struct virtqueue *vq = &r->vq;
    unsigned num = vq->p.num, at = (vq->avail_idx + ahead) % num;
    bool wrap = vq->avail_wrap ^ (vq->avail_idx + ahead >= num);
    uint16_t flags = (uint16_t)(take(in, 1) & 7), next = (uint16_t)take(in, 1);
    uint64_t addr = RAM_BASE + take(in, 2);
    uint32_t len = take(in, 2);

    if (vq->p.packed) {
        ((struct vring_packed_desc *)vq->p.desc)[at] = (struct vring_packed_desc){
            addr, len, next, (uint16_t)(flags | (wrap ? 1u << 7 : 1u << 15)) };
        return;
    }
    ((struct vring_desc *)vq->p.desc)[at] = (struct vring_desc){ addr, len, flags, next };
    ((struct vring_avail *)vq->p.driver)->ring[at] = (uint16_t)at;
}

static void command(struct machine *m, struct vblk_ring *r, struct blk_queue *q, struct input *in)
{
    struct vring_avail *avail = r->vq.p.driver;
    uint32_t at, n;

    switch (take(in, 1) % 10) {
    case 0:     /* bytes anywhere in the guest's memory, the rings included */
        at = take(in, 2) % RAM_BYTES;
        n = (uint32_t)min_of((uint64_t)take(in, 1), RAM_BYTES - at);
        n = (uint32_t)min_of((size_t)n, in->left);
        memcpy(m->ram + at, in->at, n);
        in->at += n;
        in->left -= n;
        break;
    case 1:
        desc_add(m, r, in, 0);
        break;
    case 2:
        desc_add(m, r, in, take(in, 1) % NUM_MAX);
        break;
    case 3:
        avail->idx = (uint16_t)(avail->idx + (int8_t)take(in, 1));
        break;
    case 4:
        avail->idx++;
        break;
    case 5:
        vblk_ring_take(r, 1 + take(in, 1) % 64);
        break;
    case 6:
        m->watched.later = take(in, 1) & 1;
        m->watched.result = take(in, 1) & 3 ? 0 : -EIO;
        m->writethrough = take(in, 1) & 1;
        break;
    case 7:
        watched_finish_held(&m->watched, q);
        break;
    case 8:
        blk_queue_reap(q);
        vblk_ring_publish(r);
        break;
    default:
        if (take(in, 1) & 1)
            vblk_ring_arm(r);
        else
            virtqueue_disarm(&r->vq);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    struct vblk_ring *r = malloc(sizeof(*r));
    unsigned how = take(&in, 1), num = 1 + take(&in, 1) % NUM_MAX;
    uint32_t start = take(&in, 2) * 0x10001u;
    bool packed = how & 1;
    uint8_t *record = NULL;
    struct blk_queue *q = NULL;
    struct err e = { 0 };
    struct machine m;
    struct vblk_ring_params p = { .writethrough = &m.writethrough, .serial = "fuzz" };
    struct blk_queue_params qp = {
        .max_iov = VBLK_IOV_MAX, .wake_fd = -1, .complete = vblk_ring_complete, .arg = r,
    };

    machine_init(&m);
    while (!packed && (num & (num - 1)))
        num &= num - 1;
    p.vq = (struct virtqueue_params){
        .mem = &m.mem, .log = how & 2 ? &m.log : NULL, .packed = packed, .event_idx = how & 4,
        .indirect = how & 8, .num = num, .desc = m.ram + AT_DESC, .driver = m.ram + AT_DRIVER,
        .device = m.ram + AT_DEVICE, .base = start, .log_device = how & 16,
        .log_device_at = gpa(RAM_BASE + AT_DEVICE),
    };
    if (!packed) {
        ((struct vring_avail *)p.vq.driver)->idx = (uint16_t)start;
        ((struct vring_used *)p.vq.device)->idx = (uint16_t)start;
    }
    if (how & 32) {
        size_t bytes = virtqueue_inflight_bytes(packed, num), n = min_of(bytes, in.left);

        record = calloc(1, bytes);
        require(record);
        if (how & 64) {     /* what another server left */
            n = min_of(n, (size_t)take(&in, 2));
            n = min_of(n, in.left);
            memcpy(record, in.at, n);
            in.at += n;
            in.left -= n;
            record[8] = 1;
            record[9] = 0;
            record[10] = (uint8_t)num;
            record[11] = 0;
        }
        p.vq.inflight = virtqueue_inflight_create(record, packed, num);
        require(p.vq.inflight);
    }
    require(!vblk_ring_init(r, &p));
    qp.nr_reqs = vblk_ring_nr_reqs(num);
    require(!blk_queue_open(&m.watched.disk, &qp, &q, &e));
    vblk_ring_set_queue(r, q);
    while (in.left)
        command(&m, r, q, &in);

    vblk_ring_close(r);
    m.watched.later = false;
    watched_finish_held(&m.watched, q);
    vblk_ring_publish(r);
    require(m.watched.nr_submitted == m.watched.nr_done);
    require(!blk_queue_nr_inflight(q));
    require(r->vq.nr_held <= num);
    /* what is held still are requests that stopped the queue, and what it was to do again */
    require(!r->vq.nr_held || virtqueue_fault(&r->vq) || record);
    vblk_ring_free(r);
    blk_queue_close(q);
    virtqueue_inflight_free(p.vq.inflight);
    free(record);
    munmap(m.ram, RAM_BYTES);
    free(r);
    return 0;
}
