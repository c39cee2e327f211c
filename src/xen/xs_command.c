/* SPDX-License-Identifier: MIT */
/* The table of commands, and the handlers of those about nodes, watches and
 * transactions.  Payloads: docs/misc/xenstore.txt, "Xenstore protocol details". */
#include "xen/xs_command.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

#define WATCH_STRINGS_MAX 3
#define PATH_BYTES        (XENSTORE_ABS_PATH_MAX + 1)

/* The absolute path that the client means.  *skip: how much of it he left out. */
static int path_of(const struct xs_session *s, const char *given, char path[PATH_BYTES],
                   size_t *skip)
{
    int home = 0;

    if (given[0] != '/' && given[0] != '@') {
        if (!given[0] || strlen(given) > XENSTORE_REL_PATH_MAX)
            return -EINVAL;
        home = snprintf(path, PATH_BYTES, "/local/domain/%u/", s->client.domid);
    }
    if (snprintf(path + home, PATH_BYTES - (size_t)home, "%s", given) >= PATH_BYTES - home)
        return -EINVAL;
    *skip = (size_t)home;
    return 0;
}

/* A request whose payload is one path. */
static int path_only(const struct xs_session *s, const struct xs_request *r,
                     char path[PATH_BYTES])
{
    const char *given;
    unsigned nr;
    size_t skip;

    if (xs_request_strings(r, 1, 1, &given, &nr))
        return -EINVAL;
    return path_of(s, given, path, &skip);
}

/* A path, and whatever follows its 0. */
static int path_and_rest(const struct xs_session *s, const struct xs_request *r,
                         char path[PATH_BYTES], const char **rest, size_t *rest_len)
{
    size_t given_bytes = strlen(r->data) + 1;   /* data ends with a 0 of ours */
    size_t skip;

    if (given_bytes > r->len)
        return -EINVAL;
    *rest = r->data + given_bytes;
    *rest_len = r->len - given_bytes;
    return path_of(s, r->data, path, &skip);
}

static int do_read(struct xs_session *s, struct xs_request *r)
{
    const struct store_node *n;
    char path[PATH_BYTES];
    int rc = path_only(s, r, path);

    if (!rc)
        rc = store_read(&s->client, r->tx, path, &n);
    if (!rc) {
        r->reply = store_data_value(n->data);
        r->reply_len = n->data->value_len;
    }
    return rc;
}

/* Names of children from byte offset on, as many as fit in cap whole; their
 * length.  *complete: the last is among them. */
static size_t put_names(const struct store_node *n, size_t offset, char *buf, size_t cap,
                        bool *complete)
{
    size_t at = 0, len = 0;

    *complete = true;
    for (uint32_t i = 0; i < n->children.nr; i++) {
        const struct store_node *child = n->children.v[i];
        size_t bytes = strlen(child->name) + 1;

        if (at >= offset) {
            if (len + bytes > cap) {
                *complete = false;
                break;
            }
            memcpy(buf + len, child->name, bytes);
            len += bytes;
        }
        at += bytes;
    }
    return len;
}

static int do_directory(struct xs_session *s, struct xs_request *r)
{
    const struct store_node *n;
    char path[PATH_BYTES];
    bool complete;
    int rc = path_only(s, r, path);

    if (!rc)
        rc = store_list(&s->client, r->tx, path, &n);
    if (rc)
        return rc;
    if (n->names_bytes > sizeof(r->buf))
        return -E2BIG;      /* the client goes on with DIRECTORY_PART */
    r->reply = r->buf;
    r->reply_len = put_names(n, 0, r->buf, sizeof(r->buf), &complete);
    return 0;
}

