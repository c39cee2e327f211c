/* SPDX-License-Identifier: MIT */
#include "cmd/lab.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/num.h"
#include "cmd/lab_image.h"
#include "cmd/lab_run.h"

#define EXIT_USAGE 2
/* Lines of L1's console shown after a fault. */
#define CONSOLE_LINES_SHOWN 6

extern char **environ;

struct lab_options {
    uint64_t nr_cpus;
    uint64_t memory_mib;
    uint64_t nr_retries;
    const char *shares[LAB_MAX_SHARES];     /* resolved; owned */
    unsigned nr_shares;
    const char *kernel;
    char cwd[PATH_MAX];
    bool verbose;
    bool keep;
    char **command;
};

static void usage(FILE *f)
{
    fputs("usage: xenolith lab [OPTION...] -- COMMAND [ARG...]\n"
          "\n"
          "Boots a throw-away machine with KVM (emulated by QEMU, no privilege needed) and\n"
          "runs COMMAND there.  It sees this machine's files, read-only, and the current\n"
          "folder for writing; /tmp and /run are empty and in memory.\n"
          "\n"
          "  --cpus N       processors of the machine (2)\n"
          "  --memory M     its memory in MiB (3072); used only as it is touched\n"
          "  --share DIR    a folder for writing instead of the current one; repeatable\n"
          "  --kernel FILE  boot this kernel; its modules are beside it, as\n"
          "                 lab/fetch-kernel leaves them\n"
          "  --retries N    how often to begin again after a fault of the lab itself (2)\n"
          "  --keep         keep the logs of a lab at fault and say where\n"
          "  --verbose      show the machine's console on standard error\n"
          "  --help         this text\n"
          "\n"
          "The exit status is COMMAND's (128 + N for signal N), or 125 when the lab failed.\n"
          "The machine's QEMU is the one that lab/fetch-qemu finds or fetches; XENOLITH_LAB_QEMU\n"
          "names another.\n", f);
}

static int complain(const struct err *err)
{
    char text[1024];

    fprintf(stderr, "xenolith: lab: %s\n", err_str(err, text, sizeof(text)));
    return LAB_EXIT_FAULT;
}

/* ---- options ---- */

static int number_option(const char *name, const char *text, uint64_t min, uint64_t max,
                         uint64_t *out, struct err *err)
{
    if (num_parse_u64(text, min, max, out) == 0)
        return 0;
    return err_set(err, EINVAL, "--%s %s: expected a number from %" PRIu64 " to %" PRIu64,
                   name, text, min, max);
}

