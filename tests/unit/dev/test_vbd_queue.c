/* SPDX-License-Identifier: MIT */
/* Queue threads: data, interrupts, doorbells, polling, and how they end. */
#include "vbd_lane.h"

static void run_lanes(const char *dir, unsigned nr_pages, bool persistent, uint64_t poll_max_ns,
                      enum xen_hostwaker_state vcpu)
{
    struct fixture f;
    uint8_t *file = malloc(REGION_BYTES);
    int fd;

    open_disk(&f, dir);
    for (unsigned i = 0; i < NR_QUEUES; i++) {
        lane_open(&f, i, nr_pages, persistent, poll_max_ns);
        store_relaxed(&f.lane[i].front.waker.state, vcpu);
    }
    for (unsigned i = 0; i < NR_QUEUES; i++)
        assert_int_equal(pthread_create(&f.lane[i].thread, NULL, lane_main, &f.lane[i]), 0);
    fd = open(f.path, O_RDONLY);
    for (unsigned i = 0; i < NR_QUEUES; i++) {
        struct vbd_queue_counters c;
        void *wrong;

        pthread_join(f.lane[i].thread, &wrong);
        if (wrong)
            fail_msg("queue %u: %s", i, (char *)wrong);
        /* and the file itself holds what was written */
        assert_int_equal(pread(fd, file, REGION_BYTES, (off_t)f.lane[i].base), REGION_BYTES);
        assert_memory_equal(file, f.lane[i].model, REGION_BYTES);
        assert_null(vbd_queue_fault(f.lane[i].queue));
        lane_close(&f.lane[i], &c);
        assert_int_equal(c.ring.requests, ROUNDS * DEPTH);
        assert_int_equal(c.ring.errors, 0);
        assert_int_equal(c.blk.requests[BLK_OP_READ] + c.blk.requests[BLK_OP_WRITE],
                         ROUNDS * DEPTH);
        assert_int_equal(c.ring.bytes, c.blk.bytes[BLK_OP_READ] + c.blk.bytes[BLK_OP_WRITE]);
        assert_true(c.interrupts <= c.ring.notifies);
        assert_true(c.ring.notifies > 0 && c.ring.notifies <= c.ring.requests);
        if (!poll_max_ns)
            assert_int_equal(c.polls_hit + c.polls_missed, 0);
    }
    assert_int_equal(guest_grants_in_use(&f.guest), 0);
    close(fd);
    free(file);
    close_disk(&f);
}

static void four_queues_keep_data_intact_in_memory(void **state)
{
    run_lanes("/dev/shm", 1, false, 50000, XEN_HOSTWAKER_HALTED);
}

static void four_queues_keep_data_intact_with_persistent_grants(void **state)
{
    run_lanes("/dev/shm", 4, true, 50000, XEN_HOSTWAKER_HALTED);
}

static void four_queues_keep_data_intact_on_a_disk(void **state)
{
    run_lanes("/tmp", 1, true, 0, XEN_HOSTWAKER_HALTED);
}

/* These frontends wait for interrupts, which are owed to them: none may be forgotten,
 * whether the thread polls or sleeps meanwhile. */
static void interrupts_owed_to_running_vcpus_are_paid(void **state)
{
    run_lanes("/dev/shm", 1, true, 2000000, XEN_HOSTWAKER_RUNNING);
    run_lanes("/dev/shm", 1, true, 0, XEN_HOSTWAKER_RUNNING);
}

static void doorbells_put_off_for_ever_lose_nothing(void **state)
{
    struct vbd_queue_counters c;
    struct fixture f;

    open_disk(&f, "/dev/shm");
    lane_open(&f, 0, 1, true, 2000000);
    crowd_begin(&f.lane[0]);
    assert_null(lane_main(&f.lane[0]));
    assert_true(f.lane[0].put_off > 0);
    lane_close(&f.lane[0], &c);
    assert_int_equal(c.ring.requests, ROUNDS * DEPTH);
    assert_int_equal(c.ring.errors, 0);
    assert_int_equal(c.polls_hit + c.polls_missed, 0);
    close_disk(&f);
}

