/* SPDX-License-Identifier: MIT */
/* What the guest holds of other guests' grants.
 *
 * A page that is mapped is shown in a window of the guest's address space, which is one
 * mapping of the process per page and nothing else: so KVM, whose slot covers the window,
 * shows the guest what is granted to it and no more, and a window of its own for what may
 * not be written to, where KVM refuses writes whatever the guest's page tables say.  A page
 * that several mappings show is there once.
 *
 * Copies go through the file, so nobody maps another guest's RAM. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/log.h"
#include "vm/pv_peers_priv.h"

int peer_grants_init(struct pv_peers *p)
{
    for (unsigned w = 0; w < PV_NR_PEER_WINDOWS; w++) {
        p->grants.page[w] = calloc(PEER_PAGES, sizeof(struct peer_page));
        if (!p->grants.page[w])
            return -ENOMEM;
    }
    return 0;
}

/* The lock is held for all that follows, up to the guest's calls. */

static uint8_t *page_host(const struct pv_peers *p, unsigned window, uint32_t i)
{
    return p->p.window[window] + (uint64_t)i * PAGE_SIZE;
}

/* Mapped elsewhere first: where mmap() fails in a window, it may have unmapped what was there,
 * and whatever else the process maps next could be shown to the guest. */
static bool page_place(const struct pv_peers *p, unsigned window, uint32_t i, int prot, int flags,
                       int fd, off_t at)
{
    void *page = mmap(NULL, PAGE_SIZE, prot, flags, fd, at);

    if (page == MAP_FAILED)
        return false;
    if (mremap(page, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
               page_host(p, window, i)) != MAP_FAILED)
        return true;
    munmap(page, PAGE_SIZE);
    return false;
}

/* Nothing is there for the guest, as before.  False: what was there is. */
static bool page_hide(const struct pv_peers *p, unsigned window, uint32_t i)
{
    if (page_place(p, window, i, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))
        return true;
    log_error("a page of another guest stays mapped: out of memory");
    return false;
}

static void drop(struct pv_peers *p, struct peer *peer, uint32_t hold)
{
    struct peer_msg m = { .op = PEER_DROP, .hold = hold };

    if (!peer_is_gone(p, peer))
        peer_ask(p, peer, &m, -1, NULL);
}

/* It must never shrink under a mapping, and be of pages of the usual size: a mapping of one
 * page of any other would be larger. */
static bool is_ram(int fd, struct stat *st)
{
    struct statfs fs;
    int seals = fcntl(fd, F_GET_SEALS);

    return seals >= 0 && (seals & F_SEAL_SHRINK) && !fstatfs(fd, &fs) &&
           fs.f_type == TMPFS_MAGIC && !fstat(fd, st);
}

/* The other guest's RAM. */
static bool ram_take(struct peer *peer, int fd)
{
    struct stat st;

    if (fd < 0 || peer->ram_fd >= 0 || !is_ram(fd, &st)) {
        if (fd >= 0)
            close(fd);
        return peer->ram_fd >= 0;
    }
    peer->ram_fd = fd;
    peer->ram_pages = (uint64_t)st.st_size >> PAGE_SHIFT;
    return true;
}

/* What the other side says of a request, which may be anything. */
static int16_t status_judge(int32_t result)
{
    return result <= 0 && result >= INT16_MIN ? (int16_t)result : GNTST_general_error;
}

/* Holds a grant; *m is what the other side says of it. */
static int16_t hold(struct pv_peers *p, struct peer *peer, struct peer_msg *m)
{
    int fd = -1;

    m->op = PEER_HOLD;
    m->want_ram = peer->ram_fd < 0;
    if (peer_ask(p, peer, m, -1, &fd))
        return GNTST_bad_domain;
    if (m->result) {
        if (fd >= 0)
            close(fd);
        return status_judge(m->result);
    }
    if (ram_take(peer, fd) && (m->transitive || m->frame < peer->ram_pages))
        return GNTST_okay;
    drop(p, peer, m->hold);
    return GNTST_general_error;
}

