/* SPDX-License-Identifier: MIT */
/* The nbd driver against servers that fail, lie, or lack something. */
#include <netinet/in.h>
#include <time.h>

#include "blk/nbd_target.h"
#include "mem/lost_pages.h"
#include "nbd_fake.h"

static int try_open(const struct blk_spec *spec, struct err *e)
{
    struct blk_disk *d = NULL;
    int rc = blk_disk_open(spec, &d, e);

    blk_disk_close(d);
    return rc;
}

/* ---- names ---- */

static void uris_are_read(void **state)
{
    static const struct { const char *uri, *export, *socket; uint16_t port; } t[] = {
        { "nbd://127.0.0.1", "", NULL, 10809 },
        { "nbd://127.0.0.1/", "", NULL, 10809 },
        { "nbd://127.0.0.1:1/a", "a", NULL, 1 },
        { "nbd://127.0.0.1:65535/a/b%20c%2f", "a/b c/", NULL, 65535 },
        { "nbd://[::1]/x", "x", NULL, 10809 },
        { "nbd://[::1]:7/x", "x", NULL, 7 },
        { "nbd+unix:///?socket=/run/s", "", "/run/s", 0 },
        { "nbd+unix:///ex%3Fport?socket=/run/a%20b", "ex?port", "/run/a b", 0 },
    };

    for (unsigned i = 0; i < array_size(t); i++) {
        struct nbd_target got;
        struct err e = { 0 };
        const struct sockaddr_un *un = (const void *)&got.address[0].sa;
        const struct sockaddr_in *in = (const void *)&got.address[0].sa;

        assert_int_equal(nbd_target_parse(t[i].uri, &got, &e), 0);
        assert_string_equal(got.export, t[i].export);
        assert_int_not_equal(got.nr_addresses, 0);
        if (t[i].socket)
            assert_string_equal(un->sun_path, t[i].socket);
        else    /* where AF_INET6 has it as well */
            assert_int_equal(ntohs(in->sin_port), t[i].port);
    }
}

static void bad_uris_are_refused(void **state)
{
    static const struct { const char *uri; int rc; } t[] = {
        { "", -EINVAL }, { "/a", -EINVAL }, { "http://a/", -EINVAL }, { "nbd:/a", -EINVAL },
        { "nbd://", -EINVAL }, { "nbd:///x", -EINVAL }, { "nbd://:10/x", -EINVAL },
        { "nbd://[::1/x", -EINVAL }, { "nbd://[::1]x/x", -EINVAL },
        { "nbd://u@127.0.0.1/", -EINVAL },
        { "nbd://127.0.0.1:0/", -EINVAL }, { "nbd://127.0.0.1:65536/", -EINVAL },
        { "nbd://127.0.0.1:/", -EINVAL }, { "nbd://127.0.0.1/%4", -EINVAL },
        { "nbd://127.0.0.1/%00", -EINVAL }, { "nbd://127.0.0.1/x?socket=/s", -EINVAL },
        { "nbd+unix://", -EINVAL }, { "nbd+unix:///", -EINVAL },
        { "nbd+unix:///?socket=", -EINVAL },
        { "nbd+unix://h/?socket=/s", -EINVAL }, { "nbd+unix:///?socket=/s&tls=1", -EINVAL },
        { "nbd+unix:///?socket=%zz", -EINVAL }, { "nbds://127.0.0.1/", -EOPNOTSUPP },
        { "nbds+unix:///?socket=/s", -EOPNOTSUPP },
    };
    char word[6000];
    struct nbd_target got;

    for (unsigned i = 0; i < array_size(t); i++) {
        struct err e = { 0 };

        assert_int_equal(nbd_target_parse(t[i].uri, &got, &e), t[i].rc);
        assert_int_not_equal(e.text[0], 0);
    }
    for (unsigned export = 0; export < 2; export++) {
        struct err e = { 0 };

        memset(word, 'a', sizeof(word) - 1);
        word[sizeof(word) - 1] = 0;
        memcpy(word, export ? "nbd://127.0.0.1/" : "nbd+unix:///?socket=", export ? 16 : 20);
        assert_int_equal(nbd_target_parse(word, &got, &e), -EINVAL);
    }
}

/* ---- opening ---- */

