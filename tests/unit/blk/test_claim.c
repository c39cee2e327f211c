/* SPDX-License-Identifier: MIT */
/* Who may open an image beside whom, and what the message says. */
#include <signal.h>
#include <sys/wait.h>

#include "blk_test.h"

enum mode { R, W, W_SHARED };

static int try_open(const char *path, enum mode m, struct blk_disk **out, struct err *e)
{
    struct blk_spec spec = {
        .driver = "file", .path = path, .readonly = m == R, .shared_write = m == W_SHARED,
    };

    *out = NULL;
    return blk_disk_open(&spec, out, e);
}

static void one_writer_or_many_readers(void **state)
{
    static const struct { enum mode first, second; int rc; } table[] = {
        { R, R, 0 }, { R, W, -EBUSY }, { W, R, -EBUSY }, { W, W, -EBUSY },
        { W, W_SHARED, 0 }, { R, W_SHARED, 0 }, { W_SHARED, W_SHARED, 0 },
        { W_SHARED, W, -EBUSY },
    };
    struct image img;

    image_make(&img, "/tmp", 4096);
    for (unsigned i = 0; i < array_size(table); i++) {
        struct blk_disk *a, *b;
        struct err e = { 0 };

        assert_int_equal(try_open(img.path, table[i].first, &a, &e), 0);
        assert_int_equal(try_open(img.path, table[i].second, &b, &e), table[i].rc);
        blk_disk_close(b);
        blk_disk_close(a);
    }
    unlink(img.path);
}

static void a_claim_ends_with_the_disk(void **state)
{
    struct blk_disk *d;
    struct err e = { 0 };
    struct image img;

    image_make(&img, "/tmp", 4096);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(try_open(img.path, W, &d, &e), 0);
        blk_disk_close(d);
    }
    unlink(img.path);
}

/* io_uring keeps the file it was given for a while after its ring has gone */
static void a_claim_ends_with_the_disk_though_io_uring_lingers(void **state)
{
    struct image img;
    uint8_t *buf = aligned_alloc(4096, 4096);

    image_make(&img, "/tmp", 64 * KIB);
    for (unsigned i = 0; i < 20; i++) {
        struct sync_queue s;
        struct blk_disk *d;
        struct err e = { 0 };

        assert_int_equal(try_open(img.path, W, &d, &e), 0);
        sync_open(&s, d);
        assert_int_equal(sync_io(&s, BLK_OP_READ, 0, buf, 4096, 1), 0);
        blk_queue_close(s.q);
        blk_disk_close(d);
    }
    free(buf);
    unlink(img.path);
}

static void a_claim_ends_with_the_process_though_io_uring_lingers(void **state)
{
    struct image img;

    image_make(&img, "/tmp", 64 * KIB);
    for (unsigned i = 0; i < 20; i++) {
        struct blk_disk *d;
        struct err e = { 0 };
        pid_t child = fork();
        int status;

        if (!child) {
            struct sync_queue s;

            if (try_open(img.path, W, &d, &e))
                _exit(1);
            sync_open(&s, d);
            raise(SIGKILL);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(try_open(img.path, W, &d, &e), 0);
        blk_disk_close(d);
    }
    unlink(img.path);
}

static void message_names_file_and_this_guest(void **state)
{
    struct blk_disk *a, *b;
    struct err e = { 0 };
    struct image img;

    image_make(&img, "/tmp", 4096);
    assert_int_equal(try_open(img.path, W, &a, &e), 0);
    assert_int_equal(try_open(img.path, W, &b, &e), -EBUSY);
    assert_string_equal(e.file, img.path);
    assert_non_null(strstr(e.text, "another disk of this guest"));
    blk_disk_close(a);
    unlink(img.path);
}

static void message_names_the_process_that_holds_the_file(void **state)
{
    char expected[64], byte;
    struct blk_disk *d;
    struct err e = { 0 };
    struct image img;
    int to_child[2], to_parent[2], status;
    pid_t child;

    image_make(&img, "/tmp", 4096);
    assert_int_equal(pipe(to_child), 0);
    assert_int_equal(pipe(to_parent), 0);
    child = fork();
    if (!child) {
        int rc = try_open(img.path, W, &d, &e);

        if (rc || write(to_parent[1], "x", 1) != 1 || read(to_child[0], &byte, 1) != 1)
            _exit(1);
        _exit(0);
    }
    assert_int_equal(read(to_parent[0], &byte, 1), 1);
    assert_int_equal(try_open(img.path, R, &d, &e), -EBUSY);
    snprintf(expected, sizeof(expected), "by process %d (test_blk_claim)", child);
    assert_non_null(strstr(e.text, expected));
    assert_int_equal(write(to_child[1], "x", 1), 1);
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    /* its death freed the file */
    err_clear(&e);
    assert_int_equal(try_open(img.path, W, &d, &e), 0);
    blk_disk_close(d);
    unlink(img.path);
    for (unsigned i = 0; i < 2; i++) {
        close(to_child[i]);
        close(to_parent[i]);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_writer_or_many_readers),
        cmocka_unit_test(a_claim_ends_with_the_disk),
        cmocka_unit_test(a_claim_ends_with_the_disk_though_io_uring_lingers),
        cmocka_unit_test(a_claim_ends_with_the_process_though_io_uring_lingers),
        cmocka_unit_test(message_names_file_and_this_guest),
        cmocka_unit_test(message_names_the_process_that_holds_the_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
