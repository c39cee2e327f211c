/* SPDX-License-Identifier: MIT */
#include "virtio/vhost_user_session.h"

#include <errno.h>
#include <linux/vhost_types.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "virtio/vhost_user_priv.h"

/* What this back-end can do for any device. */
#define PROTOCOL_FEATURES (1ull << VHOST_USER_PROTOCOL_F_MQ | \
                           1ull << VHOST_USER_PROTOCOL_F_LOG_SHMFD | \
                           1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK | \
                           1ull << VHOST_USER_PROTOCOL_F_BACKEND_REQ | \
                           1ull << VHOST_USER_PROTOCOL_F_CONFIG | \
                           1ull << VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD | \
                           1ull << VHOST_USER_PROTOCOL_F_RESET_DEVICE | \
                           1ull << VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)
/* A client may go on asking for what it does not get; the operator has seen enough of it. */
#define REFUSALS_TOLD 16u
#define TRANSPORT_FEATURES (1ull << VHOST_USER_F_PROTOCOL_FEATURES | 1ull << VHOST_F_LOG_ALL)

static int reply_u64(struct vhost_user_session *s, uint64_t u64)
{
    s->wire.msg.payload.u64 = u64;
    s->wire.msg.size = sizeof(u64);
    return 1;
}

static uint64_t features_offered(const struct vhost_user_session *s)
{
    return s->params.features | TRANSPORT_FEATURES;
}

static int get_features(struct vhost_user_session *s, struct err *e)
{
    return reply_u64(s, features_offered(s));
}

static int set_features(struct vhost_user_session *s, struct err *e)
{
    uint64_t features = s->wire.msg.payload.u64;

    if (features & ~features_offered(s))
        return err_set(e, EINVAL, "features 0x%llx were not offered",
                       (unsigned long long)(features & ~features_offered(s)));
    if (features == s->features)
        return 0;
    vhost_user_vrings_pause(s);
    s->features = features;
    vhost_user_vrings_resume(s);
    return 0;
}

static int get_protocol_features(struct vhost_user_session *s, struct err *e)
{
    return reply_u64(s, PROTOCOL_FEATURES);
}

static int set_protocol_features(struct vhost_user_session *s, struct err *e)
{
    uint64_t features = s->wire.msg.payload.u64;

    if (features & ~PROTOCOL_FEATURES)
        return err_set(e, EINVAL, "protocol features 0x%llx were not offered",
                       (unsigned long long)(features & ~PROTOCOL_FEATURES));
    s->protocol_features = features;
    return 0;
}

static int get_queue_num(struct vhost_user_session *s, struct err *e)
{
    return reply_u64(s, s->params.max_queues);
}

static int get_max_mem_slots(struct vhost_user_session *s, struct err *e)
{
    return reply_u64(s, SHARED_MEM_REGIONS_MAX);
}

static int set_owner(struct vhost_user_session *s, struct err *e)
{
    return 0;
}

/* Deprecated: all rings are disabled, and no more. */
static int reset_owner(struct vhost_user_session *s, struct err *e)
{
    vhost_user_vrings_pause(s);
    for (unsigned i = 0; i < s->params.max_queues; i++)
        s->vring[i].enabled = false;
    return 0;
}

/* As when the client came, but for memory and what was agreed about the protocol. */
static int reset_device(struct vhost_user_session *s, struct err *e)
{
    vhost_user_vrings_forget(s);
    s->features = 0;
    s->params.ops->reset(s->params.device);
    return 0;
}

/* Clients ask for 60 to 256 bytes, whatever the device has: they get what they ask for. */
static int get_config(struct vhost_user_session *s, struct err *e)
{
    uint32_t offset = s->wire.msg.payload.config.offset, size = s->wire.msg.payload.config.size;
    uint8_t bytes[VHOST_USER_CONFIG_MAX] = { 0 };

    if (size > sizeof(bytes) || offset > sizeof(bytes) - size) {
        s->wire.msg.size = 0;       /* which says that it failed */
        return 1;
    }
    s->params.ops->config_read(s->params.device, bytes, sizeof(bytes));
    memcpy(s->wire.msg.payload.config.bytes, bytes + offset, size);
    s->wire.msg.size = (uint32_t)offsetof(struct vhost_user_config, bytes) + size;
    return 1;
}

