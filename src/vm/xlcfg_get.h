/* SPDX-License-Identifier: MIT */
/* Settings by name and type, and messages that say where they stand. */
#ifndef XENOLITH_VM_XLCFG_GET_H
#define XENOLITH_VM_XLCFG_GET_H

#include "vm/xlcfg.h"

/* Fills e with the place of at, the setting's name and text.  Returns -code. */
int xlcfg_value_fail(const struct xlcfg_value *at, const char *name, struct err *e, int code,
                     const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* One line on standard error: "file:line: name: text". */
void xlcfg_value_warn(const struct xlcfg_value *at, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The setting as text.  *out is x's, NULL when nothing sets name.  0 or -EINVAL. */
int xlcfg_get_text(const struct xlcfg *x, const char *name, const char **out, struct err *e);

/* The setting as a number in any of C's bases; *out is left alone when nothing
 * sets name.  0, -EINVAL, or -ERANGE outside [min, max]. */
int xlcfg_get_number(const struct xlcfg *x, const char *name, int64_t min, int64_t max,
                     int64_t *out, struct err *e);

#endif
