/* SPDX-License-Identifier: MIT */
/* The device as a guest meets it: through a real xenstore server, from the
 * nodes it finds to its last state, with frontends that behave and that don't. */
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
    unsigned nr_bound;
    struct xen_vbd *vbd;
};

static void *server_main(void *loop)
{
    loop_run(loop);
    return NULL;
}

static int port_bind(void *owner, uint32_t port, struct xen_hostport *p, struct err *e)
{
    struct fixture *f = owner;

    if (port < PORT_BASE || port >= PORT_BASE + NR_FRONTS)
        return err_set(e, EINVAL, "port %u is not for domain 0", port);
    *p = f->front[port - PORT_BASE].port;
    p->kick_fd = dup(p->kick_fd);
    f->nr_bound++;
    return 0;
}

static void port_unbind(void *owner, struct xen_hostport *p)
{
    struct fixture *f = owner;

    close(p->kick_fd);
    f->nr_bound--;
}

static const struct xen_hostport_ops port_ops = { .bind = port_bind, .unbind = port_unbind };

static struct xen_vbd_params vbd_params(struct fixture *f)
{
    return (struct xen_vbd_params){
        .loop = f->loop, .xs = f->xs, .grants = &f->guest.grants,
        .port_ops = &port_ops, .port_owner = f, .domid = DOMID,
        .vdev_number = VDEV, .vdev = "xvda",
        .disk = { .driver = "file", .path = f->disk },
        .bootable = true, .persistent = true, .max_queues = 4, .poll_max_ns = 20000,
    };
}

static int setup(void **state)
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

static int setup_vbd(void **state)
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

static int teardown(void **state)
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

static void put(struct fixture *f, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void put(struct fixture *f, const char *key, const char *fmt, ...)
{
    char path[256], value[256];
    va_list ap;

    snprintf(path, sizeof(path), "%s/%s", FRONT, key);
    va_start(ap, fmt);
    vsnprintf(value, sizeof(value), fmt, ap);
    va_end(ap);
    assert_int_equal(xs_client_write(f->guest_xs, XS_NO_TRANSACTION, path, value), 0);
}

static char *get(struct fixture *f, const char *dir, const char *key)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, key);
    return xs_client_read(f->guest_xs, XS_NO_TRANSACTION, path);
}

static void expect(struct fixture *f, const char *dir, const char *key, const char *value)
{
    char *v = get(f, dir, key);

    if (!v || strcmp(v, value))
        fail_msg("%s/%s is '%s', not '%s'", dir, key, v ? v : "(none)", value);
    free(v);
}

/* Lets the device work until its state is this; it must be within a few events. */
static void expect_state(struct fixture *f, enum xenbus_state state)
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

static void expect_no_change(struct fixture *f, enum xenbus_state state)
{
    loop_run_once(f->loop, 50);
    loop_run_once(f->loop, 50);
    expect_state(f, state);
}

static void set_state(struct fixture *f, enum xenbus_state state)
{
    put(f, "state", "%d", state);
}

/* Writes a whole frontend's nodes: nr_queues rings of 1 << order pages. */
static void describe(struct fixture *f, unsigned nr_queues, unsigned order, bool persistent)
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

static void undescribe(struct fixture *f, unsigned nr_queues)
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
static void use_queue(struct fixture *f, unsigned q)
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

/* ---- tests ---- */

static void guest_finds_what_libxl_would_have_written(void **state)
{
    static const struct { const char *dir, *key, *value; } nodes[] = {
        { FRONT, "backend", BACK }, { FRONT, "backend-id", "0" }, { FRONT, "state", "1" },
        { FRONT, "virtual-device", "51712" }, { FRONT, "device-type", "disk" },
        { BACK, "frontend", FRONT }, { BACK, "frontend-id", "7" }, { BACK, "online", "1" },
        { BACK, "state", "2" }, { BACK, "dev", "xvda" }, { BACK, "mode", "w" },
        { BACK, "type", "file" }, { BACK, "device-type", "disk" }, { BACK, "removable", "0" },
        { BACK, "bootable", "1" }, { BACK, "info", "0" }, { BACK, "sectors", "8192" },
        { BACK, "sector-size", "512" }, { BACK, "physical-sector-size", "4096" },
        { BACK, "feature-flush-cache", "1" }, { BACK, "feature-barrier", "1" },
        { BACK, "feature-discard", "1" }, { BACK, "discard-granularity", "4096" },
        { BACK, "discard-alignment", "0" }, { BACK, "discard-secure", "0" },
        { BACK, "feature-persistent", "1" }, { BACK, "feature-max-indirect-segments", "256" },
        { BACK, "max-ring-page-order", "4" }, { BACK, "multi-queue-max-queues", "4" },
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < array_size(nodes); i++)
        expect(f, nodes[i].dir, nodes[i].key, nodes[i].value);
    expect(f, BACK, "params", f->disk);
    expect_no_change(f, XenbusStateInitWait);
}

