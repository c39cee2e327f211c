/* SPDX-License-Identifier: MIT */
/* A vhost-user session against a client that keeps the protocol, and one that does not. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "vq_driver.h"
#include "virtio/inflight.h"
#include "virtio/vhost_user_session.h"
#include "virtio/vhost_user_wire.h"

#define FEATURES (1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_RING_PACKED | \
                  1ull << VIRTIO_RING_F_EVENT_IDX)
#define GUEST_BYTES (1 * MIB)
#define USER_BASE   0x10000000ull

struct world {
    struct vhost_user_session *s;
    int client;
    int guest;                  /* memfd */
    struct vhost_user_queue queue[4];
    bool running[4];
    unsigned nr_starts, nr_stops, nr_resets;
    uint32_t base;              /* what queue_stop() answers */
    unsigned nr_fds;            /* open before */
};

static unsigned fds_open(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned nr = 0;

    while (readdir(d))
        nr++;
    closedir(d);
    return nr;
}

static void config_read(void *device, uint8_t *bytes, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)i;
}

static int config_write(void *device, uint32_t offset, const uint8_t *bytes, uint32_t size)
{
    return offset == 32 && size == 1 ? 0 : -EPERM;
}

static void device_reset(void *device)
{
    ((struct world *)device)->nr_resets++;
}

static int queue_start(void *device, unsigned index, const struct vhost_user_queue *q,
                       struct err *e)
{
    struct world *w = device;

    assert_false(w->running[index]);
    w->running[index] = true;
    w->queue[index] = *q;
    w->nr_starts++;
    return 0;
}

static uint32_t queue_stop(void *device, unsigned index)
{
    struct world *w = device;

    assert_true(w->running[index]);
    w->running[index] = false;
    w->nr_stops++;
    return w->base;
}