/* true when path is dir or lies in it; both absolute and resolved. */
static bool path_is_inside(const char *path, const char *dir)
{
    size_t n = strlen(dir);

    return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static int share_add(struct lab_options *o, const char *dir, struct err *err)
{
    static const char *const own[] = { "/proc", "/sys", "/dev" };
    char *path = realpath(dir, NULL);
    struct stat st;
    size_t i;

    if (!path || stat(path, &st) < 0) {
        free(path);
        return err_set(err, errno, "--share %s: %s", dir, strerror(errno));
    }
    for (i = 0; i < array_size(own); i++)
        if (path_is_inside(path, own[i]))
            break;
    if (!S_ISDIR(st.st_mode) || strcmp(path, "/") == 0 || i < array_size(own)) {
        free(path);
        return err_set(err, EINVAL, "--share %s: expected a folder that may be written "
                       "from the lab, not /, /proc, /sys or /dev", dir);
    }
    if (o->nr_shares == LAB_MAX_SHARES) {
        free(path);
        return err_set(err, E2BIG, "--share %s: more than %d folders", dir, LAB_MAX_SHARES);
    }
    o->shares[o->nr_shares++] = path;
    return 0;
}

/* COMMAND runs where we are if it can see that, else in the first share. */
static int cwd_choose(struct lab_options *o, struct err *err)
{
    unsigned i;

    if (!getcwd(o->cwd, sizeof(o->cwd)))
        return err_set(err, errno, "the current folder: %s", strerror(errno));
    if (o->nr_shares == 0)
        return share_add(o, ".", err);
    for (i = 0; i < o->nr_shares; i++)
        if (path_is_inside(o->cwd, o->shares[i]))
            return 0;
    snprintf(o->cwd, sizeof(o->cwd), "%s", o->shares[0]);
    return 0;
}

/* 0; 1 when the command is done (--help); -errno. */
static int options_parse(int argc, char **argv, struct lab_options *o, struct err *err)
{
    enum { CPUS = 256, MEMORY, SHARE, RETRIES, KERNEL, KEEP, VERBOSE, HELP };
    static const struct option table[] = {
        { "cpus",    required_argument, NULL, CPUS },
        { "memory",  required_argument, NULL, MEMORY },
        { "share",   required_argument, NULL, SHARE },
        { "retries", required_argument, NULL, RETRIES },
        { "kernel",  required_argument, NULL, KERNEL },
        { "keep",    no_argument,       NULL, KEEP },
        { "verbose", no_argument,       NULL, VERBOSE },
        { "help",    no_argument,       NULL, HELP },
        { NULL, 0, NULL, 0 },
    };
    int c, r = 0;

    o->nr_cpus = 2;
    o->memory_mib = 3072;
    o->nr_retries = 2;
    optind = 0;
    opterr = 0;
    /* "+": options of COMMAND are not ours */
    while (r == 0 && (c = getopt_long(argc, argv, "+:", table, NULL)) != -1) {
        switch (c) {
        case CPUS:
            r = number_option("cpus", optarg, 1, 64, &o->nr_cpus, err);
            break;
        case MEMORY:
            r = number_option("memory", optarg, 256, 1048576, &o->memory_mib, err);
            break;
        case RETRIES:
            r = number_option("retries", optarg, 0, 100, &o->nr_retries, err);
            break;
        case SHARE:
            r = share_add(o, optarg, err);
            break;
        case KERNEL:
            o->kernel = optarg;
            break;
        case KEEP:
            o->keep = true;
            break;
        case VERBOSE:
            o->verbose = true;
            break;
        case HELP:
            usage(stdout);
            return 1;
        case ':':
            r = err_set(err, EINVAL, "%s: expected a value behind it", argv[optind - 1]);
            break;
        default:
            r = err_set(err, EINVAL, "%s: no such option (see 'xenolith lab --help')",
                        argv[optind - 1]);
        }
    }
    if (r < 0)
        return r;
    if (optind >= argc)
        return err_set(err, EINVAL, "expected a command to run (see 'xenolith lab --help')");
    o->command = argv + optind;
    return cwd_choose(o, err);
}

static void options_free(struct lab_options *o)
{
    while (o->nr_shares > 0)
        free((char *)o->shares[--o->nr_shares]);
}

/* ---- the environment of COMMAND ---- */

/* Ours, without what names things that are not in the lab, and with a mark by
 * which a program can see where it is.  The array is the caller's to free, its
 * strings are not. */
static char **environment_build(void)
{
    static const char *const left_out[] = { "XDG_RUNTIME_DIR=", "XENOLITH_LAB=" };
    size_t nr = 0, used = 0, i;
    char **out;

    while (environ[nr])
        nr++;
    out = calloc(nr + 2, sizeof(*out));
    if (!out)
        return NULL;
    for (nr = 0; environ[nr]; nr++) {
        for (i = 0; i < array_size(left_out); i++)
            if (strncmp(environ[nr], left_out[i], strlen(left_out[i])) == 0)
                break;
        if (i == array_size(left_out))
            out[used++] = environ[nr];
    }
    out[used] = (char *)"XENOLITH_LAB=1";
    return out;
}

/* ---- reports ---- */

static void file_write(const char *dir, const char *name, const struct lab_tail *t)
{
    char path[PATH_MAX];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "we");
    if (!f || fwrite(t->text, 1, t->used_bytes, f) != t->used_bytes)
        fprintf(stderr, "xenolith: lab: %s: %s\n", path, strerror(errno));
    if (f)
        fclose(f);
}

static void logs_keep(const struct lab_result *r)
{
    const char *tmp = getenv("TMPDIR");
    char dir[PATH_MAX];

    snprintf(dir, sizeof(dir), "%s/xenolith-lab.XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) {
        fprintf(stderr, "xenolith: lab: %s: %s\n", dir, strerror(errno));
        return;
    }
    file_write(dir, "console.log", &r->console);
    file_write(dir, "qemu.log", &r->messages);
    file_write(dir, "reset.log", &r->reset_log);
    fprintf(stderr, "xenolith: lab: logs kept in %s\n", dir);
}

/* From the panic on when there was one, else the last lines. */
static void console_show(const struct lab_result *r)
{
    const char *p = strstr(r->console.text, LAB_PANIC_MARK);
    const char *end = r->console.text + r->console.used_bytes;
    unsigned nr_lines;

    if (p) {
        while (p > r->console.text && p[-1] != '\n')
            p--;
    } else {
        for (p = end, nr_lines = 0; p > r->console.text && nr_lines <= CONSOLE_LINES_SHOWN;)
            nr_lines += *--p == '\n';
        p += *p == '\n';
    }
    for (nr_lines = 0; *p && nr_lines < CONSOLE_LINES_SHOWN; nr_lines++) {
        size_t n = strcspn(p, "\r\n");

        if (n > 0)
            fprintf(stderr, "xenolith: lab console: %.*s\n", (int)n, p);
        p += n;
        p += strspn(p, "\r\n");
    }
}

/* ---- attempts ---- */