/* xs_client asks for no permissions: the request is made by hand */
static void expect_perms(struct fixture *f, const char *path, const char *perms, size_t len)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct xsd_sockmsg m = { .type = XS_GET_PERMS, .len = (uint32_t)strlen(path) + 1 };
    char reply[128];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(sa.sun_path, f->socket, strlen(f->socket));
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(write(fd, &m, sizeof(m)), sizeof(m));
    assert_int_equal(write(fd, path, m.len), m.len);
    assert_int_equal(recv(fd, &m, sizeof(m), MSG_WAITALL), sizeof(m));
    assert_int_equal(m.type, XS_GET_PERMS);
    assert_true(m.len <= sizeof(reply));
    assert_int_equal(recv(fd, reply, m.len, MSG_WAITALL), m.len);
    assert_int_equal(m.len, len);
    assert_memory_equal(reply, perms, len);
    close(fd);
}

static void each_end_owns_its_directory_and_reads_the_other(void **state)
{
    struct fixture *f = *state;

    expect_perms(f, FRONT, "n7\0r0", 6);
    expect_perms(f, FRONT "/state", "n7\0r0", 6);
    expect_perms(f, BACK, "n0\0r7", 6);
    expect_perms(f, BACK "/state", "n0\0r7", 6);
    expect_perms(f, BACK "/sectors", "n0\0r7", 6);
}

static void readonly_cdrom_says_so(void **state)
{
    struct fixture *f = *state;
    struct xen_vbd_params p = vbd_params(f);
    struct err e = { 0 };

    p.disk.readonly = true;
    p.cdrom = true;
    p.persistent = false;
    assert_int_equal(xen_vbd_create(&p, &f->vbd, &e), 0);
    expect(f, BACK, "mode", "r");
    expect(f, BACK, "info", "7");       /* VDISK_CDROM, _REMOVABLE, _READONLY */
    expect(f, BACK, "device-type", "cdrom");
    expect(f, FRONT, "device-type", "cdrom");
    expect(f, BACK, "feature-discard", "0");
    expect(f, BACK, "feature-persistent", "0");
}

static void data_flows_over_every_shape_of_connection(void **state)
{
    static const struct { unsigned nr_queues, order; bool persistent; } shapes[] = {
        { 1, 0, false }, { 1, 4, true }, { 2, 0, true }, { 4, 2, false }, { 3, 4, true },
    };
    struct fixture *f = *state;

    /* one after the other on the same device: the guest re-probes */
    for (unsigned i = 0; i < array_size(shapes); i++) {
        struct xen_vbd_negotiated n;

        describe(f, shapes[i].nr_queues, shapes[i].order, shapes[i].persistent);
        set_state(f, XenbusStateInitialised);
        expect_state(f, XenbusStateConnected);
        set_state(f, XenbusStateConnected);
        xen_vbd_negotiated(f->vbd, &n);
        assert_true(n.connected);
        assert_int_equal(n.nr_queues, shapes[i].nr_queues);
        assert_int_equal(n.nr_ring_pages, 1u << shapes[i].order);
        assert_int_equal(n.nr_ring_requests, 32u << shapes[i].order);
        assert_int_equal(n.persistent, shapes[i].persistent);
        assert_int_equal(n.max_indirect_segments, 256);
        for (unsigned q = 0; q < shapes[i].nr_queues; q++)
            use_queue(f, q);
        set_state(f, XenbusStateClosing);
        expect_state(f, XenbusStateClosing);
        set_state(f, XenbusStateClosed);
        expect_state(f, XenbusStateClosed);
        assert_int_equal(f->nr_bound, 0);
        assert_int_equal(guest_grants_in_use(&f->guest), 0);
        xen_vbd_negotiated(f->vbd, &n);
        assert_false(n.connected);
        undescribe(f, shapes[i].nr_queues);
        set_state(f, XenbusStateInitialising);
        expect_state(f, XenbusStateInitWait);
    }
}

static void counters_outlive_the_connection(void **state)
{
    struct fixture *f = *state;
    struct vbd_queue_counters c;

    describe(f, 2, 0, true);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
    use_queue(f, 0);
    use_queue(f, 1);
    assert_int_equal(xen_vbd_queue_counters(f->vbd, 1, &c), 0);
    assert_int_equal(c.ring.requests, 2);
    assert_int_equal(xen_vbd_queue_counters(f->vbd, 2, &c), -ENOENT);
    xen_vbd_counters(f->vbd, &c);
    assert_int_equal(c.ring.requests, 4);
    assert_int_equal(c.ring.grants_held, 2);
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    xen_vbd_counters(f->vbd, &c);
    assert_int_equal(c.ring.requests, 4);
    assert_int_equal(c.ring.bytes, 4 * PAGE_SIZE);
    assert_int_equal(c.ring.grants_held, 0);
    undescribe(f, 2);
}

