/* SPDX-License-Identifier: MIT */
/* virtio block requests through a queue's thread and the file driver; what only the engine
 * sees, with a driver that keeps it; a client that does what it likes with its descriptors. */
#include "../virtio/vq_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "blk/driver.h"
#include "dev/vhost_user_blk_queue.h"

#define DISK_BYTES (1 * MIB)
#define AT_HEADER  (RAM_BASE + 128 * KIB)
#define AT_STATUS  (RAM_BASE + 129 * KIB)
#define AT_DATA    (RAM_BASE + 132 * KIB)

struct world {
    struct vq_ram ram;
    struct vq_driver driver;
    char path[64];
    int image;
    struct blk_disk *disk;
    struct vub_queue *queue;
    int kick, call, err, fault;
    bool writethrough;
};

static void world_open(struct world *w, bool packed)
{
    struct err e = { 0 };

    memset(w, 0, sizeof(*w));
    strcpy(w->path, "/dev/shm/xenolith-vub-XXXXXX");
    w->image = mkstemp(w->path);
    assert_true(w->image >= 0);
    assert_int_equal(ftruncate(w->image, DISK_BYTES), 0);
    assert_int_equal(blk_disk_open(&(struct blk_spec){ .driver = "file", .path = w->path },
                                   &w->disk, &e), 0);
    ram_open(&w->ram);
    driver_open(&w->driver, &w->ram, packed, true, 16, 0);
    w->kick = eventfd(0, EFD_CLOEXEC);
    w->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->err = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->fault = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_int_equal(vub_queue_start(&(struct vub_queue_params){
        .disk = w->disk, .kick_fd = w->kick, .call_fd = w->call, .err_fd = w->err,
        .fault_fd = w->fault, .poll_max_ns = 20000, .name = "vub-test",
        .ring = { .vq = w->driver.p, .writethrough = &w->writethrough, .serial = "serial" },
    }, &w->queue, &e), 0);
}

static uint64_t world_close(struct world *w)
{
    struct vub_queue_counters last;

    vub_queue_stop(w->queue, &last);
    blk_disk_close(w->disk);
    ram_close(&w->ram);
    unlink(w->path);
    close(w->image);
    close(w->kick);
    close(w->call);
    close(w->err);
    close(w->fault);
    return last.ring.requests;
}

static void wait_readable(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    assert_int_equal(poll(&p, 1, 20000), 1);
}

/* Status, and in *len what was written. */
static uint8_t request(struct world *w, uint32_t type, uint64_t sector, uint32_t data, bool write,
                       uint32_t *len)
{
    struct virtio_blk_outhdr header = { .type = type, .sector = sector };
    uint8_t *status = ram_at(&w->ram, AT_STATUS);
    /* the header in two pieces, since nothing says that it is one */
    struct vq_piece piece[4] = { { AT_HEADER, 5, false }, { AT_HEADER + 5, 11, false } };
    unsigned nr = 2;
    eventfd_t n;
    int id;

    *status = 0xee;
    memcpy(ram_at(&w->ram, AT_HEADER), &header, sizeof(header));
    if (data)
        piece[nr++] = (struct vq_piece){ AT_DATA, data, write };
    piece[nr++] = (struct vq_piece){ AT_STATUS, 1, true };
    driver_arm(&w->driver);
    assert_true(driver_add(&w->driver, piece, nr, sector % 2) >= 0);
    if (driver_show(&w->driver))
        eventfd_write(w->kick, 1);
    while ((id = driver_used(&w->driver, len)) < 0) {
        wait_readable(w->call);
        eventfd_read(w->call, &n);
    }
    return *status;
}

