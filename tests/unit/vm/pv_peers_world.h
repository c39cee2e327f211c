/* SPDX-License-Identifier: MIT */
/* Two guests' processes, both in this one, as others see them: RAM with a grant table, links
 * without KVM, and what their shims would ask. */
#ifndef XENOLITH_TESTS_PV_PEERS_WORLD_H
#define XENOLITH_TESTS_PV_PEERS_WORLD_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic.h"
#include "vm/pv_peer_wire.h"
#include "vm/pv_peers.h"

#define ONE        5
#define TWO        6
#define NR_DOMIDS  8
#define RAM_MFN    0x100000
#define RAM_PAGES  64
#define TABLE_GPA  (16 * MIB)
#define NR_LINKS   16
#define WAIT_MS    5000

struct world;

struct guest {
    struct world *world;
    struct pv_peers *peers;
    struct guest_mem mem;
    struct gnttab_state state;
    uint8_t *ram, *window[PV_NR_PEER_WINDOWS];
    struct xen_hostlink links[NR_LINKS];
    struct xen_hostport *end[NR_LINKS];
    uint32_t attach_id;
};

struct world {
    char dir[32];
    struct guest guest[NR_DOMIDS];      /* by number */
};

static inline void address(const struct world *w, unsigned domid, struct sockaddr_un *un)
{
    *un = (struct sockaddr_un){ .sun_family = AF_UNIX };
    snprintf(un->sun_path, sizeof(un->sun_path), "%s/%u", w->dir, domid);
}

static inline int connect_to(void *arg, unsigned domid)
{
    struct guest *g = arg;
    struct sockaddr_un un;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    address(g->world, domid, &un);
    if (!connect(fd, (struct sockaddr *)&un, sizeof(un)))
        return fd;
    close(fd);
    return -ENOENT;
}

static inline int listen_as(const struct world *w, unsigned domid, int flags)
{
    struct sockaddr_un un;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0);

    address(w, domid, &un);
    unlink(un.sun_path);
    assert_false(bind(fd, (struct sockaddr *)&un, sizeof(un)));
    assert_false(listen(fd, 8));
    return fd;
}

/* ---- links without KVM: kick_fd is the doorbell, irq_fd the interrupt ---- */

static inline int link_take(void *owner, uint32_t port, struct xen_hostport *end)
{
    struct guest *g = owner;
    unsigned i = 0;

    while (i < NR_LINKS && g->end[i])
        i++;
    if (i == NR_LINKS)
        return -ENOSPC;
    g->links[i] = (struct xen_hostlink){ .port = port };
    *end = (struct xen_hostport){ .kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                                  .irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                                  .link = &g->links[i], .index = i };
    g->end[i] = end;
    return 0;
}

static inline int link_attach(void *owner, uint32_t port, uint32_t id, struct xen_hostport *end)
{
    struct guest *g = owner;

    g->attach_id = id;
    return link_take(owner, port, end);
}

static inline void link_release(void *owner, struct xen_hostport *end)
{
    struct guest *g = owner;

    close(end->kick_fd);
    close(end->irq_fd);
    g->end[end->index] = NULL;
}

static const struct pv_peer_link_ops link_ops = {
    .attach = link_attach, .take = link_take, .untake = link_release, .release = link_release,
};

/* ---- guests ---- */

static inline struct gnttab_table table_of(struct guest *g)
{
    return (struct gnttab_table){
        .frames = guest_mem_ptr(&g->mem, gpa(TABLE_GPA), PAGE_SIZE),
        .status = guest_mem_ptr(&g->mem, gpa(TABLE_GPA + PAGE_SIZE), PAGE_SIZE),
        .state = &g->state, .nr_frames_max = 1,
    };
}

static inline struct guest *guest_start(struct world *w, unsigned domid)
{
    struct guest *g = &w->guest[domid];
    struct err e = { 0 };

    *g = (struct guest){ .world = w, .state = { .nr_frames = 1, .version = 1 } };
    guest_mem_init(&g->mem);
    assert_false(guest_mem_add(&g->mem, gpa(TABLE_GPA), 2 * PAGE_SIZE, "table", false, &e));
    assert_false(guest_mem_add(&g->mem, gpa((uint64_t)RAM_MFN << PAGE_SHIFT),
                               RAM_PAGES * PAGE_SIZE, "ram", false, &e));
    g->ram = g->mem.region[1].host;
    for (unsigned i = 0; i < PV_NR_PEER_WINDOWS; i++)
        g->window[i] = pv_peers_window();
    assert_false(pv_peers_create(&(struct pv_peers_params){
        .domid = domid, .connect = connect_to, .arg = g,
        .listen_fd = listen_as(w, domid, SOCK_NONBLOCK), .answer_seconds = 1,
        .link_ops = &link_ops, .links = g, .mem = &g->mem, .grants = table_of(g),
        .ram_fd = g->mem.region[1].memfd, .first_mfn = RAM_MFN, .ram_pages = RAM_PAGES,
        .window = { g->window[0], g->window[1] },
    }, &g->peers, &e));
    return g;
}

static inline void guest_end(struct world *w, unsigned domid)
{
    struct guest *g = &w->guest[domid];
    struct sockaddr_un un;

    if (!g->peers)
        return;
    address(w, domid, &un);
    unlink(un.sun_path);
    pv_peers_free(g->peers);
    for (unsigned i = 0; i < NR_LINKS; i++)
        assert_null(g->end[i]);
    for (unsigned i = 0; i < PV_NR_PEER_WINDOWS; i++)
        pv_peers_window_free(g->window[i]);
    guest_mem_free(&g->mem);
    g->peers = NULL;
}

