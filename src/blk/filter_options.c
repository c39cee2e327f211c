/* SPDX-License-Identifier: MIT */
#include "blk/filter_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "blk/driver.h"

int blk_option_number(const char *value, void *field)
{
    return num_parse_u64(value, 0, UINT64_MAX, field);
}

int blk_option_bytes(const char *value, void *field)
{
    return num_parse_bytes(value, field);
}

int blk_option_time_ns(const char *value, void *field)
{
    static const struct { const char *suffix; uint64_t ns; } units[] = {
        { "ns", 1 }, { "us", 1000 }, { "ms", 1000000 }, { "s", 1000000000 },
    };
    size_t digits = strspn(value, "0123456789");
    char number[24];
    uint64_t n;
    int rc;

    if (!digits || digits >= sizeof(number))
        return -EINVAL;
    memcpy(number, value, digits);
    number[digits] = 0;
    for (unsigned i = 0; i < array_size(units); i++) {
        if (strcmp(value + digits, units[i].suffix))
            continue;
        rc = num_parse_u64(number, 0, INT64_MAX, &n);
        if (rc || num_mul_overflows(n, units[i].ns, &n) || n > INT64_MAX)
            return -ERANGE;
        *(uint64_t *)field = n;
        return 0;
    }
    return -EINVAL;
}

int blk_option_text(const char *value, void *field)
{
    *(const char **)field = value;
    return *value ? 0 : -EINVAL;
}

int blk_option_ops(const char *value, void *field)
{
    static const char *const names[BLK_NR_OPS] = {
        [BLK_OP_READ] = "read", [BLK_OP_WRITE] = "write", [BLK_OP_FLUSH] = "flush",
        [BLK_OP_DISCARD] = "discard", [BLK_OP_WRITE_ZEROES] = "write-zeroes",
    };
    uint64_t *mask = field;

    for (*mask = 0;; value++) {
        size_t len = strcspn(value, "+");
        unsigned op = 0;

        while (op < BLK_NR_OPS && (strlen(names[op]) != len || strncmp(value, names[op], len)))
            op++;
        if (op == BLK_NR_OPS)
            return -EINVAL;
        *mask |= 1ull << op;
        value += len;
        if (!*value)
            return 0;
    }
}

static int option_fail(const struct blk_driver *f, const char *option, struct err *e)
{
    char known[200];
    size_t n = 0;

    known[0] = 0;
    for (unsigned i = 0; i < f->nr_options && n < sizeof(known); i++)
        n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s=", i ? ", " : "",
                              f->options[i].name);
    return err_set(e, EINVAL, "filter=%s: unknown option `%.60s', expected %s", f->name, option,
                   *known ? known : "none");
}

/* One option at *at, which moves to the next; given tells those seen before. */
static int option_read(struct blk_filter_line *l, char **at, uint64_t *given, struct err *e)
{
    const struct blk_driver *f = l->filter;
    char *name = *at, *end = strchrnul(name, ':');

    for (unsigned i = 0; i < f->nr_options; i++) {
        const struct blk_option *o = &f->options[i];
        size_t len = strlen(o->name);
        char *value = name + len + 1;

        if (strncmp(name, o->name, len) || name[len] != '=')
            continue;
        if (o->takes_rest)
            end = name + strlen(name);
        *at = *end ? end + 1 : NULL;
        *end = 0;
        if (*given & 1ull << i)
            return err_set(e, EINVAL, "filter=%s: %s= is given twice", f->name, o->name);
        *given |= 1ull << i;
        if (o->read(value, (char *)l->options + o->offset))
            return err_set(e, EINVAL, "filter=%s: %s=%.80s: expected %s", f->name, o->name, value,
                           o->expected);
        return 0;
    }
    *end = 0;
    return option_fail(f, name, e);
}

static int options_read(struct blk_filter_line *l, char *text, struct err *e)
{
    uint64_t given = 0;
    int rc = 0;

    l->options = calloc(1, max_of(l->filter->options_bytes, (size_t)1));
    if (!l->options)
        return err_set(e, ENOMEM, "out of memory");
    while (text && !rc)
        rc = option_read(l, &text, &given, e);
    if (!rc && l->filter->options_judge)
        rc = l->filter->options_judge(l->options, e);
    return rc;
}

static int filter_unknown(const char *name, struct err *e)
{
    char known[200];
    size_t n = 0;

    known[0] = 0;
    for (unsigned i = 0; blk_filter_table[i] && n < sizeof(known); i++)
        n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s", i ? ", " : "",
                              blk_filter_table[i]->name);
    return err_set(e, EINVAL, "no filter is called `%.60s', expected one of %s", name, known);
}

int blk_filter_line_read(const char *filters, struct blk_filter_line *out, struct err *e)
{
    size_t len = strcspn(filters, ",");
    char *colon;
    int rc;

    *out = (struct blk_filter_line){ .rest = filters + len + (filters[len] == ',') };
    out->text = strndup(filters, len);
    if (!out->text)
        return err_set(e, ENOMEM, "out of memory");
    colon = strchr(out->text, ':');
    if (colon)
        *colon++ = 0;
    out->filter = blk_filter_find(out->text);
    rc = out->filter ? options_read(out, colon, e) : filter_unknown(out->text, e);
    if (rc)
        blk_filter_line_free(out);
    return rc;
}

void blk_filter_line_free(struct blk_filter_line *l)
{
    free(l->options);
    free(l->text);
}

int blk_filters_judge(const char *filters, struct err *e)
{
    for (unsigned nr = 1; *filters; nr++) {
        struct blk_filter_line l;
        int rc = blk_filter_line_read(filters, &l, e);

        if (rc)
            return rc;
        filters = l.rest;
        blk_filter_line_free(&l);
        if (nr > BLK_FILTERS_MAX)
            return err_set(e, E2BIG, "more than %u filters on one disk", BLK_FILTERS_MAX);
    }
    return 0;
}
