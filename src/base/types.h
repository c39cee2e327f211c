/* SPDX-License-Identifier: MIT */
/* Integer names and the few macros every room uses.  Freestanding: the shim
 * includes this file too. */
#ifndef XENOLITH_BASE_TYPES_H
#define XENOLITH_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SHIFT 12
#define PAGE_SIZE  ((uint64_t)1 << PAGE_SHIFT)
#define PAGE_MASK  (PAGE_SIZE - 1)

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

#define CACHE_LINE_BYTES 64
#define cacheline_aligned __attribute__((aligned(CACHE_LINE_BYTES)))

#define array_size(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) \
    ((type *)((char *)(ptr) - offsetof(type, member)))

/* a is a power of two */
#define align_up(x, a)   (((x) + ((a) - 1)) & ~((a) - 1))
#define align_down(x, a) ((x) & ~((a) - 1))
#define div_round_up(n, d) (((n) + (d) - 1) / (d))

#define min_of(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ < b_ ? a_ : b_; })
#define max_of(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ > b_ ? a_ : b_; })

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#endif
