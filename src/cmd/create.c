/* SPDX-License-Identifier: MIT */
/* create and run: a configuration becomes a guest. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/terminal.h"
#include "ctl/host.h"
#include "ctl/launch.h"

struct request {
    const char *file;
    char **words;
    unsigned nr_words;
    bool paused, console, foreground, preserve, quiet, dryrun, debug;
};

/* ---- in the foreground ---- */

static bool foreground_event(void *arg, enum terminal_event what)
{
    const pid_t *pid = arg;

    /* the guest's process asks the guest first and destroys it at the second */
    kill(*pid, SIGTERM);
    return true;
}

/* Without a console: passes signals on until the child ends. */
static void foreground_wait(pid_t pid)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), signal_fd;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    while (pidfd >= 0 && signal_fd >= 0) {
        struct pollfd p[] = { { .fd = pidfd, .events = POLLIN },
                              { .fd = signal_fd, .events = POLLIN } };
        struct signalfd_siginfo si;

        if (poll(p, array_size(p), -1) < 0 && errno != EINTR)
            break;
        if (p[0].revents)
            break;
        if (p[1].revents && read(signal_fd, &si, sizeof(si)) == sizeof(si))
            kill(pid, SIGTERM);
    }
    close(pidfd);
    close(signal_fd);
}

/* CMD_ERROR_FAIL, or the guest's enum guest_exit. */
static int foreground(const struct launch *l, bool console)
{
    struct err e = { 0 };
    unsigned domid;
    int fd = -1, status;
    pid_t pid;

    if (launch_child(l, console ? &fd : NULL, &pid, &domid, &e)) {
        cmd_error(&e);
        return CMD_ERROR_FAIL;
    }
    if (!console)
        foreground_wait(pid);
    else if (!terminal_run(fd, "Ctrl-] asks the guest to shut down; twice destroys it.",
                           foreground_event, &pid))
        kill(pid, SIGTERM);     /* nobody sees the console any more */
    status = launch_wait(pid);
    if (fd >= 0)
        close(fd);
    return status;
}

/* ---- in the background ---- */

static bool leave(void *arg, enum terminal_event what)
{
    return false;
}

/* The console is there before the guest runs its first instruction. */
static int console_then_unpause(unsigned domid, bool unpause)
{
    struct registry r;
    struct err e = { 0 };
    int fd, rc = cmd_registry_open(&r);

    if (rc)
        return CMD_FAILURE;
    fd = ctl_open(&r, domid, "console", &e);
    rc = fd;
    if (unpause && rc >= 0)
        rc = ctl_call(&r, domid, "unpause", NULL, CTL_TIMEOUT_MS, NULL, &e);
    registry_close(&r);
    if (rc < 0)
        cmd_error(&e);
    else
        terminal_run(fd, NULL, leave, NULL);
    if (fd >= 0)
        close(fd);
    return rc < 0 ? CMD_FAILURE : CMD_OK;
}

static int background(struct launch *l, bool console)
{
    bool paused = l->paused;
    struct err e = { 0 };
    unsigned domid;

    l->paused = paused || console;
    if (launch_daemon(l, &domid, &e)) {
        cmd_error(&e);
        return CMD_ERROR_FAIL;
    }
    return console ? console_then_unpause(domid, !paused) : CMD_OK;
}

/* ---- both ---- */

static int dump(const struct guest_config *gc, FILE *to)
{
    char *text = guest_config_dump(gc);

    if (!text) {
        fprintf(stderr, "Failed to convert domain configuration to JSON\n");
        return CMD_FAILURE;
    }
    fprintf(to, "%s\n", text);
    free(text);
    return CMD_OK;
}

static int config_read(const struct request *q, struct guest_config *gc)
{
    enum guest_config_fault fault;
    struct err e = { 0 };

    if (!q->file && !q->nr_words) {
        fprintf(stderr, "Config file not specified\n");
        return CMD_ERROR_INVAL;
    }
    if (!q->quiet)
        fprintf(stderr, "Parsing config from %s\n", q->file ? q->file : "command line");
    if (!guest_config_read(q->file, q->words, q->nr_words, gc, &fault, &e))
        return CMD_OK;
    cmd_error(&e);
    return fault == GUEST_CONFIG_UNREADABLE ? CMD_ERROR_FAIL : CMD_FAILURE;
}

