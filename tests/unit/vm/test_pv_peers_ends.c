/* SPDX-License-Identifier: MIT */
/* What becomes of it all when a guest's process goes, or does not answer; what others than
 * guests can do; both processes at once. */
#include <sys/resource.h>
#include <sys/wait.h>

#include "pv_peers_world.h"

/* ---- ends ---- */

static void test_user_dies(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];

    give(one, 8, GTF_permit_access, TWO, 3);
    wait_for(one, TWO, 3);
    map(two, ONE, 8, true);
    call(two, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_HOLD, .domid = ONE, .ref = 8 });
    assert_int_equal(bind_to(two, 4, ONE, 3).result, 0);
    guest_end(w, TWO);
    eventually(!use(one, 8));
    eventually(!load_relaxed(&one->links[0].peer_port));
    assert_int_equal(call(one, (struct shim_peer_call){ .op = SHIM_PEER_EXISTS,
                                                        .domid = TWO }).result, -ESRCH);
}

static void test_granter_dies(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];
    struct shim_peer_call a, b, c = { .op = SHIM_PEER_COPY, .bytes = 8 };

    give(one, 8, GTF_permit_access, TWO, 3);
    one->ram[3 * PAGE_SIZE] = 33;
    wait_for(one, TWO, 3);
    a = map(two, ONE, 8, true);
    b = bind_to(two, 4, ONE, 3);
    c.from.hold = call(two, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_HOLD, .domid = ONE,
                                                     .ref = 8 }).hold;
    c.to = (struct gnttab_peer_end){ .hold = GNTTAB_NO_HOLD, .mfn = RAM_MFN };
    assert_int_equal(call(two, c).result, GNTST_okay);
    guest_end(w, ONE);
    eventually(!load_relaxed(&two->links[b.link].peer_port));
    assert_int_equal(call(two, c).result, GNTST_general_error);
    assert_int_equal(*page_at(two, a.mfn), 33);
    assert_int_equal(map(two, ONE, 8, true).result, GNTST_bad_domain);
    assert_int_equal(bind_to(two, 5, ONE, 3).result, -ESRCH);
    unmap(two, a.mfn);
    assert_false(can(false, page_at(two, a.mfn)));
    close_port(two, 4);
    /* another of that number is another */
    give(guest_start(w, ONE), 8, GTF_permit_access, TWO, 3);
    a = map(two, ONE, 8, true);
    assert_int_equal(a.result, GNTST_okay);
    assert_int_equal(*page_at(two, a.mfn), 0);
}

/* A process that grants once and then says nothing more: its pages go. */
struct silent {
    int listen_fd, conn_fd, ram_fd;
    struct guest *user;
    uint8_t seen;       /* of the page that it granted, once the connection has ended */
};

static void *silent_serve(void *arg)
{
    struct silent *s = arg;
    struct peer_msg m;

    s->conn_fd = accept(s->listen_fd, NULL, NULL);
    if (recv(s->conn_fd, &m, sizeof(m), 0) != sizeof(m) ||
        recv(s->conn_fd, &m, sizeof(m), 0) != sizeof(m))
        return NULL;
    m.result = GNTST_okay;
    m.frame = 3;
    if (!send_with(s->conn_fd, &m, &s->ram_fd, 1))
        return NULL;
    while (recv(s->conn_fd, &m, sizeof(m), 0) > 0)
        ;
    s->seen = *s->user->window[PV_WINDOW_WRITE];
    return s;
}

static void test_silence(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];
    struct silent s = { .listen_fd = listen_as(w, 7, 0), .ram_fd = one->mem.region[1].memfd,
                        .user = two };
    struct shim_peer_call a;
    struct sockaddr_un un;
    pthread_t thread;
    void *served;

    assert_false(pthread_create(&thread, NULL, silent_serve, &s));
    one->ram[3 * PAGE_SIZE] = 33;
    a = map(two, 7, 8, true);
    assert_int_equal(a.result, GNTST_okay);
    assert_int_equal(*page_at(two, a.mfn), 33);
    assert_int_equal(map(two, 7, 9, true).result, GNTST_bad_domain);    /* after a second */
    pthread_join(thread, &served);
    assert_ptr_equal(served, &s);
    assert_int_equal(s.seen, 0);
    assert_int_equal(*page_at(two, a.mfn), 0);
    *page_at(two, a.mfn) = 1;
    assert_int_equal(one->ram[3 * PAGE_SIZE], 33);
    unmap(two, a.mfn);
    address(w, 7, &un);
    unlink(un.sun_path);
    close(s.conn_fd);
    close(s.listen_fd);
}