/* The promise to look ends with the work: then a doorbell is needed again. */
static void idle_queue_in_a_crowd_asks_for_doorbells(void **state)
{
    struct vbd_queue_counters c;
    struct fixture f;

    open_disk(&f, "/dev/shm");
    lane_open(&f, 0, 1, true, 2000000);
    crowd_begin(&f.lane[0]);
    assert_null(lane_main(&f.lane[0]));
    wait_until_asleep(&f.lane[0], &c);
    assert_int_equal(load_relaxed(&f.lane[0].front.link.awake), 0);
    assert_null(lane_main(&f.lane[0]));
    lane_close(&f.lane[0], &c);
    close_disk(&f);
}

/* Pauses that grow, each met by a thread that polls and so learns to poll longer, however
 * often that must be begun again where others have the processors. */
static void teach_to_poll(struct lane *l)
{
    static const unsigned pause_us[] = { 0, 3000, 10000, 30000, 100000, 300000 };
    struct vbd_queue_counters before, c = { .polls_hit = 0 };
    unsigned step = 0;

    for (unsigned i = 0; i < 1000 && step < array_size(pause_us); i++) {
        before = c;
        usleep(pause_us[step]);
        ask_one_by_one(l, 1);
        usleep(1000);       /* it counts after it has answered */
        vbd_queue_counters(l->queue, &c);
        step = c.polls_hit > before.polls_hit && c.kicks == before.kicks ? step + 1 : 0;
    }
    assert_int_equal(step, array_size(pause_us));
}

static void who_fills_the_ring_of_a_thread_that_polls_never_kicks(void **state)
{
    struct vbd_queue_counters c;
    struct fixture f;
    uint64_t kicks;

    open_disk(&f, "/dev/shm");
    lane_open(&f, 0, 1, true, 10000000000u);
    teach_to_poll(&f.lane[0]);
    kicks = f.lane[0].kicks;
    assert_null(lane_main(&f.lane[0]));
    assert_int_equal(f.lane[0].kicks, kicks);
    lane_close(&f.lane[0], &c);
    close_disk(&f);
}

static void idle_queue_stops_polling(void **state)
{
    struct vbd_queue_counters c;
    struct fixture f;

    open_disk(&f, "/dev/shm");
    lane_open(&f, 0, 1, true, 100000);
    assert_null(lane_main(&f.lane[0]));
    wait_until_asleep(&f.lane[0], &c);
    assert_true(c.sleeps > 0);
    lane_close(&f.lane[0], &c);
    close_disk(&f);
}

static void stopping_answers_what_is_in_the_ring(void **state)
{
    struct fixture f;

    for (unsigned round = 0; round < 20; round++) {
        struct vbd_queue_counters c;
        struct blkif_response rsp;
        unsigned done = 0, refused = 0;

        open_disk(&f, "/tmp");
        lane_open(&f, 0, 1, true, round % 2 ? 20000 : 0);
        for (unsigned s = 0; s < DEPTH; s++)
            lane_put(&f.lane[0], s, BLKIF_OP_WRITE, s * REGION_BYTES / DEPTH, SLOT_PAGES);
        lane_show(&f.lane[0]);
        if (round % 4 > 1)
            usleep(100 * round);
        vbd_queue_stop(f.lane[0].queue, &c);
        while (front_get(&f.lane[0].front, &rsp)) {
            assert_true(rsp.status == BLKIF_RSP_OKAY || rsp.status == BLKIF_RSP_ERROR);
            done += rsp.status == BLKIF_RSP_OKAY;
            refused += rsp.status == BLKIF_RSP_ERROR;
        }
        /* all it took is done, the rest is not waited for; none twice, and nothing held */
        assert_int_equal(done, c.ring.requests);
        assert_int_equal(done + refused, DEPTH);
        assert_int_equal(guest_grants_in_use(&f.guest), 0);
        front_free(&f.lane[0].front);
        free(f.lane[0].model);
        close_disk(&f);
    }
}

