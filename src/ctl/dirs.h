/* SPDX-License-Identifier: MIT */
/* Where run-time state and logs live. */
#ifndef XENOLITH_CTL_DIRS_H
#define XENOLITH_CTL_DIRS_H

#include "base/err.h"

/* The directory that holds the registry and the xenstore daemon's socket, made
 * when missing: $XENOLITH_RUN_DIR; for root /run/xenolith; else
 * $XDG_RUNTIME_DIR/xenolith, and /tmp/xenolith-UID where that is not set.  It
 * must belong to the caller and be writable by nobody else: -EPERM. */
int ctl_run_dir(char *path, size_t size, struct err *e);

/* Where logs go, made when missing: $XENOLITH_LOG_DIR; for root
 * /var/log/xenolith; else $XDG_STATE_HOME/xenolith or ~/.local/state/xenolith. */
int ctl_log_dir(char *path, size_t size, struct err *e);

/* DIR/PREFIXname.log; a '/' in name becomes '_'. */
int ctl_log_path(const char *prefix, const char *name, char *path, size_t size, struct err *e);

/* Opens it for appending, made 0600 when missing: descriptor or -errno. */
int ctl_log_open(const char *prefix, const char *name, struct err *e);

#endif
