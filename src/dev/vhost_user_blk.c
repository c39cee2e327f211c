/* SPDX-License-Identifier: MIT */
#include "dev/vhost_user_blk.h"

#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/log.h"
#include "dev/vhost_user_blk_queue.h"
#include "virtio/vhost_user_session.h"

/* Of one request: such that with header and status it fits in a ring of 128 descriptors, for
 * drivers that cannot use indirect ones.  Longer ones are served all the same. */
#define SEG_MAX 126u
#define LISTEN_AGAIN_NS 1000000000u
#define RANGE_SECTORS_MAX (UINT32_MAX & ~7u)    /* of a discard or write-zeroes */

struct vhost_user_blk {
    struct vhost_user_blk_params params;
    char *path;
    char serial[VIRTIO_BLK_ID_BYTES + 1];
    struct blk_disk *disk;
    struct vhost_user_session *session;
    int listen_fd;
    dev_t socket_dev;
    ino_t socket_ino;
    struct loop_fd *listen_watch;       /* NULL while a client is served */
    struct loop_timer *listen_again;    /* the process was out of descriptors or memory */
    struct loop_fd *client_watch;       /* NULL while none is */
    int client_fd;
    int fault_fd;
    struct loop_fd *fault_watch;
    bool client_writethrough;           /* as the driver set it; VIRTIO_BLK_F_CONFIG_WCE */
    bool writethrough;                  /* read by the queues */
    uint64_t features;
    struct vub_queue *queue[VHOST_USER_QUEUES_MAX];
    bool fault_told[VHOST_USER_QUEUES_MAX];
    uint64_t requests, errors;          /* of this client, of queues that have ended */
};

/* ---- the virtio device ---- */

static uint64_t device_features(const struct vhost_user_blk *v)
{
    const struct blk_props *p = blk_disk_props(v->disk);
    uint64_t f = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_RING_PACKED |
                 1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX |
                 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE |
                 1ull << VIRTIO_BLK_F_TOPOLOGY;

    if (v->params.max_queues > 1)
        f |= 1ull << VIRTIO_BLK_F_MQ;
    if (p->readonly)
        f |= 1ull << VIRTIO_BLK_F_RO;
    if (p->can_flush)
        f |= 1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_CONFIG_WCE;
    if (p->can_discard)
        f |= 1ull << VIRTIO_BLK_F_DISCARD;
    if (p->can_write_zeroes)
        f |= 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
    return f;
}

static uint8_t physical_block_exp(const struct blk_props *p)
{
    uint8_t exp = 0;

    while ((BLK_SECTOR_BYTES << exp) < p->physical_block_bytes)
        exp++;
    return exp;
}

static void config_read(void *device, uint8_t *bytes, uint32_t size)
{
    struct vhost_user_blk *v = device;
    const struct blk_props *p = blk_disk_props(v->disk);
    struct virtio_blk_config c = {
        .capacity = blk_props_nr_sectors(p),
        .seg_max = SEG_MAX,
        .blk_size = BLK_SECTOR_BYTES,
        .physical_block_exp = physical_block_exp(p),
        .min_io_size = 1,
        .wce = !v->client_writethrough,
        .num_queues = (uint16_t)v->params.max_queues,
    };

    if (p->can_discard) {
        c.max_discard_sectors = RANGE_SECTORS_MAX;
        c.max_discard_seg = 1;
        c.discard_sector_alignment = p->discard_granularity_bytes / BLK_SECTOR_BYTES;
    }
    if (p->can_write_zeroes) {
        c.max_write_zeroes_sectors = RANGE_SECTORS_MAX;
        c.max_write_zeroes_seg = 1;
        c.write_zeroes_may_unmap = 1;
    }
    memcpy(bytes, &c, min_of((size_t)size, sizeof(c)));
}

/* A driver that cannot flush has to find its writes on the medium (section 5.2.6.2). */
static void writethrough_update(struct vhost_user_blk *v)
{
    bool flush = v->features >> VIRTIO_BLK_F_FLUSH & 1;
    bool wce = v->features >> VIRTIO_BLK_F_CONFIG_WCE & 1;

    store_relaxed(&v->writethrough, wce ? v->client_writethrough : !flush);
}

static int config_write(void *device, uint32_t offset, const uint8_t *bytes, uint32_t size)
{
    struct vhost_user_blk *v = device;

    if (offset != offsetof(struct virtio_blk_config, wce) || size != 1 || bytes[0] > 1)
        return -EPERM;
    v->client_writethrough = !bytes[0];
    writethrough_update(v);
    return 0;
}

static void device_reset(void *device)
{
    struct vhost_user_blk *v = device;

    v->client_writethrough = false;
}

