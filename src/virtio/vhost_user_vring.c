/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "virtio/inflight.h"
#include "virtio/vhost_user_priv.h"

static void fd_replace(int *slot, int fd)
{
    if (*slot >= 0)
        close(*slot);
    *slot = fd;
}

void vhost_user_vrings_init(struct vhost_user_session *s)
{
    for (unsigned i = 0; i < s->params.max_queues; i++)
        s->vring[i] = (struct vhost_user_vring){ .kick_fd = -1, .call_fd = -1, .err_fd = -1 };
}

/* ---- starting and stopping ---- */

static bool vring_can_run(const struct vhost_user_session *s, const struct vhost_user_vring *v)
{
    return v->num && v->has_addr && v->kick_fd >= 0 &&
           (v->enabled || !vhost_user_has(s, VHOST_USER_F_PROTOCOL_FEATURES));
}

/* Where nobody listens, as long as the client names nobody. */
static int fd_default(void)
{
    return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static int areas_resolve(const struct vhost_user_session *s, const struct vhost_user_vring *v,
                         struct virtqueue_params *p, struct err *e)
{
    const uint64_t user[3] = { v->addr.desc, v->addr.avail, v->addr.used };
    void **const out[3] = { &p->desc, &p->driver, &p->device };
    struct virtqueue_areas a;

    virtqueue_areas(p->packed, p->event_idx, p->num, &a);
    for (unsigned i = 0; i < 3; i++) {
        *out[i] = shared_mem_owner_ptr(&s->mem, user[i], a.bytes[i]);
        if (!*out[i])
            return err_set(e, EFAULT, "ring %u: no shared memory has the 0x%llx bytes at 0x%llx",
                           v->addr.index, (unsigned long long)a.bytes[i],
                           (unsigned long long)user[i]);
        if ((uintptr_t)*out[i] % a.align[i])
            return err_set(e, EINVAL, "ring %u: the area at 0x%llx is not aligned to %u bytes",
                           v->addr.index, (unsigned long long)user[i], a.align[i]);
    }
    return 0;
}

static int inflight_attach(struct vhost_user_session *s, unsigned index, bool packed,
                           struct err *e)
{
    struct vhost_user_vring *v = &s->vring[index];
    size_t stride = virtqueue_inflight_bytes(packed, s->inflight.queue_size);

    if (!s->inflight.region || index >= s->inflight.nr_queues)
        return 0;
    if (v->num > s->inflight.queue_size || (index + 1) * stride > s->inflight.size_bytes)
        return err_set(e, EINVAL, "ring %u has %u entries, the record of requests in flight %u",
                       index, v->num, s->inflight.queue_size);
    v->inflight = virtqueue_inflight_create(s->inflight.region + index * stride, packed, v->num);
    return v->inflight ? 0 : err_set(e, ENOMEM, "out of memory");
}

static int vring_start(struct vhost_user_session *s, unsigned index, struct err *e)
{
    struct vhost_user_vring *v = &s->vring[index];
    struct vhost_user_queue q = {
        .vq = {
            .mem = &s->mem,
            .packed = vhost_user_has(s, VIRTIO_F_RING_PACKED),
            .event_idx = vhost_user_has(s, VIRTIO_RING_F_EVENT_IDX),
            .indirect = vhost_user_has(s, VIRTIO_RING_F_INDIRECT_DESC),
            .num = v->num,
            .base = v->base,
        },
        .features = s->features,
        .kick_fd = v->kick_fd,
    };
    int rc;

    if (!virtqueue_num_valid(q.vq.packed, v->num))
        return err_set(e, EINVAL, "ring %u of %u entries: expected at most %u%s", index, v->num,
                       VIRTQUEUE_NUM_MAX, q.vq.packed ? "" : ", a power of two");
    rc = areas_resolve(s, v, &q.vq, e);
    if (rc)
        return rc;
    if (vhost_user_has(s, VHOST_F_LOG_ALL)) {
        q.vq.log = &s->log;
        q.vq.log_device = v->addr.flags & 1u << VHOST_VRING_F_LOG;
        q.vq.log_device_at = gpa(v->addr.log);
    }
    if (v->call_fd < 0)
        v->call_fd = fd_default();
    if (v->err_fd < 0)
        v->err_fd = fd_default();
    if (v->call_fd < 0 || v->err_fd < 0)
        return err_set(e, errno, "ring %u: %s", index, strerror(errno));
    q.call_fd = v->call_fd;
    q.err_fd = v->err_fd;
    rc = inflight_attach(s, index, q.vq.packed, e);
    q.vq.inflight = v->inflight;
    if (!rc)
        rc = s->params.ops->queue_start(s->params.device, index, &q, e);
    if (rc) {
        virtqueue_inflight_free(v->inflight);
        v->inflight = NULL;
        return rc;
    }
    v->running = true;
    return 0;
}

static void vring_stop(struct vhost_user_session *s, unsigned index)
{
    struct vhost_user_vring *v = &s->vring[index];

    if (!v->running)
        return;
    v->base = s->params.ops->queue_stop(s->params.device, index);
    v->running = false;
    virtqueue_inflight_free(v->inflight);
    v->inflight = NULL;
}

static int vring_update(struct vhost_user_session *s, unsigned index, struct err *e)
{
    struct vhost_user_vring *v = &s->vring[index];

    if (v->running || !vring_can_run(s, v))
        return 0;
    return vring_start(s, index, e);
}

void vhost_user_vrings_pause(struct vhost_user_session *s)
{
    for (unsigned i = 0; i < s->params.max_queues; i++)
        vring_stop(s, i);
}

void vhost_user_vrings_resume(struct vhost_user_session *s)
{
    for (unsigned i = 0; i < s->params.max_queues; i++) {
        struct err e = { 0 };

        if (vring_update(s, i, &e))
            log_warning("%s: %s", s->params.name, e.text);
    }
}

static void vring_forget(struct vhost_user_vring *v)
{
    fd_replace(&v->kick_fd, -1);
    fd_replace(&v->call_fd, -1);
    fd_replace(&v->err_fd, -1);
}

void vhost_user_vrings_forget(struct vhost_user_session *s)
{
    vhost_user_vrings_pause(s);
    for (unsigned i = 0; i < s->params.max_queues; i++)
        vring_forget(&s->vring[i]);
    vhost_user_vrings_init(s);
}

/* ---- requests ---- */

/* NULL with e set. */
static struct vhost_user_vring *vring_find(struct vhost_user_session *s, uint32_t index,
                                           struct err *e)
{
    if (index < s->params.max_queues)
        return &s->vring[index];
    err_set(e, EINVAL, "there is no ring %u, only %u", index, s->params.max_queues);
    return NULL;
}

int vhost_user_set_vring_num(struct vhost_user_session *s, struct err *e)
{
    const struct vhost_user_vring_state state = s->wire.msg.payload.state;
    struct vhost_user_vring *v = vring_find(s, state.index, e);

    if (!v)
        return -EINVAL;
    if (!state.num || state.num > VIRTQUEUE_NUM_MAX)
        return err_set(e, EINVAL, "ring %u of %u entries: expected at most %u", state.index,
                       state.num, VIRTQUEUE_NUM_MAX);
    if (v->running && state.num != v->num)
        return err_set(e, EBUSY, "ring %u runs: its size cannot change", state.index);
    v->num = state.num;
    return vring_update(s, state.index, e);
}

int vhost_user_set_vring_addr(struct vhost_user_session *s, struct err *e)
{
    const struct vhost_user_vring_addr addr = s->wire.msg.payload.addr;
    struct vhost_user_vring *v = vring_find(s, addr.index, e);

    if (!v)
        return -EINVAL;
    vring_stop(s, addr.index);
    v->addr = addr;
    v->has_addr = true;
    return vring_update(s, addr.index, e);
}

int vhost_user_set_vring_base(struct vhost_user_session *s, struct err *e)
{
    const struct vhost_user_vring_state state = s->wire.msg.payload.state;
    struct vhost_user_vring *v = vring_find(s, state.index, e);

    if (!v)
        return -EINVAL;
    if (v->running)
        return err_set(e, EBUSY, "ring %u runs: its base cannot change", state.index);
    v->base = state.num;
    return 0;
}

int vhost_user_get_vring_base(struct vhost_user_session *s, struct err *e)
{
    unsigned index = s->wire.msg.payload.state.index;
    struct vhost_user_vring *v = vring_find(s, index, e);

    if (!v)
        return -EINVAL;
    vring_stop(s, index);
    /* it is stopped until it is given a descriptor again */
    fd_replace(&v->kick_fd, -1);
    s->wire.msg.payload.state.num = v->base;
    s->wire.msg.size = sizeof(s->wire.msg.payload.state);
    return 1;
}

/* The ring and descriptor (-1: none) of SET_VRING_KICK, CALL and ERR. */
static int vring_fd(struct vhost_user_session *s, unsigned *index, int *fd, struct err *e)
{
    uint64_t u64 = s->wire.msg.payload.u64;

    *index = u64 & VHOST_USER_VRING_INDEX;
    *fd = -1;
    if (!vring_find(s, *index, e))
        return -EINVAL;
    if (u64 & VHOST_USER_VRING_NOFD)
        return 0;
    *fd = vhost_user_wire_fd_take(&s->wire, 0);
    if (*fd >= 0 && fd_is_eventfd(*fd))
        return 0;
    fd_replace(fd, -1);
    return err_set(e, EBADF, "ring %u: expected an eventfd", *index);
}

int vhost_user_set_vring_kick(struct vhost_user_session *s, struct err *e)
{
    unsigned index;
    int fd, rc = vring_fd(s, &index, &fd, e);

    if (rc)
        return rc;
    if (fd < 0)
        return err_set(e, EOPNOTSUPP, "ring %u without kicks: polling for ever is not done here",
                       index);
    vring_stop(s, index);
    fd_replace(&s->vring[index].kick_fd, fd);
    return vring_update(s, index, e);
}

/* The queue may be writing to it: the number stays, what it stands for changes. */
static int vring_fd_set(int *slot, unsigned index, int fd, struct err *e)
{
    int rc = 0;

    if (fd < 0)
        fd = fd_default();
    if (fd < 0)
        return err_set(e, errno, "ring %u: %s", index, strerror(errno));
    if (*slot < 0) {
        *slot = fd;
        return 0;
    }
    if (dup3(fd, *slot, O_CLOEXEC) < 0)
        rc = err_set(e, errno, "ring %u: %s", index, strerror(errno));
    close(fd);
    return rc;
}

int vhost_user_set_vring_call(struct vhost_user_session *s, struct err *e)
{
    unsigned index;
    int fd, rc = vring_fd(s, &index, &fd, e);

    return rc ? rc : vring_fd_set(&s->vring[index].call_fd, index, fd, e);
}

int vhost_user_set_vring_err(struct vhost_user_session *s, struct err *e)
{
    unsigned index;
    int fd, rc = vring_fd(s, &index, &fd, e);

    return rc ? rc : vring_fd_set(&s->vring[index].err_fd, index, fd, e);
}

int vhost_user_set_vring_enable(struct vhost_user_session *s, struct err *e)
{
    const struct vhost_user_vring_state state = s->wire.msg.payload.state;
    struct vhost_user_vring *v = vring_find(s, state.index, e);

    if (!v)
        return -EINVAL;
    v->enabled = state.num;
    if (!v->enabled && vhost_user_has(s, VHOST_USER_F_PROTOCOL_FEATURES))
        vring_stop(s, state.index);
    return vring_update(s, state.index, e);
}
