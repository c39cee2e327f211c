/* SPDX-License-Identifier: MIT */
/* filter=trace and who reads it: what is recorded is what was asked for, also after a kill, and
 * what is no trace is told. */
#include "blk_test.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "blk/trace_reader.h"

#define DISK_BYTES MIB

static char trace_path[64];

static struct blk_disk *traced(const char *driver, unsigned records, const char *more)
{
    char filters[256];

    snprintf(filters, sizeof(filters), "trace:records=%u:file=%s%s", records, trace_path, more);
    return disk_open(&(struct blk_spec){ .driver = driver, .size_bytes = DISK_BYTES,
                                         .filters = filters, .label = "xvdq" });
}

static struct blk_trace trace_read(void)
{
    struct blk_trace t;
    struct err e = { 0 };

    if (blk_trace_read(trace_path, &t, &e))
        fail_msg("%s", e.text);
    return t;
}

static int remove_trace(void **state)
{
    unlink(trace_path);
    return 0;
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void each_request_is_recorded(void **state)
{
    static const struct { enum blk_op op; uint64_t at, len; int result; } asked[] = {
        { BLK_OP_WRITE, 4096, 8192, 0 }, { BLK_OP_READ, 512, 1024, 0 },
        { BLK_OP_FLUSH, 0, 0, 0 }, { BLK_OP_DISCARD, 0, DISK_BYTES, 0 },
        { BLK_OP_READ, 5 * 512, 512, -EIO }, { BLK_OP_WRITE_ZEROES, 8192, 4096, 0 },
    };
    struct blk_disk *d = traced("ram", 100, ",fault:op=read:sectors=5-5");
    uint64_t begin = now_ns(), last = begin;
    struct sync_queue q[2];
    uint8_t buf[8192] = { 1 };
    struct blk_trace t;

    for (unsigned k = 0; k < 2; k++)
        sync_open(&q[k], d);
    for (unsigned i = 0; i < array_size(asked); i++) {
        bool data = asked[i].op == BLK_OP_READ || asked[i].op == BLK_OP_WRITE;

        assert_int_equal(sync_io(&q[i % 2], asked[i].op, asked[i].at, data ? buf : NULL,
                                 asked[i].len, data ? 2 : 0), asked[i].result);
        /* at any time */
        t = trace_read();
        assert_int_equal(t.nr_entries, i + 1);
        blk_trace_free(&t);
    }
    t = trace_read();
    assert_string_equal(t.label, "xvdq");
    assert_int_equal(t.size_bytes, DISK_BYTES);
    assert_int_equal(t.nr_rings, 2);
    assert_int_equal(t.nr_overwritten + t.nr_damaged, 0);
    for (unsigned i = 0; i < array_size(asked); i++) {
        const struct blk_trace_record *r = &t.entries[i].record;

        assert_int_equal(t.entries[i].ring, i % 2);
        assert_int_equal(r->number, i / 2 + 1);
        assert_int_equal(r->op, asked[i].op);
        assert_int_equal(r->offset_bytes, asked[i].at);
        assert_int_equal(r->length_bytes, asked[i].len);
        assert_int_equal(r->result, asked[i].result);
        assert_true(r->submitted_ns >= last);
        last = r->submitted_ns + r->latency_ns;
    }
    assert_true(last <= now_ns());
    blk_trace_free(&t);
    for (unsigned k = 0; k < 2; k++)
        blk_queue_close(q[k].q);
    blk_disk_close(d);
}

static void latency_is_what_it_took(void **state)
{
    struct blk_disk *d = traced("null", 100, ",delay:time=30ms:op=write");
    uint8_t buf[512] = { 0 };
    struct sync_queue q;
    struct blk_trace t;

    sync_open(&q, d);
    for (unsigned i = 0; i < 3; i++)
        sync_start(&q, BLK_OP_WRITE, i * 512, buf, 512, 1);
    sync_wait_all(&q);
    t = trace_read();
    assert_int_equal(t.nr_entries, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(t.entries[i].record.latency_ns >= 30000000);
        assert_true(t.entries[i].record.latency_ns < 20000000000);
    }
    /* together, not one after the other */
    assert_true(t.entries[2].record.submitted_ns <
                t.entries[0].record.submitted_ns + t.entries[0].record.latency_ns);
    blk_trace_free(&t);
    blk_queue_close(q.q);
    blk_disk_close(d);
}

static void a_ring_keeps_the_last(void **state)
{
    struct blk_disk *d = traced("null", 16, "");
    uint8_t buf[512] = { 0 };
    struct sync_queue q;
    struct blk_trace t;

    sync_open(&q, d);
    for (unsigned i = 0; i < 30; i++)
        sync_io(&q, BLK_OP_WRITE, i * 512, buf, 512, 1);
    /* the next queue goes on in the same ring */
    blk_queue_close(q.q);
    sync_open(&q, d);
    for (unsigned i = 30; i < 37; i++)
        sync_io(&q, BLK_OP_WRITE, i * 512, buf, 512, 1);
    t = trace_read();
    assert_int_equal(t.nr_rings, 1);
    assert_int_equal(t.nr_entries, 16);
    assert_int_equal(t.nr_overwritten, 21);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(t.entries[i].record.offset_bytes, (21 + i) * 512);
    blk_trace_free(&t);
    blk_queue_close(q.q);
    blk_disk_close(d);
    /* the next disk begins anew */
    d = traced("null", 16, "");
    t = trace_read();
    assert_int_equal(t.nr_entries + t.nr_overwritten, 0);
    blk_trace_free(&t);
    blk_disk_close(d);
}

static void what_a_killed_process_did_is_there(void **state)
{
    for (unsigned round = 0; round < 20; round++) {
        pid_t pid;
        int status, ready[2];
        char word;
        struct blk_trace t;

        assert_int_equal(pipe(ready), 0);
        pid = fork();
        if (!pid) {
            struct blk_disk *d = traced("null", 1000, "");
            uint8_t buf[512] = { 0 };
            struct sync_queue q;

            sync_open(&q, d);
            for (uint64_t i = 0;; i++) {
                sync_io(&q, BLK_OP_WRITE, i % 2000 * 512, buf, 512, 1);
                if (i == 20 && write(ready[1], "r", 1) != 1)
                    _exit(1);
            }
        }
        close(ready[1]);
        assert_int_equal(read(ready[0], &word, 1), 1);
        close(ready[0]);
        usleep(round * 200);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        t = trace_read();
        assert_true(t.nr_damaged <= 1);
        assert_in_range(t.nr_entries, 20, 1000);
        /* without a gap, but for the one that was being written over an older one */
        for (size_t i = 1; i < t.nr_entries; i++)
            assert_int_equal(t.entries[i].record.number, t.entries[i - 1].record.number + 1);
        assert_int_equal(t.entries[t.nr_entries - 1].record.offset_bytes,
                         (t.entries[t.nr_entries - 1].record.number - 1) % 2000 * 512);
        blk_trace_free(&t);
    }
}

static void only_traces_are_written_over(void **state)
{
    struct blk_spec spec = { .driver = "null", .size_bytes = DISK_BYTES };
    struct blk_disk *d = NULL, *first;
    struct err e = { 0 };
    char filters[128], data[16] = "";
    int fd;

    snprintf(filters, sizeof(filters), "trace:file=%s", trace_path);
    spec.filters = filters;
    fd = open(trace_path, O_CREAT | O_RDWR, 0600);
    assert_int_equal(write(fd, "a letter", 8), 8);
    assert_int_equal(blk_disk_open(&spec, &d, &e), -EEXIST);
    assert_int_equal(pread(fd, data, sizeof(data), 0), 8);
    assert_string_equal(data, "a letter");
    assert_int_equal(ftruncate(fd, 0), 0);
    close(fd);
    first = disk_open(&spec);
    err_clear(&e);
    assert_int_equal(blk_disk_open(&spec, &d, &e), -EBUSY);
    assert_null(d);
    blk_disk_close(first);
    blk_disk_close(disk_open(&spec));
    unlink(trace_path);
    assert_int_equal(mkfifo(trace_path, 0600), 0);
    err_clear(&e);
    assert_true(blk_disk_open(&spec, &d, &e) < 0);
    assert_null(d);
}

static void options_are_judged(void **state)
{
    static const char *const bad[] = {
        "trace", "trace:file=here", "trace:records=15:file=/x", "trace:records=16777217:file=/x",
        "trace:records=x:file=/x",
    };

    for (unsigned i = 0; i < array_size(bad); i++) {
        struct err e = { 0 };

        assert_int_equal(blk_filters_judge(bad[i], &e), -EINVAL);
        assert_non_null(strstr(e.text, "trace"));
    }
}

/* ---- the reader alone ---- */

/* A trace of two rings of 16, with so many requests in each. */
static void trace_make(unsigned nr)
{
    struct blk_disk *d = traced("null", 16, "");
    uint8_t buf[512] = { 0 };
    struct sync_queue q[2];

    for (unsigned k = 0; k < 2; k++)
        sync_open(&q[k], d);
    for (unsigned i = 0; i < 2 * nr; i++)
        sync_io(&q[i % 2], BLK_OP_WRITE, i * 512, buf, 512, 1);
    for (unsigned k = 0; k < 2; k++)
        blk_queue_close(q[k].q);
    blk_disk_close(d);
}

static void file_change(uint64_t at, const void *bytes, size_t n)
{
    int fd = open(trace_path, O_RDWR);

    assert_int_equal(pwrite(fd, bytes, n, (off_t)at), n);
    close(fd);
}

static void read_fails(const char *why)
{
    struct blk_trace t = { .entries = NULL };
    struct err e = { 0 };

    assert_true(blk_trace_read(trace_path, &t, &e) < 0);
    assert_null(t.entries);
    if (!strstr(e.text, why) || !strstr(e.text, trace_path))
        fail_msg("got '%s', wanted '%s'", e.text, why);
}

static void what_is_no_trace_is_told(void **state)
{
    static const struct { size_t at; uint64_t value; size_t n; const char *why; } bad[] = {
        { offsetof(struct blk_trace_header, magic), 7, 8, "is no trace" },
        { offsetof(struct blk_trace_header, version), 2, 4, "version 2, expected 1" },
        { offsetof(struct blk_trace_header, header_bytes), 0, 4, "cannot be" },
        { offsetof(struct blk_trace_header, record_bytes), 47, 4, "records of 47 bytes" },
        { offsetof(struct blk_trace_header, nr_rings), 65, 4, "65 rings" },
        { offsetof(struct blk_trace_header, nr_rings), 3, 4, "has been cut" },
        { offsetof(struct blk_trace_header, ring_records), 0, 8, "cannot be" },
        { offsetof(struct blk_trace_header, ring_records), UINT64_MAX, 8, "cannot be" },
        { offsetof(struct blk_trace_header, ring_records), 1u << 24, 8, "has been cut" },
    };

    read_fails("No such file");
    for (unsigned i = 0; i < array_size(bad); i++) {
        trace_make(3);
        file_change(bad[i].at, &bad[i].value, bad[i].n);
        read_fails(bad[i].why);
        unlink(trace_path);
    }
    for (off_t length = 0; length < 4096 + 2 * 4096; length += length < 100 ? 1 : 509) {
        trace_make(3);
        assert_int_equal(truncate(trace_path, length), 0);
        read_fails(length < 8 ? "is no trace" : length < (off_t)sizeof(struct blk_trace_header) ?
                   (length < 12 ? "" : "ends in its header") : "has been cut");
        unlink(trace_path);
    }
    assert_int_equal(mkfifo(trace_path, 0600), 0);
    read_fails("is no file");
}

static void what_is_no_record_is_left_out(void **state)
{
    struct blk_trace t;

    /* each byte of the second record of the first ring */
    for (unsigned at = 0; at < sizeof(struct blk_trace_record); at++) {
        uint8_t byte = 0xa7;

        trace_make(3);
        file_change(4096 + sizeof(struct blk_trace_record) + at, &byte, 1);
        t = trace_read();
        assert_int_equal(t.nr_damaged, 1);
        assert_int_equal(t.nr_entries, 5);
        blk_trace_free(&t);
        unlink(trace_path);
    }
}

static void records_are_told_only_where_they_may_lie(void **state)
{
    struct blk_trace_record r = { .number = 3, .op = BLK_OP_READ, .length_bytes = 512 };
    struct blk_trace t;

    trace_make(0);
    r.sum = blk_trace_sum(&r);
    file_change(4096 + 2 * sizeof(r), &r, sizeof(r));
    file_change(4096 + 3 * sizeof(r), &r, sizeof(r));   /* a right one in the wrong place */
    r = (struct blk_trace_record){ .number = 5, .op = BLK_NR_OPS };
    r.sum = blk_trace_sum(&r);
    file_change(4096 + 4 * sizeof(r), &r, sizeof(r));
    r = (struct blk_trace_record){ .number = 6, .result = 1 };
    r.sum = blk_trace_sum(&r);
    file_change(4096 + 5 * sizeof(r), &r, sizeof(r));
    t = trace_read();
    assert_int_equal(t.nr_entries, 1);
    assert_int_equal(t.nr_damaged, 3);
    blk_trace_free(&t);
}

static void it_is_printed_for_people_and_for_fio(void **state)
{
    struct blk_trace_entry entries[] = {
        { { .number = 1, .submitted_ns = 1000000000, .latency_ns = 1234, .offset_bytes = 4096,
            .length_bytes = 512, .op = BLK_OP_WRITE, .flags = BLK_TRACE_FUA }, 0 },
        { { .number = 1, .submitted_ns = 1000002500, .latency_ns = 5, .op = BLK_OP_FLUSH }, 3 },
        { { .number = 2, .submitted_ns = 3000000000, .latency_ns = 7, .offset_bytes = 512,
            .length_bytes = 1024, .op = BLK_OP_READ, .result = -EIO }, 0 },
        { { .number = 3, .submitted_ns = 3000001000, .latency_ns = 7, .offset_bytes = 0,
            .length_bytes = 1024, .op = BLK_OP_DISCARD, .result = -4000 }, 0 },
    };
    const struct blk_trace t = { .label = "xvda", .size_bytes = MIB, .nr_rings = 4,
                                 .nr_overwritten = 9, .nr_entries = array_size(entries),
                                 .entries = entries };
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    blk_trace_print(&t, f);
    fclose(f);
    assert_non_null(strstr(text, "# xvda, 1048576 bytes, 4 queues, from 1970-01-01 00:00:01 UTC"));
    assert_non_null(strstr(text, "# 4 requests; 9 older ones overwritten, 0 damaged"));
    assert_non_null(strstr(text, "     0.000000000         1234     0 write        "
                                 "            4096          512 ok fua\n"));
    assert_non_null(strstr(text, "     0.000002500            5     3 flush        "));
    assert_non_null(strstr(text, " EIO\n"));
    assert_non_null(strstr(text, " error\n"));
    free(text);
    f = open_memstream(&text, &size);
    blk_trace_print_iolog(&t, "/dev/x", f);
    fclose(f);
    assert_string_equal(text, "fio version 3 iolog\n0 /dev/x add\n0 /dev/x open\n"
                        "0 /dev/x write 4096 512\n2 /dev/x sync 0 0\n2000000 /dev/x read 512 1024\n"
                        "2000001 /dev/x trim 0 1024\n2000001 /dev/x close\n");
    free(text);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(each_request_is_recorded, remove_trace),
        cmocka_unit_test_teardown(latency_is_what_it_took, remove_trace),
        cmocka_unit_test_teardown(a_ring_keeps_the_last, remove_trace),
        cmocka_unit_test_teardown(what_a_killed_process_did_is_there, remove_trace),
        cmocka_unit_test_teardown(only_traces_are_written_over, remove_trace),
        cmocka_unit_test(options_are_judged),
        cmocka_unit_test_teardown(what_is_no_trace_is_told, remove_trace),
        cmocka_unit_test_teardown(what_is_no_record_is_left_out, remove_trace),
        cmocka_unit_test_teardown(records_are_told_only_where_they_may_lie, remove_trace),
        cmocka_unit_test(it_is_printed_for_people_and_for_fio),
    };

    snprintf(trace_path, sizeof(trace_path), "/tmp/xenolith-trace-%d", (int)getpid());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
