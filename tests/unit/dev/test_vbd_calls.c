/* SPDX-License-Identifier: MIT */
/* Who serves a queue: its thread, or the vCPU that rings while that one sleeps; and where the
 * thread wakes. */
#include <linux/magic.h>
#include <sys/vfs.h>

#include "vbd_lane.h"

/* Where the thread would have gone; linked in place of the real one. */
static uint32_t moved_to;
static unsigned nr_moves;
int __wrap_place_thread_move(uint32_t cpu);

int __wrap_place_thread_move(uint32_t cpu)
{
    store_relaxed(&moved_to, cpu);
    store_release(&nr_moves, nr_moves + 1);
    return 0;
}

/* One request after the other, by a vCPU on a processor where the thread never is. */
static void ask_from_elsewhere(struct lane *l, unsigned nr_requests)
{
    static const uint32_t elsewhere = 12345;
    static const uint32_t *const cpus[] = { &elsewhere };

    store_release(&nr_moves, 0);
    l->front.port.cpus = cpus;
    for (unsigned i = 0; i < nr_requests; i++) {
        lane_put(l, 0, BLKIF_OP_READ, 0, 1);
        lane_show(l);
        assert_int_equal(lane_wait(l).status, BLKIF_RSP_OKAY);
        usleep(1000);       /* so that most of them find it asleep */
    }
}

static void in_a_crowd_the_thread_goes_where_the_caller_is(void **state)
{
    struct vbd_queue_counters c;
    struct fixture f;

    open_disk(&f, "/dev/shm");
    lane_open(&f, 0, 1, false, 0);
    crowd_begin(&f.lane[0]);
    f.lane[0].puts_off = false;
    ask_from_elsewhere(&f.lane[0], 100);
    lane_close(&f.lane[0], &c);
    assert_true(c.kicks >= 8);
    /* not for the first time it finds itself elsewhere, and not each time */
    assert_in_range(load_acquire(&nr_moves), 1, c.kicks / 4);
    assert_int_equal(load_relaxed(&moved_to), 12345);
    close_disk(&f);
}

static void where_there_is_room_the_thread_stays_away_from_the_caller(void **state)
{
    struct vbd_queue_counters c;
    struct fixture f;

    open_disk(&f, "/dev/shm");
    lane_open(&f, 0, 1, false, 0);
    ask_from_elsewhere(&f.lane[0], 100);
    lane_close(&f.lane[0], &c);
    assert_true(c.kicks >= 8);
    assert_int_equal(load_acquire(&nr_moves), 0);
    close_disk(&f);
}

static void what_memory_answers_is_served_by_the_vcpu_that_rings(void **state)
{
    struct vbd_queue_counters before, c;
    struct fixture f;

    open_disk(&f, "/dev/shm");
    lane_open_as(&f, 0, 1, false, 0, true);
    ask_one_by_one(&f.lane[0], 4);
    wait_until_asleep(&f.lane[0], &before);
    ask_one_by_one(&f.lane[0], 100);
    vbd_queue_counters(f.lane[0].queue, &c);
    assert_int_equal(c.calls - before.calls, 100);
    assert_int_equal(c.sleeps, before.sleeps);      /* the thread did not wake */
    assert_int_equal(c.ring.requests, 104);
    lane_close(&f.lane[0], &c);
    assert_int_equal(guest_grants_in_use(&f.guest), 0);
    close_disk(&f);
}

/* Asks `vcpu` for nr requests, one by one, of a queue that is lent and may poll.  How often
 * its thread was woken for them. */
static uint64_t wakes_of_calls(struct fixture *f, unsigned vcpu, unsigned nr)
{
    struct lane *l = &f->lane[0];
    struct vbd_queue_counters before, c;

    ask_one_by_one(l, 4);
    wait_until_asleep(l, &before);
    l->caller = vcpu;
    ask_one_by_one(l, nr);
    wait_until_asleep(l, &c);
    return c.kicks - before.kicks;
}

static void a_vcpu_that_serves_itself_again_and_again_wakes_the_thread_to_poll(void **state)
{
    struct vbd_queue_counters c;
    struct fixture f;

    open_disk(&f, "/dev/shm");
    lane_open_as(&f, 0, 1, false, 10000000000u, true);
    assert_true(wakes_of_calls(&f, 0, 100) > 0);
    wait_until_asleep(&f.lane[0], &c);
    assert_true(c.polls_hit + c.polls_missed > 0);
    lane_close(&f.lane[0], &c);
    close_disk(&f);
}