static void what_a_server_refuses_is_said(void **state)
{
    static const struct {
        uint32_t refuse;
        const char *greeting, *part;
        int rc;
    } t[] = {
        { NBD_REP_ERR_UNKNOWN, NULL, "no default export", -ENOENT },
        { NBD_REP_ERR_TLS_REQD, NULL, "TLS", -EOPNOTSUPP },
        { NBD_REP_ERR_UNSUP, NULL, "too old", -EOPNOTSUPP },
        { NBD_REP_ERR_POLICY, NULL, "refuses the export: no?[2J", -EACCES },
        { NBD_REP_ERR_SHUTDOWN, NULL, "shutting down", -ESHUTDOWN },
        { NBD_REP_IS_ERROR | 99, NULL, "0x80000063", -EPROTO },
        { 0, "SSH-2.0-OpenSSH_9.2p1", "no NBD server", -EPROTO },
        { 0, "NBDMAGIC\0", "hung up", -ECONNRESET },
        { 0, "NBDMAGICsomething more", "no NBD server", -EPROTO },
    };

    for (unsigned i = 0; i < array_size(t); i++) {
        struct err e = { 0 };
        struct fake f;
        int rc;

        fake_init(&f);
        f.refuse = t[i].refuse;
        f.greeting = t[i].greeting;
        fake_listen(&f);
        rc = try_open(&(struct blk_spec){ .driver = "nbd", .path = f.uri }, &e);
        if (rc != t[i].rc || !strstr(e.text, t[i].part))
            print_error("%u: %d %s\n", i, rc, e.text);
        assert_int_equal(rc, t[i].rc);
        assert_non_null(strstr(e.text, t[i].part));
        fake_end(&f);
    }
}

static void no_server_is_said(void **state)
{
    struct err e = { 0 };

    assert_int_equal(try_open(&(struct blk_spec){
        .driver = "nbd", .path = "nbd+unix:///?socket=/tmp/xenolith-nbd-nobody" }, &e), -ENOENT);
    assert_non_null(strstr(e.text, "no connection to the server"));
    err_clear(&e);
    assert_int_equal(try_open(&(struct blk_spec){ .driver = "nbd", .path = "nbd://127.0.0.1:1/" },
                              &e), -ECONNREFUSED);
    err_clear(&e);
    assert_int_equal(try_open(&(struct blk_spec){ .driver = "nbd" }, &e), -EINVAL);
}

static void *fake_main_late(void *arg)
{
    usleep(200000);
    return fake_main(arg);
}

/* As when the many queues of a guest connect at once. */
static void a_server_with_a_full_backlog_is_waited_for(void **state)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    struct err e = { 0 };
    struct fake f;
    int rc;

    fake_init(&f);
    fake_bind(&f, 1);
    snprintf(un.sun_path, sizeof(un.sun_path), "%s", f.path);
    do {        /* until they are accepted they have their places, closed or not */
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

        rc = connect(fd, (struct sockaddr *)&un, sizeof(un)) ? errno : 0;
        close(fd);
    } while (!rc);
    assert_int_equal(rc, EAGAIN);
    assert_int_equal(pthread_create(&f.thread, NULL, fake_main_late, &f), 0);
    assert_int_equal(try_open(&(struct blk_spec){ .driver = "nbd", .path = f.uri }, &e), 0);
    fake_end(&f);
}

static void an_export_that_is_none_of_ours(void **state)
{
    static const struct { uint64_t size; uint16_t flags; bool readonly; int rc; } t[] = {
        { 0, 1, false, -EINVAL }, { 511, 1, false, -EINVAL }, { 512, 1, false, 0 },
        { UINT64_MAX, 1, false, -EINVAL }, { 4096, 1 | NBD_FLAG_READ_ONLY, false, -EROFS },
        { 4096, 1 | NBD_FLAG_READ_ONLY, true, 0 },
    };

    for (unsigned i = 0; i < array_size(t); i++) {
        struct err e = { 0 };
        struct fake f;

        fake_init(&f);
        f.size_bytes = t[i].size;
        f.flags = t[i].flags;
        fake_listen(&f);
        assert_int_equal(try_open(&(struct blk_spec){
            .driver = "nbd", .path = f.uri, .readonly = t[i].readonly }, &e), t[i].rc);
        fake_end(&f);
    }
}