/* Guest 7's process, which gives its answers whatever it is asked. */
struct liar {
    pthread_t thread;
    int listen_fd, nr;
    struct lie { int32_t result; uint64_t frame; int fd; } lie[4];
};

static void *liar_serve(void *arg)
{
    struct liar *l = arg;
    int fd = accept(l->listen_fd, NULL, NULL);
    struct peer_msg m;

    recv(fd, &m, sizeof(m), 0);
    for (int i = 0; i < l->nr && recv(fd, &m, sizeof(m), 0) == sizeof(m); i++) {
        m.result = l->lie[i].result;
        m.frame = l->lie[i].frame;
        send_with(fd, &m, &l->lie[i].fd, l->lie[i].fd >= 0);
    }
    close(fd);
    return NULL;
}

static void liar_start(struct world *w, struct liar *l)
{
    l->listen_fd = listen_as(w, 7, 0);
    assert_false(pthread_create(&l->thread, NULL, liar_serve, l));
}

static void liar_end(struct world *w, struct liar *l)
{
    struct sockaddr_un un;

    pthread_join(l->thread, NULL);
    close(l->listen_fd);
    address(w, 7, &un);
    unlink(un.sun_path);
    eventually(call(&w->guest[TWO], (struct shim_peer_call){ .op = SHIM_PEER_EXISTS,
                                                             .domid = 7 }).result == -ESRCH);
}

static void test_lies(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];
    struct liar l = { .nr = 4, .lie = {
        { GNTST_okay, 3, one->mem.region[1].memfd },
        { 0x10000, RAM_PAGES, -1 }, { 0x10000, RAM_PAGES, -1 }, { INT32_MIN, 0, -1 } } };

    liar_start(w, &l);
    assert_int_equal(map(two, 7, 8, false).result, GNTST_okay);
    assert_int_equal(map(two, 7, 9, false).result, GNTST_general_error);
    assert_int_equal(call(two, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_HOLD, .domid = 7,
                                                        .ref = 9 }).result, GNTST_general_error);
    assert_int_equal(map(two, 7, 9, false).result, GNTST_general_error);
    liar_end(w, &l);
}

/* RAM that is no RAM, or may not be written to, leaves the window as it was. */
static void test_files(void **state)
{
    struct world *w = *state;
    struct guest *two = &w->guest[TWO];
    static const struct { unsigned flags; int seals; } file[] = {
        { MFD_HUGETLB, F_SEAL_SHRINK }, { 0, F_SEAL_GROW },
        { 0, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE }, { 0, F_SEAL_SHRINK },
    };

    for (unsigned i = 0; i < array_size(file); i++) {
        struct liar l = { .nr = 2 };
        int fd = memfd_create("ram", MFD_ALLOW_SEALING | file[i].flags);
        int16_t expected = i + 1 < array_size(file) ? GNTST_general_error : GNTST_okay;
        unsigned char in_memory[2];

        if (fd < 0)
            continue;       /* the kernel has no huge pages */
        assert_false(ftruncate(fd, 4 * MIB));
        assert_false(fcntl(fd, F_ADD_SEALS, file[i].seals));
        l.lie[0] = l.lie[1] = (struct lie){ GNTST_okay, 0, fd };
        liar_start(w, &l);
        assert_int_equal(map(two, 7, 8, true).result, expected);
        assert_int_equal(can(true, two->window[PV_WINDOW_WRITE]), expected == GNTST_okay);
        assert_false(mincore(two->window[PV_WINDOW_WRITE], 2 * PAGE_SIZE, in_memory));
        unmap(two, PEER_GPA >> PAGE_SHIFT);
        assert_false(can(false, two->window[PV_WINDOW_WRITE]));
        liar_end(w, &l);
        close(fd);
    }
}

/* ---- others that are no guests ---- */

static void ends(int fd)
{
    char c[256];

    assert_int_equal(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, WAIT_MS), 1);
    assert_true(recv(fd, c, sizeof(c), 0) <= 0);
    close(fd);
}

static int32_t ask(int fd, struct peer_msg m)
{
    assert_int_equal(send(fd, &m, sizeof(m), 0), sizeof(m));
    assert_int_equal(recv(fd, &m, sizeof(m), 0), sizeof(m));
    return m.result;
}

