/* SPDX-License-Identifier: MIT */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
    va_list ap;

    if (e->code)
        return -e->code;
    e->code = code;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    return -code;
}

void err_at(struct err *e, const char *file, unsigned line, const char *field)
{
    if (file)
        snprintf(e->file, sizeof(e->file), "%s", file);
    if (line)
        e->line = line;
    if (field)
        snprintf(e->field, sizeof(e->field), "%s", field);
}

const char *err_str(const struct err *e, char *buf, size_t size)
{
    char where[300] = "";

    if (e->file[0] && e->line)
        snprintf(where, sizeof(where), "%s:%u: ", e->file, e->line);
    else if (e->file[0])
        snprintf(where, sizeof(where), "%s: ", e->file);
    snprintf(buf, size, "%s%s%s%s", where, e->field, e->field[0] ? ": " : "", e->text);
    return buf;
}

void err_clear(struct err *e)
{
    memset(e, 0, sizeof(*e));
}
