/* SPDX-License-Identifier: MIT */
#include "blk/nbd_qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/log.h"
#include "base/text.h"

#define LISTEN_BACKLOG    128       /* queues that connect at the same time */
#define LISTEN_FD         3         /* sd_listen_fds(3) */
#define AGAIN_MS          1000      /* between its death and its next life */
#define STOP_MS           30000     /* for what it has still to write */
#define EXIT_NO_PROGRAM   127
#define WORDS_BYTES       400u

struct nbd_qemu {
    struct nbd_qemu_params params;
    pthread_t keeper;
    sem_t started;
    struct err *start_err;
    int start_rc;
    int name_fd;                    /* O_PATH of the socket it listens at */
    int stop_fd;                    /* readable: end it */
    int said_fd[2];                 /* its standard error, a pipe */
    char words[2 * WORDS_BYTES];    /* the last that came out of it */
    unsigned words_bytes;
    pid_t pid;
    int status;                     /* of its first life, once that is over */
    bool serves;
    unsigned deaths;
};

/* ---- the program ---- */

#define ARGS_MAX 12

struct command {
    const char *argv[ARGS_MAX];
    char format[64];
    char pid_word[32];              /* LISTEN_PID=..., which only the child can fill in */
    const char **env;
};

static int command_make(const struct nbd_qemu_params *p, struct command *c)
{
    unsigned n = 0, nr_env = 0;

    snprintf(c->format, sizeof(c->format), "--format=%s", p->format);
    c->argv[n++] = "qemu-nbd";
    c->argv[n++] = "--persistent";
    c->argv[n++] = "--shared=0";    /* as many as connect: then several count as one */
    c->argv[n++] = c->format;
    c->argv[n++] = p->direct ? "--cache=none" : "--cache=writeback";
    c->argv[n++] = p->direct ? "--aio=native" : "--aio=threads";
    c->argv[n++] = p->discard ? "--discard=unmap" : "--discard=ignore";
    if (p->readonly)
        c->argv[n++] = "--read-only";
    c->argv[n++] = "--";
    c->argv[n++] = p->path;
    c->argv[n] = NULL;

    while (environ[nr_env])
        nr_env++;
    c->env = calloc(nr_env + 3, sizeof(*c->env));
    if (!c->env)
        return -ENOMEM;
    c->env[0] = "LISTEN_FDS=1";
    c->env[1] = c->pid_word;
    n = 2;
    for (unsigned i = 0; i < nr_env; i++)
        if (strncmp(environ[i], "LISTEN_", 7))
            c->env[n++] = environ[i];
    return 0;
}

/* A socket that listens, under a name that is gone when this returns; *name_fd stands for it.
 * connect() follows /proc/self/fd/NUMBER to the socket itself, which needs no name. */
static int socket_listen(int *name_fd, struct err *e)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    const char *tmp = getenv("TMPDIR");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc = 0;
    char dir[80];

    if (fd < 0)
        return err_set(e, errno, "socket: %s", strerror(errno));
    if (!tmp || !*tmp || strlen(tmp) > 40)
        tmp = "/tmp";
    snprintf(dir, sizeof(dir), "%.40s/xenolith-nbd-XXXXXX", tmp);
    if (!mkdtemp(dir)) {            /* for us alone: mode 0700 */
        err_set(e, errno, "no directory for a socket in %.40s: %s", tmp, strerror(errno));
        close(fd);
        return -e->code;
    }
    snprintf(un.sun_path, sizeof(un.sun_path), "%s/s", dir);
    if (bind(fd, (struct sockaddr *)&un, sizeof(un)) || listen(fd, LISTEN_BACKLOG) ||
        (*name_fd = open(un.sun_path, O_PATH | O_CLOEXEC)) < 0)
        rc = err_set(e, errno, "a socket at %s: %s", un.sun_path, strerror(errno));
    unlink(un.sun_path);
    rmdir(dir);
    if (!rc)
        return fd;
    close(fd);
    return rc;
}

static void pid_word_fill(char *word, pid_t pid)
{
    char digits[16];
    unsigned n = 0, at = (unsigned)strlen("LISTEN_PID=");

    memcpy(word, "LISTEN_PID=", at);
    for (; pid; pid /= 10)
        digits[n++] = (char)('0' + pid % 10);
    while (n)
        word[at++] = digits[--n];
    word[at] = 0;
}

/* A handler of ours would run in the child, on our memory. */
static void handlers_reset(void)
{
    const struct sigaction none = { .sa_handler = SIG_DFL };
    struct sigaction sa;

    for (int number = 1; number < NSIG; number++)
        if (!sigaction(number, NULL, &sa) && sa.sa_handler != SIG_IGN)
            sigaction(number, &none, NULL);
}

