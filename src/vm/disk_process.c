/* SPDX-License-Identifier: MIT */
/* Not a fork: the new process would have all that the guest's has mapped and open.  Besides the
 * socket it gets standard error, for its messages, and no environment. */
#include "vm/disk_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dev/xen_vbd_serve.h"
#include "vm/sandbox.h"

#define SOCKET_FD 3

static int confine(void *arg, char *how, size_t size, struct err *e)
{
    return sandbox_enter(how, size, e);
}

static int seal(void *arg, struct err *e)
{
    return sandbox_seal(e);
}

int vm_disk_process_main(int argc, char **argv)
{
    const struct xen_vbd_serve_ops ops = { .confine = confine, .seal = seal };
    int type;
    socklen_t size = sizeof(type);

    if (argc != 1 || getsockopt(SOCKET_FD, SOL_SOCKET, SO_TYPE, &type, &size) ||
        type != SOCK_SEQPACKET) {
        fprintf(stderr, "%s is for guests' processes to start\n", argv[0]);
        return 1;
    }
    return xen_vbd_serve(SOCKET_FD, &ops) ? 1 : 0;
}

static int attributes_set(posix_spawnattr_t *attr)
{
    sigset_t none, all;
    int rc;

    sigemptyset(&none);
    sigfillset(&all);
    rc = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                  POSIX_SPAWN_SETPGROUP);
    if (!rc)
        rc = posix_spawnattr_setsigmask(attr, &none);
    if (!rc)
        rc = posix_spawnattr_setsigdefault(attr, &all);
    /* a terminal's signals are for the guest's process */
    return rc ? rc : posix_spawnattr_setpgroup(attr, 0);
}

int vm_disk_process_spawn(void *arg, int socket, pid_t *pid)
{
    char *const argv[] = { "xenolith", VM_DISK_PROCESS_COMMAND, NULL }, *const env[] = { NULL };
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    int high, rc;

    /* from another number: the copy is to lose the flag that closes it */
    high = fcntl(socket, F_DUPFD_CLOEXEC, SOCKET_FD + 1);
    if (high < 0)
        return -errno;
    rc = posix_spawn_file_actions_init(&files);
    if (!rc) {
        rc = posix_spawnattr_init(&attr);
        if (!rc) {
            rc = attributes_set(&attr);
            if (!rc)
                rc = posix_spawn_file_actions_adddup2(&files, high, SOCKET_FD);
            if (!rc)
                rc = posix_spawn(pid, "/proc/self/exe", &files, &attr, argv, env);
            posix_spawnattr_destroy(&attr);
        }
        posix_spawn_file_actions_destroy(&files);
    }
    close(high);
    return -rc;
}
