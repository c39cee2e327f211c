/* SPDX-License-Identifier: MIT */
#include "xen/store_names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_CAP_FIRST 4

static const char *name_of(const void *element, size_t name_at)
{
    return (const char *)element + name_at;
}

bool store_names_slot(const struct store_names *s, size_t name_at,
                      const char *name, size_t len, uint32_t *slot)
{
    uint32_t lo = 0, hi = s->nr;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const char *other = name_of(s->v[mid], name_at);
        int order = strncmp(other, name, len);

        if (order == 0 && other[len])
            order = 1;      /* name is a prefix of other */
        if (order == 0) {
            *slot = mid;
            return true;
        }
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *slot = lo;
    return false;
}

void *store_names_find(const struct store_names *s, size_t name_at,
                       const char *name, size_t len)
{
    uint32_t slot;

    return store_names_slot(s, name_at, name, len, &slot) ? s->v[slot] : NULL;
}

int store_names_insert(struct store_names *s, size_t name_at, void *element)
{
    const char *name = name_of(element, name_at);
    uint32_t slot;

    if (store_names_slot(s, name_at, name, strlen(name), &slot))
        return -EEXIST;
    if (s->nr == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : NAMES_CAP_FIRST;
        void **grown = realloc(s->v, cap * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        s->v = grown;
        s->cap = cap;
    }
    memmove(&s->v[slot + 1], &s->v[slot], (s->nr - slot) * sizeof(s->v[0]));
    s->v[slot] = element;
    s->nr++;
    return 0;
}

void *store_names_remove(struct store_names *s, size_t name_at,
                         const char *name, size_t len)
{
    void *element;
    uint32_t slot;

    if (!store_names_slot(s, name_at, name, len, &slot))
        return NULL;
    element = s->v[slot];
    s->nr--;
    memmove(&s->v[slot], &s->v[slot + 1], (s->nr - slot) * sizeof(s->v[0]));
    return element;
}
