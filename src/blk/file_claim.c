/* SPDX-License-Identifier: MIT */
#include "blk/file_claim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
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

static int claimed(int fd, bool readonly, struct err *e)
{
    const char *use = readonly ? "for writing " : "";
    struct stat st;
    char name[64];
    int pid = fstat(fd, &st) ? 0 : holder_find(&st);

    if (pid == getpid())
        return err_set(e, EBUSY, "already in use %sby another disk of this guest", use);
    if (!pid)
        return err_set(e, EBUSY, "already in use %sby another process", use);
    process_name(pid, name, sizeof(name));
    return err_set(e, EBUSY, "already in use %sby process %d%s%s%s", use, pid,
                   name[0] ? " (" : "", name, name[0] ? ")" : "");
}

int file_claim(int fd, bool readonly, bool shared_write, struct err *e)
{
    int how = readonly || shared_write ? LOCK_SH : LOCK_EX;
    int rc;

    do {
        rc = flock(fd, how | LOCK_NB);
    } while (rc && errno == EINTR);
    if (!rc || shared_write)
        return 0;
    if (errno == EWOULDBLOCK)
        return claimed(fd, readonly, e);
    /* a file system without locks: nothing else can be claiming it there */
    if (errno == ENOLCK || errno == EOPNOTSUPP || errno == ENOSYS)
        return 0;
    return err_set(e, errno, "cannot be locked: %s", strerror(errno));
}
