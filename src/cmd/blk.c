/* SPDX-License-Identifier: MIT */
/* blk: disks for the virtual machines of other programs. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "cmd/cmd.h"
#include "ctl/dirs.h"
#include "vm/blk_server.h"

enum { OPTION_VHOST_USER = 256, OPTION_DISK, OPTION_QUEUES, OPTION_POLL_US };

#define POLL_US_MAX 1000000u

struct words {
    struct vm_blk_export exports[VM_BLK_EXPORTS_MAX];
    unsigned nr_sockets, nr_disks;
    uint64_t queues, poll_us;
};

static int number_read(const char *option, const char *text, uint64_t min, uint64_t max,
                       uint64_t *out)
{
    if (!num_parse_u64(text, min, max, out))
        return 0;
    fprintf(stderr, "blk: %s=%s: expected a number from %llu to %llu\n", option, text,
            (unsigned long long)min, (unsigned long long)max);
    return -EINVAL;
}

static int option_take(struct words *w, int option)
{
    switch (option) {
    case OPTION_QUEUES:
        return number_read("--queues", optarg, 1, VM_BLK_QUEUES_MAX, &w->queues);
    case OPTION_POLL_US:
        return number_read("--poll-us", optarg, 0, POLL_US_MAX, &w->poll_us);
    default:
        break;
    }
    /* one of each in turn, so that nobody has to count */
    if (w->nr_sockets - w->nr_disks != (option == OPTION_DISK)) {
        fprintf(stderr, "blk: a --disk follows each --vhost-user\n");
        return -EINVAL;
    }
    if (w->nr_disks == VM_BLK_EXPORTS_MAX) {
        fprintf(stderr, "blk: more than %u disks\n", VM_BLK_EXPORTS_MAX);
        return -EINVAL;
    }
    if (option == OPTION_DISK)
        w->exports[w->nr_disks++].disk = optarg;
    else
        w->exports[w->nr_sockets++].socket = optarg;
    return 0;
}

int cmd_blk(int argc, char **argv)
{
    static const struct option longs[] = {
        { "vhost-user", required_argument, NULL, OPTION_VHOST_USER },
        { "disk", required_argument, NULL, OPTION_DISK },
        { "queues", required_argument, NULL, OPTION_QUEUES },
        { "poll-us", required_argument, NULL, OPTION_POLL_US },
        { "help", no_argument, NULL, 'h' },
        { NULL },
    };
    struct cmd_options o = { "blk", "h", longs };
    struct words w = { .queues = VM_BLK_QUEUES_MAX, .poll_us = VM_BLK_POLL_MAX_NS / 1000 };
    struct err e = { 0 }, no_dir = { 0 };
    char run_dir[PATH_MAX];
    int option;

    while ((option = cmd_option_next(&o, argc, argv)) >= 0)
        if (option_take(&w, option))
            return CMD_USAGE;
    if (o.status >= 0)
        return o.status;
    if (optind < argc || !w.nr_sockets || w.nr_sockets != w.nr_disks) {
        fprintf(stderr, "blk: expected --vhost-user SOCKET --disk SPEC, once or more\n");
        return CMD_USAGE;
    }
    /* few disks need one: who does says so */
    if (vm_blk_server_run(&(struct vm_blk_server){
            .exports = w.exports, .nr_exports = w.nr_disks, .max_queues = (unsigned)w.queues,
            .poll_max_ns = w.poll_us * 1000,
            .run_dir = ctl_run_dir(run_dir, sizeof(run_dir), &no_dir) ? NULL : run_dir,
        }, &e)) {
        cmd_error(&e);
        return CMD_FAILURE;
    }
    return CMD_OK;
}
