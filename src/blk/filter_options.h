/* SPDX-License-Identifier: MIT */
/* What a disk line says about filters: NAME[:OPTION=VALUE]..., one after the other with commas
 * between them, the first of them being the first that a request meets.  The value of an
 * option that takes the rest may hold colons.  xl.cfg(5) describes them all. */
#ifndef XENOLITH_BLK_FILTER_OPTIONS_H
#define XENOLITH_BLK_FILTER_OPTIONS_H

#include "base/err.h"
#include "base/types.h"

struct blk_driver;

#define BLK_FILTERS_MAX 8u

struct blk_option {
    const char *name;
    size_t offset;              /* of the field, in the filter's options */
    /* Reads value into the field, which may keep a pointer to it while the disk is being
     * opened.  0 or -errno. */
    int (*read)(const char *value, void *field);
    const char *expected;       /* what value must be, for messages */
    bool takes_rest;
};

/* Fields of uint64_t: any number, bytes with a suffix, a time with one (ns, us, ms, s); and of
 * const char *. */
int blk_option_number(const char *value, void *field);
int blk_option_bytes(const char *value, void *field);
int blk_option_time_ns(const char *value, void *field);
int blk_option_text(const char *value, void *field);
/* Operations by name with + between them, as a mask of 1 << BLK_OP_...; uint64_t as well. */
int blk_option_ops(const char *value, void *field);
#define BLK_OPTION_OPS_EXPECTED "read, write, flush, discard, write-zeroes, with + between them"

/* The first filter of a list, understood. */
struct blk_filter_line {
    const struct blk_driver *filter;
    void *options;              /* as the filter has them; NULL: it has none */
    const char *rest;           /* the filters after it, "" if there are none */
    char *text;
};

/* 0 or -errno with e naming filter and option; then *out needs no free. */
int blk_filter_line_read(const char *filters, struct blk_filter_line *out, struct err *e);
void blk_filter_line_free(struct blk_filter_line *l);

/* Whether filters make sense, as far as can be told without opening anything. */
int blk_filters_judge(const char *filters, struct err *e);

#endif