static int queue_start(void *device, unsigned index, const struct vhost_user_queue *q,
                       struct err *e)
{
    struct vhost_user_blk *v = device;
    char name[16];
    struct vub_queue_params p = {
        .disk = v->disk,
        .ring = { .vq = q->vq, .writethrough = &v->writethrough, .serial = v->serial },
        .kick_fd = q->kick_fd, .call_fd = q->call_fd, .err_fd = q->err_fd,
        .poll_max_ns = v->params.poll_max_ns,
        .fault_fd = v->fault_fd,
        .name = name,
    };

    v->features = q->features;
    writethrough_update(v);
    v->fault_told[index] = false;
    snprintf(name, sizeof(name), "vub-%u", index);
    return vub_queue_start(&p, &v->queue[index], e);
}

static void fault_tell(struct vhost_user_blk *v, unsigned index)
{
    const char *fault = v->queue[index] ? vub_queue_fault(v->queue[index]) : NULL;

    if (!fault || v->fault_told[index])
        return;
    v->fault_told[index] = true;
    log_warning("%s: ring %u is stopped: %s", v->path, index, fault);
}

static uint32_t queue_stop(void *device, unsigned index)
{
    struct vhost_user_blk *v = device;
    struct vub_queue_counters last;
    uint32_t base;

    fault_tell(v, index);
    base = vub_queue_stop(v->queue[index], &last);
    v->queue[index] = NULL;
    v->requests += last.ring.requests;
    v->errors += last.ring.errors;
    return base;
}

static const struct vhost_user_device_ops device_ops = {
    .config_read = config_read,
    .config_write = config_write,
    .reset = device_reset,
    .queue_start = queue_start,
    .queue_stop = queue_stop,
};

static void fault_ready(void *arg, uint32_t events)
{
    struct vhost_user_blk *v = arg;
    eventfd_t n;

    eventfd_read(v->fault_fd, &n);
    for (unsigned i = 0; i < v->params.max_queues; i++)
        fault_tell(v, i);
}

/* ---- clients ---- */

static int listen_watch(struct vhost_user_blk *v);

static void client_end(struct vhost_user_blk *v)
{
    loop_fd_remove(v->client_watch);
    v->client_watch = NULL;
    vhost_user_session_end(v->session);
    log_info("%s: the client has gone after %llu requests, %llu with errors", v->path,
             (unsigned long long)v->requests, (unsigned long long)v->errors);
    v->requests = v->errors = 0;
    if (listen_watch(v))
        loop_timer_arm(v->listen_again, LISTEN_AGAIN_NS);
}

static void client_ready(void *arg, uint32_t events)
{
    struct vhost_user_blk *v = arg;
    struct err e = { 0 };
    int rc = vhost_user_session_serve(v->session, &e);
    char text[sizeof(e.text) + sizeof(e.field) + 8];

    if (!rc)
        return;
    if (e.code)
        log_warning("%s: the client is dismissed: %s", v->path,
                    err_str(&e, text, sizeof(text)));
    client_end(v);
}

static void listen_ready(void *arg, uint32_t events)
{
    struct vhost_user_blk *v = arg;
    int fd = accept4(v->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
        /* whoever waits goes on waiting: so does this, instead of asking for ever */
        loop_fd_remove(v->listen_watch);
        v->listen_watch = NULL;
        loop_timer_arm(v->listen_again, LISTEN_AGAIN_NS);
    }
    if (fd < 0)
        return;
    v->client_watch = loop_fd_add(v->params.loop, fd, EPOLLIN, client_ready, v);
    if (!v->client_watch) {
        close(fd);
        return;
    }
    loop_fd_remove(v->listen_watch);
    v->listen_watch = NULL;
    vhost_user_session_begin(v->session, fd);
    log_info("%s: a client has come", v->path);
}

static void listen_again(void *arg)
{
    struct vhost_user_blk *v = arg;

    if (!v->client_watch && !v->listen_watch && listen_watch(v))
        loop_timer_arm(v->listen_again, LISTEN_AGAIN_NS);
}

static int listen_watch(struct vhost_user_blk *v)
{
    v->listen_watch = loop_fd_add(v->params.loop, v->listen_fd, EPOLLIN, listen_ready, v);
    return v->listen_watch ? 0 : -errno;
}

/* ---- the socket ---- */

static int socket_address(const char *path, struct sockaddr_un *a, struct err *e)
{
    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (!path[0] || strlen(path) >= sizeof(a->sun_path))
        return err_set(e, ENAMETOOLONG, "the path of a socket has 1 to %zu bytes",
                       sizeof(a->sun_path) - 1);
    strcpy(a->sun_path, path);
    return 0;
}

/* Removes a socket that its server has left behind.  0, or -EADDRINUSE. */
static int socket_replace(const struct sockaddr_un *a)
{
    struct stat st;
    int fd, rc;

    if (lstat(a->sun_path, &st) || !S_ISSOCK(st.st_mode))
        return -EADDRINUSE;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -EADDRINUSE;
    rc = connect(fd, (const struct sockaddr *)a, sizeof(*a)) && errno == ECONNREFUSED
         ? unlink(a->sun_path) : -1;
    close(fd);
    return rc ? -EADDRINUSE : 0;
}

