/* SPDX-License-Identifier: MIT */
#include "base/fd.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool fd_is_eventfd(int fd)
{
    static const char wanted[] = "anon_inode:[eventfd]";
    char link[64], target[64];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, target, sizeof(target));
    return n == (ssize_t)strlen(wanted) && !memcmp(target, wanted, (size_t)n);
}
