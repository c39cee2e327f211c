/* SPDX-License-Identifier: MIT */
/* What the client shares besides rings: its memory, the log of dirty pages, the record of
 * requests in flight. */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtio/inflight.h"
#include "virtio/vhost_user_priv.h"

static struct shared_mem_slot slot_of(const struct vhost_user_region *r)
{
    return (struct shared_mem_slot){
        .base = gpa(r->guest_address), .size_bytes = r->size_bytes,
        .owner_address = r->user_address, .file_offset_bytes = r->file_offset_bytes,
    };
}

static int region_add(struct vhost_user_session *s, const struct vhost_user_region *r,
                      unsigned fd_index, struct err *e)
{
    struct shared_mem_slot slot = slot_of(r);
    int fd = vhost_user_wire_fd_take(&s->wire, fd_index), rc;

    if (fd < 0)
        return err_set(e, EBADF, "a memory region without a file descriptor");
    rc = shared_mem_add(&s->mem, &slot, fd, e);
    close(fd);
    return rc;
}

int vhost_user_set_mem_table(struct vhost_user_session *s, struct err *e)
{
    unsigned nr = s->wire.msg.payload.table.nr_regions;
    int rc = 0;

    if (nr > VHOST_USER_TABLE_MAX ||
        s->wire.msg.size < sizeof(uint64_t) + nr * sizeof(struct vhost_user_region))
        return err_set(e, EINVAL, "a table of %u memory regions", nr);
    vhost_user_vrings_pause(s);
    shared_mem_free(&s->mem);
    for (unsigned i = 0; i < nr && !rc; i++) {
        const struct vhost_user_region r = s->wire.msg.payload.table.region[i];

        rc = region_add(s, &r, i, e);
    }
    if (!rc)
        vhost_user_vrings_resume(s);
    return rc;
}

int vhost_user_add_mem_reg(struct vhost_user_session *s, struct err *e)
{
    const struct vhost_user_region r = s->wire.msg.payload.slot.region;
    int rc;

    vhost_user_vrings_pause(s);
    rc = region_add(s, &r, 0, e);
    vhost_user_vrings_resume(s);
    return rc;
}

int vhost_user_rem_mem_reg(struct vhost_user_session *s, struct err *e)
{
    const struct vhost_user_region r = s->wire.msg.payload.slot.region;
    struct shared_mem_slot slot = slot_of(&r);
    int rc;

    vhost_user_vrings_pause(s);
    rc = shared_mem_remove(&s->mem, &slot, e);
    vhost_user_vrings_resume(s);
    return rc;
}

int vhost_user_set_log_base(struct vhost_user_session *s, struct err *e)
{
    uint64_t size = s->wire.msg.payload.log.size_bytes;
    uint64_t offset = s->wire.msg.payload.log.offset_bytes;
    int fd = vhost_user_wire_fd_take(&s->wire, 0), rc;

    if (fd < 0)
        return err_set(e, EBADF, "a log of dirty pages without a file descriptor");
    vhost_user_vrings_pause(s);
    dirty_log_close(&s->log);
    rc = dirty_log_open(&s->log, fd, offset, size, e);
    close(fd);
    vhost_user_vrings_resume(s);
    if (rc)
        return rc;
    s->wire.msg.payload.u64 = 0;
    s->wire.msg.size = sizeof(uint64_t);
    return 1;
}

/* Nobody has to be told of what is in the log; the front-end looks when it wants to. */
int vhost_user_set_log_fd(struct vhost_user_session *s, struct err *e)
{
    return 0;
}

/* ---- the record of requests in flight ---- */

static void inflight_forget(struct vhost_user_session *s)
{
    if (s->inflight.map)
        munmap(s->inflight.map, s->inflight.map_bytes);
    memset(&s->inflight, 0, sizeof(s->inflight));
}

/* The bytes that the features agreed on so far make of *in; 0 with e set. */
static size_t inflight_size(const struct vhost_user_session *s,
                            const struct vhost_user_inflight *in, struct err *e)
{
    bool packed = vhost_user_has(s, VIRTIO_F_RING_PACKED);

    if (in->nr_queues && in->nr_queues <= s->params.max_queues && in->queue_size &&
        in->queue_size <= VIRTQUEUE_NUM_MAX)
        return in->nr_queues * virtqueue_inflight_bytes(packed, in->queue_size);
    err_set(e, EINVAL, "a record of requests in flight for %u queues of %u entries",
            in->nr_queues, in->queue_size);
    return 0;
}

static int inflight_map(struct vhost_user_session *s, const struct vhost_user_inflight *in,
                        int fd, struct err *e)
{
    uint64_t lead = in->offset_bytes & PAGE_MASK;
    struct stat st;
    void *map;

    if (fstat(fd, &st))
        return err_set(e, errno, "the record of requests in flight: %s", strerror(errno));
    if (!S_ISREG(st.st_mode) || in->offset_bytes > INT64_MAX || in->size_bytes > INT64_MAX ||
        (uint64_t)st.st_size < in->offset_bytes + in->size_bytes)
        return err_set(e, EINVAL, "the record of requests in flight is no file of 0x%llx bytes "
                       "at 0x%llx", (unsigned long long)in->size_bytes,
                       (unsigned long long)in->offset_bytes);
    map = mmap(NULL, lead + in->size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
               (off_t)(in->offset_bytes - lead));
    if (map == MAP_FAILED)
        return err_set(e, errno, "the record of requests in flight: %s", strerror(errno));
    s->inflight.map = map;
    s->inflight.map_bytes = lead + in->size_bytes;
    s->inflight.region = (uint8_t *)map + lead;
    s->inflight.size_bytes = in->size_bytes;
    s->inflight.nr_queues = in->nr_queues;
    s->inflight.queue_size = in->queue_size;
    return 0;
}

int vhost_user_set_inflight_fd(struct vhost_user_session *s, struct err *e)
{
    const struct vhost_user_inflight in = s->wire.msg.payload.inflight;
    int fd = vhost_user_wire_fd_take(&s->wire, 0), rc;
    size_t size = inflight_size(s, &in, e);

    if (fd < 0)
        return err_set(e, EBADF, "a record of requests in flight without a file descriptor");
    if (!size || size > in.size_bytes) {
        close(fd);
        return err_set(e, EINVAL, "a record of requests in flight of 0x%llx bytes",
                       (unsigned long long)in.size_bytes);
    }
    vhost_user_vrings_pause(s);
    inflight_forget(s);
    rc = inflight_map(s, &in, fd, e);
    close(fd);
    vhost_user_vrings_resume(s);
    return rc;
}

/* A new one, which the client sends back by SET_INFLIGHT_FD. */
int vhost_user_get_inflight_fd(struct vhost_user_session *s, struct err *e)
{
    struct vhost_user_inflight in = s->wire.msg.payload.inflight;
    size_t size = inflight_size(s, &in, e);
    int fd, rc;

    if (!size)
        return -EINVAL;
    fd = memfd_create("vhost-user-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)size) ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
        rc = err_set(e, errno, "the record of requests in flight: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return rc;
    }
    in.size_bytes = size;
    in.offset_bytes = 0;
    s->wire.msg.payload.inflight = in;
    rc = vhost_user_wire_reply(&s->wire, sizeof(in), fd, e);
    close(fd);
    return rc;
}

void vhost_user_memory_forget(struct vhost_user_session *s)
{
    inflight_forget(s);
    dirty_log_close(&s->log);
    shared_mem_free(&s->mem);
}