static int set_config(struct vhost_user_session *s, struct err *e)
{
    uint32_t offset = s->wire.msg.payload.config.offset, size = s->wire.msg.payload.config.size;
    int rc;

    if (size > VHOST_USER_CONFIG_MAX || offset > VHOST_USER_CONFIG_MAX - size ||
        s->wire.msg.size < offsetof(struct vhost_user_config, bytes) + size)
        return err_set(e, EINVAL, "%u bytes of configuration at %u", size, offset);
    rc = s->params.ops->config_write(s->params.device, offset, s->wire.msg.payload.config.bytes,
                                     size);
    return rc ? err_set(e, -rc, "%u bytes of configuration at %u cannot be written", size, offset)
              : 0;
}

static void backend_fd_set(struct vhost_user_session *s, int fd)
{
    if (s->backend_fd >= 0)
        close(s->backend_fd);
    s->backend_fd = fd;
}

static int set_backend_req_fd(struct vhost_user_session *s, struct err *e)
{
    int fd = vhost_user_wire_fd_take(&s->wire, 0), type;
    socklen_t len = sizeof(type);

    if (fd < 0)
        return err_set(e, EINVAL, "it comes without a descriptor");
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_STREAM) {
        close(fd);
        return err_set(e, EINVAL, "expected a stream socket");
    }
    backend_fd_set(s, fd);
    return 0;
}

int vhost_user_session_config_changed(struct vhost_user_session *s)
{
    int rc = s->backend_fd < 0 || !vhost_user_has_protocol(s, VHOST_USER_PROTOCOL_F_CONFIG) ? 0
             : vhost_user_wire_tell(s->backend_fd, VHOST_USER_BACKEND_CONFIG_CHANGE_MSG);

    return rc == -EAGAIN ? 0 : rc;
}

struct request {
    const char *name;
    vhost_user_handler *serve;
    uint32_t size_min;              /* of the payload */
    int needs;                      /* a protocol feature; -1: none */
};

static const struct request requests[] = {
    [VHOST_USER_GET_FEATURES] = { "GET_FEATURES", get_features, 0, -1 },
    [VHOST_USER_SET_FEATURES] = { "SET_FEATURES", set_features, 8, -1 },
    [VHOST_USER_SET_OWNER] = { "SET_OWNER", set_owner, 0, -1 },
    [VHOST_USER_RESET_OWNER] = { "RESET_OWNER", reset_owner, 0, -1 },
    [VHOST_USER_SET_MEM_TABLE] = { "SET_MEM_TABLE", vhost_user_set_mem_table, 8, -1 },
    [VHOST_USER_SET_LOG_BASE] = { "SET_LOG_BASE", vhost_user_set_log_base, 16,
                                  VHOST_USER_PROTOCOL_F_LOG_SHMFD },
    [VHOST_USER_SET_LOG_FD] = { "SET_LOG_FD", vhost_user_set_log_fd, 0, -1 },
    [VHOST_USER_SET_VRING_NUM] = { "SET_VRING_NUM", vhost_user_set_vring_num, 8, -1 },
    [VHOST_USER_SET_VRING_ADDR] = { "SET_VRING_ADDR", vhost_user_set_vring_addr, 40, -1 },
    [VHOST_USER_SET_VRING_BASE] = { "SET_VRING_BASE", vhost_user_set_vring_base, 8, -1 },
    [VHOST_USER_GET_VRING_BASE] = { "GET_VRING_BASE", vhost_user_get_vring_base, 8, -1 },
    [VHOST_USER_SET_VRING_KICK] = { "SET_VRING_KICK", vhost_user_set_vring_kick, 8, -1 },
    [VHOST_USER_SET_VRING_CALL] = { "SET_VRING_CALL", vhost_user_set_vring_call, 8, -1 },
    [VHOST_USER_SET_VRING_ERR] = { "SET_VRING_ERR", vhost_user_set_vring_err, 8, -1 },
    [VHOST_USER_GET_PROTOCOL_FEATURES] = { "GET_PROTOCOL_FEATURES", get_protocol_features, 0,
                                           -1 },
    [VHOST_USER_SET_PROTOCOL_FEATURES] = { "SET_PROTOCOL_FEATURES", set_protocol_features, 8,
                                           -1 },
    [VHOST_USER_GET_QUEUE_NUM] = { "GET_QUEUE_NUM", get_queue_num, 0,
                                   VHOST_USER_PROTOCOL_F_MQ },
    [VHOST_USER_SET_VRING_ENABLE] = { "SET_VRING_ENABLE", vhost_user_set_vring_enable, 8, -1 },
    [VHOST_USER_SET_BACKEND_REQ_FD] = { "SET_BACKEND_REQ_FD", set_backend_req_fd, 0,
                                        VHOST_USER_PROTOCOL_F_BACKEND_REQ },
    [VHOST_USER_GET_CONFIG] = { "GET_CONFIG", get_config, 12, VHOST_USER_PROTOCOL_F_CONFIG },
    [VHOST_USER_SET_CONFIG] = { "SET_CONFIG", set_config, 12, VHOST_USER_PROTOCOL_F_CONFIG },
    [VHOST_USER_GET_INFLIGHT_FD] = { "GET_INFLIGHT_FD", vhost_user_get_inflight_fd, 20,
                                     VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD },
    [VHOST_USER_SET_INFLIGHT_FD] = { "SET_INFLIGHT_FD", vhost_user_set_inflight_fd, 20,
                                     VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD },
    [VHOST_USER_RESET_DEVICE] = { "RESET_DEVICE", reset_device, 0,
                                  VHOST_USER_PROTOCOL_F_RESET_DEVICE },
    [VHOST_USER_GET_MAX_MEM_SLOTS] = { "GET_MAX_MEM_SLOTS", get_max_mem_slots, 0,
                                       VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS },
    [VHOST_USER_ADD_MEM_REG] = { "ADD_MEM_REG", vhost_user_add_mem_reg, 40,
                                 VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS },
    [VHOST_USER_REM_MEM_REG] = { "REM_MEM_REG", vhost_user_rem_mem_reg, 40,
                                 VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS },
};