static void test_strangers(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE];
    const struct peer_msg hello = { .op = PEER_HELLO, .port = PEER_WIRE_VERSION, .domid = TWO };
    struct peer_msg m = hello;
    int fd;

    m.op = PEER_HOLD;
    ends(stranger(w, &m));
    m = hello;
    m.port++;
    ends(stranger(w, &m));
    m = hello;
    m.domid = ONE;
    ends(stranger(w, &m));
    m.domid = 0;
    ends(stranger(w, &m));
    m = hello;
    fd = stranger(w, &m);
    m.op = 77;
    assert_int_equal(send(fd, &m, sizeof(m), 0), sizeof(m));
    ends(fd);
    fd = stranger(w, &hello);
    assert_int_equal(send(fd, &m, sizeof(m) - 1, 0), sizeof(m) - 1);
    ends(fd);

    give(one, 8, GTF_permit_access, TWO, 3);
    wait_for(one, TWO, 3);
    fd = stranger(w, &hello);
    assert_int_equal(ask(fd, (struct peer_msg){ .op = PEER_BIND, .port = 3, .peer_port = 4 }),
                     -EINVAL);              /* without an eventfd */
    assert_int_equal(ask(fd, (struct peer_msg){ .op = PEER_DROP, .hold = 5 }), 0);
    assert_int_equal(ask(fd, (struct peer_msg){ .op = PEER_CLOSE, .port = 3, .peer_port = 4 }), 0);
    for (unsigned i = 0; i < 200; i++)
        assert_int_equal(ask(fd, (struct peer_msg){ .op = PEER_HOLD, .ref = 8, .write = 1 }), 0);
    assert_int_equal(use(one, 8), GTF_IN_USE);
    close(fd);
    eventually(!use(one, 8));
    for (unsigned i = 0; i < NR_LINKS; i++)
        assert_null(one->end[i]);
}

/* Connections to guest ONE, by another process, that say they are guest domid's: how many of
 * nr are answered. */
static unsigned answered(struct world *w, unsigned domid, unsigned nr)
{
    const struct peer_msg hello = { .op = PEER_HELLO, .port = PEER_WIRE_VERSION, .domid = domid };
    int at = domid != TWO ? listen_as(w, domid, 0) : -1, status;
    struct peer_msg m;
    pid_t pid = fork();

    if (!pid) {
        unsigned ok = 0;

        if (at >= 0)
            listen(at, 64);     /* it is this process that listens from now on */
        for (unsigned i = 0; i < nr; i++) {
            int fd = connect_to(&w->guest[TWO], ONE);

            m = (struct peer_msg){ .op = PEER_DROP };
            ok += send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello) &&
                  send(fd, &m, sizeof(m), MSG_NOSIGNAL) == sizeof(m) &&
                  recv(fd, &m, sizeof(m), 0) == sizeof(m);
        }
        _exit((int)ok);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (at >= 0)
        close(at);
    assert_true(WIFEXITED(status));
    return (unsigned)WEXITSTATUS(status);
}

/* A process speaks for the guest that it listens for, over a share of all connections. */
static void test_processes(void **state)
{
    struct sockaddr_un un;

    assert_int_equal(answered(*state, TWO, 1), 0);
    assert_int_equal(answered(*state, 7, 1), 1);
    assert_int_equal(answered(*state, 7, 20), 8);
    address(*state, 7, &un);
    unlink(un.sun_path);
}

/* What comes along without being asked for does not stay. */
static void test_descriptors(void **state)
{
    const struct peer_msg hello = { .op = PEER_HELLO, .port = PEER_WIRE_VERSION, .domid = 7 };
    struct peer_msg m = { .op = PEER_BIND, .port = 3, .peer_port = 4 };
    int at = listen_as(*state, 7, 0), fds[4] = { 0, 1, 2, 0 }, fd = stranger(*state, &hello);
    struct sockaddr_un un;
    int before, after;

    ask(fd, m);
    before = dup(0);
    for (unsigned nr = 1; nr <= 4; nr++) {
        assert_true(send_with(fd, &m, fds, nr));
        assert_int_equal(recv(fd, &m, sizeof(m), 0), sizeof(m));
        assert_int_equal(m.result, -EINVAL);
    }
    after = dup(0);
    assert_int_equal(after, before + 1);
    close(before);
    close(after);
    close(fd);
    close(at);
    address(*state, 7, &un);
    unlink(un.sun_path);
}