/* The page of the window that shows ref, or a free one; NULL: all are in use. */
static struct peer_page *page_for(struct pv_peers *p, unsigned window, const struct peer *peer,
                                  uint32_t ref)
{
    struct peer_page *free_page = NULL;

    for (uint32_t i = 0; i < PEER_PAGES; i++) {
        struct peer_page *g = &p->grants.page[window][i];

        if (g->refs && g->peer == peer && g->ref == ref)
            return g;
        if (!g->refs && !free_page)
            free_page = g;
    }
    return free_page;
}

static int16_t page_show(struct pv_peers *p, unsigned window, uint32_t i, struct peer *peer,
                         uint32_t ref)
{
    struct peer_msg m = { .ref = ref, .write = window == PV_WINDOW_WRITE };
    int16_t status = hold(p, peer, &m);

    if (status != GNTST_okay)
        return status;
    if (m.transitive ||
        !page_place(p, window, i, window == PV_WINDOW_WRITE ? PROT_READ | PROT_WRITE : PROT_READ,
                    MAP_SHARED, peer->ram_fd, (off_t)(m.frame << PAGE_SHIFT))) {
        drop(p, peer, m.hold);
        return GNTST_general_error;
    }
    p->grants.page[window][i] = (struct peer_page){ .peer = peer_hold(p, peer), .ref = ref,
                                                    .hold = m.hold };
    return GNTST_okay;
}

/* The guest does not see it any more. */
static void page_release(struct pv_peers *p, unsigned window, uint32_t i)
{
    struct peer_page g = p->grants.page[window][i];

    p->grants.page[window][i] = (struct peer_page){ 0 };
    drop(p, g.peer, g.hold);
    peer_put(p, g.peer);
}

static void copy_release(struct pv_peers *p, struct peer_copy *c)
{
    struct peer *peer = c->peer;

    c->peer = NULL;
    drop(p, peer, c->hold);
    peer_put(p, peer);
}

/* ---- the guest's calls ---- */

int16_t peer_grants_map(struct pv_peers *p, const struct shim_peer_call *c, uint64_t *mfn)
{
    unsigned window = c->write ? PV_WINDOW_WRITE : PV_WINDOW_READ;
    struct peer *peer = peer_get(p, c->domid);
    int16_t status = GNTST_okay;
    struct peer_page *g;
    uint32_t i;

    if (!peer)
        return GNTST_bad_domain;
    pthread_mutex_lock(&p->grants.lock);
    g = page_for(p, window, peer, c->ref);
    if (!g) {
        status = GNTST_no_device_space;
    } else {
        i = (uint32_t)(g - p->grants.page[window]);
        if (!g->refs)
            status = page_show(p, window, i, peer, c->ref);
        if (status == GNTST_okay)
            g->refs++;
        *mfn = ((PEER_GPA + window * PEER_BYTES) >> PAGE_SHIFT) + i;
    }
    pthread_mutex_unlock(&p->grants.lock);
    peer_put(p, peer);
    return status;
}

void peer_grants_unmap(struct pv_peers *p, uint64_t mfn)
{
    uint64_t i = mfn - (PEER_GPA >> PAGE_SHIFT);
    unsigned window = i < PEER_PAGES ? PV_WINDOW_WRITE : PV_WINDOW_READ;
    struct peer_page *g;

    if (i >= 2 * PEER_PAGES)
        return;
    i %= PEER_PAGES;
    pthread_mutex_lock(&p->grants.lock);
    g = &p->grants.page[window][i];
    if (g->refs > 1)
        g->refs--;
    else if (g->refs && page_hide(p, window, (uint32_t)i))
        page_release(p, window, (uint32_t)i);
    pthread_mutex_unlock(&p->grants.lock);
}

int16_t peer_grants_hold(struct pv_peers *p, struct shim_peer_call *call)
{
    struct peer_msg m = { .ref = call->ref, .write = call->write, .copy = true };
    struct peer *peer = peer_get(p, call->domid);
    int16_t status = GNTST_general_error;
    uint32_t i = 0;

    if (!peer)
        return GNTST_bad_domain;
    pthread_mutex_lock(&p->grants.lock);
    while (i < PEER_COPIES_MAX && p->grants.copy[i].peer)
        i++;
    if (i < PEER_COPIES_MAX)
        status = hold(p, peer, &m);
    if (status == GNTST_okay) {
        p->grants.copy[i] = (struct peer_copy){
            .peer = peer_hold(p, peer), .hold = m.hold, .write = call->write, .frame = m.frame,
            .offset = m.transitive ? 0 : m.offset, .length = m.transitive ? 0 : m.length,
        };
        call->hold = i;
        call->offset = m.offset;
        call->length = m.length;
        call->transitive = m.transitive;
        call->trans_domid = m.trans_domid;
        call->trans_ref = m.trans_ref;
    }
    pthread_mutex_unlock(&p->grants.lock);
    peer_put(p, peer);
    return status;
}