static const struct vhost_user_device_ops ops = {
    config_read, config_write, device_reset, queue_start, queue_stop,
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    int pair[2];

    w->nr_fds = fds_open();
    w->s = vhost_user_session_create(&(struct vhost_user_params){
        .ops = &ops, .device = w, .name = "test", .features = FEATURES, .max_queues = 4 });
    assert_non_null(w->s);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    w->client = pair[0];
    vhost_user_session_begin(w->s, pair[1]);
    w->guest = memfd_create("guest", MFD_CLOEXEC);
    assert_int_equal(ftruncate(w->guest, GUEST_BYTES), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    vhost_user_session_end(w->s);
    for (unsigned i = 0; i < 4; i++)
        assert_false(w->running[i]);
    vhost_user_session_free(w->s);
    close(w->client);
    close(w->guest);
    /* whatever was sent, nothing is left */
    assert_int_equal(fds_open(), w->nr_fds);
    free(w);
    return 0;
}

/* ---- the client ---- */

static void put(struct world *w, struct vhost_user_msg *m, int fd)
{
    struct iovec iov = { m, VHOST_USER_HEADER_BYTES + m->size };
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (fd >= 0) {
        struct cmsghdr *c;

        mh.msg_control = control;
        mh.msg_controllen = sizeof(control);
        c = CMSG_FIRSTHDR(&mh);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    assert_int_equal(sendmsg(w->client, &mh, 0), iov.iov_len);
}

static int serve(struct world *w)
{
    struct err e = { 0 };
    int rc = vhost_user_session_serve(w->s, &e);

    assert_true(!rc || rc == -ECONNRESET || e.code);
    return rc;
}

static int send_u64(struct world *w, unsigned request, uint64_t u64, int fd)
{
    struct vhost_user_msg m = { .request = request, .flags = 1, .size = 8, .payload.u64 = u64 };

    put(w, &m, fd);
    return serve(w);
}

static int send_state(struct world *w, unsigned request, uint32_t index, uint32_t num)
{
    return send_u64(w, request, index | (uint64_t)num << 32, -1);
}

static struct vhost_user_msg reply(struct world *w)
{
    struct vhost_user_msg m;
    ssize_t n = recv(w->client, &m, sizeof(m), MSG_DONTWAIT);

    assert_true(n >= (ssize_t)VHOST_USER_HEADER_BYTES);
    assert_int_equal(m.flags, VHOST_USER_VERSION | VHOST_USER_REPLY);
    assert_int_equal(n, VHOST_USER_HEADER_BYTES + m.size);
    return m;
}

static struct vhost_user_msg ask(struct world *w, unsigned request, uint64_t u64)
{
    assert_int_equal(send_u64(w, request, u64, -1), 0);
    return reply(w);
}

static int table_send(struct world *w, uint64_t size)
{
    struct vhost_user_msg m = {
        .request = VHOST_USER_SET_MEM_TABLE, .flags = 1, .size = 8 + 32,
        .payload.table = { .nr_regions = 1, .region = { { RAM_BASE, size, USER_BASE, 0 } } },
    };

    put(w, &m, w->guest);
    return serve(w);
}

static int addr_send(struct world *w, unsigned index, uint64_t at, unsigned flags)
{
    struct vhost_user_msg m = {
        .request = VHOST_USER_SET_VRING_ADDR, .flags = 1, .size = 40,
        .payload.addr = { index, flags, at, at + 8192, at + 4096, RAM_BASE + 8192 },
    };

    put(w, &m, -1);
    return serve(w);
}

static int fd_send(struct world *w, unsigned request, unsigned index)
{
    int fd = eventfd(0, EFD_CLOEXEC), rc = send_u64(w, request, index, fd);

    close(fd);
    return rc;
}

static void agree(struct world *w, uint64_t features)
{
    uint64_t protocol;

    protocol = ask(w, VHOST_USER_GET_PROTOCOL_FEATURES, 0).payload.u64;
    assert_int_equal(send_u64(w, VHOST_USER_SET_PROTOCOL_FEATURES, protocol, -1), 0);
    assert_int_equal(send_u64(w, VHOST_USER_SET_FEATURES,
                              features | 1ull << VHOST_USER_F_PROTOCOL_FEATURES, -1), 0);
}

static void ring_begin(struct world *w, unsigned index)
{
    assert_int_equal(send_state(w, VHOST_USER_SET_VRING_NUM, index, 64), 0);
    assert_int_equal(send_state(w, VHOST_USER_SET_VRING_BASE, index, 7), 0);
    assert_int_equal(addr_send(w, index, USER_BASE + index * 16384, 0), 0);
    assert_int_equal(fd_send(w, VHOST_USER_SET_VRING_KICK, index), 0);
    assert_int_equal(fd_send(w, VHOST_USER_SET_VRING_CALL, index), 0);
    assert_false(w->running[index]);
    assert_int_equal(send_state(w, VHOST_USER_SET_VRING_ENABLE, index, 1), 0);
    assert_true(w->running[index]);
}

/* ---- keeping the protocol ---- */

static void a_ring_runs_when_it_has_all_it_needs(void **state)
{
    struct world *w = *state;
    const struct virtqueue_params *p = &w->queue[1].vq;

    assert_int_equal(ask(w, VHOST_USER_GET_FEATURES, 0).payload.u64,
                     FEATURES | 1ull << VHOST_F_LOG_ALL | 1ull << VHOST_USER_F_PROTOCOL_FEATURES);
    agree(w, 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX);
    assert_int_equal(ask(w, VHOST_USER_GET_QUEUE_NUM, 0).payload.u64, 4);
    assert_int_equal(table_send(w, GUEST_BYTES), 0);
    ring_begin(w, 1);
    assert_true(!p->packed && p->event_idx && !p->indirect && !p->log && !p->inflight);
    assert_int_equal(p->num, 64);
    assert_int_equal(p->base, 7);
    assert_int_equal((char *)p->driver - (char *)p->desc, 4096);
    assert_int_equal((char *)p->device - (char *)p->desc, 8192);

    /* its place when it stops, and then no more without a new descriptor */
    w->base = 99;
    assert_int_equal(ask(w, VHOST_USER_GET_VRING_BASE, 1).payload.state.num, 99);
    assert_false(w->running[1]);
    assert_int_equal(send_state(w, VHOST_USER_SET_VRING_ENABLE, 1, 1), 0);
    assert_false(w->running[1]);
    assert_int_equal(fd_send(w, VHOST_USER_SET_VRING_KICK, 1), 0);
    assert_true(w->running[1]);
    assert_int_equal(p->base, 99);
    assert_int_equal(send_state(w, VHOST_USER_SET_VRING_ENABLE, 1, 0), 0);
    assert_false(w->running[1]);
}

static void what_changes_under_a_ring_stops_it_first(void **state)
{
    struct world *w = *state;
    uint64_t f = 1ull << VIRTIO_F_VERSION_1;
    struct vhost_user_msg m = { .flags = 1, .size = 40 };

    agree(w, f);
    assert_int_equal(table_send(w, GUEST_BYTES), 0);
    ring_begin(w, 0);
    ring_begin(w, 3);
    assert_int_equal(w->nr_starts, 2);
    assert_int_equal(table_send(w, GUEST_BYTES), 0);
    assert_int_equal(w->nr_stops, 2);
    assert_int_equal(w->nr_starts, 4);

    /* a region more, at an odd place, and away again */
    m.request = VHOST_USER_ADD_MEM_REG;
    m.payload.slot.region = (struct vhost_user_region){ 0x1000, 4096, 0x1000, 4096 };
    put(w, &m, w->guest);
    assert_int_equal(serve(w), 0);
    m.request = VHOST_USER_REM_MEM_REG;
    put(w, &m, -1);
    assert_int_equal(serve(w), 0);
    assert_true(w->running[0] && w->running[3]);
    put(w, &m, -1);
    assert_int_not_equal(serve(w), 0);

    /* without its memory a ring waits for it */
    assert_int_equal(table_send(w, 16384), 0);
    assert_true(w->running[0] && !w->running[3]);
    assert_int_equal(table_send(w, GUEST_BYTES), 0);
    assert_true(w->running[3]);

    /* migration begins */
    m = (struct vhost_user_msg){ .request = VHOST_USER_SET_LOG_BASE, .flags = 1, .size = 16,
                                 .payload.log = { 4096, 4096 } };
    put(w, &m, w->guest);
    assert_int_equal(serve(w), 0);
    assert_int_equal(reply(w).request, VHOST_USER_SET_LOG_BASE);
    agree(w, f | 1ull << VHOST_F_LOG_ALL);
    assert_int_equal(addr_send(w, 0, USER_BASE, 1u << VHOST_VRING_F_LOG), 0);
    assert_non_null(w->queue[0].vq.log);
    assert_non_null(w->queue[0].vq.log->bits);
    assert_true(w->queue[0].vq.log_device && !w->queue[3].vq.log_device);

    assert_int_equal(send_u64(w, VHOST_USER_RESET_DEVICE, 0, -1), 0);
    assert_true(!w->running[0] && !w->running[3]);
    assert_int_equal(w->nr_resets, 1);
}

static void the_record_of_requests_in_flight_goes_round(void **state)
{
    struct world *w = *state;
    struct vhost_user_msg m = {
        .request = VHOST_USER_GET_INFLIGHT_FD, .flags = 1, .size = 20,
        .payload.inflight = { .nr_queues = 4, .queue_size = 64 },
    };
    struct vhost_user_wire wire;
    struct err e = { 0 };
    int fd;

    agree(w, 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_RING_PACKED);
    put(w, &m, -1);
    assert_int_equal(serve(w), 0);
    vhost_user_wire_init(&wire, w->client);
    assert_int_equal(vhost_user_wire_recv(&wire, &e), 1);
    m = wire.msg;
    fd = vhost_user_wire_fd_take(&wire, 0);
    assert_true(fd >= 0);
    assert_int_equal(m.payload.inflight.size_bytes, 4 * virtqueue_inflight_bytes(true, 64));

    m.request = VHOST_USER_SET_INFLIGHT_FD;
    m.flags = 1;
    put(w, &m, fd);
    assert_int_equal(serve(w), 0);
    assert_int_equal(table_send(w, GUEST_BYTES), 0);
    ring_begin(w, 2);
    assert_non_null(w->queue[2].vq.inflight);

    /* one that is too short, one for more than there can be */
    m.payload.inflight.queue_size = 128;
    put(w, &m, fd);
    assert_int_not_equal(serve(w), 0);
    m.payload.inflight.queue_size = 64;
    m.payload.inflight.nr_queues = 5;
    put(w, &m, fd);
    assert_int_not_equal(serve(w), 0);
    close(fd);
}

static void configuration_is_as_long_as_it_is_asked_for(void **state)
{
    struct world *w = *state;
    struct vhost_user_msg m = { .request = VHOST_USER_GET_CONFIG, .flags = 1, .size = 12 }, r;

    agree(w, 0);
    m.payload.config.offset = 3;
    m.payload.config.size = 253;
    put(w, &m, -1);
    assert_int_equal(serve(w), 0);
    r = reply(w);
    assert_int_equal(r.size, 12 + 253);
    assert_int_equal(r.payload.config.bytes[252], 255);
    m.payload.config.size = 254;
    put(w, &m, -1);
    assert_int_equal(serve(w), 0);
    assert_int_equal(reply(w).size, 0);

    m = (struct vhost_user_msg){ .request = VHOST_USER_SET_CONFIG, .flags = 1, .size = 13 };
    m.payload.config.offset = 32;
    m.payload.config.size = 1;
    put(w, &m, -1);
    assert_int_equal(serve(w), 0);
    m.payload.config.offset = 0;
    put(w, &m, -1);
    assert_int_not_equal(serve(w), 0);
}

static void a_client_that_gives_a_socket_is_told_of_changes(void **state)
{
    struct world *w = *state;
    struct vhost_user_msg m = { .request = VHOST_USER_SET_BACKEND_REQ_FD, .flags = 1 };
    int pair[2], other[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    put(w, &m, pair[1]);        /* not agreed yet */
    assert_int_not_equal(serve(w), 0);
    agree(w, 0);
    assert_int_equal(vhost_user_session_config_changed(w->s), 0);
    put(w, &m, -1);
    assert_int_not_equal(serve(w), 0);
    put(w, &m, w->guest);
    assert_int_not_equal(serve(w), 0);
    put(w, &m, pair[1]);
    assert_int_equal(serve(w), 0);
    close(pair[1]);
    assert_int_equal(recv(pair[0], &m, sizeof(m), MSG_DONTWAIT), -1);
    assert_int_equal(vhost_user_session_config_changed(w->s), 0);
    assert_int_equal(recv(pair[0], &m, sizeof(m), MSG_DONTWAIT), VHOST_USER_HEADER_BYTES);
    assert_int_equal(m.request, VHOST_USER_BACKEND_CONFIG_CHANGE_MSG);
    assert_int_equal(m.flags, VHOST_USER_VERSION);
    assert_int_equal(m.size, 0);
    /* who does not read does not make us wait */
    for (unsigned i = 0; i < 100000; i++)
        assert_int_equal(vhost_user_session_config_changed(w->s), 0);
    /* nor does one that has gone, or come again */
    close(pair[0]);
    assert_int_equal(vhost_user_session_config_changed(w->s), -EPIPE);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, other), 0);
    m = (struct vhost_user_msg){ .request = VHOST_USER_SET_BACKEND_REQ_FD, .flags = 1 };
    put(w, &m, other[1]);
    assert_int_equal(serve(w), 0);
    close(other[1]);
    assert_int_equal(vhost_user_session_config_changed(w->s), 0);
    assert_int_equal(recv(other[0], &m, sizeof(m), MSG_DONTWAIT), VHOST_USER_HEADER_BYTES);
    close(other[0]);
}

static void what_is_refused_is_acknowledged_if_that_was_agreed(void **state)
{
    struct world *w = *state;
    struct vhost_user_msg m = { .request = VHOST_USER_SET_VRING_NUM, .flags = 9, .size = 8 };

    put(w, &m, -1);         /* not agreed yet: the session ends */
    assert_int_not_equal(serve(w), 0);
    agree(w, 0);
    put(w, &m, -1);
    assert_int_equal(serve(w), 0);
    assert_int_equal(reply(w).payload.u64, 1);
    m.payload.state.num = 8;
    put(w, &m, -1);
    assert_int_equal(serve(w), 0);
    assert_int_equal(reply(w).payload.u64, 0);
}

static void a_message_may_come_in_pieces(void **state)
{
    struct world *w = *state;
    struct vhost_user_msg m = { .request = VHOST_USER_SET_FEATURES, .flags = 1, .size = 8,
                                .payload.u64 = FEATURES };

    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(serve(w), 0);
        assert_int_equal(send(w->client, (char *)&m + i, 1, 0), 1);
    }
    assert_int_equal(serve(w), 0);
    assert_int_equal(ask(w, VHOST_USER_GET_FEATURES, 0).size, 8);
}

