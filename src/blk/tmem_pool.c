/* SPDX-License-Identifier: MIT */
/* The life of a pool.
 *
 * RUN/tmem/lock   flock: held by whoever joins or leaves
 * RUN/tmem/N      user N's descriptor of the pool's memory: a link to /proc/PID/fd/FD
 *
 * The memory is a memfd, so the kernel frees it when its last user has gone, however that came.
 * Who wants to join follows any of the links; one that leads nowhere, or elsewhere since its
 * process's number has been given to another, is a killed user's, and is removed.
 *
 * In the memory, a user's record is its own while it holds a lock of one byte of the file
 * (F_OFD_SETLK: of its open file, so that two disks of one process are two users).  A record in
 * use whose byte is not locked is a killed user's.  Whoever finds one takes the lock, gives back
 * what that user had and leaves the record free: at joining, and when the pool is full. */
#include "blk/tmem_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "blk/tmem_pool_priv.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* ---- the memory ---- */

/* All that follows from the bound.  Returns the size of the whole. */
static uint64_t layout(uint64_t bound_bytes, struct tmem_header *h)
{
    uint64_t objects = bound_bytes / TMEM_EXTENT_BYTES * TMEM_EXTENT_OBJECTS, pages;

    h->bound_bytes = bound_bytes;
    h->nr_buckets = TMEM_BUCKETS_PER_PAGE;
    while (h->nr_buckets * TMEM_OBJECTS_PER_BUCKET < objects)
        h->nr_buckets *= 2;
    pages = h->nr_buckets / TMEM_BUCKETS_PER_PAGE;
    h->header_bytes = (uint32_t)align_up(sizeof(*h) + div_round_up(pages, 64) * sizeof(uint64_t),
                                         PAGE_SIZE);
    h->index_offset = h->header_bytes;
    h->extents_offset = align_up(h->index_offset + pages * PAGE_SIZE, TMEM_EXTENT_BYTES);
    return h->extents_offset + bound_bytes;
}

static int map(int fd, const struct tmem_header *h, uint64_t bytes, int prot,
               struct tmem_map *out, struct err *e)
{
    uint8_t *base = mmap(NULL, bytes, prot, MAP_SHARED | MAP_NORESERVE, fd, 0);

    if (base == MAP_FAILED)
        return err_set(e, errno, "no room for a tmem pool of %llu bytes: %s",
                       (unsigned long long)bytes, strerror(errno));
    madvise(base, bytes, MADV_DONTDUMP);
    *out = (struct tmem_map){
        .fd = fd, .bytes = bytes, .header = (struct tmem_header *)base,
        .index = (struct tmem_bucket *)(base + h->index_offset),
        .extents = base + h->extents_offset, .nr_buckets = h->nr_buckets,
        .max_extents = h->bound_bytes / TMEM_EXTENT_BYTES, .seed = h->seed,
    };
    return 0;
}

void tmem_map_close(struct tmem_map *m)
{
    munmap(m->header, m->bytes);
    close(m->fd);
}

/* Whether what a link leads to is the pool: 0, -ENOENT, or -EPROTO for another build's. */
static int judge(int fd, const struct stat *dir, struct tmem_header *h, uint64_t *bytes)
{
    struct tmem_header is;
    struct stat st;

    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) || st.st_uid != geteuid() ||
        pread(fd, &is, sizeof(is), 0) != sizeof(is) || is.magic != TMEM_MAGIC ||
        is.run_dev != dir->st_dev || is.run_ino != dir->st_ino)
        return -ENOENT;
    if (is.version != TMEM_VERSION || is.bound_bytes > TMEM_POOL_MAX_BYTES ||
        !is.bound_bytes || is.bound_bytes % TMEM_EXTENT_BYTES)
        return -EPROTO;
    *bytes = layout(is.bound_bytes, h);
    h->seed = is.seed;
    return is.header_bytes == h->header_bytes && is.index_offset == h->index_offset &&
           is.extents_offset == h->extents_offset && is.nr_buckets == h->nr_buckets &&
           (uint64_t)st.st_size == *bytes ? 0 : -EPROTO;
}

/* A descriptor of the file that user n's link leads to, opened anew: -errno. */
static int link_follow(int dir_fd, unsigned n)
{
    char name[16], path[64];
    struct stat st;
    int at, fd;

    snprintf(name, sizeof(name), "%u", n);
    /* without touching it first: it may be anything of another process's by now */
    at = openat(dir_fd, name, O_PATH | O_CLOEXEC);
    if (at < 0)
        return -errno;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", at);
    fd = fstat(at, &st) || !S_ISREG(st.st_mode) ? -ENOENT : open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 && fd != -ENOENT)
        fd = -errno;
    close(at);
    return fd;
}

