/* SPDX-License-Identifier: MIT */
/* A device whose queues are served by a process of its own, which dies. */
#include <signal.h>
#include <sys/wait.h>

#include "dev/xen_vbd_serve.h"
#include "xen_vbd_fixture.h"

#define SHARED_PAGE 16u         /* what the shim would share, in memory that goes along */
#define REQUESTS    24u

struct shared {
    struct xen_hostlink link[NR_FRONTS];
    struct xen_hostwaker waker;
    struct xen_hostload load;
    struct gnttab_state state;
};

/* How the next process is to be; it is a fork, so it sees what was set before. */
struct spawning {
    int error;                  /* -errno: there is none */
    bool refuses;               /* it cannot be confined */
    bool dies;                  /* before it has begun */
    unsigned nr;
    pid_t pid;                  /* the last one */
};

static int confine(void *arg, char *how, size_t size, struct err *e)
{
    const struct spawning *s = arg;

    if (s->dies)
        raise(signal(SIGSYS, SIG_DFL) == SIG_ERR ? SIGKILL : SIGSYS);
    snprintf(how, size, "not at all");
    return s->refuses ? err_set(e, EPERM, "no filter") : 0;
}

static int seal(void *arg, struct err *e)
{
    return 0;
}

static int spawn(void *arg, int socket, pid_t *pid)
{
    struct spawning *s = arg;
    const struct xen_vbd_serve_ops ops = { .confine = confine, .seal = seal, .arg = s };

    if (s->error)
        return s->error;
    *pid = fork();
    if (!*pid) {
        /* as exec would */
        for (int fd = 3; fd < 256; fd++)
            if (fd != socket)
                close(fd);
        xen_vbd_serve(socket, &ops);
        _exit(0);
    }
    s->nr++;
    s->pid = *pid;
    return *pid < 0 ? -errno : 0;
}

static struct shared *shared(struct fixture *f)
{
    return (struct shared *)(void *)guest_page(&f->guest, SHARED_PAGE);
}

static struct spawning *begin_filtered(struct fixture *f, const char *driver, const char *filters)
{
    struct spawning *s = calloc(1, sizeof(*s));
    struct xen_vbd_params p = vbd_params(f);
    struct err e = { 0 };

    _Static_assert(sizeof(struct shared) <= PAGE_SIZE, "it is one page");
    shared(f)->state = f->guest.state;
    f->guest.grants.table.state = &shared(f)->state;
    p.apart = (struct vbd_remote_spawn){ .spawn = spawn, .arg = s };
    p.disk.driver = driver;
    p.disk.filters = filters;
    p.disk.size_bytes = DISK_BYTES;
    if (xen_vbd_create(&p, &f->vbd, &e))
        fail_msg("%s", e.text);
    return s;
}

static void link_share(struct fixture *f, unsigned nr_queues)
{
    struct shared *sh = shared(f);

    sh->waker.state = XEN_HOSTWAKER_HALTED;
    for (unsigned q = 0; q < nr_queues; q++) {
        f->front[q].port.link = &sh->link[q];
        f->front[q].port.links = sh->link;
        f->front[q].port.wakers = &sh->waker;
        f->front[q].port.load = &sh->load;
    }
}

static void connect_queues(struct fixture *f, unsigned nr_queues, unsigned order)
{
    describe(f, nr_queues, order, true);
    link_share(f, nr_queues);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
}

/* Lets the device work until there is another process. */
static void wait_for_another(struct fixture *f, const struct spawning *s, unsigned nr)
{
    for (unsigned i = 0; i < 1000 && s->nr < nr; i++)
        loop_run_once(f->loop, 100);
    assert_int_equal(s->nr, nr);
}

static void kill_it(struct fixture *f, const struct spawning *s)
{
    assert_int_equal(kill(s->pid, SIGKILL), 0);
    wait_for_another(f, s, s->nr + 1);
}

/* Each of them is a page; answers in any order.  What comes of them is counted. */
static void requests_put(struct fixture *f, uint8_t op, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        struct blkif_request r = front_request(&f->front[0], op, i, i * 8, DATA_PAGE + i, 1);

        if (op == BLKIF_OP_WRITE)
            memset(guest_page(&f->guest, DATA_PAGE + i), (int)(i + 1), PAGE_SIZE);
        front_put(&f->front[0], &r);
    }
    if (front_publish(&f->front[0]))
        front_kick(&f->front[0]);
}

static void answers_take(struct fixture *f, unsigned nr, int16_t status)
{
    bool seen[REQUESTS] = { false };
    struct blkif_response rsp;

    for (unsigned i = 0; i < nr; ) {
        struct pollfd p = { .fd = f->front[0].port.irq_fd, .events = POLLIN };
        uint64_t n;

        if (front_get(&f->front[0], &rsp)) {
            assert_false(seen[rsp.id]);
            seen[rsp.id] = true;
            assert_int_equal(rsp.status, status);
            i++;
        } else if (!front_arm(&f->front[0])) {
            if (poll(&p, 1, 20) == 1)
                assert_int_equal(read(p.fd, &n, sizeof(n)), sizeof(n));
            swap_acq_rel(&f->front[0].port.link->pending, 0);
            loop_run_once(f->loop, 0);      /* the device may have to do something for it */
        }
    }
    assert_false(front_get(&f->front[0], &rsp));
}