static void what_an_export_can_do_is_what_the_disk_can(void **state)
{
    const struct blk_props *p;
    struct blk_disk *d;
    struct fake f;

    fake_init(&f);
    f.size_bytes = 1000 * 1000;
    f.max_bytes = 65536;
    f.min_bytes = 4096;         /* asked for; without asking, the fake takes anything */
    fake_listen(&f);
    d = disk_open(&(struct blk_spec){ .driver = "nbd", .path = f.uri });
    p = blk_disk_props(d);
    assert_int_equal(p->size_bytes, 1000 * 1000 / 512 * 512);
    assert_int_equal(p->physical_block_bytes, 512);     /* 4096 does not divide the size */
    assert_true(p->can_flush && p->can_discard && p->can_write_zeroes && !p->readonly);
    assert_int_equal(p->max_queues, 0);
    assert_int_equal(f.nr_connections, 2);
    blk_disk_close(d);
    fake_end(&f);

    fake_init(&f);
    f.flags = 1;
    fake_listen(&f);
    d = disk_open(&(struct blk_spec){ .driver = "nbd", .path = f.uri });
    p = blk_disk_props(d);
    assert_true(!p->can_flush && !p->can_discard && !p->can_write_zeroes);
    assert_int_equal(p->max_queues, 1);
    blk_disk_close(d);
    fake_end(&f);
}

/* ---- commands ---- */

struct fixture {
    struct fake fake;
    struct blk_disk *disk;
    struct sync_queue queue;
    uint8_t *buf;
};

static void fixture_open(struct fixture *f, unsigned reconnect_s)
{
    fake_listen(&f->fake);
    f->buf = calloc(1, FAKE_BYTES);
    f->disk = disk_open(&(struct blk_spec){
        .driver = "nbd", .path = f->fake.uri, .reconnect_s = reconnect_s });
    sync_open(&f->queue, f->disk);
}

static void fixture_close(struct fixture *f)
{
    blk_queue_close(f->queue.q);
    blk_disk_close(f->disk);
    free(f->buf);
    fake_end(&f->fake);
}

static int write_fua(struct fixture *f, uint64_t bytes)
{
    struct blk_req *req = blk_req_get(f->queue.q, 1);
    unsigned index = req->index;

    req->op = BLK_OP_WRITE;
    req->fua = true;
    req->iov[0] = (struct iovec){ f->buf, bytes };
    req->nr_iov = 1;
    req->length_bytes = bytes;
    blk_req_submit(f->queue.q, req);
    sync_wait_all(&f->queue);
    return f->queue.result[index];
}

static void fua_goes_with_every_part_or_is_a_flush(void **state)
{
    struct fixture f;

    fake_init(&f.fake);
    f.fake.max_bytes = 65536;
    f.fake.min_bytes = 1;
    fixture_open(&f, 0);
    assert_int_equal(write_fua(&f, 3 * 65536 - 512), 0);
    assert_int_equal(f.fake.nr_commands, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(f.fake.type[i], NBD_CMD_WRITE);
        assert_int_equal(f.fake.cmd_flags[i], NBD_CMD_FLAG_FUA);
        assert_int_equal(f.fake.length[i], i < 2 ? 65536 : 65536 - 512);
    }
    fixture_close(&f);

    fake_init(&f.fake);
    f.fake.flags &= ~NBD_FLAG_SEND_FUA;
    fixture_open(&f, 0);
    assert_int_equal(write_fua(&f, 4096), 0);
    assert_int_equal(f.fake.nr_commands, 2);
    assert_int_equal(f.fake.type[0], NBD_CMD_WRITE);
    assert_int_equal(f.fake.cmd_flags[0], 0);
    assert_int_equal(f.fake.type[1], NBD_CMD_FLUSH);
    fixture_close(&f);
}

