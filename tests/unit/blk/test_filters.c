/* SPDX-License-Identifier: MIT */
/* What each filter does when it does something; that they do no harm is test_conformance.c's. */
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/atomic.h"
#include "base/loop.h"
#include "blk_test.h"

#define DISK_BYTES (1 * MIB)
#define MS 1000000ull

static uint8_t buf[64 * KIB] __attribute__((aligned(8)));

struct fixture {
    struct blk_disk *disk;
    struct sync_queue queue;
};

static void fixture_open(struct fixture *f, const char *driver, const char *filters)
{
    f->disk = disk_open(&(struct blk_spec){ .driver = driver, .size_bytes = DISK_BYTES,
                                            .filters = filters });
    sync_open(&f->queue, f->disk);
}

static void fixture_close(struct fixture *f)
{
    blk_queue_close(f->queue.q);
    blk_disk_close(f->disk);
}

static int do_io(struct fixture *f, enum blk_op op, uint64_t sector, unsigned nr)
{
    return sync_io(&f->queue, op, sector * 512, buf, nr * 512ull, op <= BLK_OP_WRITE);
}

/* ---- options ---- */

static void bad_options_are_named(void **state)
{
    static const struct { const char *filters, *text; } bad[] = {
        { "slow", "no filter is called `slow', expected one of" },
        { "qos", "filter=qos: expected iops= or bps= or both" },
        { "qos:", "unknown option `'" },
        { "qos:iops=10:", "unknown option `'" },
        { "qos:iops", "unknown option `iops', expected iops=" },
        { "qos:iops=", "iops=: expected requests per second" },
        { "qos:iops=0", "iops=0: expected requests per second" },
        { "qos:iops=10000001", "expected requests per second" },
        { "qos:iops=1:iops=2", "iops= is given twice" },
        { "qos:iops-burst=5:bps=1", "iops-burst= is for iops=" },
        { "qos:bps-burst=5:iops=1", "bps-burst= is for bps=" },
        { "qos:iops=1:group=", "group=: expected a name" },
        { "qos:iops=1:group=a b", "group=a b: expected a name" },
        { "qos:iops=1:group=a", "there are no groups here" },
        { "delay", "filter=delay: expected time=" },
        { "delay:time=5", "time=5: expected a time such as 5ms" },
        { "delay:time=5h", "expected a time such as 5ms" },
        { "delay:time=99999999999s", "expected a time such as 5ms" },
        { "delay:time=5ms:up-to=4ms", "no less than time=" },
        { "delay:time=5ms:op=read+", "op=read+: expected read, write" },
        { "fault:nth=0", "nth=0: expected a number from 1 on" },
        { "fault:nth=1:every=1", "expected one of nth=, every= and rate=" },
        { "fault:rate=5", "rate=5: expected a percentage" },
        { "fault:rate=101%", "expected a percentage" },
        { "fault:rate=0%", "expected a percentage" },
        { "fault:rate=.5%", "expected a percentage" },
        { "fault:rate=99999999999999999999999%", "expected a percentage" },
        { "fault:seed=1", "seed= is for rate=" },
        { "fault:sectors=5-4", "sectors=5-4: expected a sector" },
        { "fault:sectors=-4", "expected a sector" },
        { "fault:error=EOOPS", "error=EOOPS: expected hang, EIO" },
        { "verify:x=1", "unknown option `x=1', expected none" },
        { "verify,verify,delay", "filter=delay: expected time=" },
        { "verify,verify,verify,verify,verify,verify,verify,verify,verify", "more than 8 filters" },
    };

    for (unsigned i = 0; i < array_size(bad); i++) {
        struct blk_spec spec = { .driver = "ram", .size_bytes = DISK_BYTES,
                                 .filters = bad[i].filters };
        struct blk_disk *d = NULL;
        struct err e = { 0 }, judged = { 0 };

        assert_true(blk_disk_open(&spec, &d, &e) < 0);
        assert_null(d);
        if (!strstr(e.text, bad[i].text))
            fail_msg("%s: '%s' does not say '%s'", bad[i].filters, e.text, bad[i].text);
        /* what needs no look at other disks is told before anything is opened */
        if (strstr(bad[i].filters, "group=a") == NULL || strchr(bad[i].filters, ' '))
            assert_string_equal((blk_filters_judge(bad[i].filters, &judged), judged.text), e.text);
    }
}