static void pages_are_what_was_written(struct fixture *f, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++)
        memset(guest_page(&f->guest, DATA_PAGE + i), 0, PAGE_SIZE);
    requests_put(f, BLKIF_OP_READ, nr);
    answers_take(f, nr, BLKIF_RSP_OKAY);
    for (unsigned i = 0; i < nr; i++) {
        assert_int_equal(guest_page(&f->guest, DATA_PAGE + i)[0], i + 1);
        assert_int_equal(guest_page(&f->guest, DATA_PAGE + i)[PAGE_SIZE - 1], i + 1);
    }
}

/* Closes as a guest does; nothing of its is held then, and no child is left. */
static void end(struct fixture *f, struct spawning *s, unsigned nr_queues)
{
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(guest_grants_in_use(&f->guest), 0);
    undescribe(f, nr_queues);
    free(s);
}

static void a_disk_is_served_by_its_process(void **state)
{
    struct fixture *f = *state;
    struct spawning *s = begin_filtered(f, "file", NULL);
    char pid[16];

    expect(f, BACK, "type", "file");
    connect_queues(f, 2, 2);
    assert_int_equal(s->nr, 1);
    snprintf(pid, sizeof(pid), "%d", s->pid);
    expect(f, BACK, "process", pid);
    use_queue(f, 0);
    use_queue(f, 1);
    xen_vbd_destroy(f->vbd);
    f->vbd = NULL;
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    undescribe(f, 2);
    free(s);
}

static void what_was_counted_outlives_it(void **state)
{
    struct fixture *f = *state;
    struct spawning *s = begin_filtered(f, "file", NULL);
    struct vbd_queue_counters c;

    connect_queues(f, 1, 0);
    for (unsigned i = 0; i < 3; i++) {
        requests_put(f, BLKIF_OP_WRITE, REQUESTS);
        answers_take(f, REQUESTS, BLKIF_RSP_OKAY);
        /* it says what it has counted before it sleeps */
        for (unsigned n = 0; n < 500; n++) {
            xen_vbd_counters(f->vbd, &c);
            if (c.blk.requests[BLK_OP_WRITE] == (i + 1) * REQUESTS)
                break;
            usleep(10000);
        }
        assert_int_equal(c.ring.requests, (i + 1) * REQUESTS);
        assert_int_equal(c.blk.requests[BLK_OP_WRITE], (i + 1) * REQUESTS);
        kill_it(f, s);
    }
    expect(f, BACK, "process-deaths", "3");
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    xen_vbd_counters(f->vbd, &c);
    assert_int_equal(c.ring.requests, 3 * REQUESTS);
    assert_int_equal(c.ring.grants_held, 0);
    end(f, s, 1);
}

/* All are under way when it dies, several times: the delay is longer than it lives. */
static void requests_in_flight_are_answered_once(void **state)
{
    struct fixture *f = *state;
    struct spawning *s = begin_filtered(f, "file", "delay:time=300ms");

    connect_queues(f, 1, 0);
    requests_put(f, BLKIF_OP_WRITE, REQUESTS);
    for (unsigned i = 0; i < 4; i++) {
        usleep(50000);
        kill_it(f, s);
    }
    answers_take(f, REQUESTS, BLKIF_RSP_OKAY);
    pages_are_what_was_written(f, REQUESTS);
    end(f, s, 1);
}

static void memory_outlives_it(void **state)
{
    struct fixture *f = *state;
    struct spawning *s = begin_filtered(f, "ram", NULL);

    connect_queues(f, 1, 0);
    requests_put(f, BLKIF_OP_WRITE, REQUESTS);
    answers_take(f, REQUESTS, BLKIF_RSP_OKAY);
    kill_it(f, s);
    pages_are_what_was_written(f, REQUESTS);
    end(f, s, 1);
}

static void too_many_deaths_are_the_end(void **state)
{
    struct fixture *f = *state;
    struct spawning *s = begin_filtered(f, "file", "delay:time=10s");
    char *error = NULL;

    connect_queues(f, 1, 0);
    requests_put(f, BLKIF_OP_WRITE, REQUESTS);
    usleep(50000);
    for (unsigned i = 0; i < 31; i++)
        kill_it(f, s);
    assert_int_equal(kill(s->pid, SIGKILL), 0);
    /* those that it had, and new ones */
    answers_take(f, REQUESTS, BLKIF_RSP_ERROR);
    requests_put(f, BLKIF_OP_READ, REQUESTS);
    answers_take(f, REQUESTS, BLKIF_RSP_ERROR);
    error = get(f, BACK, "error");
    assert_non_null(error);
    assert_non_null(strstr(error, "died 32 times"));
    free(error);
    expect(f, BACK, "process", "0");
    end(f, s, 1);
}

