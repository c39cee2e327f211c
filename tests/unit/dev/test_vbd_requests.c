/* SPDX-License-Identifier: MIT */
/* What a request does: its data, its segments, what is refused, flush, barrier, discard. */
#include "vbd_ring_fixture.h"

/* Full rings, over the end of the 32-bit indexes, at every order. */
static void data_survives_every_order_and_index_wrap(void **state)
{
    for (unsigned order = 0; order <= VBD_RING_ORDER_MAX; order++) {
        struct fixture f;
        uint32_t n;

        open_ring(&f, 1u << order, UINT32_MAX - 700, false);
        n = f.front.nr_entries;
        for (unsigned round = 0; round < 1500 / n + 2; round++) {
            uint8_t op = round % 2 ? BLKIF_OP_READ : BLKIF_OP_WRITE;
            struct blkif_response rsp;
            unsigned nr = 0;

            for (uint32_t i = 0; i < n; i++) {
                struct blkif_request r = front_request(&f.front, op, round * 1000 + i, i * 24,
                                                       DATA_PAGE + i * 3, 3);

                for (unsigned p = 0; p < 3; p++)
                    memset(guest_page(&f.guest, DATA_PAGE + i * 3 + p),
                           op == BLKIF_OP_WRITE ? (int)(round + i + p) : 0xee, PAGE_SIZE);
                front_put(&f.front, &r);
            }
            front_publish(&f.front);
            turn(&f);
            while (front_get(&f.front, &rsp)) {
                assert_int_equal(rsp.id, round * 1000 + nr);
                assert_int_equal(rsp.operation, op);
                assert_int_equal(rsp.status, BLKIF_RSP_OKAY);
                nr++;
            }
            assert_int_equal(nr, n);
            for (uint32_t i = 0; op == BLKIF_OP_READ && i < n; i++)
                for (unsigned p = 0; p < 3; p++) {
                    uint8_t *page = guest_page(&f.guest, DATA_PAGE + i * 3 + p);

                    assert_int_equal(page[0], (uint8_t)(round - 1 + i + p));
                    assert_int_equal(page[4095], (uint8_t)(round - 1 + i + p));
                }
        }
        assert_null(vbd_ring_fault(&f.ring));
        close_ring(&f);
    }
}

static void part_of_a_page_is_moved_alone(void **state)
{
    struct fixture f;
    struct blkif_request r;
    uint8_t *page;

    open_ring(&f, 1, 0, false);
    for (unsigned i = 0; i < 4096; i++)
        f.held.data[i] = (uint8_t)(i / 512 + 1);
    r = front_request(&f.front, BLKIF_OP_READ, 1, 2, DATA_PAGE, 1);
    r.seg[0].first_sect = 3;
    r.seg[0].last_sect = 4;
    page = guest_page(&f.guest, DATA_PAGE);
    memset(page, 0xcc, PAGE_SIZE);
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
    assert_int_equal(page[3 * 512 - 1], 0xcc);
    assert_int_equal(page[3 * 512], 3);
    assert_int_equal(page[5 * 512 - 1], 4);
    assert_int_equal(page[5 * 512], 0xcc);
    close_ring(&f);
}

static void neighbouring_pages_become_one_piece(void **state)
{
    struct fixture f;
    struct blkif_request r;

    open_ring(&f, 1, 0, false);
    r = front_request(&f.front, BLKIF_OP_WRITE, 1, 0, DATA_PAGE, 11);
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
    assert_int_equal(f.held.nr_iov_last, 1);
    r.seg[4].gref = DATA_PAGE + 100;
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
    assert_int_equal(f.held.nr_iov_last, 3);
    r.seg[4].gref = DATA_PAGE + 4;
    r.seg[4].first_sect = 1;
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
    assert_int_equal(f.held.nr_iov_last, 2);
    close_ring(&f);
}