static void a_vcpu_that_serves_for_another_goes_on(void **state)
{
    struct vbd_queue_counters c;
    struct fixture f;

    open_disk(&f, "/dev/shm");
    lane_open_as(&f, 0, 1, false, 10000000000u, true);
    assert_int_equal(wakes_of_calls(&f, 1, 100), 0);
    lane_close(&f.lane[0], &c);
    close_disk(&f);
}

/* Where there is no processor to poll on, its doorbells may wait for each other instead. */
static void a_vcpu_that_serves_itself_in_a_crowd_may_put_doorbells_off(void **state)
{
    struct vbd_queue_counters c;
    struct fixture f;

    open_disk(&f, "/dev/shm");
    lane_open_as(&f, 0, 1, false, 10000000000u, true);
    crowd_begin(&f.lane[0]);
    f.lane[0].caller = 0;
    /* the thread that is woken for it may be slow to come */
    for (unsigned i = 0; i < 100000 && !f.lane[0].put_off; i++)
        ask_one_by_one(&f.lane[0], 1);
    assert_true(f.lane[0].put_off > 0);
    wait_until_asleep(&f.lane[0], &c);
    assert_int_equal(c.polls_hit + c.polls_missed, 0);
    lane_close(&f.lane[0], &c);
    close_disk(&f);
}

/* What needs the driver's own way is the thread's. */
static void a_flush_of_a_file_is_not_served_by_a_vcpu(void **state)
{
    struct vbd_queue_counters before, c;
    struct fixture f;
    struct statfs fs;

    assert_int_equal(statfs("/tmp", &fs), 0);
    if (fs.f_type == TMPFS_MAGIC) {
        print_message("/tmp is memory here: a flush needs no thread\n");
        skip();
    }
    open_disk(&f, "/tmp");
    lane_open_as(&f, 0, 1, false, 0, true);
    ask_one_by_one(&f.lane[0], 4);
    wait_until_asleep(&f.lane[0], &before);
    for (unsigned i = 0; i < 50; i++) {
        lane_put(&f.lane[0], 0, BLKIF_OP_FLUSH_DISKCACHE, 0, 0);
        lane_show(&f.lane[0]);
        assert_int_equal(lane_wait(&f.lane[0]).status, BLKIF_RSP_OKAY);
        front_arm(&f.lane[0].front);
    }
    vbd_queue_counters(f.lane[0].queue, &c);
    assert_int_equal(c.blk.inline_requests, before.blk.inline_requests);
    assert_true(c.calls - before.calls <= 1);   /* the first may have been tried */
    lane_close(&f.lane[0], &c);
    close_disk(&f);
}

/* Requests by the dozen, called for where the queue is lent and rung for where it is not,
 * in a crowd and out of it, and with a filter that keeps many of them for a while: every
 * answer comes, and the data is right. */
static void queues_lent_and_taken_back_keep_data_intact(void **state)
{
    for (unsigned round = 0; round < 8; round++) {
        struct vbd_queue_counters c;
        struct fixture f;

        open_filtered(&f, round % 2 ? "/tmp" : "/dev/shm",
                      round > 3 ? "verify,qos:iops=20000" : NULL);
        lane_open_as(&f, 0, 1, false, 0, true);
        if (round % 4 > 1)
            crowd_begin(&f.lane[0]);
        f.lane[0].puts_off = false;
        ask_one_by_one(&f.lane[0], 4);
        wait_until_asleep(&f.lane[0], &c);
        ask_one_by_one(&f.lane[0], 4);
        assert_null(lane_main(&f.lane[0]));
        lane_close(&f.lane[0], &c);
        assert_int_equal(c.ring.requests, ROUNDS * DEPTH + 8);
        assert_int_equal(c.ring.errors, 0);
        assert_true(c.calls > 0 || round % 2);      /* a disk may answer nothing at once */
        assert_int_equal(guest_grants_in_use(&f.guest), 0);
        close_disk(&f);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_a_crowd_the_thread_goes_where_the_caller_is),
        cmocka_unit_test(where_there_is_room_the_thread_stays_away_from_the_caller),
        cmocka_unit_test(what_memory_answers_is_served_by_the_vcpu_that_rings),
        cmocka_unit_test(a_vcpu_that_serves_itself_again_and_again_wakes_the_thread_to_poll),
        cmocka_unit_test(a_vcpu_that_serves_for_another_goes_on),
        cmocka_unit_test(a_vcpu_that_serves_itself_in_a_crowd_may_put_doorbells_off),
        cmocka_unit_test(a_flush_of_a_file_is_not_served_by_a_vcpu),
        cmocka_unit_test(queues_lent_and_taken_back_keep_data_intact),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