static int do_directory_part(struct xs_session *s, struct xs_request *r)
{
    const struct store_node *n;
    const char *given[2];
    char path[PATH_BYTES];
    uint64_t offset;
    unsigned nr;
    size_t skip, len;
    bool complete;
    int rc = xs_request_strings(r, 2, 2, given, &nr);

    if (!rc)
        rc = path_of(s, given[0], path, &skip);
    if (!rc && num_parse_u64(given[1], 0, UINT32_MAX, &offset))
        rc = -EINVAL;
    if (!rc)
        rc = store_list(&s->client, r->tx, path, &n);
    if (rc)
        return rc;
    len = (size_t)snprintf(r->buf, sizeof(r->buf), "%" PRIu64, n->gen_children) + 1;
    /* one byte stays for the empty name that marks the end */
    len += put_names(n, offset, r->buf + len, sizeof(r->buf) - len - 1, &complete);
    if (complete)
        r->buf[len++] = 0;
    r->reply = r->buf;
    r->reply_len = len;
    return 0;
}

static int do_write(struct xs_session *s, struct xs_request *r)
{
    char path[PATH_BYTES];
    const char *value;
    size_t len;
    int rc = path_and_rest(s, r, path, &value, &len);

    return rc ? rc : store_write(&s->client, r->tx, path, value, len);
}

static int do_mkdir(struct xs_session *s, struct xs_request *r)
{
    char path[PATH_BYTES];
    int rc = path_only(s, r, path);

    return rc ? rc : store_mkdir(&s->client, r->tx, path);
}

static int do_rm(struct xs_session *s, struct xs_request *r)
{
    char path[PATH_BYTES];
    int rc = path_only(s, r, path);

    return rc ? rc : store_rm(&s->client, r->tx, path);
}

static const char access_letter[] = {
    [0] = 'n', [STORE_READ] = 'r', [STORE_WRITE] = 'w', [STORE_READ | STORE_WRITE] = 'b',
};

static int do_get_perms(struct xs_session *s, struct xs_request *r)
{
    const struct store_node *n;
    char path[PATH_BYTES];
    size_t len = 0;
    int rc = path_only(s, r, path);

    if (!rc)
        rc = store_get_perms(&s->client, r->tx, path, &n);
    if (rc)
        return rc;
    for (unsigned i = 0; i < n->data->nr_perms; i++) {
        const struct store_perm *p = &n->data->perms[i];
        char text[16];
        size_t bytes = (size_t)snprintf(text, sizeof(text), "%c%u",
                                        access_letter[p->access & 3], p->domid) + 1;

        if (len + bytes > sizeof(r->buf))
            return -E2BIG;
        memcpy(r->buf + len, text, bytes);
        len += bytes;
    }
    r->reply = r->buf;
    r->reply_len = len;
    return 0;
}

static int parse_perm(const char *text, struct store_perm *p)
{
    unsigned domid;

    for (unsigned access = 0; access < array_size(access_letter); access++) {
        if (text[0] == access_letter[access]) {
            p->access = (uint16_t)access;
            if (xs_parse_domid(text + 1, UINT16_MAX, &domid))
                return -EINVAL;
            p->domid = (uint16_t)domid;
            return 0;
        }
    }
    return -EINVAL;
}

static int do_set_perms(struct xs_session *s, struct xs_request *r)
{
    /* the shortest is "n0" and its 0 */
    struct store_perm perms[XENSTORE_PAYLOAD_MAX / 3];
    char path[PATH_BYTES];
    const char *at;
    unsigned nr = 0;
    size_t len;
    int rc = path_and_rest(s, r, path, &at, &len);

    if (!rc && len && at[len - 1])
        rc = -EINVAL;
    while (!rc && len) {
        size_t bytes = strlen(at) + 1;

        rc = bytes < 3 ? -EINVAL : parse_perm(at, &perms[nr++]);
        at += bytes;
        len -= bytes;
    }
    return rc ? rc : store_set_perms(&s->client, r->tx, path, perms, nr);
}

