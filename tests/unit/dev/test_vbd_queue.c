/* SPDX-License-Identifier: MIT */
/* Whole queue threads against frontends that behave as a guest's driver does:
 * sleeping on interrupts, kicking only when asked to. */
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sys/vfs.h>

#include "dev/xen_vbd_queue.h"
#include "vbd_front.h"

#define NR_QUEUES     4u
#define REGION_BYTES  (2 * MIB)         /* of the disk, per queue */
#define DEPTH         16u
#define SLOT_PAGES    8u                /* data pages per request in flight */
#define ROUNDS        400u

struct lane {
    struct front front;
    struct vbd_queue *queue;
    pthread_t thread;
    unsigned index, seed;
    uint32_t first_page;                /* of its data, and one list page per slot */
    uint64_t base;                      /* in the disk, bytes */
    uint8_t *model;                     /* what its region must hold */
    uint64_t shows, kicks, put_off;
    bool puts_off;                      /* doorbells, for ever, when it may */
};

struct fixture {
    struct guest guest;
    struct blk_disk *disk;
    char path[64];
    int fault_fd;
    struct lane lane[NR_QUEUES];
};

static void open_disk(struct fixture *f, const char *dir)
{
    struct err e = { 0 };
    int fd;

    snprintf(f->path, sizeof(f->path), "%s/xenolith-vbd-XXXXXX", dir);
    fd = mkstemp(f->path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)(NR_QUEUES * REGION_BYTES)), 0);
    close(fd);
    assert_int_equal(blk_disk_open(&(struct blk_spec){ .driver = "file", .path = f->path },
                                   &f->disk, &e), 0);
    f->fault_fd = eventfd(0, EFD_NONBLOCK);
    guest_init(&f->guest);
    for (uint32_t i = 0; i < GUEST_PAGES; i++)
        guest_grant(&f->guest, i, false);
}

static void close_disk(struct fixture *f)
{
    guest_free(&f->guest);
    close(f->fault_fd);
    blk_disk_close(f->disk);
    unlink(f->path);
}

/* calls: this frontend's vCPUs may serve the queue themselves. */
static void lane_open_as(struct fixture *f, unsigned i, unsigned nr_pages, bool persistent,
                         uint64_t poll_max_ns, bool calls)
{
    struct lane *l = &f->lane[i];
    struct err e = { 0 };

    memset(l, 0, sizeof(*l));
    l->index = i;
    l->seed = 1000 + i;
    l->base = i * REGION_BYTES;
    l->first_page = 256 + i * 512;
    l->model = calloc(1, REGION_BYTES);
    front_init(&l->front, &f->guest, 4 + i * 40, nr_pages, UINT32_MAX - 100);
    l->front.port.call = calls ? &l->front.call : NULL;
    assert_int_equal(vbd_queue_start(&(struct vbd_queue_params){
        .disk = f->disk,
        .ring = {
            .abi = vbd_abi_find(NULL), .pages = l->front.page, .nr_pages = nr_pages,
            .grants = &f->guest.grants, .persistent = persistent,
        },
        .port = &l->front.port,
        .poll_max_ns = poll_max_ns,
        .fault_fd = f->fault_fd,
        .name = "test-q",
    }, &l->queue, &e), 0);
}

static void lane_open(struct fixture *f, unsigned i, unsigned nr_pages, bool persistent,
                      uint64_t poll_max_ns)
{
    lane_open_as(f, i, nr_pages, persistent, poll_max_ns, false);
}

static void lane_close(struct lane *l, struct vbd_queue_counters *last)
{
    vbd_queue_stop(l->queue, last);
    front_free(&l->front);
    free(l->model);
}

static void lane_show(struct lane *l)
{
    l->shows++;
    if (!front_publish(&l->front))
        return;
    /* as the shim on a vCPU that then never passes there again */
    barrier_full();
    if (l->puts_off && load_relaxed(&l->front.link.awake)) {
        l->put_off++;
        return;
    }
    if (load_relaxed(&l->front.link.call) && xen_hostcall_ring(&l->front.call, 1))
        return;
    l->kicks++;
    front_kick(&l->front);
}

static struct blkif_response lane_wait(struct lane *l)
{
    struct blkif_response rsp;

    while (!front_get(&l->front, &rsp))
        if (!front_arm(&l->front))
            front_sleep(&l->front);
    return rsp;
}

static void lane_put(struct lane *l, unsigned slot, uint8_t op, uint64_t offset, unsigned pages)
{
    uint32_t data = l->first_page + slot * SLOT_PAGES;
    uint32_t list = l->first_page + DEPTH * SLOT_PAGES + slot;

    if (slot % 2) {
        struct blkif_request_segment *seg = (void *)guest_page(l->front.guest, list);
        struct blkif_request_indirect r;

        memset(&r, 0, sizeof(r));
        r.operation = BLKIF_OP_INDIRECT;
        r.indirect_op = op;
        r.nr_segments = (uint16_t)pages;
        r.id = slot;
        r.sector_number = (l->base + offset) / 512;
        r.indirect_grefs[0] = list;
        for (unsigned i = 0; i < pages; i++)
            seg[i] = (struct blkif_request_segment){ data + i, 0, 7 };
        front_put(&l->front, &r);
    } else {
        struct blkif_request r = front_request(&l->front, op, slot, (l->base + offset) / 512,
                                               data, (uint8_t)pages);

        front_put(&l->front, &r);
    }
}

