/* SPDX-License-Identifier: MIT */
/* What is in a pool, read from its memory by whoever wants to know.  What can be counted is not
 * kept: nobody can be killed between the change and the figure. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "blk/tmem_pool_priv.h"

static void objects_count(const struct tmem_map *m, struct tmem_stats *s)
{
    uint64_t nr = tmem_nr_extents(m) * TMEM_EXTENT_OBJECTS;

    for (uint32_t i = 0; i < nr; i++) {
        uint32_t length;

        if (TMEM_STATE_KIND(load_acquire(tmem_state(m, i))) != TMEM_LIVE)
            continue;
        length = tmem_length(tmem_object(m, i));
        s->unique_pages++;
        s->compressed_bytes += length;
        s->cell_bytes += (uint64_t)tmem_nr_cells(length) * TMEM_CELL_BYTES;
    }
}

static void users_count(const struct tmem_map *m, struct tmem_stats *s)
{
    for (unsigned i = 0; i < TMEM_USERS; i++) {
        const struct tmem_user_record *r = &m->header->user[i];
        struct tmem_user_stats *u = &s->user[s->nr_users];

        if (!tmem_user_lives(m, i))
            continue;
        u->pid = (unsigned)r->pid;
        memcpy(u->label, r->label, sizeof(u->label));
        u->label[sizeof(u->label) - 1] = '\0';
        text_make_harmless(u->label);
        u->size_bytes = r->size_bytes;
        u->quota_bytes = r->quota_bytes;
        u->pages = load_relaxed(&r->pages);
        u->filled = load_relaxed(&r->filled);
        u->charged_bytes = load_relaxed(&r->charged_bytes);
        u->shared_hits = load_relaxed(&r->shared_hits);
        u->over_quota = load_relaxed(&r->over_quota);
        u->pool_full = load_relaxed(&r->pool_full);
        s->stored_pages += u->pages;
        s->nr_users++;
    }
}

int tmem_pool_stats(const char *run_dir, struct tmem_stats *out, struct err *e)
{
    int dir_fd = tmem_dir_open(run_dir, false, e), lock_fd, rc;
    struct tmem_map m;
    struct stat st;

    if (dir_fd < 0)
        return dir_fd;
    lock_fd = tmem_dir_lock(dir_fd, run_dir, e);
    rc = lock_fd < 0 ? lock_fd : tmem_map_find(dir_fd, run_dir, PROT_READ, &m, e);
    if (!rc) {
        memset(out, 0, sizeof(*out));
        out->bound_bytes = m.max_extents * TMEM_EXTENT_BYTES;
        if (!fstat(m.fd, &st))
            out->memory_bytes = (uint64_t)st.st_blocks * 512;
        objects_count(&m, out);
        users_count(&m, out);
        tmem_map_close(&m);
    }
    if (lock_fd >= 0)
        close(lock_fd);
    close(dir_fd);
    return rc;
}
