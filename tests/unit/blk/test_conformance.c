/* SPDX-License-Identifier: MIT */
/* What every driver in the table must do, whatever its medium, alone and below each filter. */
#include "nbd_test.h"

#define DISK_BYTES (1 * MIB)

/* Who has the medium of a driver that does not have it itself. */
enum server { SERVER_NONE, SERVER_QEMU_NBD, SERVER_NBDKIT };

struct medium {
    const char *name;
    const char *driver;
    enum server server;
    const char *format;         /* of the image, for a qemu-nbd that the driver starts */
    const char *program;        /* that serves it */
    bool discard_may_keep;      /* the server promises nothing */
    bool empty;                 /* the disk does not begin as the image */
};

struct fixture {
    struct image image;
    struct nbd_program program;
    struct blk_disk *disk;
    struct sync_queue queue;
    uint8_t *buf;
};

static const struct medium *medium_under_test;

/* What each filter is told so that it changes nothing that a user can see. */
static const struct { const char *name, *options; } harmless[] = {
    { "qos", "qos:iops=10000000:bps=900G" },
    { "delay", "delay:time=1us:up-to=50us" },
    { "fault", "fault:nth=1000000000" },
    { "verify", "verify" },
    { "cow", "cow:file=%s" },
    { "trace", "trace:records=100:file=%s.trace" },
};

/* Where an overlay may be, and a trace; each test begins without one. */
static char overlay_path[64], trace_path[80];
static struct run_dir run_dir;
static const char *filters_under_test;

/* Whether what is written can be read again. */
static bool remembers(void)
{
    return strcmp(medium_under_test->driver, "null") || strstr(filters_under_test, "cow:");
}

static void image_convert(const char *path, const char *format)
{
    char command[512];

    snprintf(command, sizeof(command), "qemu-img convert -f raw -O %s %s %s.new && mv %s.new %s",
             format, path, path, path, path);
    assert_int_equal(system(command), 0);
}

/* Makes the medium, and starts who serves it. */
static struct blk_spec medium_make(struct fixture *f)
{
    const struct medium *m = medium_under_test;
    char file_word[128];

    image_make(&f->image, "/tmp", DISK_BYTES);
    snprintf(file_word, sizeof(file_word), "file=%s", f->image.path);
    if (m->format)
        image_convert(f->image.path, m->format);
    if (m->server == SERVER_QEMU_NBD)
        qemu_nbd_start(&f->program, "raw", f->image.path, NULL);
    if (m->server == SERVER_NBDKIT)
        nbdkit_start(&f->program, (const char *const[]){ "file", file_word, NULL });
    return (struct blk_spec){
        .driver = m->driver, .path = m->server ? f->program.uri : f->image.path,
        .format = m->format, .size_bytes = DISK_BYTES, .filters = filters_under_test,
        .run_dir = run_dir.path,
    };
}

static void medium_end(struct fixture *f)
{
    nbd_program_end(&f->program);
    unlink(f->image.path);
    unlink(overlay_path);
    unlink(trace_path);
}

static int setup_mode(void **state, bool readonly)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct blk_spec spec = medium_make(f);

    if (readonly && strstr(spec.filters, "cow:"))
        blk_disk_close(disk_open(&spec));       /* makes the overlay */
    spec.readonly = readonly;
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
    medium_end(f);
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

static void read_all(struct fixture *f, uint8_t *into)
{
    assert_int_equal(sync_io(&f->queue, BLK_OP_READ, 0, into, DISK_BYTES, 37), 0);
}

/* One change of any kind, in the disk and in its model; misaligned memory now and then. */
static void change(struct fixture *f, uint8_t *model, unsigned *seed, uint64_t at, uint64_t len)
{
    static const enum blk_op ops[] = { BLK_OP_WRITE, BLK_OP_WRITE, BLK_OP_WRITE, BLK_OP_WRITE,
                                       BLK_OP_DISCARD, BLK_OP_WRITE_ZEROES };
    enum blk_op op = ops[(unsigned)rand_r(seed) % array_size(ops)];
    uint8_t *data = f->buf + at + (rand_r(seed) % 4 ? 0 : 1 + rand_r(seed) % 511);

    if (!blk_disk_props(f->disk)->can_discard || data + len > f->buf + DISK_BYTES)
        op = BLK_OP_WRITE;
    if (op == BLK_OP_DISCARD && medium_under_test->discard_may_keep)
        op = BLK_OP_WRITE_ZEROES;
    if (op != BLK_OP_WRITE) {
        memset(model + at, 0, len);
        sync_start(&f->queue, op, at, NULL, len, 0);
        return;
    }
    if (data + len > f->buf + DISK_BYTES)
        data = f->buf + at;
    for (uint64_t i = 0; i < len; i++)
        data[i] = model[at + i] = (uint8_t)rand_r(seed);
    sync_start(&f->queue, op, at, data, len, 1 + (unsigned)rand_r(seed) % (unsigned)(len / 512));
}

