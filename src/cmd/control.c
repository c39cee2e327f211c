/* SPDX-License-Identifier: MIT */
/* console, pause, unpause, destroy, shutdown, reboot: commands to running guests. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "cmd/cmd.h"
#include "cmd/terminal.h"

/* libxl's ERROR_FAIL, as xl prints it */
#define RC_FAIL (-3)

/* A command whose only argument is a guest: the registry opened, the guest
 * found.  -1, or the status to end with. */
static int one_guest(struct cmd_options *o, int argc, char **argv, struct registry *r,
                     struct registry_guest *g)
{
    while (cmd_option_next(o, argc, argv) >= 0)
        ;
    if (o->status >= 0)
        return o->status;
    if (cmd_registry_open(r))
        return CMD_FAILURE;
    if (cmd_guest_find(r, argv[optind], g)) {
        registry_close(r);
        return CMD_FAILURE;
    }
    return -1;
}

static int simple(const char *name, int argc, char **argv)
{
    struct cmd_options o = { name, "h", NULL, 1 };
    struct registry_guest g;
    struct registry r;
    struct err e = { 0 };
    int status = one_guest(&o, argc, argv, &r, &g);

    if (status >= 0)
        return status;
    status = CMD_OK;
    if (ctl_call(&r, g.domid, name, NULL, CTL_TIMEOUT_MS, NULL, &e)) {
        cmd_error(&e);
        status = CMD_FAILURE;
    }
    registry_close(&r);
    return status;
}

int cmd_pause(int argc, char **argv)
{
    return simple("pause", argc, argv);
}

int cmd_unpause(int argc, char **argv)
{
    return simple("unpause", argc, argv);
}

int cmd_destroy(int argc, char **argv)
{
    struct cmd_options o = { "destroy", "hf", NULL, 1 };
    struct registry_guest g;
    struct registry r;
    struct err e = { 0 };
    int status = one_guest(&o, argc, argv, &r, &g);

    if (status >= 0)
        return status;
    status = CMD_OK;
    if (ctl_guest_destroy(&r, g.domid, &e)) {
        cmd_error(&e);
        fprintf(stderr, "destroy failed (rc=%d)\n", RC_FAIL);
        status = CMD_FAILURE;
    }
    registry_close(&r);
    return status;
}

/* ---- console ---- */

static bool leave(void *arg, enum terminal_event what)
{
    return false;
}

int cmd_console(int argc, char **argv)
{
    struct cmd_options o = { "console", "hn:t:", NULL, 1 };
    struct registry_guest g;
    struct registry r;
    struct err e = { 0 };
    uint64_t number;
    int c, fd;

    while ((c = cmd_option_next(&o, argc, argv)) >= 0) {
        if (c == 't' && strcmp(optarg, "pv")) {
            fprintf(stderr, "console type supported are: pv\n");
            return CMD_FAILURE;
        }
        if (c == 'n' && num_parse_u64(optarg, 0, 0, &number)) {
            fprintf(stderr, "console number %s: a PV guest has console 0 only\n", optarg);
            return CMD_FAILURE;
        }
    }
    if (o.status >= 0)
        return o.status;
    if (cmd_registry_open(&r))
        return CMD_FAILURE;
    if (cmd_guest_find(&r, argv[optind], &g)) {
        registry_close(&r);
        return CMD_FAILURE;
    }
    fd = ctl_open(&r, g.domid, "console", &e);
    registry_close(&r);
    if (fd < 0) {
        cmd_error(&e);
        fprintf(stderr, "Unable to attach console\n");
        return CMD_FAILURE;
    }
    terminal_run(fd, NULL, leave, NULL);
    close(fd);
    return CMD_OK;
}

/* ---- shutdown and reboot ---- */

struct asking {
    const char *request;    /* control/shutdown's word */
    const char *doing;      /* "Shutting down" */
    const char *verb;       /* "shutdown" */
};

static int ask(struct registry *r, const struct asking *a, unsigned domid)
{
    json_t *arguments = json_pack("{s:s}", "request", a->request);
    struct err e = { 0 };

    fprintf(stderr, "%s domain %u\n", a->doing, domid);
    if (!ctl_call(r, domid, "ask", arguments, CTL_TIMEOUT_MS, NULL, &e))
        return CMD_OK;
    cmd_error(&e);
    fprintf(stderr, "%s failed (rc=%d)\n", a->verb, RC_FAIL);
    return CMD_FAILURE;
}

static int wait_stopped(struct registry *r, unsigned domid)
{
    json_t *result = NULL;
    struct err e = { 0 };
    int rc = ctl_call(r, domid, "wait", NULL, CTL_FOREVER, &result, &e);

    if (rc == -ENOENT || rc == -ECONNREFUSED || rc == -ECONNRESET)
        fprintf(stderr, "Domain %u has been destroyed\n", domid);
    else if (rc)
        cmd_error(&e);
    else
        fprintf(stderr, "Domain %u has been shut down, reason code %lld\n", domid,
                (long long)json_integer_value(json_object_get(result, "why")));
    json_decref(result);
    return !rc || rc == -ENOENT || rc == -ECONNREFUSED || rc == -ECONNRESET ? CMD_OK
                                                                          : CMD_FAILURE;
}

static int ask_guests(struct registry *r, const struct asking *a,
                      const struct registry_guest *g, unsigned nr, bool wait)
{
    int status = CMD_OK;

    for (unsigned i = 0; i < nr; i++)
        status |= ask(r, a, g[i].domid);
    if (!wait || status)
        return status;
    fprintf(stderr, "Waiting for %u domains\n", nr);
    for (unsigned i = 0; i < nr; i++)
        status |= wait_stopped(r, g[i].domid);
    return status;
}

static int asking_command(const struct asking *a, int argc, char **argv)
{
    static const struct option longs[] = {
        { "all", 0, NULL, 'a' }, { "wait", 0, NULL, 'w' }, { "help", 0, NULL, 'h' }, { NULL },
    };
    struct cmd_options o = { a->verb, "hawF", longs };
    bool all = false, wait = false;
    struct registry_guest one, *g = NULL;
    struct registry r;
    struct err e = { 0 };
    unsigned nr;
    int c, status;

    while ((c = cmd_option_next(&o, argc, argv)) >= 0) {
        all |= c == 'a';
        wait |= c == 'w';
    }
    if (o.status >= 0)
        return o.status;
    if (!all && optind == argc) {
        fprintf(stderr, "You must specify -a or a domain id.\n\n");
        return CMD_FAILURE;
    }
    if (cmd_registry_open(&r))
        return CMD_FAILURE;
    if (!all)
        status = cmd_guest_find(&r, argv[optind], &one)
                 ? CMD_FAILURE : ask_guests(&r, a, &one, 1, wait);
    else if (registry_list(&r, &g, &nr, &e)) {
        cmd_error(&e);
        status = CMD_FAILURE;
    } else
        status = ask_guests(&r, a, g, nr, wait);
    free(g);
    registry_close(&r);
    return status;
}

int cmd_shutdown(int argc, char **argv)
{
    static const struct asking a = { "poweroff", "Shutting down", "shutdown" };

    return asking_command(&a, argc, argv);
}

int cmd_reboot(int argc, char **argv)
{
    static const struct asking a = { "reboot", "Rebooting", "reboot" };

    return asking_command(&a, argc, argv);
}
