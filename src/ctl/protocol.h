/* SPDX-License-Identifier: MIT */
/* The words on a control socket: one JSON object per line, each way.
 *
 *   request  {"version": 1, "command": NAME, "arguments": {...}}
 *   reply    {"return": {...}}  or  {"error": {"code": ERRNO, "text": "..."}}
 *
 * Requests of one connection are answered in order.  After the reply to
 * "console" the connection carries the console's bytes and nothing else. */
#ifndef XENOLITH_CTL_PROTOCOL_H
#define XENOLITH_CTL_PROTOCOL_H

#include <jansson.h>

#include "base/err.h"

#define CTL_PROTOCOL_VERSION    1
#define CTL_REQUEST_BYTES_MAX   (64 * KIB)      /* a disk line of two paths, every byte escaped */
#define CTL_REPLY_BYTES_MAX     (1 * MIB)
#define CTL_COMMAND_BYTES       32

/* A request as one line with its newline, to be freed; NULL: out of memory or
 * text that is not UTF-8.  Takes arguments (NULL: none). */
char *ctl_request_format(const char *command, json_t *arguments);

/* Judges a line (without newline).  On success *arguments is an object for the
 * caller to release.  -EPROTO or -EPROTONOSUPPORT with e filled. */
int ctl_request_parse(const char *line, size_t len, char command[CTL_COMMAND_BYTES],
                      json_t **arguments, struct err *e);

/* Reply lines, to be freed.  The first takes result (NULL: empty). */
char *ctl_reply_format(json_t *result);
char *ctl_reply_format_error(const struct err *e);

/* *result is the caller's; a reply that is an error comes back as that error. */
int ctl_reply_parse(const char *line, size_t len, json_t **result, struct err *e);

#endif
