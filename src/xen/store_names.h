/* SPDX-License-Identifier: MIT */
/* A sorted array of pointers to things with a name: the children of a node, and
 * those of a watch point.  Finding takes log n comparisons, a change moves
 * pointers only.  Every element has its name, 0-terminated, name_at bytes from
 * its start. */
#ifndef XENOLITH_XEN_STORE_NAMES_H
#define XENOLITH_XEN_STORE_NAMES_H

#include "base/types.h"

struct store_names {
    uint32_t nr, cap;
    void **v;
};

/* Whether name (len bytes) is there, and at which slot it is or would go. */
bool store_names_slot(const struct store_names *s, size_t name_at,
                      const char *name, size_t len, uint32_t *slot);
/* NULL: not there */
void *store_names_find(const struct store_names *s, size_t name_at,
                       const char *name, size_t len);
/* 0, -EEXIST or -ENOMEM */
int store_names_insert(struct store_names *s, size_t name_at, void *element);
/* What was taken out, NULL: not there */
void *store_names_remove(struct store_names *s, size_t name_at,
                         const char *name, size_t len);

#endif
