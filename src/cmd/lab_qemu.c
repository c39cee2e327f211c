/* SPDX-License-Identifier: MIT */
#include "cmd/lab_qemu.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/lab_wire.h"

#define NS_PER_S UINT64_C(1000000000)

/* ---- QEMU's arguments ---- */

#define MAX_ARGS 96

struct arguments {
    char *words[MAX_ARGS + 1];
    unsigned nr_words;
    bool failed;            /* out of memory or of room */
};

static void arg(struct arguments *a, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void arg(struct arguments *a, const char *fmt, ...)
{
    va_list ap;
    char *word;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&word, fmt, ap);
    va_end(ap);
    if (n < 0 || a->nr_words == MAX_ARGS) {
        if (n >= 0)
            free(word);
        a->failed = true;
        return;
    }
    a->words[a->nr_words++] = word;
}

static void arguments_free(struct arguments *a)
{
    while (a->nr_words > 0)
        free(a->words[--a->nr_words]);
}

/* QEMU ends a value at a comma, unless there are two. */
static void path_escape(const char *path, char *out)
{
    for (; *path; path++) {
        if (*path == ',')
            *out++ = ',';
        *out++ = *path;
    }
    *out = '\0';
}

/* A folder of the host, as 9p device with this tag.  With security_model=none
 * files get the owner QEMU runs as: no privilege is needed.  "remap" keeps inode
 * numbers of different file systems under one tree apart. */
static void arg_share(struct arguments *a, const char *tag, const char *path, bool readonly)
{
    char escaped[2 * PATH_MAX + 1];

    path_escape(path, escaped);
    arg(a, "-fsdev");
    arg(a, "local,id=%s,path=%s,security_model=none,multidevs=remap%s", tag, escaped,
        readonly ? ",readonly=on" : "");
    arg(a, "-device");
    arg(a, "virtio-9p-pci,fsdev=%s,mount_tag=%s", tag, tag);
}

static void arg_port(struct arguments *a, const char *id, const char *name, int fd)
{
    arg(a, "-chardev");
    arg(a, "socket,id=%s,fd=%d", id, fd);
    arg(a, "-device");
    arg(a, "virtserialport,chardev=%s,name=%s", id, name);
}

static void arguments_build(struct arguments *a, const struct lab_machine *m,
                            const struct lab_kernel *k, const struct lab_qemu *q,
                            int data_fd, int control_fd)
{
    char escaped[2 * PATH_MAX + 1];
    unsigned i;

    arg(a, "%s", m->qemu);
    arg(a, "-nodefaults");
    arg(a, "-no-user-config");
    arg(a, "-display");
    arg(a, "none");
    arg(a, "-monitor");
    arg(a, "none");
    arg(a, "-machine");
    arg(a, "pc");
    /* "max" has AMD's SVM with nested paging, which is all that kvm-amd needs */
    arg(a, "-accel");
    arg(a, "tcg,thread=multi");
    arg(a, "-cpu");
    arg(a, "max");
    arg(a, "-smp");
    arg(a, "%u", m->nr_cpus);
    arg(a, "-m");
    arg(a, "%" PRIu64 "M", m->memory_mib);
    /* a reset of L1 ends QEMU: no lab lives twice */
    arg(a, "-no-reboot");
    arg(a, "-d");
    arg(a, "cpu_reset");
    arg(a, "-D");
    arg(a, "/dev/fd/%d", q->reset_log_fd);
    arg(a, "-kernel");
    arg(a, "%s", k->image);
    arg(a, "-initrd");
    arg(a, "/dev/fd/%d", q->initramfs_fd);
    /* panic=-1 oops=panic: either resets L1 at once, and so ends QEMU.
     * tsc=reliable: the emulated TSC is the host's; the watchdog that would
     * compare it with slower clocks is misled when the host is busy.
     * acpi=noirq: interrupt routes from the MP table, which needs no interpreter,
     * emulated, for every device.  cryptomgr.notests: self-tests of ciphers that
     * nobody uses here.  nohz=off highres=off: a timer that beats by itself, since
     * QEMU 7.2 can lose an interrupt that comes as L2 is left (its flag is not changed
     * atomically there), and a processor that waited for the lost one to set the next
     * would wait for ever. */
    arg(a, "-append");
    arg(a, "console=ttyS0 panic=-1 oops=panic tsc=reliable acpi=noirq cryptomgr.notests "
        "nohz=off highres=off loglevel=%d", m->verbose ? 7 : 4);
    arg(a, "-serial");
    arg(a, "stdio");
    arg(a, "-device");
    arg(a, "virtio-serial-pci");
    arg_port(a, "data", LAB_PORT_DATA, data_fd);
    arg_port(a, "control", LAB_PORT_CONTROL, control_fd);
    arg_share(a, LAB_ROOT_TAG, "/", true);
    for (i = 0; i < m->nr_shares; i++) {
        snprintf(escaped, sizeof(escaped), "%s%u", LAB_SHARE_TAG_PREFIX, i);
        arg_share(a, escaped, m->shares[i], false);
    }
}

/* ---- the process ---- */

/* Runs in the child. */
static void qemu_exec(const struct arguments *a, pid_t parent, const int *inherited,
                      unsigned nr_inherited, int console_fd, int messages_fd)
{
    sigset_t none;
    unsigned i;
    int null = open("/dev/null", O_RDONLY);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* the parent may have died before the line above */
    if (getppid() != parent)
        _exit(127);
    setsid();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 ||
        dup2(console_fd, STDOUT_FILENO) < 0 || dup2(messages_fd, STDERR_FILENO) < 0)
        _exit(127);
    for (i = 0; i < nr_inherited; i++)
        fcntl(inherited[i], F_SETFD, 0);
    execvp(a->words[0], a->words);
    fprintf(stderr, "%s: %s\n", a->words[0], strerror(errno));
    _exit(127);
}

