/* SPDX-License-Identifier: MIT */
/* The filter cow: what its overlay holds after a close, a kill, and a power cut, and that the
 * base stays as it is.  A power cut is a kill after which the live bitmap is worth nothing:
 * what the page cache would have lost cannot be told here, what was not to be relied on can. */
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/atomic.h"
#include "blk_test.h"

#define DISK_BYTES (40 * MIB)       /* three blocks of the bitmap */
#define NR_SECTORS (DISK_BYTES / 512)
#define BOOT_ID_AT 56

struct place {
    char folder[64], base[96], overlay[96], filters[160];
};

static struct place at;

static int place_make(void **state)
{
    int fd;

    strcpy(at.folder, "/tmp/xenolith-cow-XXXXXX");
    assert_non_null(mkdtemp(at.folder));
    snprintf(at.base, sizeof(at.base), "%s/base", at.folder);
    snprintf(at.overlay, sizeof(at.overlay), "%s/overlay", at.folder);
    snprintf(at.filters, sizeof(at.filters), "cow:file=%s", at.overlay);
    fd = open(at.base, O_RDWR | O_CREAT, 0600);
    assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
    close(fd);
    return 0;
}

static int place_remove(void **state)
{
    unlink(at.base);
    unlink(at.overlay);
    assert_int_equal(rmdir(at.folder), 0);      /* nothing else was left there */
    return 0;
}

static struct blk_disk *cow_open(void)
{
    return disk_open(&(struct blk_spec){ .driver = "file", .path = at.base,
                                         .filters = at.filters });
}

/* As if the host had been started anew. */
static void other_boot(void)
{
    int fd = open(at.overlay, O_RDWR);

    assert_int_equal(pwrite(fd, "another boot id.", 16, BOOT_ID_AT), 16);
    close(fd);
}

static uint8_t *block_of(int value)
{
    static uint8_t buf[64 * KIB] __attribute__((aligned(4096)));

    memset(buf, value, sizeof(buf));
    return buf;
}

static void assert_all(struct sync_queue *s, uint64_t offset, uint64_t len, int value)
{
    uint8_t *buf = block_of(value ^ 0xff);

    assert_int_equal(sync_io(s, BLK_OP_READ, offset, buf, len, 1), 0);
    for (uint64_t i = 0; i < len; i++)
        assert_int_equal(buf[i], value);
}

static int fua_write(struct sync_queue *s, uint64_t offset, int value)
{
    struct blk_req *req = blk_req_get(s->q, 1);
    unsigned index = req->index;

    req->op = BLK_OP_WRITE;
    req->fua = true;
    req->offset_bytes = offset;
    req->length_bytes = 4096;
    req->iov[0] = (struct iovec){ block_of(value), 4096 };
    req->nr_iov = 1;
    blk_req_submit(s->q, req);
    sync_wait_all(s);
    return s->result[index];
}