static void filters_have_distinct_names_and_summaries(void **state)
{
    for (unsigned i = 0; blk_filter_table[i]; i++) {
        assert_ptr_equal(blk_filter_find(blk_filter_table[i]->name), blk_filter_table[i]);
        assert_null(blk_driver_find(blk_filter_table[i]->name));
        assert_true(blk_filter_table[i]->summary[0]);
    }
}

/* An error of what is below comes up through all of them. */
static void the_first_filter_is_met_first(void **state)
{
    struct fixture f;

    fixture_open(&f, "ram", "fault:op=write:error=ENOSPC,fault:op=write+read:error=EIO");
    assert_int_equal(do_io(&f, BLK_OP_WRITE, 0, 1), -ENOSPC);
    assert_int_equal(do_io(&f, BLK_OP_READ, 0, 1), -EIO);
    assert_int_equal(do_io(&f, BLK_OP_FLUSH, 0, 0), 0);
    fixture_close(&f);
}

/* ---- delay ---- */

static void delays_last_as_long_as_they_should(void **state)
{
    struct fixture f;
    uint64_t began;

    fixture_open(&f, "ram", "delay:time=20ms:op=read");
    began = loop_now_ns();
    assert_int_equal(do_io(&f, BLK_OP_WRITE, 0, 8), 0);
    assert_int_equal(do_io(&f, BLK_OP_FLUSH, 0, 0), 0);
    assert_true(loop_now_ns() - began < 20 * MS);
    began = loop_now_ns();
    /* together, not one after the other */
    for (unsigned i = 0; i < 32; i++)
        sync_start(&f.queue, BLK_OP_READ, i * 512, buf + i * 512, 512, 1);
    sync_wait_all(&f.queue);
    assert_in_range(loop_now_ns() - began, 20 * MS, 400 * MS);
    fixture_close(&f);
}

struct finish { struct blk_queue *q; uint64_t at_ns[64]; unsigned index[64], nr; };

static void finish_note(void *arg, struct blk_req *req)
{
    struct finish *n = arg;

    n->at_ns[n->nr] = loop_now_ns();
    n->index[n->nr++] = req->index;
    blk_req_put(n->q, req);
}

static void random_delays_lie_in_their_range(void **state)
{
    struct finish n = { .nr = 0 };
    struct blk_queue_params p = { 64, 4, -1, finish_note, &n };
    struct blk_disk *d = disk_open(&(struct blk_spec){
        .driver = "null", .size_bytes = DISK_BYTES, .filters = "delay:time=1ms:up-to=30ms" });
    uint64_t began = loop_now_ns();
    unsigned overtaken = 0;
    struct err e = { 0 };

    assert_int_equal(blk_queue_open(d, &p, &n.q, &e), 0);
    for (unsigned i = 0; i < 64; i++) {
        struct blk_req *req = blk_req_get(n.q, 0);

        req->op = BLK_OP_FLUSH;
        blk_req_submit(n.q, req);
    }
    while (blk_queue_nr_inflight(n.q))
        if (!blk_queue_reap(n.q))
            blk_queue_wait(n.q, -1);
    for (unsigned i = 0; i < 64; i++) {
        assert_in_range(n.at_ns[i] - began, 1 * MS, 400 * MS);
        overtaken += i && n.index[i] < n.index[i - 1];
    }
    assert_true(overtaken > 8);
    assert_true(n.at_ns[63] - n.at_ns[0] > 10 * MS);
    blk_queue_close(n.q);
    blk_disk_close(d);
}

/* Whoever polls learns when that is of no use, through all filters. */
static void what_is_kept_makes_a_queue_dormant(void **state)
{
    struct fixture f;

    fixture_open(&f, "ram", "delay:time=1s:op=write,verify,fault:op=read:error=hang,qos:iops=1");
    assert_false(blk_queue_dormant(f.queue.q));
    sync_start(&f.queue, BLK_OP_WRITE, 0, buf, 512, 1);         /* kept by delay */
    assert_true(blk_queue_dormant(f.queue.q));
    sync_start(&f.queue, BLK_OP_READ, 0, buf, 512, 1);          /* by fault */
    assert_true(blk_queue_dormant(f.queue.q));
    sync_start(&f.queue, BLK_OP_FLUSH, 0, NULL, 0, 0);          /* by nobody */
    assert_false(blk_queue_dormant(f.queue.q));
    assert_int_equal(blk_queue_reap(f.queue.q), 1);
    assert_true(blk_queue_dormant(f.queue.q));
    sync_start(&f.queue, BLK_OP_FLUSH, 0, NULL, 0, 0);          /* by qos */
    assert_true(blk_queue_dormant(f.queue.q));
    blk_queue_drain(f.queue.q);
    sync_wait_all(&f.queue);
    assert_false(blk_queue_dormant(f.queue.q));
    fixture_close(&f);
}