/* ---- not keeping it ---- */

static void descriptors_that_could_make_us_wait_are_refused(void **state)
{
    struct world *w = *state;
    int pipes[2];

    assert_int_equal(pipe(pipes), 0);
    assert_int_not_equal(send_u64(w, VHOST_USER_SET_VRING_KICK, 0, pipes[0]), 0);
    assert_int_not_equal(send_u64(w, VHOST_USER_SET_VRING_CALL, 0, pipes[1]), 0);
    assert_int_not_equal(send_u64(w, VHOST_USER_SET_VRING_ERR, 0, w->guest), 0);
    assert_int_not_equal(send_u64(w, VHOST_USER_SET_VRING_KICK, 0, -1), 0);
    assert_int_not_equal(send_u64(w, VHOST_USER_SET_VRING_KICK, VHOST_USER_VRING_NOFD, -1), 0);
    assert_int_equal(send_u64(w, VHOST_USER_SET_VRING_CALL, VHOST_USER_VRING_NOFD, -1), 0);
    close(pipes[0]);
    close(pipes[1]);
}

static void rings_outside_memory_do_not_run(void **state)
{
    struct world *w = *state;
    static const uint64_t bad[] = {
        0, USER_BASE - 1024, USER_BASE + GUEST_BYTES - 8192, UINT64_MAX - 1024, USER_BASE + 8,
    };

    agree(w, 1ull << VIRTIO_F_VERSION_1);
    assert_int_equal(table_send(w, GUEST_BYTES), 0);
    assert_int_equal(send_state(w, VHOST_USER_SET_VRING_NUM, 0, 64), 0);
    assert_int_equal(fd_send(w, VHOST_USER_SET_VRING_KICK, 0), 0);
    assert_int_equal(send_state(w, VHOST_USER_SET_VRING_ENABLE, 0, 1), 0);
    for (unsigned i = 0; i < array_size(bad); i++)
        assert_int_not_equal(addr_send(w, 0, bad[i], 0), 0);
    assert_int_equal(addr_send(w, 0, USER_BASE, 0), 0);
    assert_int_not_equal(send_state(w, VHOST_USER_SET_VRING_NUM, 0, 32), 0);
    assert_int_not_equal(send_state(w, VHOST_USER_SET_VRING_BASE, 0, 1), 0);
    assert_int_equal(w->nr_starts, 1);
}