int tmem_map_find(int dir_fd, const char *run_dir, int prot, struct tmem_map *out, struct err *e)
{
    struct stat dir;

    if (fstat(dir_fd, &dir))
        return err_set(e, errno, "%s/tmem: %s", run_dir, strerror(errno));
    for (unsigned n = 0; n < TMEM_USERS; n++) {
        struct tmem_header h = { .magic = 0 };
        uint64_t bytes;
        char name[16];
        int fd = link_follow(dir_fd, n), rc;

        if (fd == -EACCES || fd == -EPERM)
            return err_set(e, -fd, "%s/tmem/%u: %s", run_dir, n, strerror(-fd));
        rc = fd < 0 ? -ENOENT : judge(fd, &dir, &h, &bytes);
        if (!rc)
            rc = map(fd, &h, bytes, prot, out, e);
        else if (rc == -EPROTO)
            err_set(e, EPROTO, "%s/tmem: the pool there is of another build of xenolith", run_dir);
        if (!rc)
            return 0;
        if (fd >= 0)
            close(fd);
        if (rc != -ENOENT)
            return rc;
        snprintf(name, sizeof(name), "%u", n);
        unlinkat(dir_fd, name, 0);
    }
    return -ENOENT;
}

static int map_make(int dir_fd, const char *run_dir, uint64_t bound_bytes, struct tmem_map *out,
                    struct err *e)
{
    struct tmem_header h = { .magic = 0 };
    uint64_t bytes = layout(bound_bytes, &h);
    int fd = memfd_create("xenolith-tmem", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct stat dir;
    int rc;

    if (fd < 0 || ftruncate(fd, (off_t)bytes) || fcntl(fd, F_ADD_SEALS, SEALS) ||
        fallocate(fd, 0, 0, h.header_bytes) || fstat(dir_fd, &dir) ||
        getrandom(&h.seed, sizeof(h.seed), 0) != sizeof(h.seed)) {
        rc = err_set(e, errno, "cannot make a tmem pool for %s: %s", run_dir, strerror(errno));
    } else {
        rc = map(fd, &h, bytes, PROT_READ | PROT_WRITE, out, e);
    }
    if (rc) {
        if (fd >= 0)
            close(fd);
        return rc;
    }
    h.magic = TMEM_MAGIC;
    h.version = TMEM_VERSION;
    h.run_dev = dir.st_dev;
    h.run_ino = dir.st_ino;
    memcpy(out->header, &h, sizeof(h));
    return 0;
}

/* ---- the folder ---- */

int tmem_dir_open(const char *run_dir, bool make, struct err *e)
{
    char path[PATH_MAX];
    int fd;

    if (snprintf(path, sizeof(path), "%s/tmem", run_dir) >= (int)sizeof(path))
        return err_set(e, ENAMETOOLONG, "%s: name is too long", run_dir);
    if (make && mkdir(path, 0700) && errno != EEXIST)
        return err_set(e, errno, "cannot make %s: %s", path, strerror(errno));
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    return !make && errno == ENOENT ? -ENOENT : err_set(e, errno, "cannot open %s: %s", path,
                                                        strerror(errno));
}

int tmem_dir_lock(int dir_fd, const char *run_dir, struct err *e)
{
    int fd = openat(dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc;

    if (fd < 0)
        return err_set(e, errno, "cannot open %s/tmem/lock: %s", run_dir, strerror(errno));
    do
        rc = flock(fd, LOCK_EX);
    while (rc && errno == EINTR);
    if (!rc)
        return fd;
    rc = err_set(e, errno, "cannot lock %s/tmem/lock: %s", run_dir, strerror(errno));
    close(fd);
    return rc;
}

/* ---- users ---- */

static bool record_lock(const struct tmem_map *m, unsigned user, short type)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = TMEM_USER_LOCK(user),
                          .l_len = 1 };

    return !fcntl(m->fd, F_OFD_SETLK, &lock);
}

bool tmem_user_lives(const struct tmem_map *m, unsigned user)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET,
                          .l_start = TMEM_USER_LOCK(user), .l_len = 1 };

    return load_acquire(&m->header->user[user].used) && !fcntl(m->fd, F_OFD_GETLK, &lock) &&
           lock.l_type != F_UNLCK;
}

/* Of a user that is no more; its lock is ours. */
static void record_clear(const struct tmem_map *m, unsigned user, bool killed)
{
    struct tmem_user_record *r = &m->header->user[user];

    tmem_objects_clear(m, user, killed);
    /* last: until then whoever finds the byte unlocked begins again */
    store_release(&r->used, 0);
}

void tmem_users_sweep(struct tmem_user *u)
{
    if (swap_acq_rel(&u->sweeping, true))
        return;
    for (unsigned i = 0; i < TMEM_USERS; i++) {
        if (i == u->id || !load_acquire(&u->map.header->user[i].used) ||
            !record_lock(&u->map, i, F_WRLCK))
            continue;
        /* it may have left in between */
        if (load_acquire(&u->map.header->user[i].used))
            record_clear(&u->map, i, true);
        record_lock(&u->map, i, F_UNLCK);
    }
    store_release(&u->sweeping, false);
}