/* The owner's descriptor ends the wait for a timer as it does any other. */
static void a_wait_for_a_delay_ends_for_the_wake_fd(void **state)
{
    static const char *const drivers[] = { "ram", "file" };

    for (unsigned i = 0; i < array_size(drivers); i++) {
        struct sync_queue s;
        struct image img;
        struct blk_disk *d;
        int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        uint64_t began = loop_now_ns();

        image_make(&img, "/tmp", DISK_BYTES);
        d = disk_open(&(struct blk_spec){ .driver = drivers[i], .path = img.path,
                                          .size_bytes = DISK_BYTES, .filters = "delay:time=30s" });
        sync_open_fd(&s, d, fd);
        sync_start(&s, BLK_OP_READ, 0, buf, 512, 1);
        assert_false(blk_queue_wait(s.q, 1000000));
        assert_int_equal(eventfd_write(fd, 1), 0);
        while (!blk_queue_wait(s.q, -1))
            ;
        assert_int_equal(blk_queue_reap(s.q), 0);
        blk_queue_drain(s.q);
        sync_wait_all(&s);
        assert_int_equal(s.completions[0] + s.result[0], 1);
        assert_true(loop_now_ns() - began < 10000 * MS);
        blk_queue_close(s.q);
        blk_disk_close(d);
        unlink(img.path);
        close(fd);
    }
}

/* ---- fault ---- */

/* Which of nr reads of a sector each fail, as text of '.' and 'x'. */
static const char *pattern(const char *filters, unsigned nr, char *text)
{
    struct fixture f;

    fixture_open(&f, "null", filters);
    for (unsigned i = 0; i < nr; i++)
        text[i] = do_io(&f, BLK_OP_READ, i, 1) ? 'x' : '.';
    text[nr] = 0;
    fixture_close(&f);
    return text;
}

static void faults_strike_where_they_are_told(void **state)
{
    char text[128];

    assert_string_equal(pattern("fault", 3, text), "xxx");
    assert_string_equal(pattern("fault:nth=3", 6, text), "..x...");
    assert_string_equal(pattern("fault:every=2", 6, text), ".x.x.x");
    assert_string_equal(pattern("fault:every=2:count=2", 8, text), ".x.x....");
    assert_string_equal(pattern("fault:sectors=2-3", 6, text), "..xx..");
    assert_string_equal(pattern("fault:sectors=4", 6, text), "....x.");
    assert_string_equal(pattern("fault:sectors=1-4:every=2", 6, text), "..x.x.");
    assert_string_equal(pattern("fault:op=write", 3, text), "...");
    assert_string_equal(pattern("fault:rate=100%", 3, text), "xxx");
}

static void a_range_is_met_by_any_part_of_a_request(void **state)
{
    struct fixture f;

    fixture_open(&f, "ram", "fault:sectors=10-19:error=EREMOTEIO");
    assert_int_equal(do_io(&f, BLK_OP_READ, 0, 10), 0);
    assert_int_equal(do_io(&f, BLK_OP_READ, 0, 11), -EREMOTEIO);
    assert_int_equal(do_io(&f, BLK_OP_READ, 19, 1), -EREMOTEIO);
    assert_int_equal(do_io(&f, BLK_OP_READ, 20, 8), 0);
    assert_int_equal(do_io(&f, BLK_OP_DISCARD, 0, 64), -EREMOTEIO);
    assert_int_equal(do_io(&f, BLK_OP_FLUSH, 0, 0), 0);
    fixture_close(&f);
}

static void a_rate_is_kept_and_repeats_with_its_seed(void **state)
{
    static char a[2001], b[2001], c[2001];
    unsigned nr = 0;

    pattern("fault:rate=10%:seed=1", 2000, a);
    pattern("fault:rate=10%:seed=1", 2000, b);
    pattern("fault:rate=10%:seed=2", 2000, c);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    for (unsigned i = 0; i < 2000; i++)
        nr += a[i] == 'x';
    assert_in_range(nr, 140, 260);
}

