/* SPDX-License-Identifier: MIT */
/* What every driver in the table must do, whatever its medium. */
#include "nbd_test.h"

#define DISK_BYTES (1 * MIB)

/* Who has the medium of a driver that does not have it itself. */
enum server { SERVER_NONE, SERVER_QEMU_NBD, SERVER_NBDKIT };

struct medium {
    const char *name;
    const char *driver;
    enum server server;
    const char *format;         /* of the image, for a qemu-nbd that the driver starts */
    const char *program;        /* without which there is no such medium */
    bool discard_may_keep;      /* the server promises nothing */
};

struct fixture {
    struct image image;
    struct nbd_program program;
    struct blk_disk *disk;
    struct sync_queue queue;
    uint8_t *buf;
};

static const struct medium *medium_under_test;

static void image_convert(const char *path, const char *format)
{
    char command[512];

    snprintf(command, sizeof(command), "qemu-img convert -f raw -O %s %s %s.new && mv %s.new %s",
             format, path, path, path, path);
    assert_int_equal(system(command), 0);
}

static int setup_mode(void **state, bool readonly)
{
    const struct medium *m = medium_under_test;
    struct fixture *f = calloc(1, sizeof(*f));
    char file_word[128];
    struct blk_spec spec = {
        .driver = m->driver, .path = f->image.path, .format = m->format,
        .size_bytes = DISK_BYTES, .readonly = readonly,
    };

    image_make(&f->image, "/tmp", DISK_BYTES);
    snprintf(file_word, sizeof(file_word), "file=%s", f->image.path);
    if (m->format)
        image_convert(f->image.path, m->format);
    if (m->server == SERVER_QEMU_NBD)
        qemu_nbd_start(&f->program, "raw", f->image.path, NULL);
    if (m->server == SERVER_NBDKIT)
        nbdkit_start(&f->program, (const char *const[]){ "file", file_word, NULL });
    if (m->server)
        spec.path = f->program.uri;
    f->buf = aligned_alloc(4096, DISK_BYTES);
    f->disk = disk_open(&spec);
    sync_open(&f->queue, f->disk);
    *state = f;
    return 0;
}

static int setup(void **state)
{
    return setup_mode(state, false);
}

static int setup_readonly(void **state)
{
    return setup_mode(state, true);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    blk_queue_close(f->queue.q);
    blk_disk_close(f->disk);
    nbd_program_end(&f->program);
    unlink(f->image.path);
    free(f->buf);
    free(f);
    return 0;
}

static void size_is_whole_sectors(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(blk_disk_props(f->disk)->size_bytes, DISK_BYTES);
    assert_int_equal(blk_props_nr_sectors(blk_disk_props(f->disk)), DISK_BYTES / 512);
}

static void reads_and_writes_at_the_edges_succeed(void **state)
{
    struct fixture *f = *state;
    static const struct { uint64_t at, len; unsigned nr_iov; } io[] = {
        { 0, 512, 1 }, { DISK_BYTES - 512, 512, 1 }, { 0, DISK_BYTES, 256 },
        { 512, 3 * 512, 3 }, { 4096, 13 * 4096, 13 }, { 7 * 512, 64 * 512, 12 },
    };

    for (unsigned i = 0; i < array_size(io); i++) {
        assert_int_equal(sync_io(&f->queue, BLK_OP_WRITE, io[i].at, f->buf, io[i].len,
                                 io[i].nr_iov), 0);
        assert_int_equal(sync_io(&f->queue, BLK_OP_READ, io[i].at, f->buf, io[i].len,
                                 io[i].nr_iov), 0);
    }
}

static void read_fills_the_whole_vector(void **state)
{
    struct fixture *f = *state;
    uint8_t *first = malloc(64 * KIB);

    /* whatever the medium holds, two reads over different garbage agree */
    memset(f->buf, 0x5a, 64 * KIB);
    assert_int_equal(sync_io(&f->queue, BLK_OP_READ, 8192, f->buf, 64 * KIB, 16), 0);
    memcpy(first, f->buf, 64 * KIB);
    memset(f->buf, 0xa5, 64 * KIB);
    assert_int_equal(sync_io(&f->queue, BLK_OP_READ, 8192, f->buf, 64 * KIB, 5), 0);
    assert_memory_equal(first, f->buf, 64 * KIB);
    free(first);
}

static void requests_outside_the_disk_fail(void **state)
{
    struct fixture *f = *state;
    static const struct { uint64_t at, len; } io[] = {
        { DISK_BYTES, 512 }, { DISK_BYTES - 512, 1024 }, { UINT64_MAX - 511, 512 },
        { UINT64_MAX - 511, 1024 }, { 1ull << 63, 512 }, { 0, 0 }, { 256, 512 }, { 0, 300 },
    };

    for (unsigned i = 0; i < array_size(io); i++) {
        assert_int_equal(sync_io(&f->queue, BLK_OP_READ, io[i].at, f->buf, io[i].len, 1), -EINVAL);
        assert_int_equal(sync_io(&f->queue, BLK_OP_WRITE, io[i].at, f->buf, io[i].len, 1), -EINVAL);
        assert_int_equal(sync_io(&f->queue, BLK_OP_DISCARD, io[i].at, NULL, io[i].len, 0), -EINVAL);
    }
}

static void unknown_operation_fails(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(sync_io(&f->queue, (enum blk_op)77, 0, f->buf, 512, 1), -EOPNOTSUPP);
}

