/* SPDX-License-Identifier: MIT */
/* The grammar of xl configuration files, and nothing of their meaning: names
 * and values in, a table of settings out.  See xl.cfg(5), "SYNTAX". */
#ifndef XENOLITH_VM_XLCFG_H
#define XENOLITH_VM_XLCFG_H

#include "base/err.h"
#include "base/types.h"

/* What a text may be at most, so that a hostile one costs little. */
#define XLCFG_TEXT_MAX_BYTES   MIB
#define XLCFG_DEPTH_MAX        16       /* lists within lists */
#define XLCFG_SETTINGS_MAX     1024     /* different names */

/* xl knows no numbers: 512 and "512" are the same atom. */
enum xlcfg_kind { XLCFG_ATOM, XLCFG_LIST };

struct xlcfg_value {
    enum xlcfg_kind kind;
    const char *source;         /* as given to xlcfg_parse(); owned by the xlcfg */
    unsigned line;              /* where the value starts; 0: its source has no lines */
    char *text;                 /* atom: escapes resolved, no NUL inside */
    size_t text_bytes;
    struct xlcfg_value *items;  /* list */
    unsigned nr_items;
};

struct xlcfg_setting {
    char *name;
    bool appended;              /* the last assignment was += */
    struct xlcfg_value value;
};

struct xlcfg {
    struct xlcfg_setting *settings;     /* in the order of their first assignment */
    unsigned nr_settings;
    char **sources;
    unsigned nr_sources;
};

/* Adds the assignments of text to x, which the caller has zeroed before the
 * first call and frees with xlcfg_free() in any case.  A later = replaces what
 * an earlier text set, += adds to it.  source stands in messages; numbered says
 * whether its lines are worth counting (not for a word of a command line).
 * Stops at the first fault: e then names source, line and, where one is known,
 * the setting.  0, -EINVAL, -E2BIG or -ENOMEM. */
int xlcfg_parse(struct xlcfg *x, const char *text, size_t len, const char *source,
                bool numbered, struct err *e);

/* NULL when nothing sets name. */
const struct xlcfg_setting *xlcfg_find(const struct xlcfg *x, const char *name);

void xlcfg_free(struct xlcfg *x);

#endif
