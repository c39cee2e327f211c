/* SPDX-License-Identifier: MIT */
/* A disk whose size changes while it is open. */
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "blk/size_watch.h"
#include "blk_test.h"

#define DISK_BYTES  (4 * MIB)
#define ROUNDS      300u
#define KEPT_BYTES  (1 * MIB)       /* which no size in these tests leaves out */

struct way { const char *name, *dir; bool no_direct; };

static const struct way ways[] = {
    { "O_DIRECT where the file system has it", "/tmp", false },
    { "page cache", "/tmp", true },
    { "memory", "/dev/shm", false },
};

static const struct way *way_under_test;

struct fixture {
    struct image image;
    struct blk_disk *disk;
    struct sync_queue queue;
    uint8_t *buf;
};

static void fixture_open(struct fixture *f, bool readonly)
{
    struct blk_spec spec = {
        .driver = "file", .path = f->image.path, .readonly = readonly,
        .no_direct = way_under_test->no_direct,
    };

    image_make(&f->image, way_under_test->dir, DISK_BYTES);
    f->buf = aligned_alloc(4096, 2 * DISK_BYTES);
    memset(f->buf, 0x5a, 2 * DISK_BYTES);
    f->disk = disk_open(&spec);
    sync_open(&f->queue, f->disk);
}

static void fixture_close(struct fixture *f)
{
    blk_queue_close(f->queue.q);
    blk_disk_close(f->disk);
    unlink(f->image.path);
    free(f->buf);
}

static uint64_t file_bytes(const struct fixture *f)
{
    struct stat st;

    assert_int_equal(stat(f->image.path, &st), 0);
    return (uint64_t)st.st_size;
}

static int resize(struct fixture *f, uint64_t size_bytes)
{
    struct err e = { 0 };
    int rc = blk_disk_resize(f->disk, size_bytes, &e);

    /* who fails says why */
    assert_int_equal(rc, -e.code);
    assert_int_equal(e.text[0] != '\0', rc != 0);
    return rc;
}

static int io(struct fixture *f, enum blk_op op, uint64_t at, uint64_t len)
{
    return sync_io(&f->queue, op, at, f->buf, len, 1);
}

static void what_the_file_has_gained_can_be_used(void **state)
{
    struct fixture f = { 0 };

    fixture_open(&f, false);
    assert_int_equal(truncate(f.image.path, 2 * DISK_BYTES), 0);
    /* nobody has said so yet */
    assert_int_equal(io(&f, BLK_OP_READ, DISK_BYTES, 512), -EINVAL);
    assert_int_equal(resize(&f, 0), 0);
    assert_int_equal(blk_disk_props(f.disk)->size_bytes, 2 * DISK_BYTES);
    assert_int_equal(io(&f, BLK_OP_WRITE, 2 * DISK_BYTES - 4096, 4096), 0);
    assert_int_equal(io(&f, BLK_OP_READ, 2 * DISK_BYTES, 512), -EINVAL);
    assert_int_equal(io(&f, BLK_OP_READ, DISK_BYTES - 4096, 8192), 0);
    for (unsigned i = 0; i < 4096; i++) {
        assert_int_equal(f.buf[i], pattern_byte(DISK_BYTES - 4096 + i));
        assert_int_equal(f.buf[4096 + i], 0);
    }
    fixture_close(&f);
}

static void what_the_file_has_lost_is_gone(void **state)
{
    struct fixture f = { 0 };

    fixture_open(&f, false);
    assert_int_equal(truncate(f.image.path, DISK_BYTES / 2), 0);
    assert_int_equal(io(&f, BLK_OP_READ, DISK_BYTES / 2, 4096), -EIO);
    assert_int_equal(resize(&f, 0), 0);
    assert_int_equal(io(&f, BLK_OP_READ, DISK_BYTES / 2, 4096), -EINVAL);
    assert_int_equal(io(&f, BLK_OP_WRITE, DISK_BYTES / 2 - 512, 1024), -EINVAL);
    assert_int_equal(io(&f, BLK_OP_DISCARD, DISK_BYTES / 2, 4096), -EINVAL);
    assert_int_equal(io(&f, BLK_OP_READ, DISK_BYTES / 2 - 4096, 4096), 0);
    assert_int_equal(f.buf[0], pattern_byte(DISK_BYTES / 2 - 4096));
    assert_int_equal(file_bytes(&f), DISK_BYTES / 2);
    fixture_close(&f);
}

