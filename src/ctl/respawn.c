/* SPDX-License-Identifier: MIT */
#include "ctl/respawn.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/guest_config.h"
#include "ctl/uuid.h"
#include "vm/guest.h"

#define CONFIG_FD 3
#define CONFIG_PATH "/proc/self/fd/3"

static int spawn(char *const argv[], int config_fd, pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, dfl;
    int rc;

    sigemptyset(&none);
    sigemptyset(&dfl);
    sigaddset(&dfl, SIGPIPE);
    posix_spawn_file_actions_init(&files);
    /* a duplicate onto itself keeps its close-on-exec flag in some C libraries:
     * the memfd was made without */
    posix_spawn_file_actions_adddup2(&files, config_fd, CONFIG_FD);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &dfl);
    rc = posix_spawn(pid, "/proc/self/exe", &files, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return -rc;
}

int guest_respawn(const struct guest_config *gc, const uint8_t uuid[16], struct err *e)
{
    char uuid_word[64] = "uuid=\"", text[UUID_TEXT_BYTES];
    char *disks = gc->config->disks_changed ? vm_config_disks_format(gc->config) : NULL;
    char **argv = calloc(gc->nr_words + 9, sizeof(*argv));
    int fd = memfd_create("xenolith-config", 0), status = 0, rc = 0;
    unsigned n = 0;
    pid_t pid;

    uuid_format(uuid, text);
    strcat(strcat(uuid_word, text), "\"");
    if (!argv || fd < 0 || (gc->config->disks_changed && !disks) ||
        write(fd, gc->text ? gc->text : "", gc->text_bytes) != (ssize_t)gc->text_bytes) {
        rc = err_set(e, errno, "cannot keep the configuration: %s", strerror(errno));
        goto out;
    }
    argv[n++] = "xenolith";
    argv[n++] = "create";
    argv[n++] = "-q";
    argv[n++] = "-f";
    argv[n++] = CONFIG_PATH;
    for (unsigned i = 0; i < gc->nr_words; i++)
        argv[n++] = gc->words[i];
    argv[n++] = uuid_word;
    if (disks)
        argv[n++] = disks;
    rc = spawn(argv, fd, &pid);
    if (rc) {
        err_set(e, -rc, "cannot start a process: %s", strerror(-rc));
        goto out;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (status)
        rc = err_set(e, ECHILD, "the new guest did not start");
out:
    if (fd >= 0)
        close(fd);
    free(argv);
    free(disks);
    return rc;
}
