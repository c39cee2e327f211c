/* SPDX-License-Identifier: MIT */
/* What every command does with its arguments and its failures. */
#include "cmd/cmd.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "ctl/dirs.h"

/* libxl's ERROR_INVAL, which xl prints for an unknown domain */
#define RC_INVAL (-6)

int cmd_option_next(struct cmd_options *o, int argc, char **argv)
{
    static const struct option help_only[] = { { "help", 0, NULL, 'h' }, { NULL } };
    int c;

    opterr = 0;
    c = getopt_long(argc, argv, o->letters, o->longs ? o->longs : help_only, NULL);
    o->status = -1;
    if (c == 'h' || (c == '?' && optopt == 'h')) {
        cmd_help_one(stdout, cmd_find(o->name));
        o->status = CMD_OK;
    } else if (c == '?') {
        if (optopt)
            fprintf(stderr, "option `%c' not supported.\n", optopt);
        else
            fprintf(stderr, "option `%s' not supported.\n", argv[optind - 1]);
        o->status = CMD_USAGE;
    } else if (c == -1 && argc - optind < o->nr_required) {
        fprintf(stderr, "'%s %s' requires at least %d argument%s.\n\n",
                program_invocation_short_name, o->name, o->nr_required,
                o->nr_required > 1 ? "s" : "");
        cmd_help_one(stdout, cmd_find(o->name));
        o->status = CMD_USAGE;
    }
    return o->status >= 0 ? -1 : c;
}

void cmd_error(const struct err *e)
{
    char text[1024];

    fprintf(stderr, "%s\n", err_str(e, text, sizeof(text)));
}

int cmd_registry_open(struct registry *r)
{
    char run_dir[PATH_MAX];
    struct err e = { 0 };
    int rc = ctl_run_dir(run_dir, sizeof(run_dir), &e);

    if (!rc)
        rc = registry_open(r, run_dir, &e);
    if (rc)
        cmd_error(&e);
    return rc;
}

int cmd_guest_find(struct registry *r, const char *who, struct registry_guest *g)
{
    struct err e = { 0 };
    int rc = registry_find(r, who, g, &e);

    if (e.code)
        cmd_error(&e);
    else if (rc)
        fprintf(stderr, "%s is an invalid domain identifier (rc=%d)\n", who, RC_INVAL);
    return rc;
}