static void a_size_that_is_asked_for_is_made(void **state)
{
    struct fixture f = { 0 };

    fixture_open(&f, false);
    assert_int_equal(resize(&f, 2 * DISK_BYTES), 0);
    assert_int_equal(file_bytes(&f), 2 * DISK_BYTES);
    assert_int_equal(io(&f, BLK_OP_WRITE, 2 * DISK_BYTES - 512, 512), 0);
    assert_int_equal(resize(&f, KEPT_BYTES), 0);
    assert_int_equal(file_bytes(&f), KEPT_BYTES);
    assert_int_equal(io(&f, BLK_OP_READ, KEPT_BYTES, 512), -EINVAL);
    /* what comes back comes empty */
    assert_int_equal(resize(&f, DISK_BYTES), 0);
    assert_int_equal(io(&f, BLK_OP_READ, KEPT_BYTES, 4096), 0);
    for (unsigned i = 0; i < 4096; i++)
        assert_int_equal(f.buf[i], 0);
    /* the physical block goes with the size, as blkif.h wants it */
    assert_int_equal(resize(&f, KEPT_BYTES + 512), 0);
    assert_int_equal(blk_disk_props(f.disk)->physical_block_bytes, 512);
    fixture_close(&f);
}

static void a_last_sector_in_part_reads_as_zeroes(void **state)
{
    struct fixture f = { 0 };

    fixture_open(&f, false);
    assert_int_equal(truncate(f.image.path, KEPT_BYTES + 100), 0);
    assert_int_equal(resize(&f, 0), 0);
    assert_int_equal(blk_disk_props(f.disk)->size_bytes, KEPT_BYTES + 512);
    assert_int_equal(io(&f, BLK_OP_READ, KEPT_BYTES, 512), 0);
    assert_int_equal(f.buf[99], pattern_byte(KEPT_BYTES + 99));
    for (unsigned i = 100; i < 512; i++)
        assert_int_equal(f.buf[i], 0);
    fixture_close(&f);
}

static void sizes_that_cannot_be_change_nothing(void **state)
{
    struct rlimit before, limit;
    struct fixture f = { 0 };

    fixture_open(&f, false);
    assert_int_equal(resize(&f, 1000), -EINVAL);
    assert_int_equal(resize(&f, 1ull << 63), -EINVAL);
    assert_int_equal(blk_disk_props(f.disk)->size_bytes, DISK_BYTES);
    /* the host will not have it */
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){ DISK_BYTES, before.rlim_max };
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(resize(&f, 2 * DISK_BYTES), -EFBIG);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(blk_disk_props(f.disk)->size_bytes, DISK_BYTES);
    assert_int_equal(file_bytes(&f), DISK_BYTES);
    assert_int_equal(truncate(f.image.path, 0), 0);
    assert_int_equal(resize(&f, 0), -EINVAL);
    assert_int_equal(blk_disk_props(f.disk)->size_bytes, DISK_BYTES);
    fixture_close(&f);
}

static void a_reader_follows_but_does_not_change(void **state)
{
    struct fixture f = { 0 };

    fixture_open(&f, true);
    assert_int_equal(resize(&f, 2 * DISK_BYTES), -EROFS);
    assert_int_equal(file_bytes(&f), DISK_BYTES);
    assert_int_equal(truncate(f.image.path, 2 * DISK_BYTES), 0);
    assert_int_equal(resize(&f, 0), 0);
    assert_int_equal(io(&f, BLK_OP_READ, 2 * DISK_BYTES - 512, 512), 0);
    fixture_close(&f);
}

/* Taken by the engine, not yet by the kernel: then the file is cut. */
static void a_write_under_way_to_what_is_gone_fails_and_leaves_nothing(void **state)
{
    struct fixture f = { 0 };
    struct blk_stats s;
    unsigned gone, kept;
    bool was_done;

    fixture_open(&f, false);
    gone = sync_start(&f.queue, BLK_OP_WRITE, DISK_BYTES - 8192, f.buf, 8192, 1);
    kept = sync_start(&f.queue, BLK_OP_WRITE, KEPT_BYTES - 4096, f.buf, 4096, 1);
    blk_queue_stats(f.queue.q, &s);
    was_done = s.inline_requests == 2;
    assert_int_equal(resize(&f, KEPT_BYTES), 0);
    sync_wait_all(&f.queue);
    assert_int_equal(f.queue.result[gone], was_done ? 0 : -EIO);
    assert_int_equal(f.queue.result[kept], 0);
    assert_int_equal(file_bytes(&f), KEPT_BYTES);
    fixture_close(&f);
}

struct resizer {
    struct fixture *f;
    bool stop;
};

