/* SPDX-License-Identifier: MIT */
#include "xen/xs_client_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/num.h"

/* How often a long list is read again because it changed meanwhile. */
#define DIRECTORY_TRIES 16

/* A copy of the answer, for the caller of the public function. */
static char *answer_copy(struct xs_client *c, int rc)
{
    char *copy;

    if (rc) {
        errno = -rc;
        return NULL;
    }
    copy = malloc(c->hdr.len + 1);
    if (copy)
        memcpy(copy, c->payload, c->hdr.len + 1);
    return copy;
}

char *xs_client_read(struct xs_client *c, uint32_t tx, const char *path)
{
    return answer_copy(c, xs_client_request_path(c, XS_READ, tx, path));
}

int xs_client_write(struct xs_client *c, uint32_t tx, const char *path, const char *value)
{
    struct iovec args[] = { xs_client_string(path), { (void *)value, strlen(value) } };

    return xs_client_request(c, XS_WRITE, tx, args, 2);
}

int xs_client_writef(struct xs_client *c, uint32_t tx, const char *path, const char *fmt, ...)
{
    char value[XENSTORE_PAYLOAD_MAX];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(value, sizeof(value), fmt, ap);
    va_end(ap);
    if (n < 0 || n >= (int)sizeof(value))
        return -E2BIG;
    return xs_client_write(c, tx, path, value);
}

int xs_client_mkdir(struct xs_client *c, uint32_t tx, const char *path)
{
    return xs_client_request_path(c, XS_MKDIR, tx, path);
}

int xs_client_rm(struct xs_client *c, uint32_t tx, const char *path)
{
    return xs_client_request_path(c, XS_RM, tx, path);
}

/* One part of a long list, appended to *list.  1: that was the last.  -EAGAIN: the
 * list has changed since the part before. */
static int directory_part(struct xs_client *c, uint32_t tx, const char *path,
                          uint64_t *gen, char **list, size_t *len)
{
    struct iovec args[2] = { xs_client_string(path) };
    size_t gen_bytes, bytes;
    char offset[24], *grown;
    uint64_t now;
    bool last;
    int rc;

    snprintf(offset, sizeof(offset), "%zu", *len);
    args[1] = xs_client_string(offset);
    rc = xs_client_request(c, XS_DIRECTORY_PART, tx, args, 2);
    if (rc)
        return rc;
    gen_bytes = strlen(c->payload) + 1;
    if (gen_bytes >= c->hdr.len || num_parse_u64(c->payload, 0, UINT64_MAX, &now))
        return xs_client_died(c, EPROTO);
    if (*len && now != *gen)
        return -EAGAIN;
    *gen = now;
    bytes = c->hdr.len - gen_bytes;
    /* an empty name ends the list: two 0 in a row, or nothing else */
    last = c->payload[c->hdr.len - 1] == 0 && c->payload[c->hdr.len - 2] == 0;
    bytes -= last;
    grown = realloc(*list, *len + bytes + 1);
    if (!grown)
        return -ENOMEM;
    memcpy(grown + *len, c->payload + gen_bytes, bytes);
    *list = grown;
    *len += bytes;
    return last;
}

static int directory_long(struct xs_client *c, uint32_t tx, const char *path,
                          char **list, size_t *len)
{
    uint64_t gen = 0;
    int rc, tries = 0;

    do {
        *len = 0;
        while (!(rc = directory_part(c, tx, path, &gen, list, len)))
            ;
    } while (rc == -EAGAIN && ++tries < DIRECTORY_TRIES);
    return rc < 0 ? rc : 0;
}

char *xs_client_directory(struct xs_client *c, uint32_t tx, const char *path, unsigned *nr)
{
    int rc = xs_client_request_path(c, XS_DIRECTORY, tx, path);
    size_t len = rc ? 0 : c->hdr.len;
    char *list = NULL;

    if (rc == -E2BIG)
        rc = directory_long(c, tx, path, &list, &len);
    else
        list = answer_copy(c, rc);
    if (rc) {
        free(list);
        errno = -rc;
        return NULL;
    }
    *nr = 0;
    for (size_t i = 0; list && i < len; i++)
        *nr += list[i] == 0;
    return list;
}

int xs_client_set_perms(struct xs_client *c, uint32_t tx, const char *path,
                        const char *const perms[], unsigned nr)
{
    char text[XENSTORE_PAYLOAD_MAX];
    size_t len = 0;
    struct iovec args[] = { xs_client_string(path), { text, 0 } };

    for (unsigned i = 0; i < nr; i++) {
        size_t bytes = strlen(perms[i]) + 1;

        if (len + bytes > sizeof(text))
            return -E2BIG;
        memcpy(text + len, perms[i], bytes);
        len += bytes;
    }
    args[1].iov_len = len;
    return xs_client_request(c, XS_SET_PERMS, tx, args, 2);
}

int xs_client_tx_start(struct xs_client *c, uint32_t *tx)
{
    int rc = xs_client_request_path(c, XS_TRANSACTION_START, XS_NO_TRANSACTION, "");
    uint64_t id;

    if (!rc && num_parse_u64(c->payload, 1, UINT32_MAX, &id))
        rc = xs_client_died(c, EPROTO);
    if (!rc)
        *tx = (uint32_t)id;
    return rc;
}

int xs_client_tx_end(struct xs_client *c, uint32_t tx, bool commit)
{
    return xs_client_request_path(c, XS_TRANSACTION_END, tx, commit ? "T" : "F");
}

int xs_client_introduce(struct xs_client *c, unsigned domid, uint64_t gfn, uint32_t port)
{
    struct iovec args[3];
    char text[3][24];

    snprintf(text[0], sizeof(text[0]), "%u", domid);
    snprintf(text[1], sizeof(text[1]), "%llu", (unsigned long long)gfn);
    snprintf(text[2], sizeof(text[2]), "%u", port);
    for (unsigned i = 0; i < 3; i++)
        args[i] = xs_client_string(text[i]);
    return xs_client_request(c, XS_INTRODUCE, XS_NO_TRANSACTION, args, 3);
}

int xs_client_release(struct xs_client *c, unsigned domid)
{
    char text[16];

    snprintf(text, sizeof(text), "%u", domid);
    return xs_client_request_path(c, XS_RELEASE, XS_NO_TRANSACTION, text);
}
