/* SPDX-License-Identifier: MIT */
/* Numbers from text, and arithmetic that cannot wrap unseen. */
#ifndef XENOLITH_BASE_NUM_H
#define XENOLITH_BASE_NUM_H

#include "base/types.h"

/* The whole of s as a number (decimal, 0x hexadecimal, leading 0 octal) within
 * [min, max].  0; -EINVAL not a number; -ERANGE outside. */
int num_parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *out);

/* A count of bytes with an optional suffix k, m, g or t (1024-based, either
 * case, optionally followed by B or iB).  0, -EINVAL or -ERANGE. */
int num_parse_bytes(const char *s, uint64_t *bytes);

/* true when the sum or product does not fit */
static inline bool num_add_overflows(uint64_t a, uint64_t b, uint64_t *out)
{
    return __builtin_add_overflow(a, b, out);
}

static inline bool num_mul_overflows(uint64_t a, uint64_t b, uint64_t *out)
{
    return __builtin_mul_overflow(a, b, out);
}

#endif
