/* SPDX-License-Identifier: MIT */
/* What the code under test writes to standard error, as text. */
#ifndef XENOLITH_TESTS_STDERR_CAPTURE_H
#define XENOLITH_TESTS_STDERR_CAPTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct stderr_capture { int saved_fd, fd; };

static inline void stderr_capture_start(struct stderr_capture *c)
{
    fflush(stderr);
    c->saved_fd = dup(STDERR_FILENO);
    c->fd = memfd_create("stderr", MFD_CLOEXEC);
    if (c->saved_fd < 0 || c->fd < 0 || dup2(c->fd, STDERR_FILENO) < 0)
        abort();
}

/* Gives standard error back; the caller frees the text. */
static inline char *stderr_capture_stop(struct stderr_capture *c)
{
    off_t len = lseek(c->fd, 0, SEEK_END);
    char *text = calloc(1, (size_t)len + 1);

    if (!text || pread(c->fd, text, (size_t)len, 0) != len ||
        dup2(c->saved_fd, STDERR_FILENO) < 0)
        abort();
    close(c->saved_fd);
    close(c->fd);
    return text;
}

#endif