static void what_filters_keep_is_answered_when_the_queue_stops(void **state)
{
    static const struct { const char *filters; int16_t status; } kept[] = {
        { "qos:iops=1", BLKIF_RSP_OKAY }, { "delay:time=1000s", BLKIF_RSP_OKAY },
        { "fault:error=hang", BLKIF_RSP_ERROR },
    };

    for (unsigned i = 0; i < array_size(kept); i++) {
        struct vbd_queue_counters c;
        struct blkif_response rsp;
        struct fixture f;
        unsigned answers = 0;

        open_filtered(&f, "/dev/shm", kept[i].filters);
        lane_open_as(&f, 0, 1, false, 20000, true);
        for (unsigned s = 0; s < DEPTH; s++) {
            lane_put(&f.lane[0], s, BLKIF_OP_WRITE, s * REGION_BYTES / DEPTH, SLOT_PAGES);
            lane_show(&f.lane[0]);
        }
        wait_until_asleep(&f.lane[0], &c);
        assert_in_range(c.ring.requests, 1, DEPTH);
        vbd_queue_stop(f.lane[0].queue, &c);
        for (; front_get(&f.lane[0].front, &rsp); answers++)
            assert_int_equal(rsp.status, kept[i].status);
        assert_int_equal(answers, c.ring.requests);
        assert_int_equal(guest_grants_in_use(&f.guest), 0);
        front_free(&f.lane[0].front);
        free(f.lane[0].model);
        close_disk(&f);
    }
}

static void garbage_index_is_reported_once_and_others_live(void **state)
{
    struct vbd_queue_counters c;
    struct pollfd p;
    struct fixture f;
    uint64_t n;

    open_disk(&f, "/dev/shm");
    lane_open(&f, 0, 1, false, 20000);
    lane_open(&f, 1, 1, false, 20000);
    store_release(&front_sring(&f.lane[0].front)->req_prod, f.lane[0].front.req_prod + 5000);
    front_kick(&f.lane[0].front);
    p = (struct pollfd){ .fd = f.fault_fd, .events = POLLIN };
    assert_int_equal(poll(&p, 1, -1), 1);
    assert_non_null(strstr(vbd_queue_fault(f.lane[0].queue), "producer index"));
    assert_null(vbd_queue_fault(f.lane[1].queue));
    for (unsigned i = 0; i < 10; i++)
        front_kick(&f.lane[0].front);
    assert_null(lane_main(&f.lane[1]));
    lane_close(&f.lane[0], &c);
    assert_int_equal(c.ring.requests, 0);
    lane_close(&f.lane[1], &c);
    assert_int_equal(c.ring.requests, ROUNDS * DEPTH);
    assert_int_equal(read(f.fault_fd, &n, sizeof(n)), sizeof(n));
    assert_int_equal(n, 1);
    close_disk(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_queues_keep_data_intact_in_memory),
        cmocka_unit_test(four_queues_keep_data_intact_with_persistent_grants),
        cmocka_unit_test(four_queues_keep_data_intact_on_a_disk),
        cmocka_unit_test(interrupts_owed_to_running_vcpus_are_paid),
        cmocka_unit_test(doorbells_put_off_for_ever_lose_nothing),
        cmocka_unit_test(idle_queue_in_a_crowd_asks_for_doorbells),
        cmocka_unit_test(who_fills_the_ring_of_a_thread_that_polls_never_kicks),
        cmocka_unit_test(idle_queue_stops_polling),
        cmocka_unit_test(stopping_answers_what_is_in_the_ring),
        cmocka_unit_test(what_filters_keep_is_answered_when_the_queue_stops),
        cmocka_unit_test(garbage_index_is_reported_once_and_others_live),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