/* *exit is how the guest ended, for a guest that ran in the foreground. */
static int start(const struct request *q, int *exit)
{
    struct launch l = { .paused = q->paused, .preserve = q->preserve };
    struct guest_config gc = { 0 };
    struct ctl_host host;
    struct err e = { 0 };
    int status = config_read(q, &gc);

    if (status)
        return status;
    if (q->dryrun || q->debug)
        status = dump(&gc, q->dryrun ? stdout : stderr);
    if (status || q->dryrun)
        goto out;
    if (ctl_host_judge(&host, &e)) {
        cmd_error(&e);
        status = CMD_ERROR_FAIL;
        goto out;
    }
    if (host.advice[0] && !q->quiet)
        log_warning("%s", host.advice);
    l.config = &gc;
    if (q->foreground)
        *exit = status = foreground(&l, q->console);
    else
        status = background(&l, q->console);
out:
    guest_config_free(&gc);
    return status;
}

/* Options, a file and key=value words in any order, as xl takes them. */
static int request_parse(struct cmd_options *o, int argc, char **argv, struct request *q)
{
    bool refused = false;
    int c;

    while ((c = cmd_option_next(o, argc, argv)) >= 0)
        switch (c) {
        case 'p': q->paused = true; break;
        case 'c': q->console = true; break;
        case 'd': q->debug = true; break;
        case 'n': q->dryrun = true; break;
        case 'q': q->quiet = true; break;
        case 'e': q->preserve = true; break;
        case 'F': q->foreground = true; break;
        case 'f': q->file = optarg; break;
        default: refused = true; break;
        }
    if (o->status >= 0)
        return o->status;
    if (refused) {
        fprintf(stderr, "options -V and -A: there is no VNC display to connect to\n");
        return CMD_USAGE;
    }
    q->words = calloc((size_t)(argc - optind) + 1, sizeof(*q->words));
    if (!q->words)
        return CMD_FAILURE;
    for (; optind < argc; optind++) {
        if (strchr(argv[optind], '='))
            q->words[q->nr_words++] = argv[optind];
        else if (!q->file)
            q->file = argv[optind];
        else {
            fprintf(stderr, "unexpected argument: %s\n\n", argv[optind]);
            cmd_help_one(stderr, cmd_find(o->name));
            return CMD_USAGE;
        }
    }
    return -1;
}

int cmd_create(int argc, char **argv)
{
    static const struct option longs[] = {
        { "dryrun", 0, NULL, 'n' }, { "quiet", 0, NULL, 'q' },
        { "defconfig", 1, NULL, 'f' }, { "vncviewer", 0, NULL, 'V' },
        { "vncviewer-autopass", 0, NULL, 'A' }, { "help", 0, NULL, 'h' }, { NULL },
    };
    struct cmd_options o = { "create", "hFnqf:pcdeVA", longs };
    struct request q = { 0 };
    int exit = -1, status = request_parse(&o, argc, argv, &q);

    if (status < 0)
        status = start(&q, &exit);
    free(q.words);
    /* xl's create -F succeeds however the domain ended, once it ran */
    return exit >= 0 && exit != (int)GUEST_EXIT_NOT_STARTED ? CMD_OK : status;
}

int cmd_run(int argc, char **argv)
{
    static const struct option longs[] = {
        { "quiet", 0, NULL, 'q' }, { "defconfig", 1, NULL, 'f' },
        { "help", 0, NULL, 'h' }, { NULL },
    };
    struct cmd_options o = { "run", "hqf:p", longs };
    struct request q = { .foreground = true, .console = true };
    int exit, status = request_parse(&o, argc, argv, &q);

    if (status < 0)
        status = start(&q, &exit);
    free(q.words);
    return status;
}