static void indirect_requests_carry_up_to_256_segments(void **state)
{
    static const uint16_t good[] = { 1, 11, 12, 255, 256 }, bad[] = { 0, 257, 512, 513, 65535 };
    struct fixture f;

    for (unsigned persistent = 0; persistent < 2; persistent++) {
        open_ring(&f, 1, 0, persistent);
        for (unsigned i = 0; i < array_size(good); i++) {
            struct blkif_request_indirect r =
                indirect(&f, BLKIF_OP_WRITE, 64, DATA_PAGE + 1000, DATA_PAGE, good[i]);
            struct blkif_response rsp;

            for (unsigned p = 0; p < good[i]; p++)
                memset(guest_page(&f.guest, DATA_PAGE + p), (int)(p + i), PAGE_SIZE);
            memset(f.held.data, 0, 2 * MIB);
            assert_int_equal(run(&f, &r, &rsp), BLKIF_RSP_OKAY);
            /* Linux gives the disk up when it finds anything else here */
            assert_int_equal(rsp.operation, BLKIF_OP_WRITE);
            assert_int_equal(rsp.id, 99);
            for (unsigned p = 0; p < good[i]; p++)
                assert_memory_equal(f.held.data + 64 * 512 + p * PAGE_SIZE,
                                    guest_page(&f.guest, DATA_PAGE + p), PAGE_SIZE);
            assert_int_equal(f.held.data[64 * 512 + good[i] * PAGE_SIZE], 0);
        }
        for (unsigned i = 0; i < array_size(bad); i++) {
            struct blkif_request_indirect r =
                indirect(&f, BLKIF_OP_WRITE, 64, DATA_PAGE + 1000, DATA_PAGE, bad[i]);

            assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_ERROR);
        }
        close_ring(&f);
    }
}

static void indirect_of_anything_but_data_is_refused(void **state)
{
    static const uint8_t ops[] = {
        BLKIF_OP_WRITE_BARRIER, BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_DISCARD, BLKIF_OP_INDIRECT, 200,
    };
    struct fixture f;

    open_ring(&f, 1, 0, false);
    for (unsigned i = 0; i < array_size(ops); i++) {
        struct blkif_request_indirect r = indirect(&f, ops[i], 0, DATA_PAGE + 9, DATA_PAGE, 2);

        assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_ERROR);
    }
    assert_int_equal(f.held.nr_log, 0);
    close_ring(&f);
}

static void malformed_requests_fail_alone_and_hold_nothing(void **state)
{
    static const struct {
        unsigned seg, nr;
        uint64_t sector;
        uint8_t first, last;
        uint32_t ref;
        const char *what;
    } bad[] = {
        { 0, 0, 0, 0, 7, DATA_PAGE, "no segment" },
        { 0, 12, 0, 0, 7, DATA_PAGE, "too many segments" },
        { 0, 255, 0, 0, 7, DATA_PAGE, "far too many segments" },
        { 2, 3, 0, 5, 4, DATA_PAGE, "first behind last" },
        { 2, 3, 0, 0, 8, DATA_PAGE, "beyond the page" },
        { 2, 3, 0, 255, 255, DATA_PAGE, "far beyond the page" },
        { 2, 3, 0, 0, 7, 1, "reference that grants nothing" },
        { 2, 3, 0, 0, 7, GRANT_FRAMES * 512, "reference beyond the table" },
        { 2, 3, 0, 0, 7, UINT32_MAX, "absurd reference" },
        { 0, 1, DISK_BYTES / 512, 0, 7, DATA_PAGE, "behind the disk" },
        { 0, 1, DISK_BYTES / 512 - 7, 0, 7, DATA_PAGE, "over the disk's end" },
        { 0, 1, UINT64_MAX, 0, 7, DATA_PAGE, "sector that wraps" },
        { 0, 1, UINT64_MAX / 512, 0, 7, DATA_PAGE, "end that wraps" },
        { 0, 1, 1ull << 55, 0, 7, DATA_PAGE, "bytes that wrap to 0" },
    };

    for (unsigned persistent = 0; persistent < 2; persistent++) {
        struct fixture f;

        open_ring(&f, 1, 0, persistent);
        for (unsigned i = 0; i < array_size(bad); i++) {
            struct blkif_request good = front_request(&f.front, BLKIF_OP_WRITE, 7, 0,
                                                      DATA_PAGE + 50, 1);
            struct blkif_request r = front_request(&f.front, BLKIF_OP_WRITE, 1000 + i,
                                                   bad[i].sector, DATA_PAGE, (uint8_t)bad[i].nr);
            struct blkif_response rsp;

            r.seg[bad[i].seg] = (struct blkif_request_segment){
                bad[i].ref, bad[i].first, bad[i].last,
            };
            if (run(&f, &r, &rsp) != BLKIF_RSP_ERROR)
                fail_msg("accepted: %s", bad[i].what);
            assert_int_equal(rsp.id, 1000 + i);
            if (!persistent)
                assert_int_equal(guest_grants_in_use(&f.guest), 0);
            assert_int_equal(run(&f, &good, NULL), BLKIF_RSP_OKAY);
        }
        close_ring(&f);
    }
}