static void flush_succeeds(void **state)
{
    struct fixture *f = *state;

    assert_true(blk_disk_props(f->disk)->can_flush);
    assert_int_equal(sync_io(&f->queue, BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
}

static void discarded_sectors_read_zero(void **state)
{
    struct fixture *f = *state;
    static const enum blk_op ops[] = { BLK_OP_DISCARD, BLK_OP_WRITE_ZEROES };

    if (!blk_disk_props(f->disk)->can_discard)
        skip();
    for (unsigned i = 0; i < array_size(ops); i++) {
        memset(f->buf, 0x77, 32 * KIB);
        assert_int_equal(sync_io(&f->queue, BLK_OP_WRITE, 0, f->buf, 32 * KIB, 1), 0);
        assert_int_equal(sync_io(&f->queue, ops[i], 512, NULL, 31 * KIB, 0), 0);
        assert_int_equal(sync_io(&f->queue, BLK_OP_READ, 512, f->buf, 31 * KIB, 1), 0);
        for (unsigned at = 0; at < 31 * KIB; at++)
            if (ops[i] == BLK_OP_WRITE_ZEROES || !medium_under_test->discard_may_keep ||
                f->buf[at] != 0x77)
                assert_int_equal(f->buf[at], 0);
    }
}

static void many_in_flight_complete_once_each(void **state)
{
    struct fixture *f = *state;
    unsigned index[64];

    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = 0; i < 64; i++)
            index[i] = sync_start(&f->queue, i % 3 ? BLK_OP_READ : BLK_OP_WRITE, i * 4096,
                                  f->buf + i * 4096, 4096, 1 + i % 4);
        assert_null(blk_req_get(f->queue.q, 1));
        assert_int_equal(blk_queue_nr_inflight(f->queue.q), 64);
        sync_wait_all(&f->queue);
        for (unsigned i = 0; i < 64; i++) {
            assert_int_equal(f->queue.completions[index[i]], 1);
            assert_int_equal(f->queue.result[index[i]], 0);
        }
    }
}

static void statistics_count_what_completed(void **state)
{
    struct fixture *f = *state;
    struct blk_stats s;

    sync_io(&f->queue, BLK_OP_READ, 0, f->buf, 8192, 2);
    sync_io(&f->queue, BLK_OP_READ, DISK_BYTES, f->buf, 512, 1);
    sync_io(&f->queue, BLK_OP_WRITE, 0, f->buf, 512, 1);
    sync_io(&f->queue, BLK_OP_FLUSH, 0, NULL, 0, 0);
    blk_queue_stats(f->queue.q, &s);
    assert_int_equal(s.requests[BLK_OP_READ], 2);
    assert_int_equal(s.bytes[BLK_OP_READ], 8192);
    assert_int_equal(s.requests[BLK_OP_WRITE], 1);
    assert_int_equal(s.bytes[BLK_OP_WRITE], 512);
    assert_int_equal(s.requests[BLK_OP_FLUSH], 1);
    assert_int_equal(s.errors, 1);
}

static void readonly_disk_refuses_changes(void **state)
{
    struct fixture *f = *state;

    assert_true(blk_disk_props(f->disk)->readonly);
    assert_false(blk_disk_props(f->disk)->can_discard);
    assert_int_equal(sync_io(&f->queue, BLK_OP_WRITE, 0, f->buf, 512, 1), -EROFS);
    assert_int_equal(sync_io(&f->queue, BLK_OP_DISCARD, 0, NULL, 512, 0), -EROFS);
    assert_int_equal(sync_io(&f->queue, BLK_OP_WRITE_ZEROES, 0, NULL, 512, 0), -EROFS);
    assert_int_equal(sync_io(&f->queue, BLK_OP_READ, 0, f->buf, 512, 1), 0);
    assert_int_equal(sync_io(&f->queue, BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(size_is_whole_sectors, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_and_writes_at_the_edges_succeed, setup, teardown),
        cmocka_unit_test_setup_teardown(read_fills_the_whole_vector, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_outside_the_disk_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(unknown_operation_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(flush_succeeds, setup, teardown),
        cmocka_unit_test_setup_teardown(discarded_sectors_read_zero, setup, teardown),
        cmocka_unit_test_setup_teardown(many_in_flight_complete_once_each, setup, teardown),
        cmocka_unit_test_setup_teardown(statistics_count_what_completed, setup, teardown),
        cmocka_unit_test_setup_teardown(readonly_disk_refuses_changes, setup_readonly, teardown),
    };
    static const struct medium nbd[] = {
        { "nbd of qemu-nbd", "nbd", SERVER_QEMU_NBD, NULL, "qemu-nbd", true },
        { "nbd of nbdkit", "nbd", SERVER_NBDKIT, NULL, "nbdkit", true },
        { "nbd of our own qemu-nbd, qcow2", "nbd", SERVER_NONE, "qcow2", "qemu-nbd", true },
        { "nbd of our own qemu-nbd, raw", "nbd", SERVER_NONE, "raw", "qemu-nbd", true },
    };
    int failed = 0;

    for (unsigned i = 0; blk_driver_table[i]; i++) {
        const char *name = blk_driver_table[i]->name;
        const struct medium own = { name, name }, *media = &own;
        unsigned nr = 1;

        if (!strcmp(name, "nbd")) {
            media = nbd;
            nr = array_size(nbd);
        }
        for (unsigned j = 0; j < nr; j++) {
            medium_under_test = &media[j];
            if (!media[j].program || program_there(media[j].program))
                failed += cmocka_run_group_tests_name(media[j].name, tests, NULL, NULL);
        }
    }
    return failed;
}
