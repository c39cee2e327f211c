/* SPDX-License-Identifier: MIT */
/* list, domid, domname: which guests there are.  The columns are xl's; there is
 * no domain 0, so no row for it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"
#include "ctl/uuid.h"

static void row(const struct ctl_guest_state *s, bool verbose)
{
    static const char reasons[] = "-rscwS";     /* by SHUTDOWN_* */
    bool stopped = s->shutdown || s->crashed;
    unsigned why = stopped ? (unsigned)s->why : 0;
    char uuid[UUID_TEXT_BYTES];

    printf("%-40s %5u %5llu %5u     %c%c%c%c%c%c  %8.1f", s->who.name, s->who.domid,
           (unsigned long long)(s->memory_bytes / MIB), s->vcpus_online,
           s->running ? 'r' : '-', s->blocked ? 'b' : '-', s->paused ? 'p' : '-',
           stopped ? 's' : '-', why < sizeof(reasons) - 1 ? reasons[why] : '?',
           s->dying ? 'd' : '-', (double)s->cpu_time_ns / 1e9);
    if (verbose) {
        uuid_format(s->who.uuid, uuid);
        printf(" %s", uuid);
        if (stopped)
            printf(" %8x", why);
        else
            printf(" %8s", "-");
        printf(" %16s", "-");
    }
    putchar('\n');
}

static int list_table(struct registry *r, const struct registry_guest *g, unsigned nr,
                      bool verbose)
{
    int status = CMD_OK;

    printf("Name                                        ID   Mem VCPUs\tState\tTime(s)%s\n",
           verbose ? "   UUID                            Reason-Code\tSecurity Label" : "");
    for (unsigned i = 0; i < nr; i++) {
        struct ctl_guest_state s;
        struct err e = { 0 };
        int rc = ctl_guest_state_get(r, &g[i], &s, &e);

        if (rc == -ENOENT && !e.code)
            continue;       /* gone since it was listed */
        if (rc) {
            cmd_error(&e);
            status = CMD_FAILURE;
        }
        row(&s, verbose);
    }
    return status;
}

static int list_long(struct registry *r, const struct registry_guest *g, unsigned nr)
{
    json_t *all = json_array();
    int status = CMD_OK;
    char *text;

    for (unsigned i = 0; i < nr; i++) {
        json_t *config = NULL;
        struct err e = { 0 };
        int rc = ctl_call(r, g[i].domid, "config", NULL, CTL_TIMEOUT_MS, &config, &e);

        if (rc == -ENOENT || rc == -ECONNREFUSED || rc == -ECONNRESET)
            continue;       /* gone, or not built yet */
        if (rc) {
            cmd_error(&e);
            status = CMD_FAILURE;
            continue;
        }
        json_array_append_new(all, json_pack("{s:i, s:o}", "domid", (int)g[i].domid,
                                             "config", config));
    }
    text = json_dumps(all, JSON_INDENT(4));
    if (text)
        printf("%s\n", text);
    free(text);
    json_decref(all);
    return status;
}

int cmd_list(int argc, char **argv)
{
    static const struct option longs[] = {
        { "long", 0, NULL, 'l' }, { "verbose", 0, NULL, 'v' }, { "help", 0, NULL, 'h' },
        { NULL },
    };
    struct cmd_options o = { "list", "lvh", longs };
    struct registry_guest *g = NULL;
    bool details = false, verbose = false;
    struct registry r;
    struct err e = { 0 };
    unsigned nr = 0;
    int c, status;

    while ((c = cmd_option_next(&o, argc, argv)) >= 0) {
        details |= c == 'l';
        verbose |= c == 'v';
    }
    if (o.status >= 0)
        return o.status;
    if (argc - optind > 1) {
        cmd_help_one(stdout, cmd_find("list"));
        return CMD_FAILURE;
    }
    if (cmd_registry_open(&r))
        return CMD_FAILURE;
    if (optind == argc) {
        status = registry_list(&r, &g, &nr, &e) ? CMD_FAILURE : CMD_OK;
        if (status)
            cmd_error(&e);
    } else {
        const char *who = argv[optind];

        nr = 1;
        g = calloc(1, sizeof(*g));
        status = g ? CMD_OK : CMD_FAILURE;
        /* xl says it in other words when a number is asked for */
        if (g && who[strspn(who, "0123456789")] == '\0') {
            if (registry_find(&r, who, g, &e)) {
                fprintf(stderr, "Error: Domain '%s' does not exist.\n", who);
                status = CMD_FAILURE;
            }
        } else if (g && cmd_guest_find(&r, who, g))
            status = CMD_FAILURE;
    }
    if (!status)
        status = details ? list_long(&r, g, nr) : list_table(&r, g, nr, verbose);
    free(g);
    registry_close(&r);
    return status;
}

int cmd_domid(int argc, char **argv)
{
    struct cmd_options o = { "domid", "h", NULL, 1 };
    struct registry_guest g;
    struct registry r;
    struct err e = { 0 };
    int rc;

    while (cmd_option_next(&o, argc, argv) >= 0)
        ;
    if (o.status >= 0)
        return o.status;
    if (cmd_registry_open(&r))
        return CMD_FAILURE;
    rc = registry_find_name(&r, argv[optind], &g, &e);
    registry_close(&r);
    if (e.code)
        cmd_error(&e);
    else if (rc)
        fprintf(stderr, "Can't get domid of domain name '%s', maybe this domain does not "
                "exist.\n", argv[optind]);
    else
        printf("%u\n", g.domid);
    return rc ? CMD_FAILURE : CMD_OK;
}

int cmd_domname(int argc, char **argv)
{
    struct cmd_options o = { "domname", "h", NULL, 1 };
    struct registry_guest g;
    struct registry r;
    struct err e = { 0 };
    const char *who;
    int rc;

    while (cmd_option_next(&o, argc, argv) >= 0)
        ;
    if (o.status >= 0)
        return o.status;
    who = argv[optind];
    if (!who[0] || who[strspn(who, "0123456789")]) {
        fprintf(stderr, "Invalid domain id.\n\n");
        return CMD_FAILURE;
    }
    if (cmd_registry_open(&r))
        return CMD_FAILURE;
    rc = registry_find(&r, who, &g, &e);
    registry_close(&r);
    if (e.code)
        cmd_error(&e);
    else if (rc)
        fprintf(stderr, "Can't get domain name of domain id '%s', maybe this domain does not "
                "exist.\n", who);
    else
        printf("%s\n", g.name);
    return rc ? CMD_FAILURE : CMD_OK;
}
