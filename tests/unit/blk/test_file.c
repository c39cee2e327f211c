/* SPDX-License-Identifier: MIT */
/* The file driver on each of its ways: O_DIRECT, the page cache, memory. */
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "blk_test.h"

#define DISK_BYTES (4 * MIB)

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

static void fixture_open(struct fixture *f, uint64_t size, bool readonly)
{
    struct blk_spec spec = {
        .driver = "file", .path = f->image.path, .readonly = readonly,
        .no_direct = way_under_test->no_direct,
    };

    image_make(&f->image, way_under_test->dir, size);
    f->buf = aligned_alloc(4096, DISK_BYTES);
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

static void image_read(const struct fixture *f, void *buf, size_t size)
{
    int fd = open(f->image.path, O_RDONLY);

    assert_int_equal(read(fd, buf, size), size);
    close(fd);
}

static void reads_what_the_file_holds(void **state)
{
    struct fixture f = { 0 };

    fixture_open(&f, DISK_BYTES, true);
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, f.buf, DISK_BYTES, 256), 0);
    for (uint64_t i = 0; i < DISK_BYTES; i++)
        assert_int_equal(f.buf[i], pattern_byte(i));
    fixture_close(&f);
}

/* Seeded writes of all shapes, in flight together where they do not overlap,
 * then every byte is compared with a plain copy. */
static void random_writes_land_where_they_should(void **state)
{
    struct fixture f = { 0 };
    uint8_t *model = malloc(DISK_BYTES), *file = malloc(DISK_BYTES);
    unsigned seed = 4711;

    fixture_open(&f, DISK_BYTES, false);
    for (uint64_t i = 0; i < DISK_BYTES; i++)
        model[i] = pattern_byte(i);
    for (unsigned round = 0; round < 24; round++) {
        /* 32 lanes of 128 KiB, one write in each */
        for (unsigned lane = 0; lane < 32; lane++) {
            uint64_t base = lane * 128 * KIB, at = base + rand_r(&seed) % 128 * 512;
            uint64_t len = (1 + rand_r(&seed) % 128) * 512;
            unsigned nr_iov = 1 + rand_r(&seed) % 32;

            nr_iov = min_of(nr_iov, (unsigned)(len / 512));
            for (uint64_t i = 0; i < len; i++)
                f.buf[at + i] = model[at + i] = (uint8_t)rand_r(&seed);
            sync_start(&f.queue, BLK_OP_WRITE, at, f.buf + at, len, nr_iov);
        }
        sync_wait_all(&f.queue);
        for (unsigned i = 0; i < 64; i++)
            assert_int_equal(f.queue.result[i], 0);
    }
    assert_int_equal(sync_io(&f.queue, BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
    image_read(&f, file, DISK_BYTES);
    assert_memory_equal(file, model, DISK_BYTES);
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, f.buf, DISK_BYTES, 100), 0);
    assert_memory_equal(f.buf, model, DISK_BYTES);
    fixture_close(&f);
    free(model);
    free(file);
}

static void sector_aligned_memory_is_good_enough(void **state)
{
    struct fixture f = { 0 };

    fixture_open(&f, DISK_BYTES, false);
    for (unsigned shift = 512; shift < 4096; shift += 512) {
        assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 1536, f.buf + shift, 2560, 1), 0);
        assert_int_equal(f.buf[shift], pattern_byte(1536));
        assert_int_equal(f.buf[shift + 2559], pattern_byte(1536 + 2559));
    }
    fixture_close(&f);
}

/* Firmware and boot loaders read to wherever they were asked to. */
static void any_memory_is_good_enough(void **state)
{
    struct fixture f;
    uint8_t *image = malloc(DISK_BYTES), *a, *b;

    fixture_open(&f, DISK_BYTES, false);
    a = f.buf + 1;                      /* longer than any buffer there may be */
    b = f.buf + DISK_BYTES / 2 + 4;
    /* in pieces of odd addresses, several at a time */
    for (unsigned i = 0; i < 8; i++)
        sync_start(&f.queue, BLK_OP_READ, i * 64 * KIB, b + i * 64 * KIB, 64 * KIB, 1 + i);
    sync_wait_all(&f.queue);
    for (unsigned i = 0; i < 512 * KIB; i++)
        assert_int_equal(b[i], pattern_byte(i));
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 1 * MIB, a, 1 * MIB, 3), 0);
    for (unsigned i = 0; i < 1 * MIB; i++)
        assert_int_equal(a[i], pattern_byte(1 * MIB + i));
    for (unsigned i = 0; i < 1 * MIB; i++)
        a[i] = (uint8_t)(i * 7);
    assert_int_equal(sync_io(&f.queue, BLK_OP_WRITE, 2 * MIB, a, 1 * MIB, 5), 0);
    image_read(&f, image, DISK_BYTES);
    for (unsigned i = 0; i < DISK_BYTES; i++)
        assert_int_equal(image[i], i - 2 * MIB < 1 * MIB ? (uint8_t)((i - 2 * MIB) * 7)
                                                         : pattern_byte(i));
    fixture_close(&f);
    free(image);
}

static void file_that_ends_inside_a_sector_reads_zero_after_its_end(void **state)
{
    struct fixture f = { 0 };

    fixture_open(&f, 10 * 512 + 100, false);
    assert_int_equal(blk_disk_props(f.disk)->size_bytes, 11 * 512);
    memset(f.buf, 0xff, 8192);
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 8 * 512, f.buf, 3 * 512, 2), 0);
    for (unsigned i = 0; i < 2 * 512 + 100; i++)
        assert_int_equal(f.buf[i], pattern_byte(8 * 512 + i));
    for (unsigned i = 2 * 512 + 100; i < 3 * 512; i++)
        assert_int_equal(f.buf[i], 0);
    /* and takes a write of the whole sector */
    memset(f.buf, 0x42, 512);
    assert_int_equal(sync_io(&f.queue, BLK_OP_WRITE, 10 * 512, f.buf, 512, 1), 0);
    memset(f.buf, 0, 512);
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 10 * 512, f.buf, 512, 1), 0);
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(f.buf[i], 0x42);
    fixture_close(&f);
}

