/* SPDX-License-Identifier: MIT */
#include "dev/xen_vbd_wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int vbd_wire_send(int socket, const struct vbd_wire *m, const int *fds, unsigned nr_fds)
{
    union { struct cmsghdr h; char room[CMSG_SPACE(VBD_WIRE_FDS_MAX * sizeof(int))]; } control;
    struct iovec iov = { .iov_base = (void *)(uintptr_t)m, .iov_len = sizeof(*m) };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    ssize_t n;

    if (nr_fds) {
        memset(&control, 0, sizeof(control));
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
        control.h.cmsg_level = SOL_SOCKET;
        control.h.cmsg_type = SCM_RIGHTS;
        control.h.cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
        memcpy(CMSG_DATA(&control.h), fds, nr_fds * sizeof(int));
    }
    do
        n = sendmsg(socket, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(*m) ? 0 : n < 0 ? -errno : -EPIPE;
}

static void fds_take(struct msghdr *msg, int *fds, unsigned *nr_fds)
{
    const struct cmsghdr *h = CMSG_FIRSTHDR(msg);

    if (!h || h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
        return;
    for (size_t at = CMSG_LEN(0); at + sizeof(int) <= h->cmsg_len; at += sizeof(int)) {
        int fd;

        memcpy(&fd, (const char *)h + at, sizeof(fd));
        if (*nr_fds < VBD_WIRE_FDS_MAX)
            fds[(*nr_fds)++] = fd;
        else
            close(fd);
    }
}

int vbd_wire_receive(int socket, struct vbd_wire *m, int *fds, unsigned *nr_fds)
{
    union { struct cmsghdr h; char room[CMSG_SPACE(VBD_WIRE_FDS_MAX * sizeof(int))]; } control;
    struct iovec iov = { .iov_base = m, .iov_len = sizeof(*m) };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                          .msg_controllen = sizeof(control) };
    ssize_t n;

    *nr_fds = 0;
    do
        n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == ECONNRESET ? -EPIPE : -errno;
    fds_take(&msg, fds, nr_fds);
    if (n == (ssize_t)sizeof(*m) && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        return 0;
    while (*nr_fds)
        close(fds[--*nr_fds]);
    return n ? -EPROTO : -EPIPE;
}
