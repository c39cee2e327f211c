/* SPDX-License-Identifier: MIT */
/* The xenstore daemon: one per run-time directory, started by whoever needs it
 * first.  Its socket is RUN_DIR/xenstored/socket; Xen's own tools (libxenstore)
 * find it with XENSTORED_PATH=RUN_DIR/xenstored/socket in their environment
 * (or XENSTORED_RUNDIR=RUN_DIR/xenstored).  Only the user who runs it can
 * connect. */
#ifndef XENOLITH_XEN_XS_DAEMON_H
#define XENOLITH_XEN_XS_DAEMON_H

#include "base/err.h"

/* A daemon without connections ends after this long. */
#define XS_DAEMON_GRACE_MS 5000

/* The internal subcommand `xenolith xenstored --run-dir DIR [--grace-ms N]`:
 * serves in the foreground until nobody is connected any more, or SIGTERM or
 * SIGINT.  argv[0] is the subcommand's name.  The exit status: 0 also when
 * another daemon already serves that directory. */
int xs_daemon_main(int argc, char **argv);

/* Makes sure that a daemon answers, and says where: socket_path (size bytes).
 * Started in the background if need be, out of the caller's session, with its
 * messages in RUN_DIR/xenstored/log.  run_dir must exist.  0 or -errno. */
int xs_daemon_ensure(const char *run_dir, char *socket_path, size_t size, struct err *e);

#endif