static void what_hangs_ends_with_the_queue_and_holds_up_nothing(void **state)
{
    struct fixture f;

    fixture_open(&f, "ram", "fault:nth=2:error=hang");
    for (unsigned i = 0; i < 8; i++)
        sync_start(&f.queue, BLK_OP_READ, 0, buf, 512, 1);
    blk_queue_flush(f.queue.q);
    assert_int_equal(blk_queue_reap(f.queue.q), 7);
    assert_false(blk_queue_wait(f.queue.q, 5 * MS));
    assert_int_equal(blk_queue_reap(f.queue.q), 0);
    assert_int_equal(blk_queue_nr_inflight(f.queue.q), 1);
    assert_true(blk_queue_dormant(f.queue.q));
    blk_queue_drain(f.queue.q);
    sync_wait_all(&f.queue);
    assert_int_equal(f.queue.result[1], -EIO);
    fixture_close(&f);
}

/* ---- verify ---- */

static void verify_finds_a_disk_that_forgets(void **state)
{
    struct fixture f;

    fixture_open(&f, "null", "verify");
    assert_int_equal(do_io(&f, BLK_OP_READ, 0, 16), 0);         /* nothing is known yet */
    memset(buf, 0x11, 8192);
    assert_int_equal(do_io(&f, BLK_OP_WRITE, 4, 4), 0);
    assert_int_equal(do_io(&f, BLK_OP_READ, 0, 4), 0);
    assert_int_equal(do_io(&f, BLK_OP_READ, 8, 8), 0);
    assert_int_equal(do_io(&f, BLK_OP_READ, 7, 2), -EILSEQ);
    assert_int_equal(do_io(&f, BLK_OP_READ, 0, 16), -EILSEQ);
    memset(buf, 0, 8192);
    assert_int_equal(do_io(&f, BLK_OP_WRITE, 4, 4), 0);
    assert_int_equal(do_io(&f, BLK_OP_READ, 0, 16), 0);
    fixture_close(&f);
}

/* One sector of the image changes behind the disk's back. */
static void verify_finds_each_sector_that_changes(void **state)
{
    struct image img;
    struct fixture f;
    int fd;

    image_make(&img, "/tmp", 64 * KIB);
    f.disk = disk_open(&(struct blk_spec){ .driver = "file", .path = img.path,
                                           .filters = "verify" });
    sync_open(&f.queue, f.disk);
    memset(buf, 0x22, sizeof(buf));
    assert_int_equal(sync_io(&f.queue, BLK_OP_WRITE, 0, buf, 64 * KIB, 7), 0);
    assert_int_equal(sync_io(&f.queue, BLK_OP_WRITE_ZEROES, 0, NULL, 512, 0), 0);
    fd = open(img.path, O_RDWR);
    for (unsigned sector = 0; sector < 128; sector++) {
        char byte[1] = { 0x23 }, old[1];

        assert_int_equal(pread(fd, old, 1, sector * 512 + 77), 1);
        assert_int_equal(pwrite(fd, byte, 1, sector * 512 + 77), 1);
        assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, buf, 64 * KIB, 5), -EILSEQ);
        assert_int_equal(sync_io(&f.queue, BLK_OP_READ, sector * 512, buf + 3, 512, 1), -EILSEQ);
        assert_int_equal(pwrite(fd, old, 1, sector * 512 + 77), 1);
        assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, buf, 64 * KIB, 3), 0);
    }
    close(fd);
    fixture_close(&f);
    unlink(img.path);
}

