/* SPDX-License-Identifier: MIT */
/* blk-trace: what filter=trace has recorded, for people and for fio. */
#include <ctype.h>
#include <string.h>

#include "blk/trace_reader.h"
#include "cmd/cmd.h"

/* fio separates words by blanks, and reads 256 bytes of this one. */
static bool is_word(const char *name)
{
    for (const char *p = name; *p; p++)
        if (isspace((unsigned char)*p) || iscntrl((unsigned char)*p))
            return false;
    return *name && strlen(name) <= 256;
}

int cmd_blk_trace(int argc, char **argv)
{
    static const struct option longs[] = {
        { "iolog", required_argument, NULL, 'i' }, { "help", no_argument, NULL, 'h' }, { NULL },
    };
    struct cmd_options o = { "blk-trace", "h", longs, 1 };
    const char *target = NULL;
    struct blk_trace t;
    struct err e = { 0 };
    int option;

    while ((option = cmd_option_next(&o, argc, argv)) >= 0)
        target = optarg;
    if (o.status >= 0)
        return o.status;
    if (target && !is_word(target)) {
        fprintf(stderr, "blk-trace: --iolog=%s: fio needs a name of at most 256 bytes without "
                "blanks\n", target);
        return CMD_USAGE;
    }
    if (blk_trace_read(argv[optind], &t, &e)) {
        cmd_error(&e);
        return CMD_FAILURE;
    }
    if (target)
        blk_trace_print_iolog(&t, target, stdout);
    else
        blk_trace_print(&t, stdout);
    blk_trace_free(&t);
    return CMD_OK;
}
