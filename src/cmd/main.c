/* SPDX-License-Identifier: MIT */
/* xenolith, also called as xl: finds the command and runs it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"

/* -N COMMAND ... is COMMAND -n ... */
static int run_dry(const struct cmd *c, int argc, char **argv)
{
    char **with = calloc((size_t)argc + 2, sizeof(*with));
    int status;

    if (!with) {
        perror(program_invocation_short_name);
        return CMD_FAILURE;
    }
    memcpy(with, argv, (size_t)argc * sizeof(*with));
    with[argc] = "-n";
    status = c->run(argc + 1, with);
    free(with);
    return status;
}

static int run(int argc, char **argv)
{
    bool dryrun = false;
    const struct cmd *c;
    int opt;

    if (argc > 1 && !strcmp(argv[1], "--version"))
        return cmd_version(argc, argv);
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        cmd_help_all(stdout);
        return CMD_OK;
    }
    opterr = 0;
    while ((opt = getopt(argc, argv, "+vftTN")) >= 0) {
        if (opt == '?') {
            fprintf(stderr, "unknown global option\n");
            return CMD_FAILURE;
        }
        /* the others change how much libxl says; there is no libxl here */
        dryrun |= opt == 'N';
    }
    argv += optind;
    argc -= optind;
    if (!argc) {
        cmd_help_all(stdout);
        return CMD_FAILURE;
    }
    c = cmd_find(argv[0]);
    if (!c) {
        fprintf(stderr, "command not implemented\n");
        return CMD_FAILURE;
    }
    if (dryrun && !c->can_dryrun) {
        fprintf(stderr, "command does not implement -N (dryrun) option\n");
        return CMD_FAILURE;
    }
    optind = 0;     /* getopt starts afresh */
    return dryrun ? run_dry(c, argc, argv) : c->run(argc, argv);
}

int main(int argc, char **argv)
{
    int status = run(argc, argv);

    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "%s: stdout: %s\n", program_invocation_short_name, strerror(errno));
        return CMD_FAILURE;
    }
    return status;
}