static void a_new_kernel_may_begin_without_closing(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        describe(f, 2, 1, true);
        set_state(f, XenbusStateInitialised);
        expect_state(f, XenbusStateConnected);
        use_queue(f, 1);
        set_state(f, XenbusStateInitialising);
        expect_state(f, XenbusStateInitWait);
        assert_int_equal(f->nr_bound, 0);
        undescribe(f, 2);
    }
}

static void rings_serve_until_the_frontend_is_closed(void **state)
{
    struct fixture *f = *state;

    describe(f, 1, 0, false);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
    set_state(f, XenbusStateClosing);
    expect_state(f, XenbusStateClosing);
    use_queue(f, 0);
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    undescribe(f, 1);
}

static void frontend_whose_directory_goes_is_disconnected(void **state)
{
    struct fixture *f = *state;

    describe(f, 1, 0, false);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
    assert_int_equal(xs_client_rm(f->guest_xs, XS_NO_TRANSACTION, FRONT), 0);
    expect_state(f, XenbusStateClosed);
    assert_int_equal(f->nr_bound, 0);
    undescribe(f, 1);
}

static void order_0_may_come_with_either_name_of_the_ring(void **state)
{
    static const char *const name[] = { "ring-ref", "ring-ref0" };
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        describe(f, 1, 0, false);
        undescribe(f, 0);
        put(f, "ring-page-order", "0");
        put(f, name[i], "4");
        put(f, "event-channel", "%u", PORT_BASE);
        set_state(f, XenbusStateInitialised);
        expect_state(f, XenbusStateConnected);
        use_queue(f, 0);
        set_state(f, XenbusStateInitialising);
        expect_state(f, XenbusStateInitWait);
        undescribe(f, 1);
        xs_client_rm(f->guest_xs, XS_NO_TRANSACTION, FRONT "/ring-ref0");
    }
}

/* One node of a good description replaced; NULL removes it. */
static void bad_descriptions_are_refused_by_name(void **state)
{
    static const struct { const char *key, *value; } bad[] = {
        { "multi-queue-num-queues", "0" }, { "multi-queue-num-queues", "5" },
        { "multi-queue-num-queues", "4294967297" }, { "multi-queue-num-queues", "-1" },
        { "multi-queue-num-queues", "two" }, { "multi-queue-num-queues", "" },
        { "multi-queue-num-queues", "2 " }, { "protocol", "\033[2J\n" }, { "ring-page-order", "5" },
        { "ring-page-order", "99999999999999999999" }, { "ring-page-order", "%s%n" },
        { "protocol", "x86_32-abi" }, { "protocol", "arm-abi" }, { "protocol", "" },
        { "feature-persistent", "2" }, { "queue-1/ring-ref0", NULL },
        { "queue-1/ring-ref1", "garbage" }, { "queue-1/ring-ref1", "4294967295" },
        { "queue-1/ring-ref1", "8193" }, { "queue-0/event-channel", NULL },
        { "queue-1/event-channel", "0" }, { "queue-1/event-channel", "131072" },
        { "queue-1/event-channel", "999" },
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < array_size(bad); i++) {
        char path[256], *text;

        describe(f, 2, 1, true);
        snprintf(path, sizeof(path), "%s/%s", FRONT, bad[i].key);
        if (bad[i].value)
            put(f, bad[i].key, "%s", bad[i].value);
        else
            assert_int_equal(xs_client_rm(f->guest_xs, XS_NO_TRANSACTION, path), 0);
        set_state(f, XenbusStateInitialised);
        expect_state(f, XenbusStateClosing);
        text = get(f, BACK, "error");
        assert_non_null(text);
        /* the node at fault, or for what its value stands for, that */
        if (!strstr(text, bad[i].key) && !strstr(text, "grant reference") && !strstr(text, "port"))
            fail_msg("%s = '%s': '%s'", bad[i].key, bad[i].value, text);
        for (char *c = text; *c; c++)
            assert_true(*c >= ' ' && *c <= '~');
        free(text);
        assert_int_equal(f->nr_bound, 0);
        assert_int_equal(guest_grants_in_use(&f->guest), 0);
        /* and the next attempt may be better */
        xs_client_rm(f->guest_xs, XS_NO_TRANSACTION, BACK "/error");
        undescribe(f, 2);
        set_state(f, XenbusStateInitialising);
        expect_state(f, XenbusStateInitWait);
    }
    describe(f, 2, 1, true);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
    use_queue(f, 1);
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    undescribe(f, 2);
}

