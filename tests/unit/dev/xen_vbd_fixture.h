/* SPDX-License-Identifier: MIT */
/* A device as a guest meets it: through a real xenstore server. */
#ifndef TESTS_UNIT_DEV_XEN_VBD_FIXTURE_H
#define TESTS_UNIT_DEV_XEN_VBD_FIXTURE_H

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "dev/xen_vbd.h"
#include "vbd_front.h"
#include "xen/xs_server.h"

#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>

#define DOMID      7u
#define VDEV       51712u
#define FRONT      "/local/domain/7/device/vbd/51712"
#define BACK       "/local/domain/0/backend/vbd/7/51712"
#define DISK_BYTES (4 * MIB)
#define DATA_PAGE  2048u
#define PORT_BASE  10u          /* queue n's event channel is PORT_BASE + n */
#define NR_FRONTS  4u

struct fixture {
    char dir[64], socket[96], disk[96];
    struct loop *server_loop, *loop;
    struct xs_server *server;
    pthread_t server_thread;
    struct xs_client *xs, *guest_xs;
    struct guest guest;
    struct front front[NR_FRONTS];
    unsigned nr_bound, nr_closed;
    struct xen_vbd *vbd;
};

static inline void *server_main(void *loop)
{
    loop_run(loop);
    return NULL;
}

static inline int port_bind(void *owner, uint32_t port, struct xen_hostport *p, struct err *e)
{
    struct fixture *f = owner;

    if (port < PORT_BASE || port >= PORT_BASE + NR_FRONTS)
        return err_set(e, EINVAL, "port %u is not for domain 0", port);
    *p = f->front[port - PORT_BASE].port;
    p->kick_fd = dup(p->kick_fd);
    f->nr_bound++;
    return 0;
}

static inline void port_unbind(void *owner, struct xen_hostport *p)
{
    struct fixture *f = owner;

    close(p->kick_fd);
    f->nr_bound--;
}

static const struct xen_hostport_ops port_ops = { .bind = port_bind, .unbind = port_unbind };

/* As a toolstack does: what the guest has let go of, goes. */
static inline void vbd_closed(void *arg, struct xen_vbd *v)
{
    struct fixture *f = arg;

    f->nr_closed++;
    xen_vbd_destroy(v);
    f->vbd = NULL;
}

