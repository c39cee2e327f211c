/* SPDX-License-Identifier: MIT */
/* What is a path: docs/misc/xenstore.txt of Xen, introduction. */
#ifndef XENOLITH_XEN_STORE_PATH_H
#define XENOLITH_XEN_STORE_PATH_H

#include "base/types.h"

/* One of A-Z a-z 0-9 - / _ @ */
bool store_path_char_ok(char c);

/* An absolute path: starts with /, no //, no / at the end but for the root, at
 * most XENSTORE_ABS_PATH_MAX bytes, permitted characters only. */
bool store_path_ok(const char *path);

/* @introduceDomain and its like: events the daemon invents, not nodes. */
static inline bool store_path_is_special(const char *path)
{
    return path[0] == '@';
}

/* Steps over the next component: false at the end, else *name and *len say
 * which, and *at is behind it.  Start with *at = path; the root has none. */
static inline bool store_path_next(const char **at, const char **name, size_t *len)
{
    const char *p = *at;

    while (*p == '/')
        p++;
    *name = p;
    while (*p && *p != '/')
        p++;
    *len = (size_t)(p - *name);
    *at = p;
    return *len > 0;
}

#endif