static int socket_listen(struct vhost_user_blk *v, struct err *e)
{
    struct sockaddr_un a;
    struct stat st;
    int rc = socket_address(v->path, &a, e);

    if (rc)
        return rc;
    v->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (v->listen_fd < 0)
        return err_set(e, errno, "%s", strerror(errno));
    rc = bind(v->listen_fd, (const struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
    if (rc == -EADDRINUSE && !socket_replace(&a))
        rc = bind(v->listen_fd, (const struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
    if (rc)
        return err_set(e, -rc, "%s", strerror(-rc));
    if (!lstat(v->path, &st)) {
        v->socket_dev = st.st_dev;
        v->socket_ino = st.st_ino;
    }
    if (listen(v->listen_fd, 8))
        return err_set(e, errno, "%s", strerror(errno));
    return 0;
}

/* Unless another server has taken the path over. */
static void socket_remove(struct vhost_user_blk *v)
{
    struct stat st;

    if (v->listen_fd < 0)
        return;
    close(v->listen_fd);
    if (!lstat(v->path, &st) && st.st_dev == v->socket_dev && st.st_ino == v->socket_ino)
        unlink(v->path);
}

/* ---- life ---- */

static int device_open(struct vhost_user_blk *v, struct err *e)
{
    struct vhost_user_params p = { .ops = &device_ops, .device = v };
    int rc = blk_disk_open(&v->params.disk, &v->disk, e);

    if (rc)
        return rc;
    if (blk_disk_props(v->disk)->max_queues)
        v->params.max_queues = min_of(v->params.max_queues, blk_disk_props(v->disk)->max_queues);
    p.max_queues = v->params.max_queues;
    p.name = v->path;
    p.features = device_features(v);
    v->session = vhost_user_session_create(&p);
    v->fault_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!v->session || v->fault_fd < 0)
        return err_set(e, ENOMEM, "out of memory or file descriptors");
    v->fault_watch = loop_fd_add(v->params.loop, v->fault_fd, EPOLLIN, fault_ready, v);
    rc = socket_listen(v, e);
    if (rc) {
        err_at(e, v->path, 0, NULL);
        return rc;
    }
    v->listen_again = loop_timer_add(v->params.loop, listen_again, v);
    if (!v->fault_watch || !v->listen_again || listen_watch(v))
        return err_set(e, errno, "%s", strerror(errno));
    return 0;
}

int vhost_user_blk_create(const struct vhost_user_blk_params *p, struct vhost_user_blk **out,
                          struct err *e)
{
    struct vhost_user_blk *v = calloc(1, sizeof(*v));
    int rc;

    if (!v)
        return err_set(e, ENOMEM, "out of memory");
    v->params = *p;
    v->listen_fd = v->fault_fd = -1;
    snprintf(v->serial, sizeof(v->serial), "%s", p->serial);
    v->path = strdup(p->socket);
    rc = v->path ? device_open(v, e) : err_set(e, ENOMEM, "out of memory");
    if (rc) {
        vhost_user_blk_destroy(v);
        return rc;
    }
    *out = v;
    return 0;
}

int vhost_user_blk_resize(struct vhost_user_blk *v, uint64_t size_bytes, struct err *e)
{
    const struct blk_props *p = blk_disk_props(v->disk);
    uint64_t before = blk_props_nr_sectors(p);
    int rc = blk_disk_resize(v->disk, size_bytes, e);

    if (rc || blk_props_nr_sectors(p) == before)
        return rc;
    log_info("%s: resized from %llu sectors to %llu", v->path, (unsigned long long)before,
             (unsigned long long)blk_props_nr_sectors(p));
    rc = vhost_user_session_config_changed(v->session);
    if (rc)     /* it finds out when it looks */
        log_warning("%s: the client cannot be told: %s", v->path, strerror(-rc));
    return 0;
}

void vhost_user_blk_destroy(struct vhost_user_blk *v)
{
    if (!v)
        return;
    loop_timer_remove(v->listen_again);
    loop_fd_remove(v->listen_watch);
    if (v->client_watch) {
        loop_fd_remove(v->client_watch);
        vhost_user_session_end(v->session);
    }
    socket_remove(v);
    loop_fd_remove(v->fault_watch);
    if (v->fault_fd >= 0)
        close(v->fault_fd);
    vhost_user_session_free(v->session);
    blk_disk_close(v->disk);
    free(v->path);
    free(v);
}

const struct blk_props *vhost_user_blk_props(const struct vhost_user_blk *v)
{
    return blk_disk_props(v->disk);
}
