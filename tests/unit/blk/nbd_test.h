/* SPDX-License-Identifier: MIT */
/* NBD servers for tests: other people's programs on an image. */
#ifndef NBD_TEST_H
#define NBD_TEST_H

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "blk_test.h"

struct nbd_program {
    char socket[64];
    char uri[128];
    const char *argv[24];
    pid_t pid;
};

static inline void nbd_program_end(struct nbd_program *p)
{
    if (p->pid <= 0)
        return;
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
    p->pid = 0;
    unlink(p->socket);
}

/* Starts argv, for the first time or again, delay_us from now. */
static inline void nbd_program_spawn(struct nbd_program *p, unsigned delay_us)
{
    pid_t parent = getpid();

    p->pid = fork();
    if (p->pid)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    usleep(delay_us);
    if (getppid() == parent)
        execvp(p->argv[0], (char *const *)p->argv);
    _exit(127);
}

/* Starts argv and waits until somebody listens. */
static inline void nbd_program_run(struct nbd_program *p)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    snprintf(un.sun_path, sizeof(un.sun_path), "%s", p->socket);
    nbd_program_spawn(p, 0);
    for (unsigned i = 0; i < 500; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        int rc = connect(fd, (struct sockaddr *)&un, sizeof(un));

        close(fd);
        if (!rc)
            return;
        if (waitpid(p->pid, NULL, WNOHANG) == p->pid)
            break;
        usleep(10000);
    }
    fail_msg("%s does not serve", p->argv[0]);
}

static inline void nbd_program_name(struct nbd_program *p)
{
    static unsigned nr;

    snprintf(p->socket, sizeof(p->socket), "/tmp/xenolith-nbd-%d-%u.sock", getpid(), nr++);
    snprintf(p->uri, sizeof(p->uri), "nbd+unix:///?socket=%s", p->socket);
    unlink(p->socket);
}

/* more: further arguments, ended by NULL; or NULL. */
static inline void qemu_nbd_start(struct nbd_program *p, const char *format, const char *image,
                                  const char *const *more)
{
    unsigned n = 0;

    nbd_program_name(p);
    p->argv[n++] = "qemu-nbd";
    p->argv[n++] = "--persistent";
    p->argv[n++] = "--discard=unmap";
    p->argv[n++] = "--socket";
    p->argv[n++] = p->socket;
    p->argv[n++] = "--format";
    p->argv[n++] = format;
    while (more && *more)
        p->argv[n++] = *more++;
    p->argv[n++] = image;
    p->argv[n] = NULL;
    nbd_program_run(p);
}

/* words: what nbdkit serves and how, ended by NULL. */
static inline void nbdkit_start(struct nbd_program *p, const char *const *words)
{
    unsigned n = 0;

    nbd_program_name(p);
    p->argv[n++] = "nbdkit";
    p->argv[n++] = "--foreground";
    p->argv[n++] = "--unix";
    p->argv[n++] = p->socket;
    while (*words)
        p->argv[n++] = *words++;
    p->argv[n] = NULL;
    nbd_program_run(p);
}

#endif