/* Ends this process as the signal would have, now that nothing is left behind. */
static void end_by_signal(int number)
{
    sigset_t set;

    signal(number, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, number);
    raise(number);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* One attempt after the other until there is nothing to gain from another. */
static int attempts_run(const struct lab_options *o, const struct lab_machine *m,
                        const struct lab_kernel *k, const struct lab_cpio *initramfs,
                        int signal_fd)
{
    struct lab_result r;
    struct err err = { 0 };
    off_t input_start = lseek(STDIN_FILENO, 0, SEEK_CUR);
    uint64_t nr_done = 0;

    for (;;) {
        enum lab_verdict verdict;
        unsigned exit_status;
        bool fault, again, input_lost;

        if (lab_result_init(&r, &err) < 0)
            return complain(&err);
        if (lab_run(m, k, initramfs, signal_fd, o->verbose, &r, &err) < 0) {
            lab_result_free(&r);
            return complain(&err);
        }
        verdict = r.verdict;
        exit_status = r.exit_status;
        fault = lab_fault_is(verdict);
        /* input from a pipe or a terminal cannot be given a second time */
        input_lost = r.input_taken && lseek(STDIN_FILENO, input_start, SEEK_SET) < 0;
        again = fault && nr_done < o->nr_retries && !input_lost;
        if ((fault || verdict == LAB_BROKEN) && !o->verbose)
            console_show(&r);
        if (verdict == LAB_BROKEN)
            fprintf(stderr, "xenolith: lab: the machine could not be set up: %s\n",
                    r.trouble[0] ? r.trouble : "QEMU ended at once");
        if (o->keep && (fault || verdict == LAB_BROKEN))
            logs_keep(&r);
        if (fault && again)
            fprintf(stderr, "xenolith: lab fault (%s), retry %" PRIu64 " of %" PRIu64 "%s\n",
                    lab_fault_text(verdict), nr_done + 1, o->nr_retries,
                    r.output_passed ? "; the output above is void, it starts again" : "");
        else if (fault)
            fprintf(stderr, "xenolith: lab fault (%s), given up after %" PRIu64 " %s%s\n",
                    lab_fault_text(verdict), nr_done + 1, nr_done ? "attempts" : "attempt",
                    input_lost ? ": the standard input is used up" : "");
        if (verdict == LAB_STOPPED)
            end_by_signal(r.signal);
        lab_result_free(&r);
        if (verdict == LAB_ENDED)
            return exit_status;
        if (!again)
            return LAB_EXIT_FAULT;
        nr_done++;
    }
}

static int lab_prepare_and_run(const struct lab_options *o)
{
    char **environment = environment_build();
    char lab_dir[PATH_MAX], qemu[PATH_MAX];
    struct lab_machine machine = {
        .qemu = qemu,
        .nr_cpus = o->nr_cpus,
        .memory_mib = o->memory_mib,
        .shares = o->shares,
        .nr_shares = o->nr_shares,
        .verbose = o->verbose,
    };
    struct lab_orders orders = {
        .nr_shares = o->nr_shares,
        .cwd = o->cwd,
        .command = o->command,
        .environment = environment,
    };
    struct lab_kernel kernel;
    struct lab_cpio initramfs;
    struct err err = { 0 };
    sigset_t set, old;
    int signal_fd, status;

    memcpy(orders.shares, o->shares, sizeof(orders.shares));
    lab_cpio_init(&initramfs);
    if (!environment)
        err_set(&err, ENOMEM, "%s", strerror(ENOMEM));
    /* "amd64", because Debian's cloud kernels have no 9p */
    if (err.code ||
        lab_image_find_dir(lab_dir, sizeof(lab_dir), &err) < 0 ||
        lab_image_find_qemu(lab_dir, qemu, sizeof(qemu), &err) < 0 ||
        lab_image_find_kernel(lab_dir, "amd64", o->kernel, &kernel, &err) < 0 ||
        lab_image_build(lab_dir, &kernel, &orders, &initramfs, &err) < 0) {
        status = complain(&err);
        goto out;
    }

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGQUIT);
    sigprocmask(SIG_BLOCK, &set, &old);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd < 0) {
        err_set(&err, errno, "signalfd: %s", strerror(errno));
        status = complain(&err);
    } else {
        status = attempts_run(o, &machine, &kernel, &initramfs, signal_fd);
        close(signal_fd);
    }
    sigprocmask(SIG_SETMASK, &old, NULL);
out:
    lab_cpio_free(&initramfs);
    free(environment);
    return status;
}

int cmd_lab(int argc, char **argv)
{
    struct lab_options o = { 0 };
    struct err err = { 0 };
    int status, r = options_parse(argc, argv, &o, &err);

    if (r < 0)
        complain(&err);
    status = r < 0 ? EXIT_USAGE : r > 0 ? 0 : lab_prepare_and_run(&o);
    options_free(&o);
    return status;
}