static void errors_are_the_servers(void **state)
{
    static const struct { uint32_t nbd; int rc; } t[] = {
        { 1, -EPERM }, { 5, -EIO }, { 12, -ENOMEM }, { 22, -EINVAL }, { 28, -ENOSPC },
        { 75, -EOVERFLOW }, { 95, -EOPNOTSUPP }, { 4711, -EIO },
    };

    for (unsigned i = 0; i < array_size(t); i++) {
        struct fixture f;

        fake_init(&f.fake);
        f.fake.fault = FAKE_ERROR;
        f.fake.error = t[i].nbd;
        f.fake.nr_faulty = 1;
        fixture_open(&f, 5);
        assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, f.buf, 4096, 1), t[i].rc);
        assert_int_equal(sync_io(&f.queue, BLK_OP_WRITE, 0, f.buf, 4096, 1), t[i].rc);
        assert_int_equal(sync_io(&f.queue, BLK_OP_FLUSH, 0, NULL, 0, 0), t[i].rc);
        assert_int_equal(f.fake.nr_connections, 1);
        fixture_close(&f);
    }
}

/* The connection is given up, and what was on it done on the next one, to the last byte. */
static void a_server_that_makes_no_sense_is_left(void **state)
{
    for (enum fake_fault fault = FAKE_BAD_MAGIC; fault < FAKE_ERROR; fault++) {
        struct fixture f;
        unsigned index[32];

        fake_init(&f.fake);
        f.fake.fault = fault;
        f.fake.nr_faulty = 2;
        for (unsigned i = 0; i < FAKE_BYTES; i++)
            f.fake.data[i] = pattern_byte(i);
        fixture_open(&f, 20);
        for (unsigned i = 0; i < array_size(index); i++)
            index[i] = sync_start(&f.queue, BLK_OP_READ, i * 8192, f.buf + i * 8192, 8192,
                                  1 + i % 5);
        sync_wait_all(&f.queue);
        for (unsigned i = 0; i < array_size(index); i++) {
            assert_int_equal(f.queue.completions[index[i]], 1);
            assert_int_equal(f.queue.result[index[i]], 0);
        }
        assert_memory_equal(f.buf, f.fake.data, array_size(index) * 8192);
        assert_int_equal(f.fake.nr_connections, 3);
        fixture_close(&f);
    }
}

/* A server that never gets further: not for ever. */
static void a_server_that_always_dies_of_a_request_gives_eio(void **state)
{
    struct fixture f;

    fake_init(&f.fake);
    f.fake.fault = FAKE_HANG_UP;
    f.fake.nr_faulty = ~0u;
    fixture_open(&f, 1);
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, f.buf, 512, 1), -EIO);
    assert_in_range(f.fake.nr_connections, 3, 20);      /* it takes its time between them */
    fixture_close(&f);

    fake_init(&f.fake);
    f.fake.fault = FAKE_HANG_UP;
    f.fake.nr_faulty = 1;
    fixture_open(&f, 0);        /* at once where nobody wants to wait, and not for ever */
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, f.buf, 512, 1), -EIO);
    for (unsigned i = 0; i < 50 && sync_io(&f.queue, BLK_OP_READ, 0, f.buf, 512, 1); i++)
        usleep(100000);
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, f.buf, 512, 1), 0);
    fixture_close(&f);
}

static void a_server_that_comes_back_as_another_is_not_taken(void **state)
{
    struct fixture f;

    fake_init(&f.fake);
    f.fake.fault = FAKE_HANG_UP;
    f.fake.nr_faulty = 1;
    fixture_open(&f, 1);
    f.fake.size_bytes /= 2;
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, f.buf, 512, 1), -EIO);
    f.fake.size_bytes = FAKE_BYTES;     /* and is, once it is the same again */
    for (unsigned i = 0; i < 50 && sync_io(&f.queue, BLK_OP_READ, 0, f.buf, 512, 1); i++)
        usleep(100000);
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, f.buf, 512, 1), 0);
    fixture_close(&f);
}

/* ... nor by another queue. */
static void a_queue_is_opened_on_the_same_export_only(void **state)
{
    struct blk_queue_params params = { .nr_reqs = 1, .max_iov = 1, .wake_fd = -1,
                                       .complete = sync_complete };
    struct blk_queue *q = NULL;
    struct err e = { 0 };
    struct fixture f;

    fake_init(&f.fake);
    f.fake.fault = FAKE_HANG_UP;
    f.fake.nr_faulty = 1;
    fixture_open(&f, 0);
    f.fake.size_bytes /= 2;
    assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, f.buf, 512, 1), -EIO);
    assert_int_equal(blk_queue_open(f.disk, &params, &q, &e), -ESTALE);
    f.fake.size_bytes = FAKE_BYTES;
    err_clear(&e);
    assert_int_equal(blk_queue_open(f.disk, &params, &q, &e), 0);
    blk_queue_close(q);
    fixture_close(&f);
}