static inline int setup(void **state)
{
    struct world *w = aligned_alloc(CACHE_LINE_BYTES, sizeof(*w));

    memset(w, 0, sizeof(*w));
    strcpy(w->dir, "/tmp/xt-peers-XXXXXX");
    if (!mkdtemp(w->dir))
        return -1;
    guest_start(w, ONE);
    guest_start(w, TWO);
    *state = w;
    return 0;
}

static inline int teardown(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i < NR_DOMIDS; i++)
        guest_end(w, i);
    assert_false(rmdir(w->dir));
    free(w);
    return 0;
}

static inline void give(struct guest *g, uint32_t ref, uint16_t flags, domid_t to, uint64_t page)
{
    struct gnttab_table t = table_of(g);

    *gnttab_v1(&t, ref) = (struct grant_entry_v1){ flags, to, (uint32_t)(RAM_MFN + page) };
}

static inline uint16_t use(struct guest *g, uint32_t ref)
{
    struct gnttab_table t = table_of(g);

    return load_acquire(&gnttab_v1(&t, ref)->flags) & GTF_IN_USE;
}

static inline struct shim_peer_call call(struct guest *g, struct shim_peer_call c)
{
    pv_peers_call(g->peers, &c);
    return c;
}

static inline struct shim_peer_call map(struct guest *g, unsigned domid, uint32_t ref, bool write)
{
    return call(g, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_MAP, .domid = domid, .ref = ref,
                                            .write = write });
}

static inline void unmap(struct guest *g, uint64_t mfn)
{
    call(g, (struct shim_peer_call){ .op = SHIM_PEER_GRANT_UNMAP, .mfn = mfn });
}

static inline uint8_t *page_at(struct guest *g, uint64_t mfn)
{
    uint64_t i = mfn - (PEER_GPA >> PAGE_SHIFT);

    assert_true(i < 2 * PEER_PAGES);
    return g->window[i / PEER_PAGES] + i % PEER_PAGES * PAGE_SIZE;
}

/* Whether the kernel, as KVM would, can read the page, or write to it. */
static inline bool can(bool change, uint8_t *page)
{
    int fd[2];
    bool ok;

    assert_false(pipe(fd));
    if (change)
        ok = write(fd[1], "", 1) == 1 && read(fd[0], page + PAGE_SIZE - 1, 1) == 1;
    else
        ok = write(fd[1], page, 1) == 1;
    close(fd[0]);
    close(fd[1]);
    return ok;
}

#define eventually(condition) \
    do { \
        unsigned ms_ = 0; \
        while (!(condition)) { \
            assert_true(ms_++ < WAIT_MS); \
            usleep(1000); \
        } \
    } while (0)

/* ---- events ---- */

static inline int wait_for(struct guest *g, unsigned domid, uint32_t port)
{
    return call(g, (struct shim_peer_call){ .op = SHIM_PEER_PORT_WAIT, .port = port,
                                            .domid = domid, .id = port + 1000 }).result;
}

static inline struct shim_peer_call bind_to(struct guest *g, uint32_t port, unsigned domid,
                                     uint32_t peer_port)
{
    return call(g, (struct shim_peer_call){ .op = SHIM_PEER_PORT_BIND, .port = port,
                                            .domid = domid, .peer_port = peer_port });
}

static inline void close_port(struct guest *g, uint32_t port)
{
    call(g, (struct shim_peer_call){ .op = SHIM_PEER_PORT_CLOSE, .port = port });
}

static inline void ring(struct guest *g, unsigned link)
{
    const uint64_t one = 1;

    assert_int_equal(write(g->end[link]->kick_fd, &one, sizeof(one)), sizeof(one));
}

/* An event came by the link, with its interrupt. */
static inline bool event_taken(struct guest *g, unsigned link)
{
    uint64_t n;

    return read(g->end[link]->irq_fd, &n, sizeof(n)) == sizeof(n) &&
           swap_acq_rel(&g->links[link].pending, 0);
}

/* ---- others that speak for guests ---- */

static inline bool send_with(int fd, const struct peer_msg *m, const int *fds, unsigned nr)
{
    union { struct cmsghdr h; char room[CMSG_SPACE(4 * sizeof(int))]; } control = { 0 };
    struct iovec iov = { (void *)(uintptr_t)m, sizeof(*m) };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                          .msg_controllen = CMSG_SPACE(nr * sizeof(int)) };

    if (!nr)
        return send(fd, m, sizeof(*m), MSG_NOSIGNAL) == sizeof(*m);
    control.h.cmsg_level = SOL_SOCKET;
    control.h.cmsg_type = SCM_RIGHTS;
    control.h.cmsg_len = CMSG_LEN(nr * sizeof(int));
    memcpy(CMSG_DATA(&control.h), fds, nr * sizeof(int));
    return sendmsg(fd, &msg, MSG_NOSIGNAL) == sizeof(*m);
}

/* A connection to guest ONE that has said so much. */
static inline int stranger(struct world *w, const struct peer_msg *first)
{
    int fd = connect_to(&w->guest[TWO], ONE);

    assert_true(fd >= 0);
    if (first)
        assert_int_equal(send(fd, first, sizeof(*first), 0), sizeof(*first));
    return fd;
}

#endif
