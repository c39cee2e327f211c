/* SPDX-License-Identifier: MIT */
/* The xenstore daemon, for the guest's process and for the command that is it. */
#ifndef XENOLITH_CTL_XENSTORED_H
#define XENOLITH_CTL_XENSTORED_H

#include "base/err.h"

/* Makes sure that the daemon of run_dir answers; where: socket_path. */
int ctl_xenstored_ensure(const char *run_dir, char *socket_path, size_t size, struct err *e);

/* The internal command `xenstored`. */
int ctl_xenstored_main(int argc, char **argv);

#endif
