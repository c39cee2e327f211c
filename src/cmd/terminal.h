/* SPDX-License-Identifier: MIT */
/* Standard input and output on one side, a console's socket on the other. */
#ifndef XENOLITH_CMD_TERMINAL_H
#define XENOLITH_CMD_TERMINAL_H

#include "base/types.h"

#define TERMINAL_ESCAPE 0x1d    /* Ctrl-] , as in xenconsole */

enum terminal_event { TERMINAL_ESCAPED, TERMINAL_SIGNALLED };

/* Copies both ways until the console's side closes, or event says false: it is
 * called when the user types the escape (never passed on) and when SIGINT,
 * SIGTERM or SIGHUP came.  A terminal is in raw mode meanwhile.  fd stays the
 * caller's and becomes non-blocking.  announce (or NULL) is said to a terminal
 * first.  False when standard output cannot be written. */
bool terminal_run(int fd, const char *announce,
                  bool (*event)(void *arg, enum terminal_event what), void *arg);

#endif