static void the_base_stays_as_it_is(void **state)
{
    struct blk_disk *d = cow_open();
    struct stat before, after;
    struct sync_queue s;

    assert_int_equal(stat(at.base, &before), 0);
    sync_open(&s, d);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(sync_io(&s, BLK_OP_WRITE, i * 512 * 1024, block_of(1), 4096, 1), 0);
    assert_int_equal(sync_io(&s, BLK_OP_DISCARD, 0, NULL, 1 * MIB, 0), 0);
    assert_int_equal(sync_io(&s, BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
    blk_queue_close(s.q);
    blk_disk_close(d);
    assert_int_equal(stat(at.base, &after), 0);
    assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
    assert_int_equal(before.st_blocks, after.st_blocks);
}

/* A read goes to and fro between the two. */
static void reads_join_base_and_overlay(void **state)
{
    struct sync_queue s;
    struct blk_disk *d;
    uint8_t *buf = block_of(0x11);
    int fd = open(at.base, O_RDWR);

    assert_int_equal(pwrite(fd, buf, 64 * KIB, 0), 64 * KIB);
    close(fd);
    d = cow_open();
    sync_open(&s, d);
    for (unsigned sector = 1; sector < 128; sector += 3)
        assert_int_equal(sync_io(&s, BLK_OP_WRITE, sector * 512, block_of(0x22), 512, 1), 0);
    for (unsigned pieces = 1; pieces < 100; pieces += 7) {
        memset(buf, 0, 64 * KIB);
        assert_int_equal(sync_io(&s, BLK_OP_READ, 0, buf, 64 * KIB, pieces), 0);
        for (unsigned i = 0; i < 64 * KIB; i++)
            assert_int_equal(buf[i], i / 512 % 3 == 1 ? 0x22 : 0x11);
    }
    blk_queue_close(s.q);
    blk_disk_close(d);
}

static void a_restart_keeps_all_and_a_power_cut_what_was_flushed(void **state)
{
    struct blk_disk *d = cow_open();
    struct sync_queue s;

    sync_open(&s, d);
    assert_int_equal(sync_io(&s, BLK_OP_WRITE, 0, block_of(1), 8192, 1), 0);
    assert_int_equal(sync_io(&s, BLK_OP_WRITE, 32 * MIB, block_of(2), 8192, 1), 0);
    assert_int_equal(sync_io(&s, BLK_OP_DISCARD, 4096, NULL, 512, 0), 0);
    assert_int_equal(sync_io(&s, BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
    /* durable by itself, in another block of the bitmap */
    assert_int_equal(fua_write(&s, 20 * MIB, 4), 0);
    assert_int_equal(sync_io(&s, BLK_OP_WRITE, 64 * KIB, block_of(3), 8192, 1), 0);
    blk_queue_close(s.q);
    blk_disk_close(d);

    /* the last time, once more after the one that met the power cut */
    for (unsigned cut = 0; cut < 3; cut++) {
        d = cow_open();
        sync_open(&s, d);
        assert_all(&s, 0, 4096, 1);
        assert_all(&s, 4096, 512, 0);
        assert_all(&s, 4608, 3584, 1);
        assert_all(&s, 32 * MIB, 8192, 2);
        assert_all(&s, 64 * KIB, 8192, cut ? 0 : 3);
        assert_all(&s, 20 * MIB, 4096, 4);
        assert_all(&s, 20 * MIB + 4096, 4096, 0);
        blk_queue_close(s.q);
        blk_disk_close(d);
        if (!cut)
            other_boot();
    }
    /* what a restart has found is made durable by the next flush */
    d = cow_open();
    sync_open(&s, d);
    assert_int_equal(sync_io(&s, BLK_OP_WRITE, 64 * KIB, block_of(5), 8192, 1), 0);
    blk_queue_close(s.q);
    blk_disk_close(d);
    d = cow_open();
    sync_open(&s, d);
    assert_int_equal(sync_io(&s, BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
    blk_queue_close(s.q);
    blk_disk_close(d);
    other_boot();
    d = cow_open();
    sync_open(&s, d);
    assert_all(&s, 64 * KIB, 8192, 5);
    blk_queue_close(s.q);
    blk_disk_close(d);
}

/* ---- kills ---- */

/* What the child has done, told by numbers that grow: a sector holds that of its write. */
struct progress {
    uint64_t tried[NR_SECTORS], answered[NR_SECTORS], flushed[NR_SECTORS];
};

#define KILL_WRITES 16u
#define KILL_LENGTH 24u         /* sectors, at most */

static void child_write_for_ever(struct progress *p, unsigned seed)
{
    static uint64_t buf[KILL_WRITES][KILL_LENGTH * 64] __attribute__((aligned(4096)));
    uint64_t number = 0;
    struct sync_queue s;

    sync_open(&s, cow_open());
    for (;;) {
        uint64_t first[KILL_WRITES], nr[KILL_WRITES];

        /* in flight together, each in a part of the disk of its own */
        for (unsigned k = 0; k < KILL_WRITES; k++) {
            number++;
            nr[k] = 1 + (unsigned)rand_r(&seed) % KILL_LENGTH;
            first[k] = NR_SECTORS / KILL_WRITES * k + (unsigned)rand_r(&seed) % 200;
            for (unsigned i = 0; i < nr[k] * 64; i++)
                buf[k][i] = number;
            for (uint64_t i = 0; i < nr[k]; i++)
                __atomic_store_n(&p->tried[first[k] + i], number, __ATOMIC_SEQ_CST);
            sync_start(&s, BLK_OP_WRITE, first[k] * 512, buf[k], nr[k] * 512, 1);
        }
        sync_wait_all(&s);
        for (unsigned k = 0; k < KILL_WRITES; k++)
            for (uint64_t i = 0; i < nr[k]; i++)
                __atomic_store_n(&p->answered[first[k] + i], buf[k][0], __ATOMIC_SEQ_CST);
        if (rand_r(&seed) % 4)
            continue;
        if (sync_io(&s, BLK_OP_FLUSH, 0, NULL, 0, 0))
            _exit(1);
        for (unsigned i = 0; i < NR_SECTORS; i++)
            __atomic_store_n(&p->flushed[i], p->answered[i], __ATOMIC_SEQ_CST);
    }
}

static void sectors_check(const struct progress *p, const uint64_t *least, const char *what)
{
    static uint64_t buf[8192] __attribute__((aligned(4096)));
    struct blk_disk *d = cow_open();
    struct sync_queue s;

    sync_open(&s, d);
    for (uint64_t sector = 0; sector < NR_SECTORS; sector += 128) {
        assert_int_equal(sync_io(&s, BLK_OP_READ, sector * 512, buf, sizeof(buf), 1), 0);
        for (unsigned i = 0; i < 128; i++) {
            uint64_t got = buf[i * 64];

            if (got < least[sector + i] || got > p->tried[sector + i])
                fail_msg("%s: sector %llu holds write %llu, expected %llu to %llu", what,
                         (unsigned long long)(sector + i), (unsigned long long)got,
                         (unsigned long long)least[sector + i],
                         (unsigned long long)p->tried[sector + i]);
        }
    }
    blk_queue_close(s.q);
    blk_disk_close(d);
}

static void kills_lose_nothing_and_power_cuts_nothing_flushed(void **state)
{
    struct progress *p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned seed = 99, nr_flushed = 0;

    for (unsigned round = 0; round < 24; round++) {
        struct timespec pause = { .tv_nsec = 5000000 + rand_r(&seed) % 30000000 };
        int status;
        pid_t child;

        memset(p, 0, sizeof(*p));
        unlink(at.overlay);
        child = fork();
        if (!child)
            child_write_for_ever(p, round);
        nanosleep(&pause, NULL);
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        if (access(at.overlay, F_OK)) {
            /* a kill while it was made leaves the beginning of one */
            char command[128];

            snprintf(command, sizeof(command), "rm -f %s.??????", at.overlay);
            assert_int_equal(system(command), 0);
            continue;
        }
        for (unsigned i = 0; i < NR_SECTORS; i++)
            nr_flushed += p->flushed[i] != 0;
        sectors_check(p, p->answered, "a kill");
        other_boot();
        sectors_check(p, p->flushed, "a power cut");
    }
    assert_true(nr_flushed > 100);      /* else it has shown nothing */
    munmap(p, sizeof(*p));
}

/* ---- queues ---- */

struct writer { struct blk_disk *disk; unsigned index; pthread_t thread; };

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    static uint8_t data[4][4096] __attribute__((aligned(4096)));
    struct sync_queue s;

    memset(data[w->index], 0x10 + (int)w->index, 4096);
    sync_open(&s, w->disk);
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(sync_io(&s, BLK_OP_WRITE, (i * 4 + w->index) * 4096ull,
                                 data[w->index], 4096, 1), 0);
        if (i % 4 == w->index)
            assert_int_equal(sync_io(&s, BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
    }
    assert_int_equal(sync_io(&s, BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
    blk_queue_close(s.q);
    return NULL;
}

/* All in one block of the bitmap, each bit of which counts in the end. */
static void queues_flush_at_the_same_time(void **state)
{
    struct writer w[4];
    struct sync_queue s;
    struct blk_disk *d = cow_open();

    for (unsigned i = 0; i < array_size(w); i++) {
        w[i] = (struct writer){ .disk = d, .index = i };
        assert_int_equal(pthread_create(&w[i].thread, NULL, writer_main, &w[i]), 0);
    }
    for (unsigned i = 0; i < array_size(w); i++)
        pthread_join(w[i].thread, NULL);
    blk_disk_close(d);
    other_boot();
    d = cow_open();
    sync_open(&s, d);
    for (unsigned i = 0; i < 800; i++)
        assert_all(&s, i * 4096ull, 4096, 0x10 + (int)(i % 4));
    blk_queue_close(s.q);
    blk_disk_close(d);
}

static void errors_of_the_base_come_up(void **state)
{
    struct sync_queue s;
    struct blk_disk *d;

    strcat(at.filters, ",fault");
    d = cow_open();
    sync_open(&s, d);
    assert_int_equal(sync_io(&s, BLK_OP_READ, 0, block_of(0), 4096, 1), -EIO);
    assert_int_equal(sync_io(&s, BLK_OP_WRITE, 0, block_of(7), 4096, 1), 0);
    assert_int_equal(sync_io(&s, BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
    assert_all(&s, 0, 4096, 7);
    assert_int_equal(sync_io(&s, BLK_OP_READ, 0, block_of(0), 8192, 1), -EIO);
    blk_queue_close(s.q);
    blk_disk_close(d);
}

static void what_hangs_in_the_base_ends_with_the_queue(void **state)
{
    struct sync_queue s;
    struct blk_disk *d;
    unsigned index;

    strcat(at.filters, ",fault:error=hang");
    d = cow_open();
    sync_open(&s, d);
    index = sync_start(&s, BLK_OP_READ, 0, block_of(0), 4096, 1);
    blk_queue_flush(s.q);
    assert_int_equal(blk_queue_reap(s.q), 0);
    assert_true(blk_queue_dormant(s.q));
    blk_queue_drain(s.q);
    assert_false(blk_queue_dormant(s.q));
    sync_wait_all(&s);
    assert_int_equal(s.result[index], -EIO);
    blk_queue_close(s.q);
    blk_disk_close(d);
}

static void guests_share_a_base(void **state)
{
    struct blk_disk *d[2];
    struct sync_queue s;
    char other[200];

    snprintf(other, sizeof(other), "cow:file=%s2", at.overlay);
    d[0] = cow_open();
    d[1] = disk_open(&(struct blk_spec){ .driver = "file", .path = at.base, .filters = other });
    for (unsigned i = 0; i < 2; i++) {
        sync_open(&s, d[i]);
        assert_all(&s, 0, 4096, 0);
        assert_int_equal(sync_io(&s, BLK_OP_WRITE, 0, block_of(0x30), 4096, 1), 0);
        assert_all(&s, 0, 4096, 0x30);
        blk_queue_close(s.q);
    }
    blk_disk_close(d[0]);
    blk_disk_close(d[1]);
    unlink(strchr(other, '/'));
}

/* ---- a flush of the overlay that fails ---- */

static struct {
    unsigned nr_flushes, failing;       /* which of them; 0: none */
    unsigned nr_bitmaps;                /* writes of the durable one */
} lower;

void __real_blk_req_submit(struct blk_queue *q, struct blk_req *req);
void __wrap_blk_req_submit(struct blk_queue *q, struct blk_req *req);

void __wrap_blk_req_submit(struct blk_queue *q, struct blk_req *req)
{
    if (!strcmp(q->driver->name, "file") && !q->disk->props.readonly) {
        /* other tests have several queues; here only the one counts */
        fetch_add(&lower.nr_bitmaps,
                  req->op == BLK_OP_WRITE && req->offset_bytes < 4096 + 3 * 4096);
        if (req->op == BLK_OP_FLUSH && fetch_add(&lower.nr_flushes, 1) + 1 == lower.failing)
            req->op = BLK_NR_OPS;       /* of which there is none */
    }
    __real_blk_req_submit(q, req);
}

/* The medium may have none of what was written since the last flush that did not fail. */
static void what_a_failed_flush_leaves_is_written_again(void **state)
{
    for (unsigned failing = 1; failing <= 2; failing++) {
        struct blk_disk *d = cow_open();
        struct sync_queue s;

        sync_open(&s, d);
        assert_int_equal(sync_io(&s, BLK_OP_WRITE, failing * MIB, block_of(1), 4096, 1), 0);
        memset(&lower, 0, sizeof(lower));
        lower.failing = failing;        /* that of the data, or that of the bits */
        assert_true(sync_io(&s, BLK_OP_FLUSH, 0, NULL, 0, 0) < 0);
        assert_int_equal(lower.nr_bitmaps, failing - 1);
        assert_int_equal(fua_write(&s, failing * MIB, 2), 0);
        assert_int_equal(lower.nr_bitmaps, failing);
        assert_int_equal(lower.nr_flushes, failing + 2);
        assert_int_equal(fua_write(&s, failing * MIB, 3), 0);
        assert_int_equal(lower.nr_flushes, failing + 2);    /* its bits are durable already */
        blk_queue_close(s.q);
        blk_disk_close(d);
    }
}

/* ---- opening ---- */

static void expect_refusal(const char *filters, bool readonly, const char *text)
{
    struct blk_spec spec = { .driver = "file", .path = at.base, .filters = filters,
                             .readonly = readonly };
    struct blk_disk *d = NULL;
    struct err e = { 0 };

    assert_true(blk_disk_open(&spec, &d, &e) < 0);
    assert_null(d);
    if (!strstr(e.text, text))
        fail_msg("'%s' does not say '%s'", e.text, text);
}

static void damage(off_t offset, const char *bytes, size_t nr)
{
    int fd = open(at.overlay, O_RDWR);

    assert_int_equal(pwrite(fd, bytes, nr, offset), nr);
    close(fd);
}

static void what_is_no_overlay_of_this_disk_is_refused(void **state)
{
    struct err e = { 0 };
    struct blk_spec spec;
    struct blk_disk *d;

    expect_refusal("cow", false, "expected file=");
    expect_refusal("cow:file=overlay", false, "absolute path");
    expect_refusal("cow:file=/nowhere/overlay", false, "cannot be made");
    expect_refusal(at.filters, true, "No such file");
    spec = (struct blk_spec){ .driver = "null", .size_bytes = 1ull << 62, .filters = at.filters };
    assert_int_equal(blk_disk_open(&spec, &d, &e), -EFBIG);
    assert_non_null(strstr(e.text, "expected 70368744177664 at most"));
    d = cow_open();
    expect_refusal(at.filters, false, "in use");
    expect_refusal(at.filters, true, "in use");
    blk_disk_close(d);
    assert_int_equal(truncate(at.base, DISK_BYTES / 2), 0);
    expect_refusal(at.filters, false, "which has 20971520 now");
    assert_int_equal(truncate(at.base, DISK_BYTES), 0);
    assert_int_equal(truncate(at.overlay, DISK_BYTES), 0);
    expect_refusal(at.filters, false, "cut short");
    damage(33, "x", 1);
    expect_refusal(at.filters, false, "damaged header");
    damage(8, "\2", 1);
    expect_refusal(at.filters, false, "version 2, expected 1");
    damage(0, "x", 1);
    expect_refusal(at.filters, false, "is no overlay");
    assert_int_equal(truncate(at.overlay, 512), 0);
    expect_refusal(at.filters, false, "is no overlay");
}

/* Else a write to the bitmap would be a signal once the file system is full. */
static void a_copy_with_holes_gets_room_for_its_bitmap(void **state)
{
    const off_t bitmap = 3 * 4096, live = 4096 + bitmap;
    struct sync_queue s;
    struct blk_disk *d;
    struct stat st;
    int fd;

    blk_disk_close(cow_open());
    fd = open(at.overlay, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 2 * bitmap),
                     0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_blocks * 512 < live);
    d = cow_open();
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_blocks * 512 >= 4096 + bitmap);
    sync_open(&s, d);
    assert_all(&s, 0, 4096, 0);
    blk_queue_close(s.q);
    blk_disk_close(d);
    close(fd);
}

static void readers_share_an_overlay(void **state)
{
    struct blk_spec spec = { .driver = "file", .path = at.base, .filters = at.filters,
                             .readonly = true };
    struct blk_disk *d = cow_open(), *readers[2];
    struct sync_queue s;

    sync_open(&s, d);
    assert_int_equal(sync_io(&s, BLK_OP_WRITE, 0, block_of(6), 4096, 1), 0);
    blk_queue_close(s.q);
    blk_disk_close(d);
    for (unsigned i = 0; i < 2; i++)
        readers[i] = disk_open(&spec);
    for (unsigned i = 0; i < 2; i++) {
        sync_open(&s, readers[i]);
        assert_all(&s, 0, 4096, 6);
        assert_int_equal(sync_io(&s, BLK_OP_WRITE, 0, block_of(0), 512, 1), -EROFS);
        blk_queue_close(s.q);
        blk_disk_close(readers[i]);
    }
}

#define test(f) cmocka_unit_test_setup_teardown(f, place_make, place_remove)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        test(the_base_stays_as_it_is),
        test(reads_join_base_and_overlay),
        test(a_restart_keeps_all_and_a_power_cut_what_was_flushed),
        test(kills_lose_nothing_and_power_cuts_nothing_flushed),
        test(queues_flush_at_the_same_time),
        test(errors_of_the_base_come_up),
        test(what_hangs_in_the_base_ends_with_the_queue),
        test(guests_share_a_base),
        test(what_a_failed_flush_leaves_is_written_again),
        test(what_is_no_overlay_of_this_disk_is_refused),
        test(a_copy_with_holes_gets_room_for_its_bitmap),
        test(readers_share_an_overlay),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