static void nonsense_in_state_changes_nothing(void **state)
{
    static const char *const text[] = { "", "x", "-1", "9", "4294967300", "7" };
    struct fixture *f = *state;

    for (unsigned i = 0; i < array_size(text); i++) {
        put(f, "state", "%s", text[i]);
        expect_no_change(f, XenbusStateInitWait);
    }
}

static void garbage_in_one_ring_is_told_and_stops_it_alone(void **state)
{
    struct fixture *f = *state;
    char *text = NULL;

    describe(f, 2, 0, false);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
    store_release(&front_sring(&f->front[0])->req_prod, 0x80000000u);
    front_kick(&f->front[0]);
    for (unsigned i = 0; i < 20 && !text; i++) {
        loop_run_once(f->loop, 500);
        text = get(f, BACK, "error");
    }
    assert_non_null(text);
    assert_non_null(strstr(text, "queue 0"));
    assert_non_null(strstr(text, "producer index"));
    free(text);
    expect_no_change(f, XenbusStateConnected);
    use_queue(f, 1);
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    undescribe(f, 2);
}

static void destroying_leaves_no_node_behind(void **state)
{
    struct fixture *f = *state;
    unsigned nr;

    describe(f, 2, 0, true);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
    use_queue(f, 0);
    xen_vbd_destroy(f->vbd);
    f->vbd = NULL;
    assert_int_equal(f->nr_bound, 0);
    assert_null(xs_client_read(f->xs, XS_NO_TRANSACTION, FRONT));
    assert_null(xs_client_read(f->xs, XS_NO_TRANSACTION, BACK));
    assert_null(xs_client_directory(f->xs, XS_NO_TRANSACTION, "/local/domain/0/backend/vbd/7",
                                    &nr));
    for (unsigned q = 0; q < 2; q++)
        front_free(&f->front[q]);
}

static void devices_of_one_guest_do_not_disturb_each_other(void **state)
{
    struct fixture *f = *state;
    struct xen_vbd_params p = vbd_params(f);
    struct xen_vbd *other = NULL;
    struct err e = { 0 };

    p.disk = (struct blk_spec){ .driver = "null", .size_bytes = 1 * MIB };
    p.vdev = "xvdb";
    p.vdev_number = 51728;
    assert_int_equal(xen_vbd_create(&p, &other, &e), 0);
    expect(f, "/local/domain/0/backend/vbd/7/51728", "sectors", "2048");
    xen_vbd_destroy(other);
    expect(f, BACK, "state", "2");
}

static void failing_creation_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct xen_vbd_params p = vbd_params(f);
    struct err e = { 0 };

    p.disk.path = "/nowhere/disk.img";
    assert_int_equal(xen_vbd_create(&p, &f->vbd, &e), -ENOENT);
    assert_string_equal(e.file, "/nowhere/disk.img");
    p = vbd_params(f);
    p.max_queues = XEN_VBD_QUEUES_MAX + 1;
    err_clear(&e);
    assert_int_equal(xen_vbd_create(&p, &f->vbd, &e), -EINVAL);
    assert_null(f->vbd);
    assert_null(xs_client_read(f->xs, XS_NO_TRANSACTION, BACK));
    assert_null(xs_client_read(f->xs, XS_NO_TRANSACTION, FRONT));
}

int main(void)
{
#define with_vbd(test) cmocka_unit_test_setup_teardown(test, setup_vbd, teardown)
    static const struct CMUnitTest tests[] = {
        with_vbd(guest_finds_what_libxl_would_have_written),
        with_vbd(each_end_owns_its_directory_and_reads_the_other),
        cmocka_unit_test_setup_teardown(readonly_cdrom_says_so, setup, teardown),
        with_vbd(data_flows_over_every_shape_of_connection),
        with_vbd(counters_outlive_the_connection),
        with_vbd(a_new_kernel_may_begin_without_closing),
        with_vbd(rings_serve_until_the_frontend_is_closed),
        with_vbd(frontend_whose_directory_goes_is_disconnected),
        with_vbd(order_0_may_come_with_either_name_of_the_ring),
        with_vbd(bad_descriptions_are_refused_by_name),
        with_vbd(nonsense_in_state_changes_nothing),
        with_vbd(garbage_in_one_ring_is_told_and_stops_it_alone),
        with_vbd(destroying_leaves_no_node_behind),
        with_vbd(devices_of_one_guest_do_not_disturb_each_other),
        cmocka_unit_test_setup_teardown(failing_creation_leaves_nothing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