/* Memory that a client has cut costs it its data, not the connection. */
static void memory_that_is_lost_is_zeroes(void **state)
{
    const size_t bytes = 64 * KIB;
    struct fixture f;

    assert_int_equal(lost_pages_replace(), 0);
    fake_init(&f.fake);
    memset(f.fake.data, 0x11, FAKE_BYTES);
    fixture_open(&f, 0);
    for (unsigned i = 0; i < 2; i++) {
        int fd = memfd_create("guest", MFD_CLOEXEC);
        uint8_t *mem;

        assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
        mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(mem, MAP_FAILED);
        memset(mem, 0x22, bytes);
        assert_int_equal(ftruncate(fd, 4096), 0);
        assert_int_equal(sync_io(&f.queue, i ? BLK_OP_READ : BLK_OP_WRITE, 0, mem, bytes, 3), 0);
        if (i) {
            assert_memory_equal(mem, f.fake.data, bytes);
        } else {
            assert_int_equal(f.fake.data[4095], 0x22);
            for (size_t at = 4096; at < bytes; at++)
                assert_int_equal(f.fake.data[at], 0);
        }
        munmap(mem, bytes);
        close(fd);
    }
    assert_int_equal(f.fake.nr_connections, 1);
    fixture_close(&f);
    signal(SIGBUS, SIG_DFL);
}

/* What ends must not wait for what is gone, however long a guest would have. */
static void a_queue_that_ends_waits_for_no_server(void **state)
{
    static const enum fake_fault faults[] = { FAKE_HANG_UP, FAKE_SILENT };

    for (unsigned i = 0; i < array_size(faults); i++) {
        struct timespec t0, t1;
        struct fixture f;
        unsigned index;

        fake_init(&f.fake);
        f.fake.fault = faults[i];
        f.fake.nr_faulty = ~0u;
        fixture_open(&f, 86400);
        index = sync_start(&f.queue, BLK_OP_WRITE, 0, f.buf, 4096, 1);
        for (unsigned turn = 0; turn < 20; turn++) {
            blk_queue_wait(f.queue.q, 10000000);
            assert_int_equal(blk_queue_reap(f.queue.q), 0);
        }
        clock_gettime(CLOCK_MONOTONIC, &t0);
        blk_queue_drain(f.queue.q);
        sync_wait_all(&f.queue);
        clock_gettime(CLOCK_MONOTONIC, &t1);
        assert_int_equal(f.queue.result[index], -EIO);
        assert_in_range(t1.tv_sec - t0.tv_sec, 0, 8);
        fixture_close(&f);
    }
}

/* A server with room for one, and which ends with its client, is enough. */
static void one_connection_serves_the_disk_and_queue_after_queue(void **state)
{
    struct fixture f;

    fake_init(&f.fake);
    fixture_open(&f, 5);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, f.buf, 4096, 1), 0);
        blk_queue_close(f.queue.q);
        sync_open(&f.queue, f.disk);
    }
    assert_int_equal(f.fake.nr_connections, 1);
    fixture_close(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(uris_are_read),
        cmocka_unit_test(bad_uris_are_refused),
        cmocka_unit_test(what_a_server_refuses_is_said),
        cmocka_unit_test(no_server_is_said),
        cmocka_unit_test(a_server_with_a_full_backlog_is_waited_for),
        cmocka_unit_test(an_export_that_is_none_of_ours),
        cmocka_unit_test(what_an_export_can_do_is_what_the_disk_can),
        cmocka_unit_test(fua_goes_with_every_part_or_is_a_flush),
        cmocka_unit_test(errors_are_the_servers),
        cmocka_unit_test(a_server_that_makes_no_sense_is_left),
        cmocka_unit_test(a_server_that_always_dies_of_a_request_gives_eio),
        cmocka_unit_test(a_server_that_comes_back_as_another_is_not_taken),
        cmocka_unit_test(a_queue_is_opened_on_the_same_export_only),
        cmocka_unit_test(memory_that_is_lost_is_zeroes),
        cmocka_unit_test(a_queue_that_ends_waits_for_no_server),
        cmocka_unit_test(one_connection_serves_the_disk_and_queue_after_queue),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
