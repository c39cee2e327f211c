/* SPDX-License-Identifier: MIT */
/* Descriptors that other processes give. */
#ifndef XENOLITH_BASE_FD_H
#define XENOLITH_BASE_FD_H

#include <stdbool.h>

/* Reading and writing anything but an eventfd may wait for whoever gave it.  So may an
 * eventfd, unless each read says that it must not: O_NONBLOCK is of the file, which both have. */
bool fd_is_eventfd(int fd);

#endif