static inline struct xen_vbd_params vbd_params(struct fixture *f)
{
    return (struct xen_vbd_params){
        .loop = f->loop, .xs = f->xs, .grants = &f->guest.grants,
        .port_ops = &port_ops, .port_owner = f, .domid = DOMID,
        .vdev_number = VDEV, .vdev = "xvda",
        .disk = { .driver = "file", .path = f->disk },
        .bootable = true, .persistent = true, .max_queues = 4, .poll_max_ns = 20000,
        .closed = vbd_closed, .arg = f,
    };
}

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct err e = { 0 };
    int fd;

    snprintf(f->dir, sizeof(f->dir), "/tmp/xenolith-vbd-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->socket, sizeof(f->socket), "%s/socket", f->dir);
    snprintf(f->disk, sizeof(f->disk), "%s/disk", f->dir);
    fd = open(f->disk, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
    close(fd);

    f->server_loop = loop_create();
    assert_int_equal(xs_server_create(f->server_loop, NULL, &f->server), 0);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    memcpy(sa.sun_path, f->socket, strlen(f->socket));
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(xs_server_listen(f->server, fd), 0);
    assert_int_equal(pthread_create(&f->server_thread, NULL, server_main, f->server_loop), 0);

    f->loop = loop_create();
    if (xs_client_connect(f->loop, f->socket, &f->xs, &e) ||
        xs_client_connect(f->loop, f->socket, &f->guest_xs, &e))
        fail_msg("%s", e.text);
    guest_init(&f->guest);
    for (uint32_t i = 0; i < GUEST_PAGES; i++)
        guest_grant(&f->guest, i, false);
    *state = f;
    return 0;
}

static inline int setup_vbd(void **state)
{
    struct fixture *f;
    struct xen_vbd_params p;
    struct err e = { 0 };

    setup(state);
    f = *state;
    p = vbd_params(f);
    if (xen_vbd_create(&p, &f->vbd, &e))
        fail_msg("%s", e.text);
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;

    xen_vbd_destroy(f->vbd);
    /* whatever happened, nothing of the guest's is held */
    assert_int_equal(f->nr_bound, 0);
    assert_int_equal(guest_grants_in_use(&f->guest), 0);
    xs_client_free(f->xs);
    xs_client_free(f->guest_xs);
    loop_stop(f->server_loop);
    pthread_join(f->server_thread, NULL);
    xs_server_free(f->server);
    loop_free(f->server_loop);
    loop_free(f->loop);
    guest_free(&f->guest);
    unlink(f->socket);
    unlink(f->disk);
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

/* ---- what a guest does ---- */

static inline void put(struct fixture *f, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static inline void put(struct fixture *f, const char *key, const char *fmt, ...)
{
    char path[256], value[256];
    va_list ap;

    snprintf(path, sizeof(path), "%s/%s", FRONT, key);
    va_start(ap, fmt);
    vsnprintf(value, sizeof(value), fmt, ap);
    va_end(ap);
    assert_int_equal(xs_client_write(f->guest_xs, XS_NO_TRANSACTION, path, value), 0);
}

static inline char *get(struct fixture *f, const char *dir, const char *key)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, key);
    return xs_client_read(f->guest_xs, XS_NO_TRANSACTION, path);
}

static inline void expect(struct fixture *f, const char *dir, const char *key, const char *value)
{
    char *v = get(f, dir, key);

    if (!v || strcmp(v, value))
        fail_msg("%s/%s is '%s', not '%s'", dir, key, v ? v : "(none)", value);
    free(v);
}

/* Lets the device work until its state is this; it must be within a few events. */
static inline void expect_state(struct fixture *f, enum xenbus_state state)
{
    char *v = NULL;

    for (unsigned i = 0; i < 20; i++) {
        v = get(f, BACK, "state");
        if (v && atoi(v) == (int)state)
            break;
        free(v);
        v = NULL;
        loop_run_once(f->loop, 500);
    }
    if (!v)
        fail_msg("the backend never went to state %d", state);
    free(v);
}

static inline void expect_no_change(struct fixture *f, enum xenbus_state state)
{
    loop_run_once(f->loop, 50);
    loop_run_once(f->loop, 50);
    expect_state(f, state);
}

static inline void set_state(struct fixture *f, enum xenbus_state state)
{
    put(f, "state", "%d", state);
}

/* Writes a whole frontend's nodes: nr_queues rings of 1 << order pages. */
static inline void describe(struct fixture *f, unsigned nr_queues, unsigned order, bool persistent)
{
    if (nr_queues > 1)
        put(f, "multi-queue-num-queues", "%u", nr_queues);
    if (order)
        put(f, "ring-page-order", "%u", order);
    put(f, "protocol", "x86_64-abi");
    put(f, "feature-persistent", "%d", persistent);
    for (unsigned q = 0; q < nr_queues; q++) {
        char dir[32] = "", key[64];

        front_init(&f->front[q], &f->guest, 4 + q * 64, 1u << order, 0);
        if (nr_queues > 1)
            snprintf(dir, sizeof(dir), "queue-%u/", q);
        for (unsigned p = 0; p < 1u << order; p++) {
            if (order)
                snprintf(key, sizeof(key), "%sring-ref%u", dir, p);
            else
                snprintf(key, sizeof(key), "%sring-ref", dir);
            put(f, key, "%u", 4 + q * 64 + 2 * p);
        }
        snprintf(key, sizeof(key), "%sevent-channel", dir);
        put(f, key, "%u", PORT_BASE + q);
    }
}

static inline void undescribe(struct fixture *f, unsigned nr_queues)
{
    static const char *const keys[] = {
        "multi-queue-num-queues", "ring-page-order", "ring-ref", "event-channel", "queue-0",
        "queue-1", "queue-2", "queue-3",
    };

    for (unsigned i = 0; i < array_size(keys); i++) {
        char path[256];

        snprintf(path, sizeof(path), "%s/%s", FRONT, keys[i]);
        xs_client_rm(f->guest_xs, XS_NO_TRANSACTION, path);
    }
    for (unsigned q = 0; q < nr_queues; q++)
        front_free(&f->front[q]);
}

/* One page written and read back through a queue. */
static inline void use_queue(struct fixture *f, unsigned q)
{
    struct front *front = &f->front[q];
    uint8_t *page = guest_page(&f->guest, DATA_PAGE + q);

    memset(page, (int)(0x30 + q), PAGE_SIZE);
    for (unsigned i = 0; i < 2; i++) {
        struct blkif_request r = front_request(front, i ? BLKIF_OP_READ : BLKIF_OP_WRITE, i,
                                               q * 64, DATA_PAGE + q, 1);
        struct blkif_response rsp;

        if (i)
            memset(page, 0, PAGE_SIZE);
        front_put(front, &r);
        if (front_publish(front))
            front_kick(front);
        while (!front_get(front, &rsp))
            if (!front_arm(front))
                front_sleep(front);
        assert_int_equal(rsp.status, BLKIF_RSP_OKAY);
    }
    assert_int_equal(page[0], 0x30 + q);
    assert_int_equal(page[4095], 0x30 + q);
}

#endif