/* Seeded changes of all kinds and shapes: in flight together where they do not overlap, one
 * after the other where they do. */
static void what_was_written_is_read(void **state)
{
    struct fixture *f = *state;
    uint8_t *model;
    unsigned seed = 77;

    if (!remembers())
        skip();
    model = malloc(DISK_BYTES);
    read_all(f, model);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned lane = 0; lane < 16; lane++) {
            uint64_t base = lane * 64 * KIB, sector = (unsigned)rand_r(&seed) % 120;

            /* two lanes' worth of room behind the last, for misaligned memory */
            change(f, model, &seed, base + sector * 512,
                   (1 + (unsigned)rand_r(&seed) % (unsigned)(127 - sector)) * 512);
        }
        sync_wait_all(&f->queue);
        for (unsigned i = 0; i < 64; i++)
            assert_int_equal(f->queue.result[i], 0);
        for (unsigned i = 0; i < 4; i++) {
            uint64_t sector = (unsigned)rand_r(&seed) % (DISK_BYTES / 512 - 256);

            change(f, model, &seed, sector * 512, (1 + (unsigned)rand_r(&seed) % 250) * 512);
            sync_wait_all(&f->queue);
        }
        if (round % 5 == 0)
            assert_int_equal(sync_io(&f->queue, BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
        read_all(f, f->buf);
        assert_memory_equal(f->buf, model, DISK_BYTES);
    }
    free(model);
}

/* Of writes that overlap while in flight each sector holds one, whole. */
static void overlapping_writes_leave_one_of_them(void **state)
{
    struct fixture *f = *state;

    if (!remembers())
        skip();
    for (unsigned round = 0; round < 8; round++) {
        uint8_t *back = f->buf + 512 * KIB;

        for (unsigned i = 0; i < 16; i++) {
            memset(f->buf + i * 16 * KIB, (int)(1 + i), 16 * KIB);
            sync_start(&f->queue, BLK_OP_WRITE, 32 * KIB + i * 512, f->buf + i * 16 * KIB, 16 * KIB,
                       1 + i % 3);
        }
        sync_wait_all(&f->queue);
        assert_int_equal(sync_io(&f->queue, BLK_OP_READ, 32 * KIB, back, 24 * KIB, 1), 0);
        for (unsigned sector = 0; sector < 15 + 32; sector++) {
            uint8_t got = back[sector * 512];

            assert_in_range(got, sector < 32 ? 1 : sector - 30, min_of(sector, 15u) + 1);
            for (unsigned i = 0; i < 512; i++)
                assert_int_equal(back[sector * 512 + i], got);
        }
    }
}

static void durable_writes_succeed(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 8; i++) {
        struct blk_req *req = blk_req_get(f->queue.q, 1);

        memset(f->buf, (int)i, 4096);
        req->op = BLK_OP_WRITE;
        req->fua = true;
        req->offset_bytes = i * 64 * KIB;
        req->length_bytes = 4096;
        req->iov[0] = (struct iovec){ f->buf, 4096 };
        req->nr_iov = 1;
        blk_req_submit(f->queue.q, req);
        sync_wait_all(&f->queue);
        assert_int_equal(f->queue.result[req->index], 0);
    }
}

