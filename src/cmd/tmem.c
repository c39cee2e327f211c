/* SPDX-License-Identifier: MIT */
/* tmem: what is in the pool that tmem disks share, and whose it is. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>

#include "blk/tmem_pool.h"
#include "cmd/cmd.h"
#include "ctl/dirs.h"

static void pool_print(const struct tmem_stats *s)
{
    double unique = s->unique_pages ? (double)s->unique_pages : 1;

    printf("%-22s : %" PRIu64 "\n", "bound_mb", s->bound_bytes / MIB);
    printf("%-22s : %" PRIu64 "\n", "memory_kb", s->memory_bytes / KIB);
    printf("%-22s : %" PRIu64 "\n", "pages_stored", s->stored_pages);
    printf("%-22s : %" PRIu64 "\n", "pages_unique", s->unique_pages);
    printf("%-22s : %.2f\n", "dedup_ratio", (double)s->stored_pages / unique);
    printf("%-22s : %" PRIu64 "\n", "compressed_kb", s->compressed_bytes / KIB);
    printf("%-22s : %" PRIu64 "\n", "cells_kb", s->cell_bytes / KIB);
    printf("%-22s : %u\n", "disks", s->nr_users);
}

/* Of the guest whose process it is; other servers of disks have their process's number. */
static const char *name_of(const struct registry_guest *g, unsigned nr, unsigned pid, char *buf,
                           size_t size)
{
    for (unsigned i = 0; i < nr; i++)
        if (g[i].pid == (pid_t)pid)
            return g[i].name;
    snprintf(buf, size, "(process %u)", pid);
    return buf;
}

static void disk_print(const struct tmem_user_stats *u, const char *name)
{
    char quota[32] = "-";

    if (u->quota_bytes != UINT64_MAX)
        snprintf(quota, sizeof(quota), "%" PRIu64, u->quota_bytes / KIB);
    printf("%-32s %-8s %10" PRIu64 " %10s %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64
           " %10" PRIu64 " %10" PRIu64 "\n", name, u->label[0] ? u->label : "-",
           u->size_bytes / KIB, quota, u->charged_bytes / KIB, u->pages, u->filled,
           u->shared_hits, u->over_quota, u->pool_full);
}

static void disks_print(const struct tmem_stats *s, const struct registry_guest *g, unsigned nr)
{
    char buf[32];

    printf("\n%-32s %-8s %10s %10s %10s %10s %10s %10s %10s %10s\n", "Name", "Disk", "Size(kB)",
           "Quota(kB)", "Used(kB)", "Pages", "Filled", "Found", "OverQuota", "PoolFull");
    for (unsigned i = 0; i < s->nr_users; i++)
        disk_print(&s->user[i], name_of(g, nr, s->user[i].pid, buf, sizeof(buf)));
}

int cmd_tmem(int argc, char **argv)
{
    struct cmd_options o = { "tmem", "h", NULL };
    struct registry_guest *g = NULL;
    struct tmem_stats *s;
    struct registry r;
    struct err e = { 0 };
    unsigned nr = 0;
    int rc;

    while (cmd_option_next(&o, argc, argv) >= 0)
        ;
    if (o.status >= 0)
        return o.status;
    if (cmd_registry_open(&r))
        return CMD_FAILURE;
    s = calloc(1, sizeof(*s));
    rc = s ? tmem_pool_stats(r.path, s, &e) : err_set(&e, ENOMEM, "out of memory");
    if (!rc)
        rc = registry_list(&r, &g, &nr, &e);
    registry_close(&r);
    if (!rc) {
        pool_print(s);
        disks_print(s, g, nr);
    } else if (!e.code) {
        printf("No disk has driver=tmem.\n");
    } else {
        cmd_error(&e);
    }
    free(g);
    free(s);
    return e.code ? CMD_FAILURE : CMD_OK;
}