static void *resizer_main(void *arg)
{
    static const uint64_t sizes[] = {
        KEPT_BYTES, 2 * DISK_BYTES, DISK_BYTES / 2, KEPT_BYTES + 512, DISK_BYTES,
    };
    struct resizer *r = arg;

    for (unsigned i = 0; !load_acquire(&r->stop); i++) {
        struct err e = { 0 };

        if (blk_disk_resize(r->f->disk, sizes[i % array_size(sizes)], &e))
            return "resize failed";
    }
    return NULL;
}

/* Whatever comes back as written is there, if no size has left it out; whatever is behind the
 * end afterwards is nothing. */
static void sizes_change_under_load(void **state)
{
    struct fixture f = { 0 };
    struct resizer r = { .f = &f };
    uint8_t *model = malloc(KEPT_BYTES);
    unsigned seed = 815, nr_ok = 0;
    void *fault = NULL;
    pthread_t thread;

    fixture_open(&f, false);
    for (uint64_t i = 0; i < KEPT_BYTES; i++)
        model[i] = pattern_byte(i);
    assert_int_equal(pthread_create(&thread, NULL, resizer_main, &r), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned index[32];

        /* half of them where nothing may be lost, half where sizes come and go */
        for (unsigned i = 0; i < 32; i++) {
            uint64_t lane = i < 16 ? i * (KEPT_BYTES / 16)
                                   : KEPT_BYTES + (i - 16) * ((2 * DISK_BYTES - KEPT_BYTES) / 16);
            uint64_t at = align_down(lane, 512ul) + rand_r(&seed) % 64 * 512;
            uint64_t len = (1 + rand_r(&seed) % 64) * 512;

            memset(f.buf + at, (int)(round + i), len);
            if (i < 16)
                memcpy(model + at, f.buf + at, len);
            index[i] = sync_start(&f.queue, i % 4 == 3 && i >= 16 ? BLK_OP_READ : BLK_OP_WRITE,
                                  at, f.buf + at, len, 1);
        }
        sync_wait_all(&f.queue);
        for (unsigned i = 0; i < 32; i++) {
            int result = f.queue.result[index[i]];

            if (i < 16)
                assert_int_equal(result, 0);
            else
                assert_true(!result || result == -EINVAL || result == -EIO);
            nr_ok += i >= 16 && !result;
        }
    }
    store_release(&r.stop, true);
    pthread_join(thread, &fault);
    assert_null(fault);
    assert_true(nr_ok);
    assert_int_equal(file_bytes(&f), blk_disk_props(f.disk)->size_bytes);
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, f.buf, KEPT_BYTES, 16), 0);
    assert_memory_equal(f.buf, model, KEPT_BYTES);
    fixture_close(&f);
    free(model);
}

static void a_disk_without_a_medium_has_any_size(void **state)
{
    struct fixture f = { 0 };
    struct blk_spec spec = { .driver = "null", .size_bytes = DISK_BYTES };

    f.buf = malloc(4096);
    f.disk = disk_open(&spec);
    sync_open(&f.queue, f.disk);
    assert_int_equal(resize(&f, 0), 0);
    assert_int_equal(io(&f, BLK_OP_READ, DISK_BYTES, 512), -EINVAL);
    assert_int_equal(resize(&f, 100 * GIB), 0);
    assert_int_equal(io(&f, BLK_OP_READ, 100 * GIB - 512, 512), 0);
    assert_int_equal(resize(&f, 700), -EINVAL);
    assert_int_equal(resize(&f, 512), 0);
    assert_int_equal(io(&f, BLK_OP_READ, 512, 512), -EINVAL);
    blk_queue_close(f.queue.q);
    blk_disk_close(f.disk);
    free(f.buf);
}