static void each_request_does_what_it_says(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        struct world w;
        uint8_t *data, image[4096], zero[4096] = { 0 };
        struct virtio_blk_discard_write_zeroes range = { .sector = 16, .num_sectors = 8 };
        uint32_t len;

        world_open(&w, packed);
        data = ram_at(&w.ram, AT_DATA);
        for (unsigned sector = 8; sector < 32; sector += 8) {
            memset(data, (int)sector, 4096);
            assert_int_equal(request(&w, VIRTIO_BLK_T_OUT, sector, 4096, false, &len),
                             VIRTIO_BLK_S_OK);
            assert_int_equal(len, 1);
        }
        assert_int_equal(request(&w, VIRTIO_BLK_T_FLUSH, 0, 0, false, &len), VIRTIO_BLK_S_OK);
        assert_int_equal(pread(w.image, image, 4096, 16 * 512), 4096);
        assert_int_equal(image[0], 16);
        assert_int_equal(image[4095], 16);
        memset(data, 0, 4096);
        assert_int_equal(request(&w, VIRTIO_BLK_T_IN, 16, 4096, true, &len), VIRTIO_BLK_S_OK);
        assert_int_equal(len, 4097);
        assert_memory_equal(data, image, 4096);

        memcpy(data, &range, sizeof(range));
        assert_int_equal(request(&w, VIRTIO_BLK_T_DISCARD, 0, 16, false, &len), VIRTIO_BLK_S_OK);
        assert_int_equal(pread(w.image, image, 4096, 16 * 512), 4096);
        assert_memory_equal(image, zero, 4096);
        range = (struct virtio_blk_discard_write_zeroes){ 8, 8, 1 };
        memcpy(data, &range, sizeof(range));
        assert_int_equal(request(&w, VIRTIO_BLK_T_WRITE_ZEROES, 0, 16, false, &len),
                         VIRTIO_BLK_S_OK);
        assert_int_equal(pread(w.image, image, 4096, 8 * 512), 4096);
        assert_memory_equal(image, zero, 4096);

        memset(data, 0xff, 20);
        assert_int_equal(request(&w, VIRTIO_BLK_T_GET_ID, 0, 20, true, &len), VIRTIO_BLK_S_OK);
        assert_string_equal((char *)data, "serial");
        assert_int_equal(len, 21);
        world_close(&w);
    }
}

static void a_bad_request_gets_an_error_and_costs_nothing_else(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        struct world w;
        struct virtio_blk_discard_write_zeroes range = { .sector = 0, .num_sectors = 8 };
        uint64_t end = DISK_BYTES / 512;
        uint32_t len;

        world_open(&w, packed);
        assert_int_equal(request(&w, VIRTIO_BLK_T_IN, end, 512, true, &len), VIRTIO_BLK_S_IOERR);
        assert_int_equal(len, 0);
        assert_int_equal(request(&w, VIRTIO_BLK_T_IN, end - 1, 1024, true, &len),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(&w, VIRTIO_BLK_T_OUT, UINT64_MAX, 512, false, &len),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(&w, VIRTIO_BLK_T_OUT, 1ull << 55, 512, false, &len),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(&w, VIRTIO_BLK_T_IN, 0, 511, true, &len), VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(&w, VIRTIO_BLK_T_IN, 0, 0, true, &len), VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(&w, VIRTIO_BLK_T_OUT, 0, 512, true, &len), VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(&w, 77, 0, 0, false, &len), VIRTIO_BLK_S_UNSUPP);
        range.flags = 1;
        memcpy(ram_at(&w.ram, AT_DATA), &range, sizeof(range));
        assert_int_equal(request(&w, VIRTIO_BLK_T_DISCARD, 0, 16, false, &len),
                         VIRTIO_BLK_S_UNSUPP);
        assert_int_equal(request(&w, VIRTIO_BLK_T_DISCARD, 0, 32, false, &len),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(&w, VIRTIO_BLK_T_DISCARD, 0, 15, false, &len),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(&w, VIRTIO_BLK_T_IN, 0, 512, true, &len), VIRTIO_BLK_S_OK);
        assert_null(vub_queue_fault(w.queue));
        assert_int_equal(world_close(&w), 12);
    }
}

static void a_request_without_header_or_status_stops_the_queue(void **state)
{
    static const struct vq_piece bad[] = { { AT_HEADER, 15, false }, { AT_STATUS, 1, true },
                                           { AT_HEADER, 16, false } };

    for (unsigned packed = 0; packed < 2; packed++)
        for (unsigned i = 0; i < 3; i++) {
            struct world w;

            world_open(&w, packed);
            driver_add(&w.driver, &bad[i], 1 + !i, false);
            driver_show(&w.driver);
            eventfd_write(w.kick, 1);
            wait_readable(w.err);
            wait_readable(w.fault);
            assert_non_null(vub_queue_fault(w.queue));
            world_close(&w);
        }
}

/* A full counter makes a write wait, a read one makes a read wait: neither keeps us from
 * stopping, nor from working where there is something to be told. */