static int record_take(struct tmem_user *u, const struct tmem_pool_params *p, struct err *e)
{
    for (u->id = 0; u->id < TMEM_USERS; u->id++) {
        struct tmem_user_record *r = &u->map.header->user[u->id];

        if (!record_lock(&u->map, u->id, F_WRLCK))
            continue;
        if (load_acquire(&r->used))
            record_clear(&u->map, u->id, true);
        memset(r, 0, sizeof(*r));
        r->pid = getpid();
        snprintf(r->label, sizeof(r->label), "%s", p->label ? p->label : "");
        r->size_bytes = p->size_bytes;
        r->quota_bytes = u->quota_bytes;
        u->record = r;
        store_release(&r->used, 1);
        return 0;
    }
    return err_set(e, EUSERS, "the tmem pool of %s has %u disks already, and room for no more",
                   p->run_dir, TMEM_USERS);
}

static int link_make(const struct tmem_user *u, const struct tmem_pool_params *p, struct err *e)
{
    char name[16], target[64];

    snprintf(name, sizeof(name), "%u", u->id);
    snprintf(target, sizeof(target), "/proc/%d/fd/%d", (int)getpid(), u->map.fd);
    unlinkat(u->dir_fd, name, 0);
    if (symlinkat(target, u->dir_fd, name))
        return err_set(e, errno, "cannot make %s/tmem/%s: %s", p->run_dir, name, strerror(errno));
    return 0;
}

static uint64_t bound_wanted(const struct tmem_pool_params *p)
{
    uint64_t bytes = p->pool_bytes;

    if (!bytes)
        bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 4;
    bytes = min_of(bytes, TMEM_POOL_MAX_BYTES);
    return align_up(bytes, TMEM_EXTENT_BYTES);
}

/* Under the lock. */
static int join(struct tmem_user *u, const struct tmem_pool_params *p, struct err *e)
{
    uint64_t wanted = bound_wanted(p), is;
    int rc = tmem_map_find(u->dir_fd, p->run_dir, PROT_READ | PROT_WRITE, &u->map, e);

    if (rc == -ENOENT)
        rc = map_make(u->dir_fd, p->run_dir, wanted, &u->map, e);
    if (rc)
        return rc;
    is = u->map.max_extents * TMEM_EXTENT_BYTES;
    if (p->pool_bytes && wanted != is)
        rc = err_set(e, EEXIST, "the tmem pool of %s may reach %llu MiB, as its first disk said, "
                     "and not %llu", p->run_dir, (unsigned long long)(is / MIB),
                     (unsigned long long)(wanted / MIB));
    u->held_bytes = (size_t)(u->map.max_extents * TMEM_EXTENT_OBJECTS * sizeof(*u->held));
    if (!rc)
        u->held = mmap(NULL, u->held_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (u->held == MAP_FAILED) {
        u->held = NULL;
        rc = err_set(e, errno, "out of memory");
    }
    if (!rc)
        rc = record_take(u, p, e);
    if (!rc) {
        rc = link_make(u, p, e);
        if (rc)
            record_clear(&u->map, u->id, false);
    }
    if (!rc) {
        tmem_users_sweep(u);
        return 0;
    }
    if (u->held)
        munmap(u->held, u->held_bytes);
    tmem_map_close(&u->map);
    return rc;
}

int tmem_pool_join(const struct tmem_pool_params *p, struct tmem_user **out, struct err *e)
{
    struct tmem_user *u;
    int lock_fd, rc;

    if (!p->run_dir)
        return err_set(e, EINVAL, "a tmem disk needs a run-time directory");
    if (p->pool_bytes > TMEM_POOL_MAX_BYTES)
        return err_set(e, EINVAL, "a tmem pool of %llu bytes: at most 1T",
                       (unsigned long long)p->pool_bytes);
    u = calloc(1, sizeof(*u));
    if (!u)
        return err_set(e, ENOMEM, "out of memory");
    u->quota_bytes = p->quota_bytes ? p->quota_bytes : UINT64_MAX;
    u->dir_fd = rc = tmem_dir_open(p->run_dir, true, e);
    if (rc < 0) {
        free(u);
        return rc;
    }
    lock_fd = tmem_dir_lock(u->dir_fd, p->run_dir, e);
    rc = lock_fd < 0 ? lock_fd : join(u, p, e);
    if (lock_fd >= 0)
        close(lock_fd);
    if (rc) {
        close(u->dir_fd);
        free(u);
        return rc;
    }
    *out = u;
    return 0;
}

void tmem_pool_leave(struct tmem_user *u)
{
    struct err e = { 0 };
    char name[16];
    int lock_fd = tmem_dir_lock(u->dir_fd, "", &e);

    snprintf(name, sizeof(name), "%u", u->id);
    /* without the lock too: somebody who follows the link now finds the memory or nothing */
    unlinkat(u->dir_fd, name, 0);
    record_clear(&u->map, u->id, false);
    tmem_map_close(&u->map);
    if (lock_fd >= 0)
        close(lock_fd);
    munmap(u->held, u->held_bytes);
    close(u->dir_fd);
    free(u);
}