static void reading_into_a_readonly_grant_is_refused(void **state)
{
    for (unsigned persistent = 0; persistent < 2; persistent++) {
        struct fixture f;
        struct blkif_request r;

        open_ring(&f, 1, 0, persistent);
        guest_grant(&f.guest, DATA_PAGE, true);
        r = front_request(&f.front, BLKIF_OP_READ, 1, 0, DATA_PAGE, 1);
        assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_ERROR);
        /* but the disk may be written from it, and it is not kept */
        r.operation = BLKIF_OP_WRITE;
        assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
        assert_false(guest_grant_in_use(&f.guest, DATA_PAGE));
        close_ring(&f);
    }
}

static void unknown_operations_are_not_supported(void **state)
{
    struct fixture f;

    open_ring(&f, 1, 0, false);
    for (unsigned op = BLKIF_OP_INDIRECT + 1; op < 256; op++) {
        struct blkif_request r = front_request(&f.front, (uint8_t)op, op, UINT64_MAX, 1, 255);
        struct blkif_response rsp;

        assert_int_equal(run(&f, &r, &rsp), BLKIF_RSP_EOPNOTSUPP);
        assert_int_equal(rsp.operation, op);
        assert_int_equal(rsp.id, op);
    }
    close_ring(&f);
}

static void host_errors_reach_the_request(void **state)
{
    static const struct { int result; int16_t status; } table[] = {
        { -EIO, BLKIF_RSP_ERROR }, { -ENOSPC, BLKIF_RSP_ERROR },
        { -EOPNOTSUPP, BLKIF_RSP_EOPNOTSUPP }, { 0, BLKIF_RSP_OKAY },
    };
    struct fixture f;

    open_ring(&f, 1, 0, false);
    for (unsigned i = 0; i < array_size(table); i++) {
        struct blkif_request r = front_request(&f.front, BLKIF_OP_WRITE, i, 0, DATA_PAGE, 1);

        f.held.result = table[i].result;
        assert_int_equal(run(&f, &r, NULL), table[i].status);
    }
    assert_int_equal(f.ring.counters.errors, 3);
    assert_int_equal(f.ring.counters.bytes, 4096);
    close_ring(&f);
}

static void readonly_disk_refuses_writes(void **state)
{
    struct fixture f;
    struct blkif_request r;

    open_ring(&f, 1, 0, false);
    f.disk.props.readonly = true;
    r = front_request(&f.front, BLKIF_OP_WRITE, 1, 0, DATA_PAGE, 1);
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_ERROR);
    r.operation = BLKIF_OP_READ;
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
    close_ring(&f);
}

static void discard_reaches_the_disk(void **state)
{
    struct blkif_request_discard d = {
        .operation = BLKIF_OP_DISCARD, .id = 5, .sector_number = 8, .nr_sectors = 16,
    };
    struct fixture f;

    open_ring(&f, 1, 0, false);
    memset(f.held.data, 1, 64 * KIB);
    assert_int_equal(run(&f, &d, NULL), BLKIF_RSP_OKAY);
    assert_int_equal(f.held.data[8 * 512 - 1], 1);
    assert_int_equal(f.held.data[8 * 512], 0);
    assert_int_equal(f.held.data[24 * 512 - 1], 0);
    assert_int_equal(f.held.data[24 * 512], 1);
    d.nr_sectors = 0;
    assert_int_equal(run(&f, &d, NULL), BLKIF_RSP_ERROR);
    d.nr_sectors = UINT64_MAX;
    assert_int_equal(run(&f, &d, NULL), BLKIF_RSP_ERROR);
    d.nr_sectors = 16;
    f.disk.props.can_discard = false;
    assert_int_equal(run(&f, &d, NULL), BLKIF_RSP_EOPNOTSUPP);
    close_ring(&f);
}