/* Slots own disjoint parts of the region, so what each must read is known. */
static void *lane_main(void *arg)
{
    struct lane *l = arg;
    uint64_t part = REGION_BYTES / DEPTH;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t offset[DEPTH];
        unsigned pages[DEPTH], done = 0;
        bool write[DEPTH];

        for (unsigned s = 0; s < DEPTH; s++) {
            uint8_t *buf = guest_page(l->front.guest, l->first_page + s * SLOT_PAGES);

            pages[s] = 1 + (unsigned)rand_r(&l->seed) % SLOT_PAGES;
            offset[s] = s * part + (uint64_t)rand_r(&l->seed) %
                        ((part - SLOT_PAGES * PAGE_SIZE) / 512) * 512;
            write[s] = rand_r(&l->seed) % 2;
            for (unsigned i = 0; i < pages[s] * PAGE_SIZE; i += 64)
                buf[i] = (uint8_t)rand_r(&l->seed);
            if (write[s])
                memcpy(l->model + offset[s], buf, pages[s] * PAGE_SIZE);
            lane_put(l, s, write[s] ? BLKIF_OP_WRITE : BLKIF_OP_READ, offset[s], pages[s]);
            if (rand_r(&l->seed) % 4 == 0)
                lane_show(l);
        }
        lane_show(l);
        while (done < DEPTH) {
            struct blkif_response rsp = lane_wait(l);
            unsigned s = (unsigned)rsp.id;

            done++;
            if (rsp.status != BLKIF_RSP_OKAY || s >= DEPTH)
                return "a request failed";
            if (!write[s] && memcmp(guest_page(l->front.guest, l->first_page + s * SLOT_PAGES),
                                    l->model + offset[s], pages[s] * PAGE_SIZE))
                return "data differs";
        }
    }
    return NULL;
}

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

/* Asleep for good, once the last windows have passed: the counters stand still. */
static void wait_until_asleep(const struct lane *l, struct vbd_queue_counters *after)
{
    struct vbd_queue_counters before;

    do {
        vbd_queue_counters(l->queue, &before);
        usleep(20000);
        vbd_queue_counters(l->queue, after);
    } while (memcmp(&before, after, sizeof(before)));
}

/* More run than there are processors: the thread sleeps at once, and looks by itself. */
static void crowd_begin(struct lane *l)
{
    store_relaxed(&l->front.load.nr_links, 1u);
    store_relaxed(&l->front.load.host_cpus, 1u);
    store_relaxed(&l->front.waker.state, XEN_HOSTWAKER_RUNNING);
    l->puts_off = true;
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

/* Asks for one thing at a time, as a guest does that waits for each. */
static void ask_one_by_one(struct lane *l, unsigned nr_requests)
{
    for (unsigned i = 0; i < nr_requests; i++) {
        lane_put(l, 0, i % 2 ? BLKIF_OP_READ : BLKIF_OP_WRITE, 0, 1);
        lane_show(l);
        assert_int_equal(lane_wait(l).status, BLKIF_RSP_OKAY);
        front_arm(&l->front);   /* says what it has seen, as drivers do */
    }
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
 * in a crowd and out of it: every answer comes, and the data is right. */
static void queues_lent_and_taken_back_keep_data_intact(void **state)
{
    for (unsigned round = 0; round < 4; round++) {
        struct vbd_queue_counters c;
        struct fixture f;

        open_disk(&f, round % 2 ? "/tmp" : "/dev/shm");
        lane_open_as(&f, 0, 1, false, 0, true);
        if (round > 1)
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

static void frontend_that_fills_the_queue_kicks_seldom(void **state)
{
    struct vbd_queue_counters c;
    struct fixture f;

    /* a window longer than any pause of the frontend: after the first request
     * the thread is either working or polling whenever a request comes */
    open_disk(&f, "/dev/shm");
    lane_open(&f, 0, 1, true, 10000000000u);
    assert_null(lane_main(&f.lane[0]));
    vbd_queue_counters(f.lane[0].queue, &c);
    assert_true(c.polls_hit > 0);
    assert_true(f.lane[0].kicks < f.lane[0].shows / 2);
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
        cmocka_unit_test(in_a_crowd_the_thread_goes_where_the_caller_is),
        cmocka_unit_test(where_there_is_room_the_thread_stays_away_from_the_caller),
        cmocka_unit_test(what_memory_answers_is_served_by_the_vcpu_that_rings),
        cmocka_unit_test(a_flush_of_a_file_is_not_served_by_a_vcpu),
        cmocka_unit_test(queues_lent_and_taken_back_keep_data_intact),
        cmocka_unit_test(frontend_that_fills_the_queue_kicks_seldom),
        cmocka_unit_test(idle_queue_stops_polling),
        cmocka_unit_test(stopping_answers_what_is_in_the_ring),
        cmocka_unit_test(garbage_index_is_reported_once_and_others_live),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