/* Grows and shrinks, or refuses and stays as it was. */
static void resize_or_not(struct fixture *f, const struct blk_spec *spec, bool resizes)
{
    struct err e = { 0 };
    char named[32];

    f->buf = malloc(4096);
    f->disk = disk_open(spec);
    sync_open(&f->queue, f->disk);
    snprintf(named, sizeof(named), spec->filters ? "filter=%.*s " : "driver '%.*s'",
             (int)strcspn(spec->filters ? spec->filters : spec->driver, ":"),
             spec->filters ? spec->filters : spec->driver);
    assert_int_equal(io(f, BLK_OP_READ, DISK_BYTES, 512), -EINVAL);
    if (resizes) {
        assert_int_equal(resize(f, 2 * DISK_BYTES), 0);
        assert_int_equal(blk_props_size(blk_disk_props(f->disk)), 2 * DISK_BYTES);
        assert_int_equal(io(f, BLK_OP_WRITE, 2 * DISK_BYTES - 512, 512), 0);
        assert_int_equal(io(f, BLK_OP_READ, 2 * DISK_BYTES, 512), -EINVAL);
        assert_int_equal(resize(f, KEPT_BYTES + 512), 0);
        assert_int_equal(blk_disk_props(f->disk)->physical_block_bytes, 512);
        assert_int_equal(io(f, BLK_OP_READ, KEPT_BYTES + 512, 512), -EINVAL);
        assert_int_equal(io(f, BLK_OP_READ, KEPT_BYTES, 512), 0);
        assert_int_equal(resize(f, 700), -EINVAL);
        assert_int_equal(blk_props_size(blk_disk_props(f->disk)), KEPT_BYTES + 512);
    } else {
        assert_int_equal(blk_disk_resize(f->disk, 2 * DISK_BYTES, &e), -EOPNOTSUPP);
        if (!strstr(e.text, named))
            fail_msg("'%s' does not name %s", e.text, named);
        assert_int_equal(resize(f, 0), -EOPNOTSUPP);
        assert_int_equal(blk_props_size(blk_disk_props(f->disk)), DISK_BYTES);
        assert_int_equal(io(f, BLK_OP_READ, DISK_BYTES - 512, 512), 0);
    }
    blk_queue_close(f->queue.q);
    blk_disk_close(f->disk);
    free(f->buf);
}

struct sizes { const char *name, *options; bool change; };

/* What is in the program's table and not in this one has not been thought of. */
static const struct sizes *sizes_find(const struct sizes *all, unsigned nr, const char *name)
{
    for (unsigned i = 0; i < nr; i++)
        if (!strcmp(all[i].name, name))
            return &all[i];
    fail_msg("%s: does its size change?", name);
    return NULL;
}

static void every_driver_changes_its_size_or_says_that_it_does_not(void **state)
{
    static const struct sizes all[] = {
        { "file", NULL, true }, { "null", NULL, true }, { "ram", NULL, false },
        { "nbd", NULL, false }, { "tmem", NULL, false },
    };
    struct run_dir run_dir;

    run_dir_make(&run_dir);

    for (unsigned i = 0; blk_driver_table[i]; i++) {
        const char *name = blk_driver_table[i]->name;
        struct fixture f = { 0 };
        struct blk_spec spec = {
            .driver = name, .path = f.image.path, .size_bytes = DISK_BYTES,
            .run_dir = run_dir.path,
        };

        if (!driver_format(name, &spec.format))
            continue;
        image_make(&f.image, "/tmp", DISK_BYTES);
        resize_or_not(&f, &spec, sizes_find(all, array_size(all), name)->change);
        unlink(f.image.path);
    }
    run_dir_remove(&run_dir);
}

static void every_filter_passes_a_size_on_or_says_that_it_does_not(void **state)
{
    static const struct sizes all[] = {
        { "qos", "qos:iops=1000000", true }, { "delay", "delay:time=1us", true },
        { "fault", "fault:nth=1000000", true }, { "cow", "cow:file=%s", false },
        { "trace", "trace:records=100:file=%s", true }, { "verify", "verify", false },
    };
    char filters[96], kept[48];     /* a filter's options, and the file that it keeps */

    snprintf(kept, sizeof(kept), "/tmp/xenolith-resize-%d", (int)getpid());
    for (unsigned i = 0; blk_filter_table[i]; i++) {
        const struct sizes *s = sizes_find(all, array_size(all), blk_filter_table[i]->name);
        const struct blk_spec refuses = { .driver = "ram", .size_bytes = DISK_BYTES };
        struct fixture f = { 0 };
        struct blk_spec spec = {
            .driver = "file", .path = f.image.path, .filters = filters,
        };

        snprintf(filters, sizeof(filters), s->options, kept);
        image_make(&f.image, "/tmp", DISK_BYTES);
        resize_or_not(&f, &spec, s->change);
        unlink(f.image.path);
        unlink(kept);
        /* nor do filters add what is missing below */
        if (s->change) {
            spec = refuses;
            spec.filters = filters;
            f.disk = disk_open(&spec);
            assert_int_equal(resize(&f, 2 * DISK_BYTES), -EOPNOTSUPP);
            assert_int_equal(blk_props_size(blk_disk_props(f.disk)), DISK_BYTES);
            blk_disk_close(f.disk);
            unlink(kept);
        }
    }
}