static int do_watch(struct xs_session *s, struct xs_request *r)
{
    const char *given[WATCH_STRINGS_MAX];
    char path[PATH_BYTES];
    uint64_t depth = STORE_DEPTH_ANY;
    unsigned nr;
    size_t skip;
    int rc = xs_request_strings(r, 2, WATCH_STRINGS_MAX, given, &nr);

    if (!rc)
        rc = path_of(s, given[0], path, &skip);
    if (!rc && given[0][0] == '@' && strlen(given[0]) > XENSTORE_REL_PATH_MAX)
        rc = -EINVAL;
    if (!rc && strlen(given[1]) > XS_TOKEN_MAX)
        rc = -E2BIG;
    if (!rc && nr == 3 && given[2][0] && num_parse_u64(given[2], 0, STORE_DEPTH_ANY, &depth))
        rc = -EINVAL;
    if (!rc)
        rc = store_watch_add(&s->client, path, given[1], skip, (unsigned)depth);
    if (rc)
        return rc;
    /* The answer comes before the event by which a watch begins. */
    xs_reply(s, r, r->reply, r->reply_len);
    r->replied = true;
    s->client.fire(&s->client, given[0], given[1]);
    return 0;
}

static int do_unwatch(struct xs_session *s, struct xs_request *r)
{
    const char *given[WATCH_STRINGS_MAX];
    char path[PATH_BYTES];
    unsigned nr;
    size_t skip;
    int rc = xs_request_strings(r, 2, WATCH_STRINGS_MAX, given, &nr);

    if (!rc)
        rc = path_of(s, given[0], path, &skip);
    return rc ? rc : store_watch_remove(&s->client, path, given[1]);
}

static int do_reset_watches(struct xs_session *s, struct xs_request *r)
{
    store_client_reset(&s->client);
    return 0;
}

static int do_transaction_start(struct xs_session *s, struct xs_request *r)
{
    uint32_t id;
    int rc;

    if (r->tx)
        return -EBUSY;
    rc = store_tx_start(&s->client, &id);
    if (rc)
        return rc;
    r->reply = r->buf;
    r->reply_len = (size_t)snprintf(r->buf, sizeof(r->buf), "%" PRIu32, id) + 1;
    return 0;
}

static int do_transaction_end(struct xs_session *s, struct xs_request *r)
{
    const char *how;
    unsigned nr;

    if (xs_request_strings(r, 1, 1, &how, &nr) || (strcmp(how, "T") && strcmp(how, "F")))
        return -EINVAL;
    if (!r->tx)
        return -ENOENT;
    return store_tx_end(r->tx, how[0] == 'T');
}

const struct xs_command xs_commands[XS_TYPE_COUNT] = {
    [XS_CONTROL]              = { xs_do_control, XS_COMMAND_DOMAIN_0 },
    [XS_DIRECTORY]            = { do_directory },
    [XS_READ]                 = { do_read },
    [XS_GET_PERMS]            = { do_get_perms },
    [XS_WATCH]                = { do_watch, XS_COMMAND_NO_TX },
    [XS_UNWATCH]              = { do_unwatch, XS_COMMAND_NO_TX },
    [XS_TRANSACTION_START]    = { do_transaction_start },
    [XS_TRANSACTION_END]      = { do_transaction_end },
    [XS_INTRODUCE]            = { xs_do_introduce, XS_COMMAND_DOMAIN_0 },
    [XS_RELEASE]              = { xs_do_release, XS_COMMAND_DOMAIN_0 },
    [XS_GET_DOMAIN_PATH]      = { xs_do_get_domain_path },
    [XS_WRITE]                = { do_write },
    [XS_MKDIR]                = { do_mkdir },
    [XS_RM]                   = { do_rm },
    [XS_SET_PERMS]            = { do_set_perms },
    [XS_IS_DOMAIN_INTRODUCED] = { xs_do_is_domain_introduced },
    [XS_RESUME]               = { xs_do_resume, XS_COMMAND_DOMAIN_0 },
    [XS_SET_TARGET]           = { xs_do_set_target, XS_COMMAND_DOMAIN_0 },
    [XS_RESET_WATCHES]        = { do_reset_watches, XS_COMMAND_NO_TX },
    [XS_DIRECTORY_PART]       = { do_directory_part },
};
