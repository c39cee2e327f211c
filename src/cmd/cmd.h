/* SPDX-License-Identifier: MIT */
/* The program's commands: one table, from which help is printed too. */
#ifndef XENOLITH_CMD_CMD_H
#define XENOLITH_CMD_CMD_H

#include <getopt.h>
#include <stdio.h>

#include "ctl/client.h"

/* xl's: libxl's codes, negated, where xl passes them on. */
enum cmd_status {
    CMD_OK = 0, CMD_FAILURE = 1, CMD_USAGE = 2,
    CMD_ERROR_FAIL = 3,     /* ERROR_FAIL: create could not do it */
    CMD_ERROR_INVAL = 6,    /* ERROR_INVAL: create has no configuration */
};

struct cmd {
    const char *name;
    int (*run)(int argc, char **argv);  /* argv[0] is the command's name */
    const char *synopsis;
    const char *summary;
    const char *options;                /* one a line; NULL: none */
    bool can_dryrun;                    /* knows -n, so the global -N too */
    bool internal;                      /* not listed by help */
};

/* By name or by the unambiguous beginning of one; NULL. */
const struct cmd *cmd_find(const char *name);

void cmd_help_all(FILE *to);
void cmd_help_one(FILE *to, const struct cmd *c);

/* One command's options, with what all commands share: -h, xl's messages and
 * exit statuses for what is unknown or missing. */
struct cmd_options {
    const char *name;           /* of the command */
    const char *letters;        /* as for getopt() */
    const struct option *longs; /* NULL: none */
    int nr_required;            /* arguments after the options */
    int status;                 /* out: >= 0: end with this status */
};

/* The next option's letter; -1: no more, see status. */
int cmd_option_next(struct cmd_options *o, int argc, char **argv);

/* Prints e once, as this program does. */
void cmd_error(const struct err *e);

/* Opens the registry, or says why not. */
int cmd_registry_open(struct registry *r);
/* The guest called who, or xl's message. */
int cmd_guest_find(struct registry *r, const char *who, struct registry_guest *g);

int cmd_create(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_console(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_unpause(int argc, char **argv);
int cmd_shutdown(int argc, char **argv);
int cmd_reboot(int argc, char **argv);
int cmd_destroy(int argc, char **argv);
int cmd_domid(int argc, char **argv);
int cmd_domname(int argc, char **argv);
int cmd_block_attach(int argc, char **argv);
int cmd_block_detach(int argc, char **argv);
int cmd_block_list(int argc, char **argv);
int cmd_block_resize(int argc, char **argv);
int cmd_blk(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_tmem(int argc, char **argv);
int cmd_blk_trace(int argc, char **argv);
int cmd_help(int argc, char **argv);
int cmd_version(int argc, char **argv);

#endif
