/* SPDX-License-Identifier: MIT */
#include "blk/size_watch.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define KERNEL_GROUP    1u          /* udev's own messages are another one's */
#define EVENT_BYTES_MAX 4096u       /* more than the kernel puts into one */

struct blk_size_watch {
    int fd;
    struct loop_fd *watch;
    void (*changed)(void *arg);
    void *arg;
};

static bool has_line(const char *msg, size_t len, const char *line)
{
    size_t line_bytes = strlen(line) + 1;

    while (len >= line_bytes) {
        const char *end = memchr(msg, '\0', len);

        if (!memcmp(msg, line, line_bytes))
            return true;
        if (!end)
            return false;
        len -= (size_t)(end + 1 - msg);
        msg = end + 1;
    }
    return false;
}

bool blk_size_event(const char *msg, size_t len)
{
    return has_line(msg, len, "SUBSYSTEM=block") && has_line(msg, len, "RESIZE=1");
}

static void events_ready(void *arg, uint32_t events)
{
    struct blk_size_watch *w = arg;
    bool changed = false;

    for (;;) {
        char msg[EVENT_BYTES_MAX];
        struct sockaddr_nl from;
        socklen_t from_bytes = sizeof(from);
        ssize_t n = recvfrom(w->fd, msg, sizeof(msg), MSG_DONTWAIT, (struct sockaddr *)&from,
                             &from_bytes);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == ENOBUFS) {        /* some were lost */
            changed = true;
            continue;
        }
        if (n < 0)
            break;
        /* nl_pid is 0 for the kernel alone */
        changed = changed || (from.nl_pid == 0 && blk_size_event(msg, (size_t)n));
    }
    if (changed)
        w->changed(w->arg);
}

struct blk_size_watch *blk_size_watch_create(struct loop *loop, void (*changed)(void *arg),
                                             void *arg)
{
    struct sockaddr_nl kernel = { .nl_family = AF_NETLINK, .nl_groups = KERNEL_GROUP };
    struct blk_size_watch *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->changed = changed;
    w->arg = arg;
    w->fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (w->fd >= 0 && !bind(w->fd, (struct sockaddr *)&kernel, sizeof(kernel)))
        w->watch = loop_fd_add(loop, w->fd, EPOLLIN, events_ready, w);
    if (!w->watch) {
        int code = errno;

        if (w->fd >= 0)
            close(w->fd);
        free(w);
        errno = code;
        return NULL;
    }
    return w;
}

void blk_size_watch_free(struct blk_size_watch *w)
{
    if (!w)
        return;
    loop_fd_remove(w->watch);
    close(w->fd);
    free(w);
}
