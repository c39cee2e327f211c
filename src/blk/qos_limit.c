/* SPDX-License-Identifier: MIT */
#include "blk/qos_limit.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"

struct qos_bucket {
    cacheline_aligned uint64_t spent_ns;
    cacheline_aligned struct qos_rate rate;     /* constant */
    uint64_t tolerance_ns;                      /* how far ahead spent_ns may lie */
    uint64_t one_ns;                            /* what one costs */
};

struct qos_limits {
    struct qos_bucket requests, bytes;
    struct qos_groups *groups;                  /* NULL: one disk's */
    struct qos_limits *next;
    unsigned nr_users;
    char *name;
};

struct qos_groups { struct qos_limits *first; };

static void bucket_init(struct qos_bucket *b, const struct qos_rate *rate)
{
    b->rate = *rate;
    b->one_ns = qos_cost_ns(rate, 1);
    /* the first of a burst needs no tolerance */
    b->tolerance_ns = !rate->per_second ? 0 : !rate->burst ? QOS_BURST_DEFAULT_NS :
                      qos_cost_ns(rate, rate->burst - 1);
}

static uint64_t bucket_take(struct qos_bucket *b, uint64_t now_ns, uint64_t cost_ns)
{
    uint64_t spent_ns = load_relaxed(&b->spent_ns), from_ns, next_ns;

    /* the word guards nothing but itself */
    do {
        from_ns = max_of(spent_ns, now_ns);
        /* what drains charge adds up without anybody waiting for it */
        next_ns = min_of(from_ns + cost_ns, (uint64_t)INT64_MAX);
    } while (!__atomic_compare_exchange_n(&b->spent_ns, &spent_ns, next_ns, true,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return from_ns > b->tolerance_ns ? from_ns - b->tolerance_ns : 0;
}

struct qos_charge qos_charge_of(const struct qos_limits *l, uint64_t bytes)
{
    return (struct qos_charge){
        .requests_ns = l->requests.one_ns,
        .bytes_ns = qos_cost_ns(&l->bytes.rate, bytes),
    };
}

uint64_t qos_limits_take(struct qos_limits *l, uint64_t now_ns, struct qos_charge c)
{
    uint64_t requests_ns = c.requests_ns ? bucket_take(&l->requests, now_ns, c.requests_ns) : 0;
    uint64_t bytes_ns = c.bytes_ns ? bucket_take(&l->bytes, now_ns, c.bytes_ns) : 0;

    return max_of(requests_ns, bytes_ns);
}

static bool rates_differ(const struct qos_rate *a, const struct qos_rate *b)
{
    return a->per_second != b->per_second || a->burst != b->burst;
}

static int group_join(struct qos_limits *l, const struct qos_rate *requests,
                      const struct qos_rate *bytes, struct err *e)
{
    bool says_nothing = !requests->per_second && !bytes->per_second;

    if (!says_nothing && (rates_differ(requests, &l->requests.rate) ||
                          rates_differ(bytes, &l->bytes.rate)))
        return err_set(e, EINVAL, "filter=qos: group=%.60s has other limits already, expected the"
                       " same or none", l->name);
    l->nr_users++;
    return 0;
}

static int limits_new(const char *name, const struct qos_rate *requests,
                      const struct qos_rate *bytes, struct qos_limits **out, struct err *e)
{
    struct qos_limits *l;

    if (!requests->per_second && !bytes->per_second)
        return err_set(e, EINVAL, "filter=qos: expected iops= or bps=, which the first disk of a"
                       " group must give");
    l = aligned_alloc(CACHE_LINE_BYTES, align_up(sizeof(*l), (size_t)CACHE_LINE_BYTES));
    if (!l)
        return err_set(e, ENOMEM, "out of memory");
    memset(l, 0, sizeof(*l));
    if (name && !(l->name = strdup(name))) {
        free(l);
        return err_set(e, ENOMEM, "out of memory");
    }
    bucket_init(&l->requests, requests);
    bucket_init(&l->bytes, bytes);
    l->nr_users = 1;
    *out = l;
    return 0;
}

int qos_limits_get(struct qos_groups *groups, const char *name, const struct qos_rate *requests,
                   const struct qos_rate *bytes, struct qos_limits **out, struct err *e)
{
    int rc;

    if (name && !groups)
        return err_set(e, EINVAL, "filter=qos: group=%.60s: there are no groups here", name);
    for (struct qos_limits *l = name ? groups->first : NULL; l; l = l->next) {
        if (strcmp(l->name, name))
            continue;
        *out = l;
        return group_join(l, requests, bytes, e);
    }
    rc = limits_new(name, requests, bytes, out, e);
    if (!rc && name) {
        (*out)->groups = groups;
        (*out)->next = groups->first;
        groups->first = *out;
    }
    return rc;
}

void qos_limits_put(struct qos_limits *l)
{
    struct qos_limits **at;

    if (--l->nr_users)
        return;
    if (l->groups) {
        for (at = &l->groups->first; *at != l; at = &(*at)->next)
            ;
        *at = l->next;
    }
    free(l->name);
    free(l);
}

struct qos_groups *qos_groups_create(void)
{
    return calloc(1, sizeof(struct qos_groups));
}

void qos_groups_free(struct qos_groups *g)
{
    assert(!g || !g->first);
    free(g);
}