/* Between vfork() and exec: on the parent's memory, while its thread waits. */
static void child_run(struct command *c, pid_t parent, int listen_fd, int said_fd)
{
    /* not O_CLOEXEC: it may have a standard number already, and then has to keep it */
    int null_fd = open("/dev/null", O_RDWR);
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent || null_fd < 0)
        _exit(1);
    setpgid(0, 0);                  /* a terminal's signals are for us, not for it */
    dup2(null_fd, STDIN_FILENO);
    dup2(null_fd, STDOUT_FILENO);
    dup2(said_fd, STDERR_FILENO);
    dup2(listen_fd, LISTEN_FD);
    syscall(SYS_close_range, LISTEN_FD + 1, ~0u, 0);
    pid_word_fill(c->pid_word, getpid());
    handlers_reset();
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvpe(c->argv[0], (char *const *)c->argv, (char *const *)c->env);
    _exit(EXIT_NO_PROGRAM);
}

/* A function of its own, which keeps nothing that the child could spoil. */
static __attribute__((noinline)) pid_t child_start(struct command *c, pid_t parent, int listen_fd,
                                                   int said_fd)
{
    pid_t pid = vfork();

    if (!pid)
        child_run(c, parent, listen_fd, said_fd);
    return pid;
}

static int program_start(struct nbd_qemu *q, struct err *e)
{
    struct command c;
    pid_t pid;
    int name_fd = -1, listen_fd, high, said;

    if (command_make(&q->params, &c))
        return err_set(e, ENOMEM, "out of memory");
    listen_fd = socket_listen(&name_fd, e);
    if (listen_fd < 0) {
        free(c.env);
        return listen_fd;
    }
    /* out of the way of the numbers that the child gives out */
    high = fcntl(listen_fd, F_DUPFD_CLOEXEC, LISTEN_FD + 1);
    said = fcntl(q->said_fd[1], F_DUPFD_CLOEXEC, LISTEN_FD + 1);
    pid = high < 0 || said < 0 ? -1 : child_start(&c, getpid(), high, said);
    if (pid < 0) {
        err_set(e, errno, "qemu-nbd cannot be started: %s", strerror(errno));
    } else if (q->name_fd < 0) {
        q->name_fd = name_fd;
        name_fd = -1;
    } else {
        dup3(name_fd, q->name_fd, O_CLOEXEC);   /* queues know the number */
    }
    /* The child's is now the only one: when it dies, whoever connects is refused. */
    close(listen_fd);
    if (name_fd >= 0)
        close(name_fd);
    if (high >= 0)
        close(high);
    if (said >= 0)
        close(said);
    free(c.env);
    q->pid = pid;
    return pid < 0 ? -e->code : 0;
}

/* Keeps the last of what it says. */
static void words_read(struct nbd_qemu *q)
{
    for (;;) {
        ssize_t n;

        if (q->words_bytes > WORDS_BYTES) {
            q->words_bytes -= WORDS_BYTES;
            memmove(q->words, q->words + WORDS_BYTES, q->words_bytes);
        }
        n = read(q->said_fd[0], q->words + q->words_bytes, WORDS_BYTES);
        if (n <= 0)
            return;
        q->words_bytes += (unsigned)n;
    }
}

/* What it has said last, on one line, WORDS_BYTES at most with the end. */
static void words_take(struct nbd_qemu *q, char *words)
{
    static const char prefix[] = "qemu-nbd: ";
    const char *from;
    size_t n;

    words_read(q);
    while (q->words_bytes && q->words[q->words_bytes - 1] == '\n')
        q->words_bytes--;
    n = min_of(q->words_bytes, WORDS_BYTES - 1);
    from = q->words + q->words_bytes - n;
    if (n > strlen(prefix) && !memcmp(from, prefix, strlen(prefix))) {
        from += strlen(prefix);
        n -= strlen(prefix);
    }
    for (size_t i = 0; i < n; i++)
        words[i] = from[i] == '\n' || !from[i] ? ' ' : from[i];
    words[n] = 0;
    text_make_harmless(words);
    q->words_bytes = 0;
}

/* ---- its keeper ---- */

/* True when the program is to end; false when timeout_ms (-1: no limit) have passed or
 * process_fd (-1: none) says that it has ended.  Listens to what it says meanwhile. */
static bool stop_wait(struct nbd_qemu *q, int process_fd, int timeout_ms)
{
    struct pollfd p[] = {
        { .fd = q->stop_fd, .events = POLLIN }, { .fd = process_fd, .events = POLLIN },
        { .fd = q->said_fd[0], .events = POLLIN },
    };

    for (;;) {
        int n = poll(p, array_size(p), timeout_ms);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || p[0].revents || p[1].revents)
            return p[0].revents;
        words_read(q);
    }
}