static void flush_without_data_is_one_flush(void **state)
{
    struct fixture f;
    struct blkif_request r;

    open_ring(&f, 1, 0, false);
    r = front_request(&f.front, BLKIF_OP_FLUSH_DISKCACHE, 1, 0, 0, 0);
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
    r.operation = BLKIF_OP_WRITE_BARRIER;
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
    assert_int_equal(f.held.nr_log, 2);
    assert_int_equal(f.held.log[0], BLK_OP_FLUSH);
    assert_int_equal(f.held.log[1], BLK_OP_FLUSH);
    /* with data: the flush comes first */
    r = front_request(&f.front, BLKIF_OP_FLUSH_DISKCACHE, 1, 0, DATA_PAGE, 1);
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
    assert_int_equal(f.held.nr_log, 4);
    assert_int_equal(f.held.log[2], BLK_OP_FLUSH);
    assert_int_equal(f.held.log[3], BLK_OP_WRITE);
    f.disk.props.can_flush = false;
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_EOPNOTSUPP);
    close_ring(&f);
}

/* write, barrier, write: one after the other, the barrier between two flushes */
static void barrier_waits_and_holds_back(void **state)
{
    static const enum blk_op order[] = {
        BLK_OP_WRITE, BLK_OP_FLUSH, BLK_OP_WRITE, BLK_OP_FLUSH, BLK_OP_WRITE,
    };
    struct blkif_response rsp;
    struct fixture f;

    open_ring(&f, 1, 0, false);
    f.held.automatic = false;
    for (unsigned i = 0; i < 3; i++) {
        struct blkif_request r = front_request(&f.front,
            i == 1 ? BLKIF_OP_WRITE_BARRIER : BLKIF_OP_WRITE, i, i * 8, DATA_PAGE + i, 1);

        front_put(&f.front, &r);
    }
    front_publish(&f.front);
    for (unsigned step = 0; step < array_size(order); step++) {
        turn(&f);
        assert_int_equal(f.held.nr, 1);         /* nothing beside it */
        assert_int_equal(f.held.req[0]->op, order[step]);
        finish_all(&f);
    }
    turn(&f);
    assert_int_equal(f.held.nr_log, array_size(order));
    for (unsigned i = 0; i < 3; i++) {
        assert_true(front_get(&f.front, &rsp));
        assert_int_equal(rsp.id, i);
        assert_int_equal(rsp.status, BLKIF_RSP_OKAY);
    }
    close_ring(&f);
}

static void failing_barrier_releases_the_ring(void **state)
{
    struct fixture f;
    struct blkif_request r;

    open_ring(&f, 1, 0, false);
    f.held.result = -EIO;
    r = front_request(&f.front, BLKIF_OP_WRITE_BARRIER, 1, 0, DATA_PAGE, 1);
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_ERROR);
    assert_int_equal(f.held.nr_log, 1);         /* the write was not tried */
    f.held.result = 0;
    r.operation = BLKIF_OP_READ;
    assert_int_equal(run(&f, &r, NULL), BLKIF_RSP_OKAY);
    close_ring(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_survives_every_order_and_index_wrap),
        cmocka_unit_test(part_of_a_page_is_moved_alone),
        cmocka_unit_test(neighbouring_pages_become_one_piece),
        cmocka_unit_test(indirect_requests_carry_up_to_256_segments),
        cmocka_unit_test(indirect_of_anything_but_data_is_refused),
        cmocka_unit_test(malformed_requests_fail_alone_and_hold_nothing),
        cmocka_unit_test(reading_into_a_readonly_grant_is_refused),
        cmocka_unit_test(unknown_operations_are_not_supported),
        cmocka_unit_test(host_errors_reach_the_request),
        cmocka_unit_test(readonly_disk_refuses_writes),
        cmocka_unit_test(discard_reaches_the_disk),
        cmocka_unit_test(flush_without_data_is_one_flush),
        cmocka_unit_test(barrier_waits_and_holds_back),
        cmocka_unit_test(failing_barrier_releases_the_ring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
