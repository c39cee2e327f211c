/* SPDX-License-Identifier: MIT */
/* xl warns of a value of the wrong type and goes on without it; here it is an
 * error, in the same words: a guest that differs from its file helps nobody. */
#include "vm/xlcfg_get.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

int xlcfg_value_fail(const struct xlcfg_value *at, const char *name, struct err *e, int code,
                     const char *fmt, ...)
{
    char text[sizeof(e->text)];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    err_at(e, at->source, at->line, name);
    return err_set(e, code, "%s", text);
}

void xlcfg_value_warn(const struct xlcfg_value *at, const char *name, const char *fmt, ...)
{
    struct err where = { .code = 0 };
    char line[sizeof(struct err)];
    va_list ap;

    err_at(&where, at->source, at->line, name);
    va_start(ap, fmt);
    vsnprintf(where.text, sizeof(where.text), fmt, ap);
    va_end(ap);
    log_warning("%s", err_str(&where, line, sizeof(line)));
}

/* The setting called name if it is an atom, NULL if there is none. */
static int get_atom(const struct xlcfg *x, const char *name, const struct xlcfg_setting **out,
                    struct err *e)
{
    *out = xlcfg_find(x, name);
    if (!*out || (*out)->value.kind == XLCFG_ATOM)
        return 0;
    return xlcfg_value_fail(&(*out)->value, name, e, EINVAL,
                            "parameter `%s' is a list but should be a single value", name);
}

int xlcfg_get_text(const struct xlcfg *x, const char *name, const char **out, struct err *e)
{
    const struct xlcfg_setting *s;
    int rc = get_atom(x, name, &s, e);

    *out = rc || !s ? NULL : s->value.text;
    return rc;
}

int xlcfg_get_number(const struct xlcfg *x, const char *name, int64_t min, int64_t max,
                     int64_t *out, struct err *e)
{
    const struct xlcfg_setting *s;
    long long n;
    char *end;
    int rc = get_atom(x, name, &s, e);

    if (rc || !s)
        return rc;
    if (s->appended)
        return xlcfg_value_fail(&s->value, name, e, EINVAL,
                                "can't use += with numbers for parameter `%s'", name);
    errno = 0;
    n = strtoll(s->value.text, &end, 0);
    if (end == s->value.text || *end)
        return xlcfg_value_fail(&s->value, name, e, EINVAL,
                                "parameter `%s' is not a valid number: `%.40s'", name,
                                s->value.text);
    if (errno)
        return xlcfg_value_fail(&s->value, name, e, ERANGE,
                                "parameter `%s' could not be parsed as a number: `%.40s' is"
                                " out of range", name, s->value.text);
    if (n < min)
        return xlcfg_value_fail(&s->value, name, e, ERANGE,
                                "value `%lld' is smaller than minimum bound `%lld'", n,
                                (long long)min);
    if (n > max)
        return xlcfg_value_fail(&s->value, name, e, ERANGE,
                                "value `%lld' is greater than maximum bound `%lld'", n,
                                (long long)max);
    *out = n;
    return 0;
}