static int program_reap(struct nbd_qemu *q)
{
    int status = 0;

    while (waitpid(q->pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

static int program_end(struct nbd_qemu *q, int process_fd)
{
    struct pollfd p = { .fd = process_fd, .events = POLLIN };

    kill(q->pid, SIGTERM);
    if (process_fd >= 0 && poll(&p, 1, STOP_MS) == 0) {
        log_warning("%s: qemu-nbd does not end, killed", q->params.path);
        kill(q->pid, SIGKILL);
    }
    return program_reap(q);
}

/* One life of the program.  True when the next one is wanted. */
static bool life(struct nbd_qemu *q)
{
    int process_fd = (int)syscall(SYS_pidfd_open, q->pid, 0);
    bool stop = stop_wait(q, process_fd, -1), again;
    int status = stop ? program_end(q, process_fd) : program_reap(q);
    char words[WORDS_BYTES];

    if (process_fd >= 0)
        close(process_fd);
    again = !stop && load_acquire(&q->serves);      /* pairs with nbd_qemu_serves() */
    if (!again) {
        q->status = status;
        return false;
    }
    words_take(q, words);
    /* pairs with nbd_qemu_deaths(), by way of the socket that the next one listens at */
    store_release(&q->deaths, q->deaths + 1);
    log_warning("%s: qemu-nbd has died (%s %d), with what was not flushed%s%s", q->params.path,
                WIFSIGNALED(status) ? "signal" : "status",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
                words[0] ? ": " : "", words);
    return true;
}

static void *keeper_main(void *arg)
{
    struct nbd_qemu *q = arg;

    q->start_rc = program_start(q, q->start_err);
    sem_post(&q->started);
    while (q->pid > 0 && life(q)) {
        struct err e = { 0 };

        do {
            if (stop_wait(q, -1, AGAIN_MS))
                return NULL;
            err_clear(&e);
        } while (program_start(q, &e));
    }
    return NULL;
}

static int keeper_start(struct nbd_qemu *q, struct err *e)
{
    sigset_t all, old;
    int rc;

    /* signals are for the thread that runs the event loop */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&q->keeper, NULL, keeper_main, q);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc)
        return err_set(e, rc, "no thread for qemu-nbd: %s", strerror(rc));
    pthread_setname_np(q->keeper, "qemu-nbd-keeper");
    while (sem_wait(&q->started))
        ;
    if (q->start_rc)
        pthread_join(q->keeper, NULL);
    return q->start_rc;
}

static void qemu_free(struct nbd_qemu *q)
{
    if (q->name_fd >= 0)
        close(q->name_fd);
    if (q->stop_fd >= 0)
        close(q->stop_fd);
    for (unsigned i = 0; i < array_size(q->said_fd); i++)
        if (q->said_fd[i] >= 0)
            close(q->said_fd[i]);
    sem_destroy(&q->started);
    free(q);
}

int nbd_qemu_start(const struct nbd_qemu_params *p, struct nbd_target *t, struct nbd_qemu **out,
                   struct err *e)
{
    struct nbd_qemu *q = calloc(1, sizeof(*q));
    char path[64];
    int rc;

    if (!q)
        return err_set(e, ENOMEM, "out of memory");
    q->params = *p;
    q->name_fd = q->said_fd[0] = q->said_fd[1] = -1;
    q->start_err = e;
    sem_init(&q->started, 0, 0);
    q->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    /* non-blocking for it too: what it says that nobody reads must not stop it */
    if (q->stop_fd < 0 || pipe2(q->said_fd, O_CLOEXEC | O_NONBLOCK))
        rc = err_set(e, errno, "no descriptors for qemu-nbd: %s", strerror(errno));
    else
        rc = keeper_start(q, e);
    if (rc) {
        qemu_free(q);
        return rc;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", q->name_fd);
    *out = q;
    return nbd_target_unix(path, t, e);
}

void nbd_qemu_serves(struct nbd_qemu *q)
{
    store_release(&q->serves, true);    /* pairs with life() */
}

unsigned nbd_qemu_deaths(const struct nbd_qemu *q)
{
    return load_acquire(&q->deaths);    /* pairs with life() */
}

static void keeper_end(struct nbd_qemu *q)
{
    eventfd_write(q->stop_fd, 1);
    pthread_join(q->keeper, NULL);
}

void nbd_qemu_failed(struct nbd_qemu *q, struct err *e)
{
    char words[WORDS_BYTES];

    keeper_end(q);
    words_take(q, words);
    if (WIFEXITED(q->status) && WEXITSTATUS(q->status) == EXIT_NO_PROGRAM) {
        err_clear(e);
        err_set(e, ENOENT, "a disk with format=%s needs the program qemu-nbd, which is not"
                " installed (Debian's package qemu-utils)", q->params.format);
    } else if (words[0]) {
        err_clear(e);
        err_set(e, EINVAL, "qemu-nbd: %s", words);
    }
    qemu_free(q);
}

void nbd_qemu_stop(struct nbd_qemu *q)
{
    keeper_end(q);
    qemu_free(q);
}