static void memory_that_makes_no_sense_is_refused(void **state)
{
    struct world *w = *state;
    static const struct vhost_user_region bad[] = {
        { RAM_BASE, 0, USER_BASE, 0 },
        { RAM_BASE, 2 * GUEST_BYTES, USER_BASE, 0 },
        { RAM_BASE, GUEST_BYTES, USER_BASE, 4096 },
        { UINT64_MAX - 4096, GUEST_BYTES, USER_BASE, 0 },
        { RAM_BASE, GUEST_BYTES, UINT64_MAX - 4096, 0 },
        { RAM_BASE, GUEST_BYTES, USER_BASE, UINT64_MAX - 4095 },
        { RAM_BASE, 4096, USER_BASE + 4096, 0 },        /* meets the one that is there */
        { RAM_BASE - 4096, 8192, 0, 0 },
        { 0, 4096, USER_BASE, 0 },
    };
    struct vhost_user_msg m = { .request = VHOST_USER_ADD_MEM_REG, .flags = 1, .size = 40 };

    agree(w, 0);
    for (unsigned i = 0; i < array_size(bad); i++) {
        if (i == 6) {
            m.payload.slot.region = (struct vhost_user_region){ RAM_BASE, 4096, USER_BASE, 0 };
            put(w, &m, w->guest);
            assert_int_equal(serve(w), 0);
        }
        m.payload.slot.region = bad[i];
        put(w, &m, w->guest);
        assert_int_not_equal(serve(w), 0);
    }
    put(w, &m, -1);
    assert_int_not_equal(serve(w), 0);
}