static uint64_t cpu_ms(void)
{
    struct rusage r;

    assert_false(getrusage(RUSAGE_SELF, &r));
    return (uint64_t)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000 +
           (uint64_t)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1000;
}

/* Without a descriptor for who comes, nor one to turn it away, the thread rests. */
static void test_no_descriptors(void **state)
{
    const struct peer_msg hello = { .op = PEER_HELLO, .port = PEER_WIRE_VERSION, .domid = TWO };
    struct world *w = *state;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct rlimit files, none;
    struct sockaddr_un un;
    uint64_t before;

    assert_false(getrlimit(RLIMIT_NOFILE, &files));
    none = (struct rlimit){ 0, files.rlim_max };
    assert_false(setrlimit(RLIMIT_NOFILE, &none));
    address(w, ONE, &un);
    assert_false(connect(fd, (struct sockaddr *)&un, sizeof(un)));
    before = cpu_ms();
    usleep(500000);
    assert_in_range(cpu_ms() - before, 0, 250);
    assert_false(setrlimit(RLIMIT_NOFILE, &files));
    assert_int_equal(send(fd, &hello, sizeof(hello), 0), sizeof(hello));
    assert_int_equal(ask(fd, (struct peer_msg){ .op = PEER_DROP }), 0);
    close(fd);
}

static int32_t bind_with(int fd, int event_fd, int *got)
{
    union { struct cmsghdr h; char room[CMSG_SPACE(sizeof(int))]; } control;
    struct peer_msg m = { .op = PEER_BIND, .port = 3, .peer_port = 4 };
    struct iovec iov = { &m, sizeof(m) };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                          .msg_controllen = sizeof(control) };

    assert_true(send_with(fd, &m, &event_fd, 1));
    assert_int_equal(recvmsg(fd, &msg, 0), sizeof(m));
    if (!m.result)
        memcpy(got, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(*got));
    return m.result;
}

/* Nothing that is sent along makes the thread wait. */
static void test_waiting(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE];
    const struct peer_msg hello = { .op = PEER_HELLO, .port = PEER_WIRE_VERSION, .domid = TWO };
    const struct peer_msg left = { .op = PEER_CLOSE, .port = 3, .peer_port = 4 };
    int event_fd = eventfd(0, EFD_NONBLOCK), fd = stranger(w, &hello), pipe_fd[2], got[2];
    const uint64_t n = 1;

    wait_for(one, TWO, 3);
    assert_false(pipe2(pipe_fd, O_NONBLOCK));
    assert_int_equal(bind_with(fd, pipe_fd[0], &got[0]), -EINVAL);
    assert_int_equal(bind_with(fd, event_fd, &got[0]), 0);
    assert_int_equal(write(event_fd, &n, sizeof(n)), sizeof(n));
    eventually(event_taken(one, 0));
    assert_false(fcntl(event_fd, F_SETFL, 0));
    assert_false(fcntl(got[0], F_SETFL, 0));
    assert_int_equal(ask(fd, left), 0);
    assert_false(event_taken(one, 0));
    assert_int_equal(bind_with(fd, event_fd, &got[1]), 0);
    assert_int_equal(write(event_fd, &n, sizeof(n)), sizeof(n));
    eventually(event_taken(one, 0));
    assert_int_equal(write(event_fd, &n, sizeof(n)), sizeof(n));
    eventually(event_taken(one, 0));
    for (unsigned i = 0; i < 2; i++) {
        close(pipe_fd[i]);
        close(got[i]);
    }
    close(event_fd);
    close(fd);
}

/* ---- both at once ---- */

struct busy {
    struct guest *g;
    unsigned other;
    uint32_t port;
    unsigned nr;
};

static void *busy(void *arg)
{
    struct busy *b = arg;

    for (unsigned i = 0; i < 2000; i++) {
        struct shim_peer_call a = map(b->g, b->other, 8 + i % 4, true), c;

        c = bind_to(b->g, b->port, b->other, 40);
        b->nr += a.result == GNTST_okay;
        if (!c.result)
            close_port(b->g, b->port);
        if (a.result == GNTST_okay)
            unmap(b->g, a.mfn);
    }
    return NULL;
}

