/* SPDX-License-Identifier: MIT */
#include "xen/xs_session.h"

#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "xen/xs_command.h"

int xs_core_init(struct xs_core *core, const struct store_limits *limits)
{
    LIST_INIT(&core->domains);
    core->store = store_create(limits);
    return core->store ? 0 : -ENOMEM;
}

void xs_core_free(struct xs_core *core)
{
    store_free(core->store);
    core->store = NULL;
}

static void send_event(struct store_client *c, const char *path, const char *token)
{
    struct xs_session *s = container_of(c, struct xs_session, client);
    size_t path_bytes = strlen(path) + 1, token_bytes = strlen(token) + 1;
    struct xsd_sockmsg hdr = {
        .type = XS_WATCH_EVENT, .len = (uint32_t)(path_bytes + token_bytes),
    };
    char payload[XENSTORE_PAYLOAD_MAX];

    if (s->killed)
        return;
    /* fits: XENSTORE_ABS_PATH_MAX and XS_TOKEN_MAX hold for what is watched */
    memcpy(payload, path, path_bytes);
    memcpy(payload + path_bytes, token, token_bytes);
    s->ops->send(s, &hdr, payload);
}

int xs_session_start(struct xs_core *core, struct xs_session *s,
                     const struct xs_session_ops *ops)
{
    memset(s, 0, sizeof(*s));
    s->core = core;
    s->ops = ops;
    return store_client_add(core->store, &s->client, 0, send_event);
}

void xs_session_end(struct xs_session *s)
{
    s->killed = true;
    store_client_remove(&s->client);
    xs_domain_session_ended(s);
    free(s->payload);
    s->payload = NULL;
}

bool xs_session_may_log(struct xs_session *s)
{
    struct xs_domain *d;

    if (s->client.domid == 0)
        return true;
    d = xs_domain_find(s->core, s->client.domid);
    if (!d || d->logged)
        return false;
    d->logged = true;
    return true;
}

void xs_reply(struct xs_session *s, const struct xs_request *r, const void *data, size_t len)
{
    struct xsd_sockmsg hdr = r->hdr;

    hdr.len = (uint32_t)len;
    s->ops->send(s, &hdr, data);
}

static void reply_error(struct xs_session *s, const struct xs_request *r, int error)
{
    struct xsd_sockmsg hdr = r->hdr;
    const char *name = "EINVAL";

    for (size_t i = 0; i < array_size(xsd_errors); i++) {
        if (xsd_errors[i].errnum == error)
            name = xsd_errors[i].errstring;
    }
    hdr.type = XS_ERROR;
    hdr.len = (uint32_t)strlen(name) + 1;
    s->ops->send(s, &hdr, name);
}

int xs_request_strings(const struct xs_request *r, unsigned min, unsigned max,
                       const char *v[], unsigned *nr)
{
    size_t at = 0;

    *nr = 0;
    if (r->len && r->data[r->len - 1])
        return -EINVAL;
    while (at < r->len) {
        if (*nr == max)
            return -EINVAL;
        v[(*nr)++] = r->data + at;
        at += strlen(r->data + at) + 1;
    }
    return *nr < min ? -EINVAL : 0;
}

int xs_parse_domid(const char *text, unsigned max, unsigned *domid)
{
    uint64_t n;

    if (num_parse_u64(text, 0, max, &n))
        return -EINVAL;
    *domid = (unsigned)n;
    return 0;
}

static int run(struct xs_session *s, struct xs_request *r)
{
    const struct xs_command *c;

    if (r->hdr.type >= array_size(xs_commands) || !xs_commands[r->hdr.type].handle)
        return -ENOSYS;
    c = &xs_commands[r->hdr.type];
    if ((c->flags & XS_COMMAND_DOMAIN_0) && s->client.domid)
        return -EACCES;
    if (r->hdr.tx_id && !(c->flags & XS_COMMAND_NO_TX)) {
        r->tx = store_tx_find(&s->client, r->hdr.tx_id);
        if (!r->tx)
            return -ENOENT;
    }
    return c->handle(s, r);
}

static void message(struct xs_session *s)
{
    struct xs_request r;
    int rc;

    r.hdr = s->hdr;
    r.data = s->payload;
    r.len = s->hdr.len;
    r.tx = NULL;
    r.reply = "OK";
    r.reply_len = sizeof("OK");
    r.replied = false;
    rc = run(s, &r);
    if (rc)
        reply_error(s, &r, -rc);
    else if (!r.replied)
        xs_reply(s, &r, r.reply, r.reply_len);
}

/* Up to want bytes of the part that begins at byte `start` of the message. */
static size_t take(struct xs_session *s, void *part, size_t start, size_t want,
                   const char *data, size_t len)
{
    size_t have = s->got_bytes - start;
    size_t n = min_of(want - have, len);

    memcpy((char *)part + have, data, n);
    s->got_bytes += n;
    return n;
}

/* The header is complete: room for what it announces. */
static bool payload_begin(struct xs_session *s)
{
    bool fits = s->hdr.len <= XENSTORE_PAYLOAD_MAX;

    s->payload = fits ? malloc(s->hdr.len + 1) : NULL;
    if (s->payload) {
        s->payload[s->hdr.len] = 0;
        return true;
    }
    s->killed = true;
    s->ops->kill(s, fits ? "no memory for its message"
                         : "it sent a message longer than the protocol allows");
    return false;
}

size_t xs_session_feed(struct xs_session *s, const void *data, size_t len)
{
    const char *at = data;
    const char *end = at + len;

    while (at < end && !s->killed && !s->paused) {
        if (s->got_bytes < sizeof(s->hdr)) {
            at += take(s, &s->hdr, 0, sizeof(s->hdr), at, (size_t)(end - at));
            if (s->got_bytes < sizeof(s->hdr))
                break;
            if (!payload_begin(s))
                break;
        }
        at += take(s, s->payload, sizeof(s->hdr), s->hdr.len, at, (size_t)(end - at));
        if (s->got_bytes == sizeof(s->hdr) + s->hdr.len) {
            message(s);
            free(s->payload);
            s->payload = NULL;
            s->got_bytes = 0;
        }
    }
    return s->killed ? len : (size_t)(at - (const char *)data);
}
