/* SPDX-License-Identifier: MIT */
#include "ctl/dirs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int put(char *path, size_t size, struct err *e, const char *dir, const char *rest)
{
    if ((size_t)snprintf(path, size, "%s%s", dir, rest) >= size)
        return err_set(e, ENAMETOOLONG, "directory name %s%s is too long", dir, rest);
    return 0;
}

static const char *env(const char *name)
{
    const char *v = getenv(name);

    return v && v[0] ? v : NULL;
}

/* Makes path and its missing parents. */
static int make_all(const char *path, mode_t mode, struct err *e)
{
    char part[PATH_MAX];
    size_t len = strlen(path);

    if (len >= sizeof(part))
        return err_set(e, ENAMETOOLONG, "directory name %s is too long", path);
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, path[i] ? 0755 : mode) && errno != EEXIST)
            return err_set(e, errno, "cannot make directory %s: %s", part, strerror(errno));
    }
    return 0;
}

static int make_absolute(char *path, size_t size, struct err *e)
{
    char *cwd, *joined;
    int rc;

    if (path[0] == '/')
        return 0;
    cwd = getcwd(NULL, 0);
    if (!cwd || asprintf(&joined, "%s/%s", cwd, path) < 0) {
        rc = err_set(e, errno, "current directory: %s", strerror(errno));
        free(cwd);
        return rc;
    }
    rc = put(path, size, e, joined, "");
    free(joined);
    free(cwd);
    return rc;
}

int ctl_run_dir(char *path, size_t size, struct err *e)
{
    const char *given = env("XENOLITH_RUN_DIR"), *xdg = env("XDG_RUNTIME_DIR");
    char own[64];
    struct stat st;
    int rc;

    snprintf(own, sizeof(own), "/tmp/xenolith-%u", (unsigned)geteuid());
    if (given)
        rc = put(path, size, e, given, "");
    else if (geteuid() == 0)
        rc = put(path, size, e, "/run/xenolith", "");
    else if (xdg)
        rc = put(path, size, e, xdg, "/xenolith");
    else
        rc = put(path, size, e, own, "");
    if (!rc)
        rc = make_all(path, geteuid() == 0 ? 0755 : 0700, e);
    if (rc)
        return rc;
    /* processes that change their directory are told this path too */
    rc = make_absolute(path, size, e);
    if (rc)
        return rc;
    /* whoever can write here can pose as any guest */
    if (lstat(path, &st))
        return err_set(e, errno, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 0022))
        return err_set(e, EPERM, "%s: expected a directory of user %u that nobody else can "
                       "write (set XENOLITH_RUN_DIR to use another)", path,
                       (unsigned)geteuid());
    return 0;
}

int ctl_log_dir(char *path, size_t size, struct err *e)
{
    const char *given = env("XENOLITH_LOG_DIR"), *xdg = env("XDG_STATE_HOME");
    const char *home = env("HOME");
    int rc;

    if (given)
        rc = put(path, size, e, given, "");
    else if (geteuid() == 0)
        rc = put(path, size, e, "/var/log/xenolith", "");
    else if (xdg)
        rc = put(path, size, e, xdg, "/xenolith");
    else if (home)
        rc = put(path, size, e, home, "/.local/state/xenolith");
    else
        return err_set(e, ENOENT, "no place for logs: set XENOLITH_LOG_DIR");
    return rc ? rc : make_all(path, geteuid() == 0 ? 0755 : 0700, e);
}

int ctl_log_path(const char *prefix, const char *name, char *path, size_t size, struct err *e)
{
    char dir[PATH_MAX];
    size_t at;
    int rc = ctl_log_dir(dir, sizeof(dir), e);

    if (rc)
        return rc;
    at = strlen(dir) + 1;
    if ((size_t)snprintf(path, size, "%s/%s%s.log", dir, prefix, name) >= size)
        return err_set(e, ENAMETOOLONG, "log name for %s is too long", name);
    for (char *p = path + at; *p; p++)
        if (*p == '/')
            *p = '_';
    return 0;
}

int ctl_log_open(const char *prefix, const char *name, struct err *e)
{
    char path[PATH_MAX];
    int rc = ctl_log_path(prefix, name, path, sizeof(path), e);
    int fd;

    if (rc)
        return rc;
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
    if (fd < 0)
        return err_set(e, errno, "cannot open log %s: %s", path, strerror(errno));
    return fd;
}
