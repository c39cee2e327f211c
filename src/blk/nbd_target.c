/* SPDX-License-Identifier: MIT */
#include "blk/nbd_target.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/num.h"

static const char expected[] = "expected nbd://HOST:PORT/EXPORT or "
                               "nbd+unix:///EXPORT?socket=PATH";

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Takes the %XX out of the bytes from `from` to `end`.  The length, or -EINVAL. */
static int percent_decode(const char *from, const char *end, char *to, size_t size)
{
    size_t n = 0;

    while (from < end) {
        char c = *from++;

        if (c == '%') {
            int high = from < end ? hex_digit(from[0]) : -1;
            int low = high >= 0 && from + 1 < end ? hex_digit(from[1]) : -1;

            if (low < 0 || (c = (char)(high << 4 | low)) == 0)
                return -EINVAL;
            from += 2;
        }
        if (n + 1 >= size)
            return -ENAMETOOLONG;
        to[n++] = c;
    }
    to[n] = 0;
    return (int)n;
}

static int export_read(const char *from, const char *end, struct nbd_target *t, struct err *e)
{
    int n = percent_decode(from, end, t->export, sizeof(t->export));

    if (n == -ENAMETOOLONG)
        return err_set(e, EINVAL, "the export's name has more than %u bytes", NBD_STRING_MAX);
    return n < 0 ? err_set(e, EINVAL, "has a bad %% in the export's name") : 0;
}

int nbd_target_unix(const char *path, struct nbd_target *t, struct err *e)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&t->address[0].sa;
    size_t len = strlen(path);

    if (len >= sizeof(un->sun_path))
        return err_set(e, ENAMETOOLONG, "the path of a socket has at most %zu bytes",
                       sizeof(un->sun_path) - 1);
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, len + 1);
    t->address[0].length_bytes = sizeof(*un);
    t->nr_addresses = 1;
    return 0;
}

static int unix_read(const char *rest, struct nbd_target *t, struct err *e)
{
    const char *query = strchrnul(rest, '?'), *value = query + strlen("?socket=");
    char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
    int n;

    if (*rest != '/')
        return err_set(e, EINVAL, "nbd+unix: is followed by three slashes: %s", expected);
    if (strncmp(query, "?socket=", strlen("?socket=")) || !*value || strchr(value, '&'))
        return err_set(e, EINVAL, "a Unix socket is named by ?socket=PATH and nothing else");
    n = percent_decode(value, value + strlen(value), path, sizeof(path));
    if (n == -EINVAL)
        return err_set(e, EINVAL, "has a bad %% in the path of the socket");
    if (n == -ENAMETOOLONG)
        return err_set(e, EINVAL, "the path of a socket has at most %zu bytes", sizeof(path) - 2);
    n = nbd_target_unix(path, t, e);
    return n ? n : export_read(rest + 1, query, t, e);
}

static int host_look_up(const char *host, const char *port, struct nbd_target *t, struct err *e)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
    struct addrinfo *found;
    int rc = getaddrinfo(host, port, &hints, &found);

    if (rc)
        return err_set(e, EHOSTUNREACH, "host %.200s: %s", host,
                       rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
    for (const struct addrinfo *a = found; a && t->nr_addresses < NBD_ADDRESSES_MAX;
         a = a->ai_next) {
        struct nbd_address *to = &t->address[t->nr_addresses];

        if (a->ai_addrlen > sizeof(to->sa))
            continue;
        memcpy(&to->sa, a->ai_addr, a->ai_addrlen);
        to->length_bytes = a->ai_addrlen;
        t->nr_addresses++;
    }
    freeaddrinfo(found);
    if (!t->nr_addresses)
        return err_set(e, EHOSTUNREACH, "host %.200s: has no address", host);
    return 0;
}

static int tcp_read(const char *rest, struct nbd_target *t, struct err *e)
{
    const char *slash = strchrnul(rest, '/'), *end = rest + strlen(rest), *after;
    char host[256], port[16];
    uint64_t number = NBD_PORT;
    size_t len;

    if (strchr(rest, '?'))
        return err_set(e, EINVAL, "a URI with ? in it: %s", expected);
    if (*rest == '[') {         /* an IPv6 address */
        after = memchr(rest, ']', (size_t)(slash - rest));
        if (!after)
            return err_set(e, EINVAL, "has a [ without ]: %s", expected);
        len = (size_t)(after++ - ++rest);
    } else {
        after = memchr(rest, ':', (size_t)(slash - rest));
        after = after ? after : slash;
        len = (size_t)(after - rest);
    }
    if (!len || len >= sizeof(host) || memchr(rest, '@', len))
        return err_set(e, EINVAL, "names no host: %s", expected);
    memcpy(host, rest, len);
    host[len] = 0;
    if (after < slash) {
        len = (size_t)(slash - after - 1);
        if (*after != ':' || !len || len >= sizeof(port))
            return err_set(e, EINVAL, "has no port where one is expected: %s", expected);
        memcpy(port, after + 1, len);
        port[len] = 0;
        if (num_parse_u64(port, 1, UINT16_MAX, &number))
            return err_set(e, EINVAL, "port %s: expected a number from 1 to %u", port, UINT16_MAX);
    }
    snprintf(port, sizeof(port), "%u", (unsigned)number);
    if (*slash && export_read(slash + 1, end, t, e))
        return -e->code;
    return host_look_up(host, port, t, e);
}

int nbd_target_parse(const char *uri, struct nbd_target *t, struct err *e)
{
    *t = (struct nbd_target){ .nr_addresses = 0 };
    if (!strncmp(uri, "nbd://", 6))
        return tcp_read(uri + 6, t, e);
    if (!strncmp(uri, "nbd+unix://", 11))
        return unix_read(uri + 11, t, e);
    if (!strncmp(uri, "nbds", 4))
        return err_set(e, EOPNOTSUPP, "TLS is not supported: a tunnel such as stunnel, or"
                       " `nbdkit nbd uri=...', can speak it for us");
    return err_set(e, EINVAL, "is no NBD URI: %s", expected);
}
