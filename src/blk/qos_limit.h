/* SPDX-License-Identifier: MIT */
/* Limits of requests and bytes per second that any number of queues share, and the groups
 * under whose names disks share them.
 *
 * A limit is a bucket of tokens told as a time (the generic cell rate algorithm): `spent_ns` is
 * when all that was taken so far will have been earned back and the bucket is full, or some time
 * that has passed if it is.  Whoever wants to take something moves it on, from now at least, by
 * what that costs, and may begin when it was no further ahead than the burst takes to earn: one
 * compare-and-swap, and the answer is a time to wait for. */
#ifndef XENOLITH_BLK_QOS_LIMIT_H
#define XENOLITH_BLK_QOS_LIMIT_H

#include "base/err.h"
#include "base/types.h"

#define QOS_PER_SECOND_MAX   ((uint64_t)1000 * 1000 * 1000 * 1000)
#define QOS_COST_MAX_NS      ((uint64_t)100 * 365 * 86400 * 1000 * 1000 * 1000)
#define QOS_BURST_DEFAULT_NS 15000000u      /* what may be made up for after a late wake-up */

struct qos_rate {
    uint64_t per_second;        /* 0: no limit */
    uint64_t burst;             /* how much may begin at once; 0: QOS_BURST_DEFAULT_NS' worth */
};

struct qos_limits;
struct qos_groups;

/* What n of something take at a rate, in ns, to be earned; a century at most. */
static inline uint64_t qos_cost_ns(const struct qos_rate *r, uint64_t n)
{
    uint64_t ns;

    if (!r->per_second)
        return 0;
    if (!__builtin_mul_overflow(n, (uint64_t)1000000000, &ns))
        return min_of(ns / r->per_second, QOS_COST_MAX_NS);
    return (uint64_t)min_of((unsigned __int128)n * 1000000000 / r->per_second,
                            (unsigned __int128)QOS_COST_MAX_NS);
}

struct qos_charge { uint64_t requests_ns, bytes_ns; };

/* One request of so many bytes. */
struct qos_charge qos_charge_of(const struct qos_limits *l, uint64_t bytes);
/* Takes it, from any thread.  When the request may begin: a CLOCK_MONOTONIC time in ns. */
uint64_t qos_limits_take(struct qos_limits *l, uint64_t now_ns, struct qos_charge c);

/* Limits of one disk (name NULL), or of the group of that name: what it says must be what it
 * said first, or nothing.  Of one thread, as qos_limits_put().  0 or -errno. */
int qos_limits_get(struct qos_groups *groups, const char *name, const struct qos_rate *requests,
                   const struct qos_rate *bytes, struct qos_limits **out, struct err *e);
void qos_limits_put(struct qos_limits *l);

/* NULL when out of memory.  All disks in groups must have been closed before it is freed. */
struct qos_groups *qos_groups_create(void);
void qos_groups_free(struct qos_groups *g);

#endif