static void descriptors_of_a_client_keep_nobody_waiting(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        struct virtio_blk_outhdr header = { .type = VIRTIO_BLK_T_FLUSH };
        struct vq_piece piece[2] = { { AT_HEADER, 16, false }, { AT_STATUS, 1, true } };
        struct world w;
        eventfd_t n;
        uint32_t len;

        world_open(&w, packed);
        assert_int_equal(request(&w, VIRTIO_BLK_T_FLUSH, 0, 0, false, &len), VIRTIO_BLK_S_OK);
        /* what it was kicked with is gone before it looks */
        eventfd_write(w.kick, 1);
        fcntl(w.kick, F_SETFL, O_NONBLOCK);
        eventfd_read(w.kick, &n);
        fcntl(w.kick, F_SETFL, 0);
        assert_int_equal(request(&w, VIRTIO_BLK_T_FLUSH, 0, 0, false, &len), VIRTIO_BLK_S_OK);

        eventfd_read(w.call, &n);
        fcntl(w.call, F_SETFL, 0);
        eventfd_write(w.call, UINT64_MAX - 1);
        memcpy(ram_at(&w.ram, AT_HEADER), &header, sizeof(header));
        driver_arm(&w.driver);
        driver_add(&w.driver, piece, 2, false);
        if (driver_show(&w.driver))
            eventfd_write(w.kick, 1);
        while (driver_used(&w.driver, &len) < 0)
            usleep(100);
        assert_int_equal(world_close(&w), 3);
    }
}

/* ---- what only the engine sees ---- */

struct keeper { struct blk_disk disk; struct blk_req *req; };

static int keep_queue_open(struct blk_queue *q, void **state, struct err *e)
{
    return 0;
}

static void keep_nothing(struct blk_queue *q)
{
}

static void keep_submit(struct blk_queue *q, struct blk_req *req)
{
    ((struct keeper *)q->disk_state)->req = req;
}

static const struct blk_driver keep_driver = {
    .name = "keep", .summary = "keeps requests", .queue_open = keep_queue_open,
    .queue_close = keep_nothing, .submit = keep_submit, .flush = keep_nothing,
    .poll = keep_nothing, .wait = blk_wait_fd,
};

static void a_write_is_through_when_it_has_to_be_and_reads_are_logged(void **state)
{
    uint8_t bits[(RAM_BASE + 2 * RAM_BYTES) / PAGE_SIZE / 8 + 1] = { 0 };
    struct dirty_log log = { .bits = bits, .size_bytes = sizeof(bits) };
    struct keeper k = { .disk = { .driver = &keep_driver, .state = &k, .props = {
        .size_bytes = DISK_BYTES, .can_flush = true } } };
    struct vblk_ring *r = malloc(sizeof(*r));
    struct blk_queue_params qp = { .nr_reqs = 16, .max_iov = VBLK_IOV_MAX, .wake_fd = -1,
                                   .complete = vblk_ring_complete, .arg = r };
    struct blk_queue *q;
    struct err e = { 0 };
    struct vq_driver d;
    struct vq_ram ram;
    bool through = false;
    unsigned page = (unsigned)(AT_DATA / PAGE_SIZE);

    ram_open(&ram);
    driver_open(&d, &ram, false, false, 16, 0);
    d.p.log = &log;
    assert_int_equal(vblk_ring_init(r, &(struct vblk_ring_params){
        .vq = d.p, .writethrough = &through, .serial = "" }), 0);
    assert_int_equal(blk_queue_open(&k.disk, &qp, &q, &e), 0);
    vblk_ring_set_queue(r, q);
    for (unsigned i = 0; i < 3; i++) {
        bool read = i == 2;
        struct virtio_blk_outhdr header = {
            .type = read ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, .sector = 5 };
        struct vq_piece piece[3] = { { AT_HEADER, 16, false }, { AT_DATA + 512, 512, read },
                                     { AT_STATUS, 1, true } };

        through = i == 1;
        memcpy(ram_at(&ram, AT_HEADER), &header, sizeof(header));
        driver_add(&d, piece, 3, false);
        driver_show(&d);
        assert_int_equal(vblk_ring_take(r, 10), 1);
        assert_int_equal(k.req->op, read ? BLK_OP_READ : BLK_OP_WRITE);
        assert_int_equal(k.req->fua, through);
        assert_int_equal(k.req->offset_bytes, 5 * 512);
        assert_int_equal(bits[page / 8] >> page % 8 & 1, 0);
        /* drivers move through the vector that they are given */
        blk_req_advance(k.req, 512);
        blk_req_done(q, k.req, 0);
        assert_int_equal(blk_queue_reap(q), 1);
        assert_int_equal(bits[page / 8] >> page % 8 & 1, read);
    }
    blk_queue_close(q);
    vblk_ring_free(r);
    ram_close(&ram);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_request_does_what_it_says),
        cmocka_unit_test(a_bad_request_gets_an_error_and_costs_nothing_else),
        cmocka_unit_test(a_request_without_header_or_status_stops_the_queue),
        cmocka_unit_test(descriptors_of_a_client_keep_nobody_waiting),
        cmocka_unit_test(a_write_is_through_when_it_has_to_be_and_reads_are_logged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
