/* SPDX-License-Identifier: MIT */
/* The file in which filter=trace records requests: a header of a page, then a ring for each queue
 * that has been open, of records of one size.
 *
 * A ring needs no pointer: each record has its number, from 1, and lies at number - 1 modulo the
 * ring's size, over an older one.  One that is half written, or not a record at all, is told by
 * its sum; so the file may be read at any time, and after a kill.  Bytes are as x86 has them. */
#ifndef XENOLITH_BLK_TRACE_FILE_H
#define XENOLITH_BLK_TRACE_FILE_H

#include "base/types.h"

#define BLK_TRACE_MAGIC        0x65636172742d6c78u      /* "xl-trace" */
#define BLK_TRACE_VERSION      1u
#define BLK_TRACE_HEADER_BYTES 4096u
#define BLK_TRACE_RINGS        64u
#define BLK_TRACE_RECORDS_MIN  16u
#define BLK_TRACE_RECORDS_MAX  (1u << 24)

struct blk_trace_header {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes;
    uint32_t record_bytes;
    uint32_t nr_rings;              /* so far; the file has room for as many */
    uint64_t ring_records;
    uint64_t realtime_ns;           /* CLOCK_REALTIME when CLOCK_MONOTONIC was 0 */
    uint64_t size_bytes;            /* of the disk */
    char label[32];                 /* its name */
};

enum blk_trace_flag { BLK_TRACE_FUA = 1 };

struct blk_trace_record {
    uint64_t number;
    uint64_t submitted_ns;          /* CLOCK_MONOTONIC */
    uint64_t latency_ns;
    uint64_t offset_bytes;
    uint64_t length_bytes;
    int16_t result;                 /* 0 or -errno */
    uint8_t op;                     /* enum blk_op */
    uint8_t flags;
    uint32_t sum;
};

_Static_assert(sizeof(struct blk_trace_record) == 48, "no holes");

/* Of all but itself. */
static inline uint32_t blk_trace_sum(const struct blk_trace_record *r)
{
    const uint64_t words[] = {
        r->number, r->submitted_ns, r->latency_ns, r->offset_bytes, r->length_bytes,
        (uint64_t)(uint16_t)r->result | (uint64_t)r->op << 16 | (uint64_t)r->flags << 24,
    };
    uint64_t sum = BLK_TRACE_VERSION;

    for (unsigned i = 0; i < array_size(words); i++) {
        sum = (sum ^ words[i]) * 0x9e3779b97f4a7c15u;
        sum ^= sum >> 29;
    }
    return (uint32_t)(sum >> 16);
}

#endif
