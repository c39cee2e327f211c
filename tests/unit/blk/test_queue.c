/* SPDX-License-Identifier: MIT */
/* The engine itself: refusals, wake-ups, resubmission. */
#include <sys/eventfd.h>

#include "blk_test.h"

static struct run_dir run_dir;

static void unknown_driver_is_named_in_the_error(void **state)
{
    struct blk_spec spec = { .driver = "floppy" };
    struct blk_disk *d = NULL;
    struct err e = { 0 };

    assert_int_equal(blk_disk_open(&spec, &d, &e), -EINVAL);
    assert_null(d);
    assert_non_null(strstr(e.text, "'floppy'"));
}

static void drivers_have_distinct_names_and_summaries(void **state)
{
    for (unsigned i = 0; blk_driver_table[i]; i++) {
        assert_ptr_equal(blk_driver_find(blk_driver_table[i]->name), blk_driver_table[i]);
        assert_true(blk_driver_table[i]->summary[0]);
    }
    assert_null(blk_driver_find("nul"));
}

static void absurd_queue_sizes_are_refused(void **state)
{
    static const struct { unsigned nr_reqs, max_iov; } bad[] = {
        { 0, 1 }, { BLK_QUEUE_REQS_MAX + 1, 1 }, { 1, 0 }, { 1, BLK_QUEUE_IOV_MAX + 1 },
    };
    struct blk_disk *d = disk_open(&(struct blk_spec){ .driver = "null" });

    for (unsigned i = 0; i < array_size(bad); i++) {
        struct blk_queue_params p = { bad[i].nr_reqs, bad[i].max_iov, -1, sync_complete, NULL };
        struct blk_queue *q = NULL;
        struct err e = { 0 };

        assert_int_equal(blk_queue_open(d, &p, &q, &e), -EINVAL);
        assert_null(q);
    }
    blk_disk_close(d);
}

/* for each driver: the wake-up descriptor ends a wait, and is left unread */
static void wait_ends_when_the_wake_fd_is_readable(void **state)
{
    const uint64_t one = 1;
    uint64_t n;

    for (unsigned i = 0; blk_driver_table[i]; i++) {
        struct sync_queue s;
        struct image img;
        struct blk_disk *d;
        const char *format;
        int fd;

        if (!driver_format(blk_driver_table[i]->name, &format))
            continue;
        fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        image_make(&img, "/tmp", 64 * KIB);
        d = disk_open(&(struct blk_spec){ .driver = blk_driver_table[i]->name, .path = img.path,
                                          .format = format, .size_bytes = 64 * KIB,
                                          .run_dir = run_dir.path });
        sync_open_fd(&s, d, fd);
        for (unsigned round = 0; round < 3; round++) {
            assert_false(blk_queue_wait(s.q, 1000000));
            assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
            while (!blk_queue_wait(s.q, -1))
                ;
            assert_int_equal(read(fd, &n, sizeof(n)), sizeof(n));
            assert_int_equal(n, 1);
        }
        blk_queue_close(s.q);
        blk_disk_close(d);
        unlink(img.path);
        close(fd);
    }
}

struct chain {
    struct blk_queue *q;
    unsigned left;
    int order[3];
    unsigned nr;
};

static void chain_next(void *arg, struct blk_req *req)
{
    struct chain *c = arg;

    assert_int_equal(req->result, 0);
    c->order[c->nr++] = (int)req->op;
    if (!--c->left) {
        blk_req_put(c->q, req);
        return;
    }
    req->op = BLK_OP_FLUSH;
    blk_req_submit(c->q, req);
    blk_queue_flush(c->q);
}

/* flush, write, flush is built so: complete() submits the next step */
static void complete_may_submit_the_request_again(void **state)
{
    for (unsigned i = 0; blk_driver_table[i]; i++) {
        static const char byte[512];
        struct chain c = { .left = 3 };
        struct blk_queue_params p = { 4, 4, -1, chain_next, &c };
        struct err e = { 0 };
        struct blk_disk *d;
        struct blk_req *req;
        struct image img;
        const char *format;

        if (!driver_format(blk_driver_table[i]->name, &format))
            continue;
        image_make(&img, "/tmp", 64 * KIB);
        d = disk_open(&(struct blk_spec){ .driver = blk_driver_table[i]->name, .path = img.path,
                                          .format = format, .size_bytes = 64 * KIB,
                                          .run_dir = run_dir.path });
        assert_int_equal(blk_queue_open(d, &p, &c.q, &e), 0);
        req = blk_req_get(c.q, 1);
        req->op = BLK_OP_WRITE;
        req->length_bytes = sizeof(byte);
        req->iov[0] = (struct iovec){ (void *)byte, sizeof(byte) };
        req->nr_iov = 1;
        blk_req_submit(c.q, req);
        blk_queue_flush(c.q);
        while (blk_queue_nr_inflight(c.q))
            if (!blk_queue_reap(c.q))
                blk_queue_wait(c.q, -1);
        assert_int_equal(c.nr, 3);
        assert_int_equal(c.order[0], BLK_OP_WRITE);
        assert_int_equal(c.order[2], BLK_OP_FLUSH);
        blk_queue_close(c.q);
        blk_disk_close(d);
        unlink(img.path);
    }
}

static void advance_drops_exactly_the_bytes_done(void **state)
{
    char data[64];
    struct iovec v[3];
    struct blk_req req;

    for (unsigned done = 0; done < 60; done++) {
        unsigned left = 0;

        v[0] = (struct iovec){ data, 10 };
        v[1] = (struct iovec){ data + 10, 30 };
        v[2] = (struct iovec){ data + 40, 20 };
        req.iov = v;
        req.nr_iov = 3;
        blk_req_advance(&req, done);
        assert_ptr_equal(req.iov[0].iov_base, data + done);
        for (unsigned i = 0; i < req.nr_iov; i++)
            left += (unsigned)req.iov[i].iov_len;
        assert_int_equal(left, 60 - done);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_driver_is_named_in_the_error),
        cmocka_unit_test(drivers_have_distinct_names_and_summaries),
        cmocka_unit_test(absurd_queue_sizes_are_refused),
        cmocka_unit_test(wait_ends_when_the_wake_fd_is_readable),
        cmocka_unit_test(complete_may_submit_the_request_again),
        cmocka_unit_test(advance_drops_exactly_the_bytes_done),
    };
    int failed;

    run_dir_make(&run_dir);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    run_dir_remove(&run_dir);
    return failed;
}
