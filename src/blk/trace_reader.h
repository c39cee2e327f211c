/* SPDX-License-Identifier: MIT */
/* Reads what filter=trace has recorded, while it goes on or later, from a file that anybody may
 * have written. */
#ifndef XENOLITH_BLK_TRACE_READER_H
#define XENOLITH_BLK_TRACE_READER_H

#include <stdio.h>

#include "base/err.h"
#include "blk/trace_file.h"

struct blk_trace_entry {
    struct blk_trace_record record;
    unsigned ring;              /* the number of the queue */
};

struct blk_trace {
    char label[sizeof(((struct blk_trace_header *)NULL)->label)];
    uint64_t size_bytes;
    uint64_t realtime_ns;       /* when submitted_ns is 0 */
    unsigned nr_rings;
    uint64_t nr_overwritten;    /* older ones, which newer ones lie over */
    uint64_t nr_damaged;        /* that are no records: half written, at most one in each ring */
    size_t nr_entries;
    struct blk_trace_entry *entries;    /* as they were submitted */
};

/* 0 or -errno with e saying what is wrong with the file. */
int blk_trace_read(const char *path, struct blk_trace *out, struct err *e);
void blk_trace_free(struct blk_trace *t);

/* For people: a line for each request. */
void blk_trace_print(const struct blk_trace *t, FILE *to);
/* For fio --read_iolog (its format 3), which replays it on the file or device called name.  What
 * writes zeroes is a write there, since fio has no word for it. */
void blk_trace_print_iolog(const struct blk_trace *t, const char *name, FILE *to);

#endif
