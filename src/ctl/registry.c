/* SPDX-License-Identifier: MIT */
/* RUN/registry.lock        flock: held by whoever reads or changes what follows
 * RUN/next-domid           the number to try first
 * RUN/guest/DOMID/lock     flock: held by the guest's process for its life
 * RUN/guest/DOMID/info     {"name", "uuid", "pid"}
 * RUN/guest/DOMID/ctl.sock the control socket
 * RUN/guest/DOMID/peer.sock where processes of other guests meet this one
 *
 * An entry whose own lock can be had belongs to a process that died: whoever
 * meets it, holding registry.lock, removes it.  An entry is made, locked and
 * described under registry.lock, so nobody sees a half-made one.  The order is
 * registry.lock, then an entry's lock, and an entry's lock is only ever tried.
 * flock belongs to the open file: a child that keeps lock_fd would keep a dead
 * guest listed, hence O_CLOEXEC everywhere. */
#include "ctl/registry.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#include "base/num.h"
#include "ctl/uuid.h"

#define INFO_BYTES_MAX 4096
#define LISTEN_BACKLOG 16

/* ---- the registry's lock ---- */

static int registry_lock(struct registry *r, struct err *e)
{
    int fd = openat(r->dir_fd, "registry.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc;

    if (fd < 0)
        return err_set(e, errno, "cannot open %s/registry.lock: %s", r->path, strerror(errno));
    do
        rc = flock(fd, LOCK_EX);
    while (rc && errno == EINTR);
    if (rc) {
        rc = err_set(e, errno, "cannot lock %s/registry.lock: %s", r->path, strerror(errno));
        close(fd);
        return rc;
    }
    return fd;
}

/* ---- one entry's files ---- */

static void guest_dir_name(unsigned domid, char *name, size_t size)
{
    snprintf(name, size, "guest/%u", domid);
}

static void guest_remove(struct registry *r, unsigned domid)
{
    static const char *const files[] = { "ctl.sock", "peer.sock", "info", "info.new", "lock" };
    char dir[32], path[64];

    guest_dir_name(domid, dir, sizeof(dir));
    for (size_t i = 0; i < array_size(files); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
        unlinkat(r->dir_fd, path, 0);
    }
    unlinkat(r->dir_fd, dir, AT_REMOVEDIR);
}

/* Whether a living process holds the entry's lock. */
static bool guest_alive(struct registry *r, unsigned domid)
{
    char path[64];
    bool alive;
    int fd;

    snprintf(path, sizeof(path), "guest/%u/lock", domid);
    fd = openat(r->dir_fd, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    alive = flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK;
    close(fd);
    return alive;
}

static int info_write(int dir_fd, const struct registry_guest *g, struct err *e)
{
    char uuid[UUID_TEXT_BYTES];
    json_t *info;
    char *text;
    ssize_t n = -1;
    int fd;

    uuid_format(g->uuid, uuid);
    info = json_pack("{s:s%, s:s, s:i}", "name", g->name, strlen(g->name),
                     "uuid", uuid, "pid", (int)g->pid);
    text = info ? json_dumps(info, JSON_COMPACT) : NULL;
    json_decref(info);
    if (!text)
        return err_set(e, EINVAL, "name '%s' is not UTF-8", g->name);
    fd = openat(dir_fd, "info.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0) {
        n = write(fd, text, strlen(text));
        close(fd);
    }
    if (n != (ssize_t)strlen(text) || renameat(dir_fd, "info.new", dir_fd, "info")) {
        free(text);
        return err_set(e, errno ? errno : EIO, "cannot write the guest's registry entry: %s",
                       strerror(errno));
    }
    free(text);
    return 0;
}

static bool info_read(struct registry *r, unsigned domid, struct registry_guest *g)
{
    char path[64], text[INFO_BYTES_MAX];
    const char *name, *uuid;
    json_t *info = NULL;
    ssize_t n = -1;
    bool ok = false;
    int fd, pid;

    snprintf(path, sizeof(path), "guest/%u/info", domid);
    fd = openat(r->dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
        n = read(fd, text, sizeof(text));
        close(fd);
    }
    if (n > 0)
        info = json_loadb(text, (size_t)n, 0, NULL);
    if (info && !json_unpack(info, "{s:s, s:s, s:i}", "name", &name, "uuid", &uuid, "pid", &pid)
        && strlen(name) < sizeof(g->name) && uuid_parse(uuid, g->uuid) == 0) {
        g->domid = domid;
        g->pid = pid;
        strcpy(g->name, name);
        ok = true;
    }
    json_decref(info);
    return ok;
}

/* ---- looking ---- */

static int by_domid(const void *a, const void *b)
{
    const struct registry_guest *x = a, *y = b;

    return (x->domid > y->domid) - (x->domid < y->domid);
}

/* Under registry.lock.  A living entry that cannot be read is listed without a
 * name: its number is taken all the same. */
static int scan(struct registry *r, struct registry_guest **out, unsigned *nr, struct err *e)
{
    int fd = openat(r->dir_fd, "guest", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct registry_guest *all = NULL;
    struct dirent *d;
    unsigned n = 0;

    if (!dir) {
        int rc = err_set(e, errno, "cannot read %s/guest: %s", r->path, strerror(errno));

        if (fd >= 0)
            close(fd);
        return rc;
    }
    while ((d = readdir(dir))) {
        struct registry_guest *grown;
        uint64_t domid;

        if (num_parse_u64(d->d_name, 1, REGISTRY_DOMID_MAX, &domid) || d->d_name[0] == '0')
            continue;
        if (!guest_alive(r, (unsigned)domid)) {
            guest_remove(r, (unsigned)domid);
            continue;
        }
        grown = realloc(all, (n + 1) * sizeof(*all));
        if (!grown) {
            free(all);
            closedir(dir);
            return err_set(e, ENOMEM, "out of memory");
        }
        all = grown;
        memset(&all[n], 0, sizeof(all[n]));
        all[n].domid = (unsigned)domid;
        info_read(r, (unsigned)domid, &all[n]);
        n++;
    }
    closedir(dir);
    if (n)
        qsort(all, n, sizeof(*all), by_domid);
    *out = all;
    *nr = n;
    return 0;
}

int registry_list(struct registry *r, struct registry_guest **out, unsigned *nr, struct err *e)
{
    int lock = registry_lock(r, e);
    int rc;

    if (lock < 0)
        return lock;
    rc = scan(r, out, nr, e);
    close(lock);
    return rc;
}

static int find(struct registry *r, const char *name, unsigned domid,
                struct registry_guest *out, struct err *e)
{
    struct registry_guest *all;
    unsigned nr;
    int rc = registry_list(r, &all, &nr, e);

    if (rc)
        return rc;
    rc = -ENOENT;
    for (unsigned i = 0; rc && i < nr; i++)
        if (name ? !strcmp(all[i].name, name) : all[i].domid == domid) {
            *out = all[i];
            rc = 0;
        }
    free(all);
    return rc;
}

int registry_find_name(struct registry *r, const char *name, struct registry_guest *out,
                       struct err *e)
{
    return name[0] ? find(r, name, 0, out, e) : -ENOENT;
}

int registry_find_domid(struct registry *r, unsigned domid, struct registry_guest *out,
                        struct err *e)
{
    return find(r, NULL, domid, out, e);
}

static bool all_digits(const char *s)
{
    return s[0] && s[strspn(s, "0123456789")] == '\0';
}

int registry_find(struct registry *r, const char *who, struct registry_guest *out,
                  struct err *e)
{
    unsigned long domid;

    if (!all_digits(who))
        return registry_find_name(r, who, out, e);
    errno = 0;
    domid = strtoul(who, NULL, 10);
    if (errno || domid > REGISTRY_DOMID_MAX)
        return -ENOENT;
    return registry_find_domid(r, (unsigned)domid, out, e);
}

/* ---- taking and giving back ---- */

static int name_judge(const char *name, struct err *e)
{
    if (!name[0])
        return err_set(e, EINVAL, "a guest needs a name");
    if (strlen(name) >= REGISTRY_NAME_BYTES)
        return err_set(e, EINVAL, "name is longer than %d bytes", REGISTRY_NAME_BYTES - 1);
    if (all_digits(name))
        return err_set(e, EINVAL, "name '%s' would be taken for a domain id", name);
    for (const char *p = name; *p; p++)
        if (iscntrl((unsigned char)*p))
            return err_set(e, EINVAL, "name has a control character (code %u)",
                           (unsigned char)*p);
    return 0;
}

static int name_free(const struct registry_guest *all, unsigned nr, const char *name,
                     unsigned but, struct err *e)
{
    for (unsigned i = 0; i < nr; i++)
        if (all[i].domid != but && !strcmp(all[i].name, name))
            return err_set(e, EEXIST, "a guest called '%s' exists already (domain %u)",
                           name, all[i].domid);
    return 0;
}

/* The first free number at or after the one in next-domid; 0: none. */
static unsigned domid_next(struct registry *r, const struct registry_guest *all, unsigned nr)
{
    char text[16] = "";
    uint64_t at = 1;
    int fd = openat(r->dir_fd, "next-domid", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd >= 0) {
        if (read(fd, text, sizeof(text) - 1) > 0)
            text[strcspn(text, "\n")] = '\0';
        if (num_parse_u64(text, 1, REGISTRY_DOMID_MAX, &at))
            at = 1;     /* new, or not a number: whatever is in use is skipped below */
    }
    for (unsigned tries = 0; tries <= nr; tries++) {
        bool used = false;
        unsigned domid = (unsigned)at;

        for (unsigned i = 0; i < nr && !used; i++)
            used = all[i].domid == domid;
        at = at == REGISTRY_DOMID_MAX ? 1 : at + 1;
        if (!used) {
            int n = snprintf(text, sizeof(text), "%u\n", (unsigned)at);

            if (fd >= 0 && (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n))
                domid = 0;
            if (fd >= 0)
                close(fd);
            return fd < 0 ? 0 : domid;
        }
    }
    if (fd >= 0)
        close(fd);
    return 0;
}

/* Under registry.lock: makes g's directory, takes its lock, describes it. */
static int entry_make(struct registry *r, const struct registry_guest *g,
                      struct registry_entry *out, struct err *e)
{
    struct registry_entry en = { .guest = *g, .dir_fd = -1, .lock_fd = -1 };
    char dir[32];
    int rc = 0;

    guest_dir_name(g->domid, dir, sizeof(dir));
    guest_remove(r, g->domid);      /* what an interrupted removal left */
    if (mkdirat(r->dir_fd, dir, 0700))
        return err_set(e, errno, "cannot make %s/%s: %s", r->path, dir, strerror(errno));
    en.dir_fd = openat(r->dir_fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (en.dir_fd >= 0)
        en.lock_fd = openat(en.dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (en.lock_fd < 0 || flock(en.lock_fd, LOCK_EX | LOCK_NB))
        rc = err_set(e, errno, "cannot lock %s/%s: %s", r->path, dir, strerror(errno));
    if (!rc)
        rc = info_write(en.dir_fd, g, e);
    if (rc) {
        guest_remove(r, g->domid);
        if (en.lock_fd >= 0)
            close(en.lock_fd);
        if (en.dir_fd >= 0)
            close(en.dir_fd);
        return rc;
    }
    *out = en;
    return 0;
}

static int take(struct registry *r, const struct registry_guest *wanted, unsigned but,
                struct registry_entry *out, struct err *e)
{
    struct registry_guest *all, g = *wanted;
    unsigned nr;
    int rc = scan(r, &all, &nr, e);

    if (rc)
        return rc;
    rc = name_free(all, nr, g.name, but, e);
    if (!rc) {
        g.domid = domid_next(r, all, nr);
        rc = g.domid ? entry_make(r, &g, out, e)
                     : err_set(e, ENOSPC, "no free domain id in %s", r->path);
    }
    free(all);
    return rc;
}

int registry_take(struct registry *r, const char *name, const uint8_t uuid[16],
                  struct registry_entry *out, struct err *e)
{
    struct registry_guest g = { .pid = getpid() };
    int lock, rc = name_judge(name, e);

    if (rc)
        return rc;
    strcpy(g.name, name);
    memcpy(g.uuid, uuid, sizeof(g.uuid));
    lock = registry_lock(r, e);
    if (lock < 0)
        return lock;
    rc = take(r, &g, 0, out, e);
    close(lock);
    return rc;
}

static void entry_remove(struct registry *r, struct registry_entry *entry)
{
    guest_remove(r, entry->guest.domid);
    close(entry->lock_fd);
    close(entry->dir_fd);
    entry->lock_fd = entry->dir_fd = -1;
}

int registry_renew(struct registry *r, struct registry_entry *entry, struct err *e)
{
    struct registry_entry fresh;
    int lock = registry_lock(r, e);
    int rc;

    if (lock < 0)
        return lock;
    rc = take(r, &entry->guest, entry->guest.domid, &fresh, e);
    if (!rc) {
        entry_remove(r, entry);
        *entry = fresh;
    }
    close(lock);
    return rc;
}

int registry_rename(struct registry *r, struct registry_entry *entry, const char *name,
                    const uint8_t uuid[16], struct err *e)
{
    struct registry_guest *all, g = entry->guest;
    unsigned nr;
    int lock, rc = name_judge(name, e);

    if (rc)
        return rc;
    strcpy(g.name, name);
    memcpy(g.uuid, uuid, sizeof(g.uuid));
    lock = registry_lock(r, e);
    if (lock < 0)
        return lock;
    rc = scan(r, &all, &nr, e);
    if (!rc) {
        rc = name_free(all, nr, name, g.domid, e);
        free(all);
    }
    if (!rc)
        rc = info_write(entry->dir_fd, &g, e);
    if (!rc)
        entry->guest = g;
    close(lock);
    return rc;
}

void registry_release(struct registry *r, struct registry_entry *entry)
{
    struct err e = { 0 };
    int lock = registry_lock(r, &e);

    /* without the lock too: a scan sees a living entry or none, and removing
     * twice is harmless */
    entry_remove(r, entry);
    if (lock >= 0)
        close(lock);
}

int registry_kill(struct registry *r, unsigned domid, struct err *e)
{
    struct registry_guest g;
    int pidfd, rc = registry_find_domid(r, domid, &g, e);
    int lock;

    if (rc)
        return rc;
    /* the descriptor first, then "does it still hold its lock": a pid that was
     * given to another process in between fails the second question */
    pidfd = (int)syscall(SYS_pidfd_open, g.pid, 0);
    if (pidfd < 0 && errno != ESRCH)
        return err_set(e, errno, "process %d of domain %u: %s", (int)g.pid, domid,
                       strerror(errno));
    if (pidfd >= 0) {
        if (guest_alive(r, domid) && syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0))
            err_set(e, errno, "process %d of domain %u: %s", (int)g.pid, domid,
                    strerror(errno));
        close(pidfd);
    }
    if (e->code)
        return -e->code;
    /* the kernel drops the lock when the last thread is gone */
    for (unsigned i = 0; i < 1000 && guest_alive(r, domid); i++)
        usleep(10000);
    lock = registry_lock(r, e);
    if (lock < 0)
        return lock;
    if (guest_alive(r, domid))
        rc = err_set(e, EBUSY, "process %d of domain %u does not end", (int)g.pid, domid);
    else
        guest_remove(r, domid);
    close(lock);
    return rc;
}

/* ---- sockets ---- */

#define CONTROL_SOCKET "ctl.sock"
#define PEER_SOCKET    "peer.sock"

/* /proc/self/fd/N/NAME: a run directory of any length fits a sun_path. */
static void socket_address(int dir_fd, const char *name, struct sockaddr_un *un)
{
    memset(un, 0, sizeof(*un));
    un->sun_family = AF_UNIX;
    snprintf(un->sun_path, sizeof(un->sun_path), "/proc/self/fd/%d/%s", dir_fd, name);
}

static int connect_to(const struct registry *r, unsigned domid, const char *name, int type)
{
    struct sockaddr_un un;
    char dir[32];
    int dir_fd, fd, rc = 0;

    guest_dir_name(domid, dir, sizeof(dir));
    dir_fd = openat(r->dir_fd, dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return -errno;
    socket_address(dir_fd, name, &un);
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof(un))) {
        rc = -errno;
        if (fd >= 0)
            close(fd);
    }
    close(dir_fd);
    return rc ? rc : fd;
}

static int listen_at(struct registry_entry *entry, const char *name, int type, struct err *e)
{
    struct sockaddr_un un;
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    socket_address(entry->dir_fd, name, &un);
    /* only this process can be in the directory: what is there is its own */
    unlinkat(entry->dir_fd, name, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un))
        || fchmodat(entry->dir_fd, name, 0600, 0) || listen(fd, LISTEN_BACKLOG)) {
        int rc = err_set(e, errno, "cannot open the guest's socket %s: %s", name,
                         strerror(errno));

        if (fd >= 0)
            close(fd);
        return rc;
    }
    return fd;
}

int registry_connect(struct registry *r, unsigned domid)
{
    return connect_to(r, domid, CONTROL_SOCKET, SOCK_STREAM);
}

int registry_listen(struct registry_entry *entry, struct err *e)
{
    return listen_at(entry, CONTROL_SOCKET, SOCK_STREAM, e);
}

int registry_connect_peer(const struct registry *r, unsigned domid)
{
    return connect_to(r, domid, PEER_SOCKET, SOCK_SEQPACKET | SOCK_NONBLOCK);
}

int registry_listen_peer(struct registry_entry *entry, struct err *e)
{
    return listen_at(entry, PEER_SOCKET, SOCK_SEQPACKET, e);
}

/* ---- life ---- */

int registry_open(struct registry *r, const char *run_dir, struct err *e)
{
    if ((size_t)snprintf(r->path, sizeof(r->path), "%s", run_dir) >= sizeof(r->path))
        return err_set(e, ENAMETOOLONG, "%s: name is too long", run_dir);
    r->dir_fd = open(run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->dir_fd < 0)
        return err_set(e, errno, "cannot open %s: %s", run_dir, strerror(errno));
    if (mkdirat(r->dir_fd, "guest", 0700) && errno != EEXIST) {
        int rc = err_set(e, errno, "cannot make %s/guest: %s", run_dir, strerror(errno));

        registry_close(r);
        return rc;
    }
    return 0;
}

void registry_close(struct registry *r)
{
    if (r->dir_fd >= 0)
        close(r->dir_fd);
    r->dir_fd = -1;
}
