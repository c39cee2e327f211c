/* SPDX-License-Identifier: MIT */
/* The ram driver: what it takes of the host, and gives back. */
#include "blk_test.h"

#define DISK_BYTES  (64 * MIB)
#define SLACK_BYTES (16 * MIB)

static struct blk_disk *ram_open(uint64_t size)
{
    return disk_open(&(struct blk_spec){ .driver = "ram", .size_bytes = size });
}

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*u %llu", &pages), 1);
    fclose(f);
    return pages * PAGE_SIZE;
}

static void memory_is_taken_when_written_and_given_back_by_discard(void **state)
{
    static const enum blk_op gives_back[] = { BLK_OP_DISCARD, BLK_OP_WRITE_ZEROES };
    struct blk_disk *d = ram_open(100 * GIB);
    uint8_t *buf = malloc(1 * MIB);
    struct sync_queue s;

    memset(buf, 0x3c, 1 * MIB);
    sync_open(&s, d);
    for (unsigned i = 0; i < array_size(gives_back); i++) {
        uint64_t before = resident_bytes(), full;

        /* what else the process takes meanwhile, sanitizers not least, is little */
        for (uint64_t at = 0; at < DISK_BYTES; at += 1 * MIB)
            assert_int_equal(sync_io(&s, BLK_OP_WRITE, 90 * GIB + at, buf, 1 * MIB, 1), 0);
        full = resident_bytes();
        assert_true(full >= before + DISK_BYTES - SLACK_BYTES);
        assert_int_equal(sync_io(&s, gives_back[i], 80 * GIB, NULL, 20 * GIB, 0), 0);
        assert_true(resident_bytes() <= full - DISK_BYTES + SLACK_BYTES);
    }
    blk_queue_close(s.q);
    blk_disk_close(d);
    free(buf);
}

/* Zeroes begin and end anywhere, also within one page. */
static void only_what_is_discarded_reads_zero(void **state)
{
    struct blk_disk *d = ram_open(64 * KIB);
    uint8_t *buf = malloc(64 * KIB);
    struct sync_queue s;

    sync_open(&s, d);
    for (uint64_t from = 0; from < 24; from++) {
        for (uint64_t to = from + 1; to <= 24; to++) {
            memset(buf, 0x5a, 64 * KIB);
            assert_int_equal(sync_io(&s, BLK_OP_WRITE, 0, buf, 64 * KIB, 1), 0);
            assert_int_equal(sync_io(&s, BLK_OP_DISCARD, from * 512, NULL, (to - from) * 512, 0),
                             0);
            assert_int_equal(sync_io(&s, BLK_OP_READ, 0, buf, 64 * KIB, 1), 0);
            for (uint64_t i = 0; i < 64 * KIB; i++)
                assert_int_equal(buf[i], i >= from * 512 && i < to * 512 ? 0 : 0x5a);
        }
    }
    blk_queue_close(s.q);
    blk_disk_close(d);
    free(buf);
}

static void disks_share_nothing(void **state)
{
    struct blk_disk *d[2] = { ram_open(4096), ram_open(4096) };
    uint8_t buf[4096];
    struct sync_queue s[2];

    for (unsigned i = 0; i < 2; i++)
        sync_open(&s[i], d[i]);
    memset(buf, 1, sizeof(buf));
    assert_int_equal(sync_io(&s[0], BLK_OP_WRITE, 0, buf, 4096, 1), 0);
    assert_int_equal(sync_io(&s[1], BLK_OP_READ, 0, buf, 4096, 1), 0);
    for (unsigned i = 0; i < sizeof(buf); i++)
        assert_int_equal(buf[i], 0);
    for (unsigned i = 0; i < 2; i++) {
        blk_queue_close(s[i].q);
        blk_disk_close(d[i]);
    }
}

static void impossible_sizes_are_refused(void **state)
{
    static const uint64_t bad[] = { 0, 511, 513, UINT64_MAX - 511, 1ull << 62 };

    for (unsigned i = 0; i < array_size(bad); i++) {
        struct blk_spec spec = { .driver = "ram", .size_bytes = bad[i] };
        struct blk_disk *d = NULL;
        struct err e = { 0 };

        assert_true(blk_disk_open(&spec, &d, &e) < 0);
        assert_null(d);
        assert_non_null(strstr(e.text, "ram disk"));
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_taken_when_written_and_given_back_by_discard),
        cmocka_unit_test(only_what_is_discarded_reads_zero),
        cmocka_unit_test(disks_share_nothing),
        cmocka_unit_test(impossible_sizes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
