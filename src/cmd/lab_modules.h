/* SPDX-License-Identifier: MIT */
/* Which kernel modules to load, and in which order.  Pure. */
#ifndef XENOLITH_CMD_LAB_MODULES_H
#define XENOLITH_CMD_LAB_MODULES_H

#include "base/err.h"
#include "base/types.h"

#define LAB_MAX_MODULES 64
#define LAB_MODULE_NAME_BYTES 56    /* as in the kernel, with the final NUL */

struct lab_modules {
    char names[LAB_MAX_MODULES][LAB_MODULE_NAME_BYTES];     /* in load order */
    unsigned nr_names;
};

/* Puts the modules wanted and, before each, what it depends on into list, each
 * once.  dep is the text of modules.dep as fetch-kernel writes it, "NAME: FIRST
 * SECOND ..." in each line with all dependencies in load order.  A module that is
 * in builtin (one name in each line) needs no loading.  -ENOENT when the kernel
 * lacks one, -E2BIG when there are too many or a name is too long; err names it. */
int lab_modules_resolve(const char *dep, const char *builtin, const char *const *wanted,
                        size_t nr_wanted, struct lab_modules *list, struct err *err);

/* The size of a module without the signature that the distribution appends to it
 * (struct module_signature and its marker, Linux's kernel/module_signature.c);
 * size_bytes when there is none.  Checking signatures takes emulated processors
 * longer than all else about loading. */
size_t lab_modules_unsigned_bytes(const void *module, size_t size_bytes);

#endif
