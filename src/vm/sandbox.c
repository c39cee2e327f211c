/* SPDX-License-Identifier: MIT */
#include "vm/sandbox.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/types.h"
#include "vm/sandbox_filter.h"

#define NOBODY        65534
/* 64 queues of a disk have 4 each, and there is the guest's memory */
#define FILES_MAX     512
/* always there: this program was found below it */
#define EMPTY_ROOT    "/proc"

static int refused(struct err *e, const char *what)
{
    return err_set(e, errno, "a process that serves a disk cannot be confined: %s: %s", what,
                   strerror(errno));
}

static int limits_set(struct err *e)
{
    const struct rlimit none = { 0, 0 };
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files))
        return refused(e, "RLIMIT_NOFILE");
    files.rlim_cur = files.rlim_max = min_of(files.rlim_max, (rlim_t)FILES_MAX);
    /* a core would hold the guest's memory */
    if (setrlimit(RLIMIT_NOFILE, &files) || setrlimit(RLIMIT_CORE, &none))
        return refused(e, "setrlimit");
    return 0;
}

/* In a mount namespace of its own. */
static bool root_empty(void)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", EMPTY_ROOT, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "size=4k,mode=0555") ||
        chdir(EMPTY_ROOT))
        return false;
    /* both at the same place: the old root comes to lie on top of the new one */
    if (!syscall(SYS_pivot_root, ".", "."))
        return !umount2(".", MNT_DETACH) && !chdir("/");
    /* an initramfs cannot be moved away */
    return !chroot(".") && !chdir("/");
}

/* Which of the namespaces it has now; the user's only if `user`. */
static int namespaces_enter(int user)
{
    const int others = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

    if (!unshare(user | CLONE_NEWNS | others))
        return user | CLONE_NEWNS | others;
    return !unshare(user | CLONE_NEWNS) ? user | CLONE_NEWNS : 0;
}

static int identity_drop(struct err *e)
{
    if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
        setresuid(NOBODY, NOBODY, NOBODY))
        return refused(e, "changing to nobody");
    return 0;
}

/* Those it has in a user namespace of its own, too. */
static int capabilities_drop(struct err *e)
{
    struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

    if (syscall(SYS_capset, &h, none))
        return refused(e, "dropping capabilities");
    return 0;
}

static void how_add(char *how, size_t size, const char *what)
{
    size_t len = strlen(how);

    snprintf(how + len, size - len, "%s%s", len ? ", " : "", what);
}

int sandbox_enter(char *how, size_t size, struct err *e)
{
    bool root = !geteuid(), empty;
    int spaces = 0, rc = limits_set(e);

    if (!rc && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        rc = refused(e, "PR_SET_NO_NEW_PRIVS");
    if (!rc && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        rc = refused(e, "PR_SET_DUMPABLE");
    if (rc)
        return rc;
    if (root)
        spaces = namespaces_enter(0);
    empty = spaces && root_empty();
    if (root)
        rc = identity_drop(e);
    if (!rc && !spaces) {
        spaces = namespaces_enter(CLONE_NEWUSER);
        empty = spaces && root_empty();
    }
    if (!rc)
        rc = capabilities_drop(e);
    if (!rc)
        rc = sandbox_filter_set(SANDBOX_FILTER_BEGIN, e);
    if (rc)
        return rc;
    how[0] = 0;
    how_add(how, size, "system calls filtered, no new privileges");
    how_add(how, size, root ? "uid nobody" : "uid of the guest's process");
    how_add(how, size, empty ? "empty root" : "the host's files (its mount namespace cannot be "
                                              "left)");
    how_add(how, size, spaces & CLONE_NEWNET ? "own network, IPC, UTS and cgroup namespaces"
                                             : "the host's network namespace");
    if (spaces & CLONE_NEWUSER)
        how_add(how, size, "own user namespace");
    return 0;
}

int sandbox_seal(struct err *e)
{
    return sandbox_filter_set(SANDBOX_FILTER_SERVE, e);
}