static int memory_file(const char *name, const void *data, size_t size_bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    size_t done = 0;

    while (fd >= 0 && done < size_bytes) {
        ssize_t n = write(fd, (const char *)data + done, size_bytes - done);

        if (n < 0 && errno != EINTR) {
            close(fd);
            return -1;
        }
        done += max_of(n, 0);
    }
    return fd;
}

static void pair_close(int fds[2])
{
    if (fds[0] >= 0)
        close(fds[0]);
    if (fds[1] >= 0)
        close(fds[1]);
    fds[0] = fds[1] = -1;
}

int lab_qemu_start(struct lab_qemu *q, const struct lab_machine *m,
                   const struct lab_kernel *k, const struct lab_cpio *initramfs,
                   struct err *err)
{
    int data[2] = { -1, -1 }, control[2] = { -1, -1 };
    int console[2] = { -1, -1 }, messages[2] = { -1, -1 };
    struct arguments a = { 0 };
    pid_t parent = getpid();
    int r;

    memset(q, 0, sizeof(*q));
    q->pid_fd = q->data_fd = q->control_fd = q->console_fd = q->messages_fd = -1;
    q->reset_log_fd = memory_file("lab-reset-log", NULL, 0);
    q->initramfs_fd = memory_file("lab-initramfs", initramfs->data, initramfs->size_bytes);
    if (q->reset_log_fd < 0 || q->initramfs_fd < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, data) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) < 0 ||
        pipe2(console, O_CLOEXEC) < 0 || pipe2(messages, O_CLOEXEC) < 0) {
        r = err_set(err, errno, "the lab's channels: %s", strerror(errno));
        goto out;
    }
    arguments_build(&a, m, k, q, data[1], control[1]);
    if (a.failed) {
        r = err_set(err, ENOMEM, "QEMU's arguments: %s", strerror(ENOMEM));
        goto out;
    }
    q->pid = fork();
    if (q->pid < 0) {
        r = err_set(err, errno, "fork: %s", strerror(errno));
        goto out;
    }
    if (q->pid == 0)
        qemu_exec(&a, parent,
                  (int[]){ data[1], control[1], q->reset_log_fd, q->initramfs_fd }, 4,
                  console[1], messages[1]);
    q->pid_fd = pidfd_open(q->pid, 0);
    if (q->pid_fd < 0) {
        r = err_set(err, errno, "pidfd_open: %s", strerror(errno));
        lab_qemu_end(q);
        goto out;
    }
    q->data_fd = data[0];
    q->control_fd = control[0];
    q->console_fd = console[0];
    q->messages_fd = messages[0];
    data[0] = control[0] = console[0] = messages[0] = -1;
    fcntl(q->data_fd, F_SETFL, O_NONBLOCK);
    fcntl(q->control_fd, F_SETFL, O_NONBLOCK);
    fcntl(q->console_fd, F_SETFL, O_NONBLOCK);
    fcntl(q->messages_fd, F_SETFL, O_NONBLOCK);
    r = 0;
out:
    arguments_free(&a);
    pair_close(data);
    pair_close(control);
    pair_close(console);
    pair_close(messages);
    if (r < 0)
        lab_qemu_close(q);
    return r;
}

int lab_qemu_end(struct lab_qemu *q)
{
    int status = 0;

    kill(q->pid, SIGKILL);
    while (waitpid(q->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return status;
}

void lab_qemu_close(struct lab_qemu *q)
{
    int *fds[] = { &q->pid_fd, &q->data_fd, &q->control_fd, &q->console_fd,
                   &q->messages_fd, &q->reset_log_fd, &q->initramfs_fd };
    size_t i;

    for (i = 0; i < array_size(fds); i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

/* ---- what it is doing ---- */

/* Reads a stat file of /proc, see proc(5): state is its third field, times are the
 * 14th and 15th, in clock ticks. */
static bool stat_read(const char *path, char *state, uint64_t *ticks)
{
    unsigned long long user, kernel;
    char text[1024], *p;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return false;
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[max_of(n, 0)] = '\0';
    /* the second field is a name in parentheses and may hold anything */
    p = strrchr(text, ')');
    if (!p || sscanf(p + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu %llu",
                     state, &user, &kernel) != 3)
        return false;
    *ticks = user + kernel;
    return true;
}

int lab_qemu_sample(const struct lab_qemu *q, struct lab_qemu_sample *s)
{
    uint64_t ticks, hz = sysconf(_SC_CLK_TCK);
    struct dirent *e;
    char path[320], state;
    DIR *d;

    memset(s, 0, sizeof(*s));
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)q->pid);
    if (!stat_read(path, &state, &ticks))
        return -ESRCH;
    s->cpu_ns = ticks / hz * NS_PER_S + ticks % hz * NS_PER_S / hz;
    s->held = state == 'T' || state == 't';

    snprintf(path, sizeof(path), "/proc/%d/task", (int)q->pid);
    d = opendir(path);
    if (!d)
        return -ESRCH;
    while ((e = readdir(d))) {
        snprintf(path, sizeof(path), "/proc/%d/task/%s/stat", (int)q->pid, e->d_name);
        /* D: it waits for a disk, as it would for the processor */
        if (e->d_name[0] != '.' && stat_read(path, &state, &ticks) &&
            (state == 'R' || state == 'D'))
            s->wants_cpu = true;
    }
    closedir(d);
    return 0;
}