/* What it cannot know it does not judge: writes that failed or met, memory that changed. */
static void verify_does_not_judge_what_it_cannot_know(void **state)
{
    struct fixture f;

    fixture_open(&f, "null", "verify,fault:nth=1");
    memset(buf, 0x33, 4096);
    assert_int_equal(do_io(&f, BLK_OP_WRITE, 0, 8), -EIO);
    assert_int_equal(do_io(&f, BLK_OP_READ, 0, 8), 0);
    fixture_close(&f);

    fixture_open(&f, "null", "verify,delay:time=5ms:op=write");
    memset(buf, 0x33, 4096);
    sync_start(&f.queue, BLK_OP_WRITE, 0, buf, 4096, 1);
    sync_start(&f.queue, BLK_OP_WRITE, 0, buf, 512, 1);
    sync_wait_all(&f.queue);
    assert_int_equal(do_io(&f, BLK_OP_READ, 0, 1), 0);          /* they met here ... */
    assert_int_equal(do_io(&f, BLK_OP_READ, 0, 2), -EILSEQ);    /* ... and not here */
    memset(buf, 0x33, 4096);
    sync_start(&f.queue, BLK_OP_WRITE, 64 * 512, buf, 4096, 1);
    buf[700] = 0x34;
    sync_wait_all(&f.queue);
    assert_int_equal(do_io(&f, BLK_OP_READ, 64, 8), 0);
    fixture_close(&f);
}

/* None of a disk's queues is lent whose answers do not come at once. */
static void a_delayed_disk_is_not_prompt(void **state)
{
    struct fixture f;

    fixture_open(&f, "ram", "verify");
    assert_true(blk_disk_props(f.disk)->prompt);
    fixture_close(&f);
    fixture_open(&f, "ram", "verify,delay:time=1ms");
    assert_false(blk_disk_props(f.disk)->prompt);
    fixture_close(&f);
}

/* A drained queue holds no new request back either: a face may still have steps to do. */
static void nothing_hangs_after_a_drain(void **state)
{
    struct fixture f;

    fixture_open(&f, "ram", "fault:error=hang");
    blk_queue_drain(f.queue.q);
    sync_start(&f.queue, BLK_OP_READ, 0, buf, 4096, 1);
    assert_false(blk_queue_dormant(f.queue.q));
    sync_wait_all(&f.queue);
    fixture_close(&f);
}

/* As a guest that is no part of this program: never back. */
static void scribble(uint64_t *word)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* a new value each time, and long enough to be written and summed up as it is */
    for (;;) {
        uint64_t until_ns = loop_now_ns() + 60000;

        fetch_add(word, 1);
        while (loop_now_ns() < until_ns)
            ;
    }
}

/* Whenever memory changes, before, while and after it is looked at. */
static void verify_takes_no_change_of_memory_for_a_fault(void **state)
{
    static uint8_t copy[64 * KIB];
    uint8_t *shared = mmap(NULL, sizeof(copy), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t *word = (uint64_t *)(void *)(shared + 32 * KIB);
    struct fixture f;
    pid_t pid;

    assert_true(shared != MAP_FAILED);
    fixture_open(&f, "ram", "verify");
    memset(shared, 0x44, sizeof(copy));
    pid = fork();
    assert_true(pid >= 0);
    if (!pid)
        scribble(word);
    for (unsigned i = 0; i < 2000; i++) {
        assert_int_equal(sync_io(&f.queue, BLK_OP_WRITE, 0, shared, 64 * KIB, 1), 0);
        assert_int_equal(sync_io(&f.queue, BLK_OP_READ, 0, copy, 64 * KIB, 1), 0);
    }
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    munmap(shared, sizeof(copy));
    fixture_close(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_options_are_named),
        cmocka_unit_test(filters_have_distinct_names_and_summaries),
        cmocka_unit_test(the_first_filter_is_met_first),
        cmocka_unit_test(delays_last_as_long_as_they_should),
        cmocka_unit_test(random_delays_lie_in_their_range),
        cmocka_unit_test(what_is_kept_makes_a_queue_dormant),
        cmocka_unit_test(a_wait_for_a_delay_ends_for_the_wake_fd),
        cmocka_unit_test(faults_strike_where_they_are_told),
        cmocka_unit_test(a_range_is_met_by_any_part_of_a_request),
        cmocka_unit_test(a_rate_is_kept_and_repeats_with_its_seed),
        cmocka_unit_test(what_hangs_ends_with_the_queue_and_holds_up_nothing),
        cmocka_unit_test(a_delayed_disk_is_not_prompt),
        cmocka_unit_test(nothing_hangs_after_a_drain),
        cmocka_unit_test(verify_finds_a_disk_that_forgets),
        cmocka_unit_test(verify_finds_each_sector_that_changes),
        cmocka_unit_test(verify_does_not_judge_what_it_cannot_know),
        cmocka_unit_test(verify_takes_no_change_of_memory_for_a_fault),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