void peer_grants_drop(struct pv_peers *p, uint32_t hold)
{
    if (hold >= PEER_COPIES_MAX)
        return;
    pthread_mutex_lock(&p->grants.lock);
    if (p->grants.copy[hold].peer)
        copy_release(p, &p->grants.copy[hold]);
    pthread_mutex_unlock(&p->grants.lock);
}

/* Reads or writes (write) one end's bytes.  What another guest does not grant is refused,
 * whatever the shim says. */
static bool end_move(struct pv_peers *p, const struct gnttab_peer_end *end, bool write, void *buf,
                     uint32_t bytes)
{
    const struct peer_copy *c;
    off_t at;

    if (end->hold == GNTTAB_NO_HOLD) {
        if (end->mfn - p->p.first_mfn >= p->p.ram_pages)
            return false;
        at = (off_t)((end->mfn - p->p.first_mfn) << PAGE_SHIFT) + end->offset;
        return (write ? pwrite(p->p.ram_fd, buf, bytes, at)
                      : pread(p->p.ram_fd, buf, bytes, at)) == (ssize_t)bytes;
    }
    if (end->hold >= PEER_COPIES_MAX)
        return false;
    c = &p->grants.copy[end->hold];
    /* with the connection the hold is over */
    if (!c->peer || peer_is_gone(p, c->peer) || (write && !c->write) || end->offset < c->offset ||
        end->offset + bytes > c->offset + c->length)
        return false;
    at = (off_t)(c->frame << PAGE_SHIFT) + end->offset;
    return (write ? pwrite(c->peer->ram_fd, buf, bytes, at)
                  : pread(c->peer->ram_fd, buf, bytes, at)) == (ssize_t)bytes;
}

int16_t peer_grants_copy(struct pv_peers *p, const struct shim_peer_call *c)
{
    uint8_t buf[PAGE_SIZE];
    bool ok;

    if (c->bytes > PAGE_SIZE || c->from.offset > PAGE_SIZE - c->bytes ||
        c->to.offset > PAGE_SIZE - c->bytes)
        return GNTST_bad_copy_arg;
    pthread_mutex_lock(&p->grants.lock);
    ok = end_move(p, &c->from, false, buf, c->bytes) && end_move(p, &c->to, true, buf, c->bytes);
    pthread_mutex_unlock(&p->grants.lock);
    return ok ? GNTST_okay : GNTST_general_error;
}

void peer_grants_revoke(struct pv_peers *p, const struct peer *peer, bool locked)
{
    if (!locked)
        pthread_mutex_lock(&p->grants.lock);
    for (unsigned w = 0; w < PV_NR_PEER_WINDOWS; w++)
        for (uint32_t i = 0; i < PEER_PAGES; i++)
            if (p->grants.page[w][i].refs && p->grants.page[w][i].peer == peer &&
                !page_place(p, w, i, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
                page_hide(p, w, i);
    if (!locked)
        pthread_mutex_unlock(&p->grants.lock);
}

void peer_grants_free(struct pv_peers *p)
{
    for (unsigned w = 0; w < PV_NR_PEER_WINDOWS; w++) {
        for (uint32_t i = 0; p->grants.page[w] && i < PEER_PAGES; i++)
            if (p->grants.page[w][i].refs) {
                page_hide(p, w, i);
                page_release(p, w, i);
            }
        free(p->grants.page[w]);
        p->grants.page[w] = NULL;
    }
    for (uint32_t i = 0; i < PEER_COPIES_MAX; i++)
        if (p->grants.copy[i].peer)
            copy_release(p, &p->grants.copy[i]);
}