static void noise_is_survived(void **state)
{
    struct world *w = *state;
    unsigned seed = 1;

    for (unsigned i = 0; i < 20000; i++) {
        struct vhost_user_msg m = { .flags = 1 };
        uint8_t *bytes = (uint8_t *)&m.payload;

        m.request = (seed = seed * 1103515245 + 12345) / 65536 % 40;
        m.size = (seed = seed * 1103515245 + 12345) / 65536 % 48;
        if (seed / 65536 % 3)
            m.flags |= VHOST_USER_NEED_REPLY;
        for (unsigned k = 0; k < m.size; k++) {
            seed = seed * 1103515245 + 12345;
            bytes[k] = seed / 65536 % 4 ? 0 : (uint8_t)(seed / 65536 >> 3);
        }
        put(w, &m, seed / 65536 % 2 ? w->guest : -1);
        serve(w);
        while (recv(w->client, &m, sizeof(m), MSG_DONTWAIT) > 0)
            ;
    }
}

static void too_much_ends_the_session(void **state)
{
    struct world *w = *state;
    struct vhost_user_msg m = { .request = VHOST_USER_GET_FEATURES, .flags = 1,
                                .size = sizeof(m.payload) + 1 };

    assert_int_equal(send(w->client, &m, VHOST_USER_HEADER_BYTES, 0), VHOST_USER_HEADER_BYTES);
    assert_int_equal(serve(w), -EMSGSIZE);
    assert_int_equal(shutdown(w->client, SHUT_RDWR), 0);
}

/* A client that asks and never reads does not make us wait. */
static void replies_that_pile_up_end_the_session(void **state)
{
    struct world *w = *state;
    int rc = 0;

    for (unsigned i = 0; i < 100000 && !rc; i++)
        rc = send_u64(w, VHOST_USER_GET_FEATURES, 0, -1);
    assert_int_equal(rc, -EAGAIN);
}

#define session_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        session_test(a_ring_runs_when_it_has_all_it_needs),
        session_test(what_changes_under_a_ring_stops_it_first),
        session_test(the_record_of_requests_in_flight_goes_round),
        session_test(configuration_is_as_long_as_it_is_asked_for),
        session_test(a_client_that_gives_a_socket_is_told_of_changes),
        session_test(what_is_refused_is_acknowledged_if_that_was_agreed),
        session_test(a_message_may_come_in_pieces),
        session_test(descriptors_that_could_make_us_wait_are_refused),
        session_test(rings_outside_memory_do_not_run),
        session_test(memory_that_makes_no_sense_is_refused),
        session_test(noise_is_survived),
        session_test(too_much_ends_the_session),
        session_test(replies_that_pile_up_end_the_session),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
