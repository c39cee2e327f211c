/* SPDX-License-Identifier: MIT */
/* Packets between guests' processes, and the descriptors that go along. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vm/pv_peers_priv.h"

int peer_packet_send(int fd, const struct peer_msg *m, int pass_fd, int flags)
{
    union { struct cmsghdr h; char room[CMSG_SPACE(sizeof(int))]; } control = { 0 };
    struct iovec iov = { .iov_base = (void *)(uintptr_t)m, .iov_len = sizeof(*m) };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    ssize_t n;

    if (pass_fd >= 0) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
        control.h.cmsg_level = SOL_SOCKET;
        control.h.cmsg_type = SCM_RIGHTS;
        control.h.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.h), &pass_fd, sizeof(pass_fd));
    }
    do
        n = sendmsg(fd, &msg, MSG_NOSIGNAL | flags);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(*m) ? 0 : n < 0 ? -errno : -EPIPE;
}

/* The descriptor that came along, or -1.  Where there is room for one, padding lets two in. */
static int packet_fd(struct msghdr *msg)
{
    const struct cmsghdr *h = CMSG_FIRSTHDR(msg);
    size_t nr;
    int fd = -1;

    if (!h || h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
        return -1;
    nr = (h->cmsg_len - CMSG_LEN(0)) / sizeof(fd);
    for (size_t i = 0; i < nr; i++) {
        memcpy(&fd, CMSG_DATA(h) + i * sizeof(fd), sizeof(fd));
        if (nr > 1)
            close(fd);
    }
    return nr == 1 ? fd : -1;
}

int peer_packet_receive(int fd, struct peer_msg *m, int *got_fd, int flags)
{
    union { struct cmsghdr h; char room[CMSG_SPACE(sizeof(int))]; } control;
    struct iovec iov = { .iov_base = m, .iov_len = sizeof(*m) };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                          .msg_controllen = sizeof(control) };
    ssize_t n;

    *got_fd = -1;
    do
        n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | flags);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    *got_fd = packet_fd(&msg);
    /* MSG_CTRUNC: no descriptor was free for what came along, which is then not there */
    if (n == (ssize_t)sizeof(*m) && !(msg.msg_flags & MSG_TRUNC))
        return 0;
    if (*got_fd >= 0)
        close(*got_fd);
    *got_fd = -1;
    return -EPIPE;
}