static void file_cut_while_in_use_gives_an_io_error(void **state)
{
    struct fixture f = { 0 };

    fixture_open(&f, 64 * KIB, false);
    assert_int_equal(truncate(f.image.path, 8 * KIB), 0);
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 4 * KIB, f.buf, 32 * KIB, 8), -EIO);
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 32 * KIB, f.buf, 4 * KIB, 1), -EIO);
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 4 * KIB, f.buf, 4 * KIB, 1), 0);
    fixture_close(&f);
}

/* A medium that takes no more: the file size limit stands for a full disk, since
 * it too cuts a write short and fails the next.  Only that request suffers. */
static void write_beyond_what_the_medium_takes_fails_alone(void **state)
{
    struct rlimit old, cut;
    struct fixture f = { 0 };

    fixture_open(&f, 64 * KIB, false);
    assert_int_equal(truncate(f.image.path, 16 * KIB), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    cut = old;
    cut.rlim_cur = 32 * KIB;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &cut), 0);
    memset(f.buf, 0x11, 64 * KIB);
    assert_int_equal(sync_io(&f.queue, BLK_OP_WRITE, 16 * KIB, f.buf, 48 * KIB, 12), -EFBIG);
    assert_int_equal(sync_io(&f.queue, BLK_OP_WRITE, 48 * KIB, f.buf, 4 * KIB, 1), -EFBIG);
    assert_int_equal(sync_io(&f.queue, BLK_OP_WRITE, 0, f.buf, 16 * KIB, 4), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(sync_io(&f.queue, BLK_OP_WRITE, 48 * KIB, f.buf, 4 * KIB, 1), 0);
    fixture_close(&f);
}

static void durable_write_succeeds(void **state)
{
    struct fixture f = { 0 };
    struct blk_req *req;

    fixture_open(&f, DISK_BYTES, false);
    req = blk_req_get(f.queue.q, 1);
    memset(f.buf, 0x99, 4096);
    req->op = BLK_OP_WRITE;
    req->fua = true;
    req->length_bytes = 4096;
    req->iov[0] = (struct iovec){ f.buf, 4096 };
    req->nr_iov = 1;
    blk_req_submit(f.queue.q, req);
    sync_wait_all(&f.queue);
    assert_int_equal(f.queue.result[0], 0);
    image_read(&f, f.buf + 4096, 4096);
    assert_memory_equal(f.buf, f.buf + 4096, 4096);
    fixture_close(&f);
}

static void memory_files_are_answered_inline(void **state)
{
    struct fixture f = { 0 };
    struct blk_stats s;

    fixture_open(&f, DISK_BYTES, false);
    sync_io(&f.queue, BLK_OP_READ, 0, f.buf, 4096, 1);
    sync_io(&f.queue, BLK_OP_WRITE, 0, f.buf, 4096, 1);
    blk_queue_stats(f.queue.q, &s);
    if (!strcmp(way_under_test->dir, "/dev/shm"))
        assert_int_equal(s.inline_requests, 2);
    if (blk_disk_props(f.disk)->direct)
        assert_int_equal(s.inline_requests, 0);
    fixture_close(&f);
}

static void expect_refusal(const char *path, int code, const char *text)
{
    struct blk_spec spec = { .driver = "file", .path = path };
    struct blk_disk *d = NULL;
    struct err e = { 0 };

    assert_int_equal(blk_disk_open(&spec, &d, &e), -code);
    assert_null(d);
    if (!strstr(e.text, text))
        fail_msg("'%s' does not say '%s'", e.text, text);
    assert_string_equal(e.file, path ? path : "");
}

static void what_is_no_image_is_refused_with_its_name(void **state)
{
    struct image img;
    char fifo[] = "/tmp/xenolith-blk-fifo-XXXXXX";

    expect_refusal("/nowhere/disk.img", ENOENT, "No such file");
    expect_refusal("/tmp", EISDIR, "directory");
    expect_refusal("/dev/null", EINVAL, "neither file nor block device");
    expect_refusal(NULL, EINVAL, "needs the path");
    image_make(&img, "/tmp", 0);
    expect_refusal(img.path, EINVAL, "is empty");
    unlink(img.path);
    assert_non_null(mkdtemp(fifo));
    rmdir(fifo);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    expect_refusal(fifo, EINVAL, "neither file nor block device");
    unlink(fifo);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_the_file_holds),
        cmocka_unit_test(random_writes_land_where_they_should),
        cmocka_unit_test(sector_aligned_memory_is_good_enough),
        cmocka_unit_test(any_memory_is_good_enough),
        cmocka_unit_test(file_that_ends_inside_a_sector_reads_zero_after_its_end),
        cmocka_unit_test(file_cut_while_in_use_gives_an_io_error),
        cmocka_unit_test(write_beyond_what_the_medium_takes_fails_alone),
        cmocka_unit_test(durable_write_succeeds),
        cmocka_unit_test(memory_files_are_answered_inline),
    };
    static const struct CMUnitTest once[] = {
        cmocka_unit_test(what_is_no_image_is_refused_with_its_name),
    };
    int failed = cmocka_run_group_tests_name("opening", once, NULL, NULL);

    for (unsigned i = 0; i < array_size(ways); i++) {
        way_under_test = &ways[i];
        failed += cmocka_run_group_tests_name(ways[i].name, tests, NULL, NULL);
    }
    return failed;
}
