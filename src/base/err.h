/* SPDX-License-Identifier: MIT */
/* The control plane's error: filled once, where the fault is seen, and printed
 * once, by whoever ends the command.  Functions that take a struct err return 0
 * or -errno; err may not be NULL. */
#ifndef XENOLITH_BASE_ERR_H
#define XENOLITH_BASE_ERR_H

#include "base/types.h"

struct err {
    int code;           /* positive errno, 0 while nothing is wrong */
    unsigned line;      /* in file, from 1; 0: no line applies */
    char file[256];     /* what was read; "": none */
    char field[64];     /* key or option at fault; "": none */
    char text[512];     /* what is wrong and what was expected */
};

/* Fills code and text, keeps what err_at() set; a second fault does not
 * overwrite the first.  Returns -code. */
int err_set(struct err *e, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Says where: file, line and field may each be NULL or 0 for "as before". */
void err_at(struct err *e, const char *file, unsigned line, const char *field);

/* "file:line: field: text" without trailing newline; returns buf. */
const char *err_str(const struct err *e, char *buf, size_t size);

/* Forgets the fault so that e can be used again. */
void err_clear(struct err *e);

#endif