/* A guest that lets go while nobody serves it: what it had asked for is refused. */
static void a_guest_may_go_while_it_is_dead(void **state)
{
    struct fixture *f = *state;
    struct spawning *s = begin_filtered(f, "file", "delay:time=10s");

    connect_queues(f, 1, 0);
    requests_put(f, BLKIF_OP_WRITE, REQUESTS);
    usleep(50000);
    assert_int_equal(kill(s->pid, SIGKILL), 0);
    s->error = -EAGAIN;
    xen_vbd_destroy(f->vbd);
    f->vbd = NULL;
    answers_take(f, REQUESTS, BLKIF_RSP_ERROR);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    undescribe(f, 1);
    free(s);
}

static void no_process_is_no_connection(void **state)
{
    struct fixture *f = *state;
    struct spawning *s = begin_filtered(f, "file", NULL);

    s->error = -EAGAIN;
    describe(f, 1, 0, true);
    link_share(f, 1);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateClosing);
    s->error = 0;
    s->refuses = true;
    set_state(f, XenbusStateInitialising);
    expect_state(f, XenbusStateInitWait);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateClosing);
    expect(f, BACK, "error", "no filter");
    end(f, s, 1);
}

static void one_that_dies_early_is_followed_too(void **state)
{
    struct fixture *f = *state;
    struct spawning *s = begin_filtered(f, "file", NULL);

    s->dies = true;
    connect_queues(f, 1, 0);
    requests_put(f, BLKIF_OP_WRITE, REQUESTS);
    wait_for_another(f, s, 3);
    s->dies = false;
    wait_for_another(f, s, 4);
    answers_take(f, REQUESTS, BLKIF_RSP_OKAY);
    expect(f, BACK, "process-deaths", "3");
    end(f, s, 1);
}

static void sizes_are_changed_by_it_or_without_it(void **state)
{
    struct fixture *f = *state;
    struct spawning *s = begin_filtered(f, "file", NULL);
    struct err e = { 0 };

    assert_int_equal(xen_vbd_resize(f->vbd, 2 * DISK_BYTES, &e), 0);
    connect_queues(f, 1, 0);
    expect(f, BACK, "sectors", "16384");
    assert_int_equal(xen_vbd_resize(f->vbd, 3 * DISK_BYTES, &e), 0);
    expect(f, BACK, "sectors", "24576");
    assert_int_not_equal(xen_vbd_resize(f->vbd, 511, &e), 0);
    err_clear(&e);
    assert_int_equal(kill(s->pid, SIGKILL), 0);
    assert_int_equal(xen_vbd_resize(f->vbd, 4 * DISK_BYTES, &e), 0);
    expect(f, BACK, "sectors", "32768");
    wait_for_another(f, s, 2);
    requests_put(f, BLKIF_OP_WRITE, REQUESTS);
    answers_take(f, REQUESTS, BLKIF_RSP_OKAY);
    end(f, s, 1);
}

static void a_ring_it_has_stopped_stays_so(void **state)
{
    struct fixture *f = *state;
    struct spawning *s = begin_filtered(f, "file", NULL);
    char *error = NULL;

    connect_queues(f, 1, 0);
    front_sring(&f->front[0])->req_prod += 1000;
    front_kick(&f->front[0]);
    for (unsigned i = 0; i < 100 && !error; i++) {
        loop_run_once(f->loop, 50);
        error = get(f, BACK, "error");
    }
    assert_non_null(error);
    assert_non_null(strstr(error, "producer index"));
    free(error);
    front_sring(&f->front[0])->req_prod -= 1000;
    kill_it(f, s);
    requests_put(f, BLKIF_OP_READ, 1);
    front_kick(&f->front[0]);
    usleep(100000);
    assert_int_equal(front_sring(&f->front[0])->rsp_prod, 0);
    end(f, s, 1);
}

static void what_keeps_something_in_memory_is_refused(void **state)
{
    static const struct { const char *driver, *filters, *said; } t[] = {
        { "nbd", NULL, "driver=nbd" }, { "file", "delay:time=1ms,verify", "filter=verify" },
        { "file", "cow:file=/nowhere", "filter=cow" },
        { "null", "qos:group=g:iops=5", "group=g" },
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < array_size(t); i++) {
        struct xen_vbd_params p = vbd_params(f);
        struct err e = { 0 };

        p.apart.spawn = spawn;
        p.disk.driver = t[i].driver;
        p.disk.filters = t[i].filters;
        assert_int_equal(xen_vbd_create(&p, &f->vbd, &e), -EOPNOTSUPP);
        if (!strstr(e.text, t[i].said))
            fail_msg("'%s' does not name %s", e.text, t[i].said);
        f->vbd = NULL;
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_disk_is_served_by_its_process),
        TEST(what_was_counted_outlives_it),
        TEST(requests_in_flight_are_answered_once),
        TEST(memory_outlives_it),
        TEST(too_many_deaths_are_the_end),
        TEST(a_guest_may_go_while_it_is_dead),
        TEST(no_process_is_no_connection),
        TEST(one_that_dies_early_is_followed_too),
        TEST(sizes_are_changed_by_it_or_without_it),
        TEST(a_ring_it_has_stopped_stays_so),
        TEST(what_keeps_something_in_memory_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
