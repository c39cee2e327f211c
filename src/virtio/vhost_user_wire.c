/* SPDX-License-Identifier: MIT */
#include "virtio/vhost_user_wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

_Static_assert(offsetof(struct vhost_user_msg, payload) == VHOST_USER_HEADER_BYTES, "ABI");

void vhost_user_wire_init(struct vhost_user_wire *w, int fd)
{
    w->fd = fd;
    w->have = 0;
    w->nr_fds = 0;
}

void vhost_user_wire_next(struct vhost_user_wire *w)
{
    for (unsigned i = 0; i < w->nr_fds; i++)
        if (w->fds[i] >= 0)
            close(w->fds[i]);
    w->nr_fds = 0;
    w->have = 0;
}

void vhost_user_wire_close(struct vhost_user_wire *w)
{
    vhost_user_wire_next(w);
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
}

int vhost_user_wire_fd_take(struct vhost_user_wire *w, unsigned i)
{
    int fd = i < w->nr_fds ? w->fds[i] : -1;

    if (fd >= 0)
        w->fds[i] = -1;
    return fd;
}

/* Keeps the descriptors; false when there are more than one message may have. */
static bool fds_keep(struct vhost_user_wire *w, struct msghdr *mh)
{
    bool fit = !(mh->msg_flags & MSG_CTRUNC);

    for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
        size_t nr = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < nr; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
            if (w->nr_fds < VHOST_USER_FDS_MAX) {
                w->fds[w->nr_fds++] = fd;
            } else {
                close(fd);
                fit = false;
            }
        }
    }
    return fit;
}

/* Up to `want` bytes of msg, never of the next one, whose descriptors would come along.
 * 1 when they are there, else as vhost_user_wire_recv(). */
static int recv_up_to(struct vhost_user_wire *w, size_t want, struct err *e)
{
    while (w->have < want) {
        struct iovec iov = { (char *)&w->msg + w->have, want - w->have };
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * VHOST_USER_FDS_MAX)];
        struct msghdr mh = {
            .msg_iov = &iov, .msg_iovlen = 1,
            .msg_control = control, .msg_controllen = sizeof(control),
        };
        ssize_t n = recvmsg(w->fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        if (n < 0 && errno != ECONNRESET)
            return err_set(e, errno, "receiving: %s", strerror(errno));
        if (n <= 0)
            return -ECONNRESET;
        w->have += (size_t)n;
        if (!fds_keep(w, &mh))
            return err_set(e, E2BIG, "a message with more than %u file descriptors",
                           VHOST_USER_FDS_MAX);
    }
    return 1;
}

int vhost_user_wire_recv(struct vhost_user_wire *w, struct err *e)
{
    int rc = recv_up_to(w, VHOST_USER_HEADER_BYTES, e);

    if (rc <= 0)
        return rc;
    if (w->msg.size > sizeof(w->msg.payload))
        return err_set(e, EMSGSIZE, "request %u with %u bytes, at most %zu make sense",
                       w->msg.request, w->msg.size, sizeof(w->msg.payload));
    if ((w->msg.flags & VHOST_USER_VERSION_MASK) != VHOST_USER_VERSION)
        return err_set(e, EPROTO, "request %u of version %u, expected %u", w->msg.request,
                       w->msg.flags & VHOST_USER_VERSION_MASK, VHOST_USER_VERSION);
    return recv_up_to(w, VHOST_USER_HEADER_BYTES + w->msg.size, e);
}

int vhost_user_wire_reply(struct vhost_user_wire *w, uint32_t size, int pass_fd, struct err *e)
{
    struct iovec iov = { &w->msg, VHOST_USER_HEADER_BYTES + size };
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
    ssize_t n;

    w->msg.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
    w->msg.size = size;
    if (pass_fd >= 0) {
        struct cmsghdr *c;

        mh.msg_control = control;
        mh.msg_controllen = sizeof(control);
        c = CMSG_FIRSTHDR(&mh);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &pass_fd, sizeof(int));
    }
    do
        n = sendmsg(w->fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)iov.iov_len)
        return 0;
    return err_set(e, n < 0 ? errno : EAGAIN, "replying to request %u: %s", w->msg.request,
                   n < 0 ? strerror(errno) : "the client does not read");
}

int vhost_user_wire_tell(int fd, enum vhost_user_backend_request request)
{
    struct vhost_user_msg m = { .request = request, .flags = VHOST_USER_VERSION };
    ssize_t n;

    do
        n = send(fd, &m, VHOST_USER_HEADER_BYTES, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n == VHOST_USER_HEADER_BYTES ? 0 : n < 0 ? -errno : -EIO;
}
