/* SPDX-License-Identifier: MIT */
#include "blk/file_claim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The process with a flock on the file, from /proc/locks (proc(5)); 0 when it
 * cannot be told: another PID namespace, or a file system whose device number
 * differs from that of stat(). */
static int holder_find(const struct stat *st)
{
    char line[256];
    FILE *f = fopen("/proc/locks", "re");
    int found = 0;

    if (!f)
        return 0;
    while (!found && fgets(line, sizeof(line), f)) {
        unsigned major_no, minor_no;
        unsigned long long inode;
        int pid;

        if (sscanf(line, "%*u: FLOCK %*s %*s %d %x:%x:%llu", &pid, &major_no, &minor_no,
                   &inode) == 4 &&
            pid > 0 && inode == st->st_ino && makedev(major_no, minor_no) == st->st_dev)
            found = pid;
    }
    fclose(f);
    return found;
}

static void process_name(int pid, char *buf, size_t size)
{
    char path[64];
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    buf[0] = '\0';
    f = fopen(path, "re");
    if (!f)
        return;
    if (fgets(buf, (int)size, f))
        buf[strcspn(buf, "\n")] = '\0';
    fclose(f);
}

static int claimed(const struct stat *st, bool readonly, struct err *e)
{
    const char *use = readonly ? "for writing " : "";
    char name[64];
    int pid = holder_find(st);

    if (pid == getpid())
        return err_set(e, EBUSY, "already in use %sby another disk of this guest", use);
    if (!pid)
        return err_set(e, EBUSY, "already in use %sby another process", use);
    process_name(pid, name, sizeof(name));
    return err_set(e, EBUSY, "already in use %sby process %d%s%s%s", use, pid,
                   name[0] ? " (" : "", name, name[0] ? ")" : "");
}

static int claim_open(const char *path, const struct stat *st, bool exclusive, struct err *e)
{
    int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    struct stat now;
    int fd;

    if (S_ISBLK(st->st_mode) && exclusive)
        flags |= O_EXCL;
    fd = open(path, flags);
    if (fd < 0 && errno == EBUSY)
        return err_set(e, EBUSY, "already in use by the host (mounted, or part of a volume)");
    if (fd < 0)
        return err_set(e, errno, "cannot be opened: %s", strerror(errno));
    if (fstat(fd, &now) || now.st_dev != st->st_dev || now.st_ino != st->st_ino) {
        close(fd);
        return err_set(e, ESTALE, "was replaced by another file while it was opened");
    }
    return fd;
}

static int claim_lock(int fd, int how)
{
    int rc;

    do {
        rc = flock(fd, how | LOCK_NB);
    } while (rc && errno == EINTR);
    return rc ? -errno : 0;
}

int file_claim(const char *path, const struct stat *st, bool readonly, bool shared_write,
               struct err *e)
{
    bool exclusive = !readonly && !shared_write;
    int fd = claim_open(path, st, exclusive, e), rc;

    if (fd < 0)
        return fd;
    rc = claim_lock(fd, exclusive ? LOCK_EX : LOCK_SH);
    /* a file system without locks: nobody can be claiming anything there */
    if (!rc || shared_write || rc == -ENOLCK || rc == -EOPNOTSUPP || rc == -ENOSYS)
        return fd;
    close(fd);
    if (rc == -EWOULDBLOCK)
        return claimed(st, readonly, e);
    return err_set(e, -rc, "cannot be locked: %s", strerror(-rc));
}