/* What a filter keeps is judged again when it goes down. */
static void a_request_that_a_filter_keeps_loses_its_place(void **state)
{
    struct fixture f = { 0 };
    struct blk_spec spec = {
        .driver = "file", .path = f.image.path, .filters = "delay:time=30ms",
    };
    unsigned gone, kept;

    image_make(&f.image, "/tmp", DISK_BYTES);
    f.buf = calloc(2, 4096);
    f.disk = disk_open(&spec);
    sync_open(&f.queue, f.disk);
    gone = sync_start(&f.queue, BLK_OP_WRITE, DISK_BYTES - 4096, f.buf, 4096, 1);
    kept = sync_start(&f.queue, BLK_OP_WRITE, KEPT_BYTES - 4096, f.buf, 4096, 1);
    assert_int_equal(resize(&f, KEPT_BYTES), 0);
    sync_wait_all(&f.queue);
    assert_int_equal(f.queue.result[gone], -EINVAL);
    assert_int_equal(f.queue.result[kept], 0);
    assert_int_equal(file_bytes(&f), KEPT_BYTES);
    fixture_close(&f);
}

static void a_driver_may_have_one_size(void **state)
{
    static const struct blk_driver driver = { .name = "fixed" };
    struct blk_disk d = { .driver = &driver };
    struct fixture f = { .disk = &d };

    assert_int_equal(resize(&f, 0), -EOPNOTSUPP);
}

static void only_events_of_block_devices_that_say_so_count(void **state)
{
    static const char resize[] = "change@/devices/virtual/block/loop0\0ACTION=change\0"
                                 "SUBSYSTEM=block\0RESIZE=1\0MAJOR=7\0MINOR=0";
    static const char change[] = "change@/devices/virtual/block/loop0\0ACTION=change\0"
                                 "SUBSYSTEM=block\0DISK_RO=1\0XRESIZE=1\0RESIZE=10";
    static const char other[] = "change@/RESIZE=1\0SUBSYSTEM=memory\0RESIZE=1";

    assert_true(blk_size_event(resize, sizeof(resize)));
    assert_false(blk_size_event(change, sizeof(change)));
    assert_false(blk_size_event(other, sizeof(other)));
    /* whatever is missing, nothing behind the end is looked at */
    for (size_t len = 0; len < sizeof(resize); len++) {
        char *part = malloc(len ? len : 1);
        bool whole = len >= sizeof(resize) - strlen("MAJOR=7 MINOR=0 ");

        memcpy(part, resize, len);
        assert_int_equal(blk_size_event(part, len), whole);
        free(part);
    }
}

static void size_changed(void *arg)
{
}

static void watching_sizes_leaves_nothing(void **state)
{
    struct loop *loop = loop_create();
    struct blk_size_watch *w = blk_size_watch_create(loop, size_changed, NULL);

    if (!w && errno != EPERM && errno != EPROTONOSUPPORT && errno != EAFNOSUPPORT)
        fail_msg("%s", strerror(errno));
    blk_size_watch_free(w);
    loop_free(loop);
}

int main(void)
{
    static const struct CMUnitTest file_tests[] = {
        cmocka_unit_test(what_the_file_has_gained_can_be_used),
        cmocka_unit_test(what_the_file_has_lost_is_gone),
        cmocka_unit_test(a_size_that_is_asked_for_is_made),
        cmocka_unit_test(a_last_sector_in_part_reads_as_zeroes),
        cmocka_unit_test(sizes_that_cannot_be_change_nothing),
        cmocka_unit_test(a_reader_follows_but_does_not_change),
        cmocka_unit_test(a_write_under_way_to_what_is_gone_fails_and_leaves_nothing),
        cmocka_unit_test(sizes_change_under_load),
    };
    static const struct CMUnitTest other_tests[] = {
        cmocka_unit_test(a_disk_without_a_medium_has_any_size),
        cmocka_unit_test(every_driver_changes_its_size_or_says_that_it_does_not),
        cmocka_unit_test(every_filter_passes_a_size_on_or_says_that_it_does_not),
        cmocka_unit_test(a_request_that_a_filter_keeps_loses_its_place),
        cmocka_unit_test(a_driver_may_have_one_size),
        cmocka_unit_test(only_events_of_block_devices_that_say_so_count),
        cmocka_unit_test(watching_sizes_leaves_nothing),
    };
    int failed = 0;

    for (unsigned i = 0; i < array_size(ways); i++) {
        way_under_test = &ways[i];
        failed += cmocka_run_group_tests_name(ways[i].name, file_tests, NULL, NULL);
    }
    return failed + cmocka_run_group_tests(other_tests, NULL, NULL);
}