/* One disk, two queues, in turn: what one has written the other reads. */
static void queues_see_each_other(void **state)
{
    struct fixture *f = *state;
    struct sync_queue other;

    if (!remembers() || blk_disk_props(f->disk)->max_queues == 1)
        skip();
    sync_open(&other, f->disk);
    for (unsigned i = 0; i < 32; i++) {
        struct sync_queue *writer = i % 2 ? &f->queue : &other;
        struct sync_queue *reader = i % 2 ? &other : &f->queue;

        memset(f->buf, (int)(0x40 + i), 8192);
        assert_int_equal(sync_io(writer, BLK_OP_WRITE, i * 512, f->buf, 8192, 2), 0);
        assert_int_equal(sync_io(writer, BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
        memset(f->buf, 0, 8192);
        assert_int_equal(sync_io(reader, BLK_OP_READ, i * 512, f->buf, 8192, 1), 0);
        for (unsigned at = 0; at < 8192; at++)
            assert_int_equal(f->buf[at], 0x40 + i);
    }
    blk_queue_close(other.q);
}

/* Nothing is kept back any more, and nothing is lost. */
static void a_drained_queue_ends(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 64; i++)
        sync_start(&f->queue, i % 2 ? BLK_OP_READ : BLK_OP_WRITE, i * 4096, f->buf + i * 4096,
                   4096, 1);
    blk_queue_drain(f->queue.q);
    sync_wait_all(&f->queue);
    /* a face may have further steps */
    assert_int_equal(sync_io(&f->queue, BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(f->queue.result[i], 0);
}

/* A session in which the n-th request fails, for each n: with that error, alone, and without
 * a trace on the disk. */
struct script_step { enum blk_op op; uint64_t at, len; int value; };

static const struct script_step script[] = {
    { BLK_OP_WRITE, 0, 8192, 1 }, { BLK_OP_WRITE, 4096, 4096, 2 }, { BLK_OP_READ, 0, 8192, 0 },
    { BLK_OP_FLUSH, 0, 0, 0 }, { BLK_OP_WRITE, 7 * 512, 3 * 512, 3 }, { BLK_OP_READ, 512, 8192, 0 },
    { BLK_OP_WRITE, 0, 64 * KIB, 4 }, { BLK_OP_WRITE, 60 * KIB, 1024, 5 },
    { BLK_OP_FLUSH, 0, 0, 0 }, { BLK_OP_READ, 0, 64 * KIB, 0 },
};

static void script_run(struct sync_queue *s, uint8_t *model, unsigned failing, int error)
{
    uint8_t *buf = aligned_alloc(4096, 64 * KIB);

    for (unsigned i = 0; i < array_size(script); i++) {
        const struct script_step *step = &script[i];
        bool fails = i + 1 == failing;

        memset(buf, step->value, 64 * KIB);
        assert_int_equal(sync_io(s, step->op, step->at, step->len ? buf : NULL, step->len,
                                 step->len ? 1 + i % 2 : 0), fails ? error : 0);
        if (step->op == BLK_OP_WRITE && !fails)
            memset(model + step->at, step->value, step->len);
        if (step->op == BLK_OP_READ && !fails && remembers())
            assert_memory_equal(buf, model + step->at, step->len);
    }
    free(buf);
}

static void the_nth_request_fails_alone(void **state)
{
    static const struct { const char *name; int error; } errors[] = {
        { "EIO", -EIO }, { "ENOSPC", -ENOSPC },
    };
    uint8_t *model = malloc(DISK_BYTES);

    for (unsigned n = 1; n <= array_size(script); n++) {
        for (unsigned i = 0; i < array_size(errors); i++) {
            struct fixture f = { .buf = NULL };
            struct blk_spec spec = medium_make(&f);
            struct sync_queue s;
            struct blk_disk *d;
            char filters[512];

            snprintf(filters, sizeof(filters), "fault:nth=%u:error=%s%s%s", n, errors[i].name,
                     *spec.filters ? "," : "", spec.filters);
            spec.filters = filters;
            d = disk_open(&spec);
            sync_open(&s, d);
            assert_int_equal(sync_io(&s, BLK_OP_DISCARD, DISK_BYTES, NULL, 512, 0), -EINVAL);
            for (uint64_t at = 0; at < DISK_BYTES; at++)
                model[at] = medium_under_test->empty ? 0 : pattern_byte(at);
            script_run(&s, model, n, errors[i].error);
            blk_queue_close(s.q);
            blk_disk_close(d);
            medium_end(&f);
        }
    }
    free(model);
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

static int tests_run(const char *name)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(size_is_whole_sectors, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_and_writes_at_the_edges_succeed, setup, teardown),
        cmocka_unit_test_setup_teardown(read_fills_the_whole_vector, setup, teardown),
        cmocka_unit_test_setup_teardown(requests_outside_the_disk_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(unknown_operation_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(flush_succeeds, setup, teardown),
        cmocka_unit_test_setup_teardown(discarded_sectors_read_zero, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_written_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(overlapping_writes_leave_one_of_them, setup, teardown),
        cmocka_unit_test_setup_teardown(durable_writes_succeed, setup, teardown),
        cmocka_unit_test_setup_teardown(queues_see_each_other, setup, teardown),
        cmocka_unit_test_setup_teardown(a_drained_queue_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(many_in_flight_complete_once_each, setup, teardown),
        cmocka_unit_test_setup_teardown(statistics_count_what_completed, setup, teardown),
        cmocka_unit_test_setup_teardown(readonly_disk_refuses_changes, setup_readonly, teardown),
        cmocka_unit_test(the_nth_request_fails_alone),
    };

    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

static void harmless_options(const char *name, char *out, size_t size)
{
    for (unsigned i = 0; i < array_size(harmless); i++) {
        const char *path = strstr(harmless[i].options, "%s");

        if (strcmp(harmless[i].name, name))
            continue;
        snprintf(out, size, "%.*s%s%s", path ? (int)(path - harmless[i].options) : 64,
                 harmless[i].options, path ? overlay_path : "", path ? path + 2 : "");
        return;
    }
    fprintf(stderr, "%s: a filter that this test does not know\n", name);
    exit(1);
}

/* The medium alone, and below all filters at once. */
static int medium_run(const struct medium *m)
{
    char name[256], one[128], all[512] = "";
    int failed;

    medium_under_test = m;
    filters_under_test = "";
    failed = tests_run(m->name);
    for (unsigned k = 0; blk_filter_table[k]; k++) {
        harmless_options(blk_filter_table[k]->name, one, sizeof(one));
        snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s%s", *all ? "," : "", one);
    }
    filters_under_test = all;
    snprintf(name, sizeof(name), "all filters over %s", m->name);
    return failed + tests_run(name);
}

/* The medium below each filter. */
static int filters_run(const struct medium *m)
{
    int failed = 0;

    for (unsigned k = 0; blk_filter_table[k]; k++) {
        char name[256], one[128];

        medium_under_test = m;
        harmless_options(blk_filter_table[k]->name, one, sizeof(one));
        filters_under_test = one;
        /* a disk that forgets is what verify finds: test_filters.c */
        if (!remembers() && !strcmp(blk_filter_table[k]->name, "verify"))
            continue;
        snprintf(name, sizeof(name), "%s over %s", blk_filter_table[k]->name, m->name);
        failed += tests_run(name);
    }
    return failed;
}

/* Servers of other people's; each is started anew for every test, so filters are tried all
 * at once only. */
static int nbd_run(const char *program)
{
    static const struct medium nbd[] = {
        { "nbd of qemu-nbd", "nbd", SERVER_QEMU_NBD, NULL, "qemu-nbd", true, false },
        { "nbd of nbdkit", "nbd", SERVER_NBDKIT, NULL, "nbdkit", true, false },
        { "nbd of our own qemu-nbd, qcow2", "nbd", SERVER_NONE, "qcow2", "qemu-nbd", true, false },
        { "nbd of our own qemu-nbd, raw", "nbd", SERVER_NONE, "raw", "qemu-nbd", true, false },
    };
    int failed = 0;

    if (!program_there(program))
        return TEST_SKIPPED;
    for (unsigned j = 0; j < array_size(nbd); j++)
        if (!strcmp(nbd[j].program, program))
            failed += medium_run(&nbd[j]);
    return failed != 0;
}

static int own_run(void)
{
    int failed = 0;

    for (unsigned i = 0; blk_driver_table[i]; i++) {
        const char *name = blk_driver_table[i]->name;
        const struct medium own = { .name = name, .driver = name, .empty = strcmp(name, "file") };

        if (strcmp(name, "nbd"))
            failed += medium_run(&own) + filters_run(&own);
    }
    return failed != 0;
}

/* Without an argument: the drivers that need nobody.  PROGRAM: nbd, as far as that serves. */
int main(int argc, char **argv)
{
    int status;

    snprintf(overlay_path, sizeof(overlay_path), "/tmp/xenolith-overlay-%d", (int)getpid());
    snprintf(trace_path, sizeof(trace_path), "%s.trace", overlay_path);
    run_dir_make(&run_dir);
    status = argc > 1 ? nbd_run(argv[1]) : own_run();
    run_dir_remove(&run_dir);
    return status;
}