static void test_both_at_once(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];
    struct busy b[4] = { { one, TWO, 50, 0 }, { two, ONE, 50, 0 }, { one, TWO, 51, 0 },
                         { two, ONE, 51, 0 } };
    pthread_t thread[4];

    for (uint32_t ref = 8; ref < 12; ref++) {
        give(one, ref, GTF_permit_access, TWO, ref);
        give(two, ref, GTF_permit_access, ONE, ref);
    }
    wait_for(one, TWO, 40);
    wait_for(two, ONE, 40);
    for (unsigned i = 0; i < 4; i++)
        assert_false(pthread_create(&thread[i], NULL, busy, &b[i]));
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(b[i].nr, 2000);
    }
    for (uint32_t ref = 8; ref < 12; ref++) {
        assert_int_equal(use(one, ref), 0);
        assert_int_equal(use(two, ref), 0);
    }
}

/* ---- shims and processes that say anything ---- */

#define NOISE_STEPS 20000

struct noise {
    uint32_t state;
    struct guest *g;
};

static uint32_t some(struct noise *n)
{
    n->state ^= n->state << 13;
    n->state ^= n->state >> 17;
    n->state ^= n->state << 5;
    return n->state;
}

/* Below `usual` nearly always. */
static uint32_t about(struct noise *n, uint32_t usual)
{
    return some(n) % 32 ? some(n) % usual : some(n);
}

static struct gnttab_peer_end some_end(struct noise *n)
{
    return (struct gnttab_peer_end){
        .hold = some(n) % 3 ? about(n, 8) : GNTTAB_NO_HOLD, .offset = about(n, PAGE_SIZE),
        .mfn = RAM_MFN + about(n, RAM_PAGES + 1),
    };
}

static void *shim_noise(void *arg)
{
    struct noise *n = arg;

    for (unsigned i = 0; i < NOISE_STEPS; i++)
        call(n->g, (struct shim_peer_call){
            .op = about(n, SHIM_PEER_COPY + 2), .domid = about(n, NR_DOMIDS),
            .port = about(n, 20), .peer_port = about(n, 20), .id = about(n, 4),
            .ref = about(n, 16), .write = some(n) & 1, .hold = about(n, 8),
            .bytes = about(n, PAGE_SIZE), .from = some_end(n), .to = some_end(n),
            .mfn = (PEER_GPA >> PAGE_SHIFT) + (some(n) & 1) * PEER_PAGES + about(n, 16),
        });
    return NULL;
}

/* It says that it is guest TWO. */
static void *process_noise(void *arg)
{
    const struct peer_msg hello = { .op = PEER_HELLO, .port = PEER_WIRE_VERSION, .domid = TWO };
    struct noise *n = arg;
    int fd = -1;

    for (unsigned i = 0; i < NOISE_STEPS; i++) {
        struct peer_msg m = {
            .op = PEER_HELLO + about(n, PEER_DROP + 1), .domid = about(n, NR_DOMIDS),
            .port = about(n, 20), .peer_port = about(n, 20), .ref = about(n, 16),
            .write = some(n) & 1, .copy = some(n) & 1, .want_ram = some(n) & 1,
            .hold = about(n, 80),
        };

        if (fd < 0)
            fd = stranger(n->g->world, &hello);
        if (send(fd, &m, sizeof(m), MSG_NOSIGNAL) != sizeof(m) ||
            recv(fd, &m, sizeof(m), 0) != sizeof(m)) {
            close(fd);
            fd = -1;
        }
    }
    close(fd);
    return NULL;
}

static void test_noise(void **state)
{
    struct world *w = *state;
    struct guest *one = &w->guest[ONE], *two = &w->guest[TWO];
    struct noise n[5] = { { 1, one }, { 2, one }, { 3, two }, { 4, two }, { 5, one } };
    pthread_t thread[5];

    for (uint32_t ref = 0; ref < 16; ref++) {
        give(one, ref, GTF_permit_access | (ref & 1 ? GTF_readonly : 0), TWO, ref);
        give(two, ref, GTF_permit_access | (ref & 1 ? GTF_readonly : 0), ONE, ref);
    }
    for (unsigned i = 0; i < 5; i++)
        assert_false(pthread_create(&thread[i], NULL, i < 4 ? shim_noise : process_noise, &n[i]));
    for (unsigned i = 0; i < 5; i++)
        pthread_join(thread[i], NULL);
    guest_end(w, TWO);
    for (uint32_t ref = 0; ref < 16; ref++)
        eventually(!use(one, ref));
    guest_end(w, ONE);      /* which looks for links that are left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_user_dies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_granter_dies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_strangers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_processes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_waiting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_both_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_noise, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