static const struct request *request_find(uint32_t number)
{
    return number < array_size(requests) && requests[number].serve ? &requests[number] : NULL;
}

static int request_serve(struct vhost_user_session *s, struct err *e)
{
    const struct vhost_user_msg *msg = &s->wire.msg;
    const struct request *r = request_find(msg->request);
    int rc;

    if (!r)
        return err_set(e, EOPNOTSUPP, "request %u is not known here", msg->request);
    err_at(e, NULL, 0, r->name);
    if (msg->size < r->size_min)
        return err_set(e, EINVAL, "%u bytes, expected at least %u", msg->size, r->size_min);
    if (r->needs >= 0 && !vhost_user_has_protocol(s, (unsigned)r->needs))
        return err_set(e, EPROTO, "it was not negotiated");
    rc = r->serve(s, e);
    if (!rc)
        err_clear(e);
    return rc;
}

/* One message; what is wrong with it is told by an acknowledgement where there is to be one,
 * and else ends the session. */
static int message_serve(struct vhost_user_session *s, struct err *e)
{
    bool ack = s->wire.msg.flags & VHOST_USER_NEED_REPLY &&
               vhost_user_has_protocol(s, VHOST_USER_PROTOCOL_F_REPLY_ACK);
    int rc = request_serve(s, e);

    if (rc > 0)
        return vhost_user_wire_reply(&s->wire, s->wire.msg.size, -1, e);
    /* answered by the handler itself */
    if (!rc && s->wire.msg.request == VHOST_USER_GET_INFLIGHT_FD)
        return 0;
    if (!ack)
        return rc;
    if (rc && s->nr_refused++ < REFUSALS_TOLD) {
        char text[sizeof(e->text) + sizeof(e->field) + 8];

        log_warning("%s: refused: %s", s->params.name, err_str(e, text, sizeof(text)));
    }
    err_clear(e);
    reply_u64(s, rc ? 1 : 0);
    return vhost_user_wire_reply(&s->wire, s->wire.msg.size, -1, e);
}

int vhost_user_session_serve(struct vhost_user_session *s, struct err *e)
{
    int rc = vhost_user_wire_recv(&s->wire, e);

    if (rc <= 0)
        return rc;
    rc = message_serve(s, e);
    vhost_user_wire_next(&s->wire);
    return rc;
}

struct vhost_user_session *vhost_user_session_create(const struct vhost_user_params *p)
{
    struct vhost_user_session *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->params = *p;
    s->backend_fd = -1;
    vhost_user_wire_init(&s->wire, -1);
    shared_mem_init(&s->mem);
    vhost_user_vrings_init(s);
    return s;
}

void vhost_user_session_free(struct vhost_user_session *s)
{
    free(s);
}

void vhost_user_session_begin(struct vhost_user_session *s, int fd)
{
    vhost_user_wire_init(&s->wire, fd);
    s->features = 0;
    s->protocol_features = 0;
    s->nr_refused = 0;
}

void vhost_user_session_end(struct vhost_user_session *s)
{
    vhost_user_vrings_forget(s);
    vhost_user_memory_forget(s);
    vhost_user_wire_close(&s->wire);
    backend_fd_set(s, -1);
    s->params.ops->reset(s->params.device);
}
