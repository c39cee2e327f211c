/* SPDX-License-Identifier: MIT */
/* Two guests with each other, by the devices of the kernel and Xen's libraries.  The number
 * of the other is in data/peer of the own part of the store, and the one that grants tells
 * the other there what it has granted.
 *
 *     peers vchan-server MIB     echoes what comes, and says how it went
 *     peers vchan-client MIB
 *     peers granter              pages and an event channel for the other, until it is done
 *     peers user                 uses them, and tries all that it may not
 *     peers look                 does what needs nothing of the granter's guest, which is
 *                                paused when data/paused is there */
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <libxenvchan.h>
#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>

#include "program.h"

#define RING_BYTES 65536
#define NR_PAGES   4u
#define PAGE       4096u
#define WAIT_MS    60000
#define PATH_BYTES 128

struct store {
    struct xs_handle *xs;
    unsigned self, peer;
};

/* The node's number, once somebody has written it. */
static unsigned number_at(struct store *s, const char *path)
{
    for (unsigned ms = 0; ms < WAIT_MS; ms += 20) {
        unsigned len;
        char *text = xs_read(s->xs, XBT_NULL, path, &len);

        if (text) {
            unsigned n = (unsigned)strtoul(text, NULL, 10);

            free(text);
            return n;
        }
        usleep(20000);
    }
    check_said(false, "%s: nobody has written it\n", path);
    return 0;
}

static unsigned peer_number(struct store *s, const char *name)
{
    char path[PATH_BYTES];

    snprintf(path, sizeof(path), "/local/domain/%u/data/%s", s->peer, name);
    return number_at(s, path);
}

/* Own nodes that the other may read. */
static void tell(struct store *s, const char *name, unsigned n)
{
    struct xs_permissions perms[2] = { { .id = s->self, .perms = XS_PERM_NONE },
                                       { .id = s->peer, .perms = XS_PERM_READ } };
    char path[PATH_BYTES], text[16];

    snprintf(path, sizeof(path), "data/%s", name);
    snprintf(text, sizeof(text), "%u", n);
    check(xs_write(s->xs, XBT_NULL, path, text, (unsigned)strlen(text)));
    check(xs_set_permissions(s->xs, XBT_NULL, path, perms, 2));
}

static struct store store_open(void)
{
    struct store s = { .xs = xs_open(0) };

    check(s.xs);
    s.self = number_at(&s, "domid");
    s.peer = number_at(&s, "data/peer");
    return s;
}

static uint32_t noise(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* ---- vchan ---- */

static void whole(struct libxenvchan *v, bool write, void *buf, size_t bytes)
{
    for (size_t done = 0; done < bytes; ) {
        int n = write ? libxenvchan_write(v, (char *)buf + done, bytes - done)
                      : libxenvchan_read(v, (char *)buf + done, bytes - done);

        check_said(n > 0, "vchan %s: %d after %zu of %zu bytes (errno %d)\n",
                   write ? "write" : "read", n, done, bytes, errno);
        done += (size_t)n;
    }
}

static void vchan_server(uint64_t mib)
{
    struct store s = store_open();
    struct libxenvchan *v = libxenvchan_server_init(NULL, (int)s.peer, "data/vchan", RING_BYTES,
                                                    RING_BYTES);
    static char buf[RING_BYTES];

    check(v);
    v->blocking = 1;
    tell(&s, "ready", 1);
    for (uint64_t left = mib << 20; left; left -= sizeof(buf)) {
        whole(v, false, buf, sizeof(buf));
        whole(v, true, buf, sizeof(buf));
    }
    /* the other side's close is the end */
    check(libxenvchan_read(v, buf, 1) < 0);
    libxenvchan_close(v);
}

static void vchan_client(uint64_t mib)
{
    struct store s = store_open();
    char path[PATH_BYTES];
    struct libxenvchan *v;
    static uint32_t out[RING_BYTES / 4], in[RING_BYTES / 4];
    uint32_t state = 1;

    peer_number(&s, "ready");
    snprintf(path, sizeof(path), "/local/domain/%u/data/vchan", s.peer);
    v = libxenvchan_client_init(NULL, (int)s.peer, path);
    check(v);
    v->blocking = 1;
    for (uint64_t left = mib << 20; left; left -= sizeof(out)) {
        for (unsigned i = 0; i < RING_BYTES / 4; i++)
            out[i] = noise(&state);
        whole(v, true, out, sizeof(out));
        whole(v, false, in, sizeof(in));
        check(!memcmp(in, out, sizeof(out)));
        if (left == mib << 20) {
            printf("@@ it flows\n");
            fflush(stdout);
        }
    }
    libxenvchan_close(v);
}

/* ---- pages and events ---- */

static void event_wait(xenevtchn_handle *h, evtchn_port_t port)
{
    struct pollfd p = { .fd = xenevtchn_fd(h), .events = POLLIN };

    check_said(poll(&p, 1, WAIT_MS) == 1, "no event came\n");
    check(xenevtchn_pending(h) == (xenevtchn_port_or_error_t)port);
    check(!xenevtchn_unmask(h, port));
}

static void granter(void)
{
    struct store s = store_open();
    xengntshr_handle *g = xengntshr_open(NULL, 0);
    xenevtchn_handle *ev = xenevtchn_open(NULL, 0);
    uint32_t rw[NR_PAGES], ro, other;
    xenevtchn_port_or_error_t port;
    uint32_t *page, *page_ro;
    char name[16];

    check(g && ev);
    page = xengntshr_share_pages(g, s.peer, NR_PAGES, rw, 1);
    page_ro = xengntshr_share_pages(g, s.peer, 1, &ro, 0);
    check(page && page_ro && xengntshr_share_pages(g, s.peer + 1000, 1, &other, 1));
    port = xenevtchn_bind_unbound_port(ev, s.peer);
    check(port > 0);
    for (unsigned i = 0; i < NR_PAGES * PAGE / 4; i++)
        page[i] = i;
    page_ro[0] = 4711;
    for (unsigned i = 0; i < NR_PAGES; i++) {
        snprintf(name, sizeof(name), "rw%u", i);
        tell(&s, name, rw[i]);
    }
    tell(&s, "ro", ro);
    tell(&s, "other", other);
    tell(&s, "port", (unsigned)port);
    event_wait(ev, (evtchn_port_t)port);        /* connecting makes one */
    for (unsigned round = 1; round <= 1000; round++) {
        while (__atomic_load_n(&page[0], __ATOMIC_ACQUIRE) != round)
            event_wait(ev, (evtchn_port_t)port);
        __atomic_store_n(&page[1], round, __ATOMIC_RELEASE);
        check(!xenevtchn_notify(ev, (evtchn_port_t)port));
    }
    for (unsigned i = 2; i < NR_PAGES * PAGE / 4; i++)
        check_said(page[i] == ~i, "word %u of the shared pages: %x\n", i, page[i]);
    check(page_ro[0] == 4711);
    peer_number(&s, "done");
    check(!xengntshr_unshare(g, page, NR_PAGES));
    xengntshr_close(g);
    xenevtchn_close(ev);
}

static void *map(xengnttab_handle *h, unsigned domid, uint32_t ref, int prot)
{
    return xengnttab_map_grant_ref(h, domid, ref, prot);
}

static void user(void)
{
    const int rw = PROT_READ | PROT_WRITE;
    struct store s = store_open();
    xengnttab_handle *g = xengnttab_open(NULL, 0);
    xenevtchn_handle *ev = xenevtchn_open(NULL, 0);
    uint32_t refs[NR_PAGES], ro = peer_number(&s, "ro"), other = peer_number(&s, "other");
    uint32_t port = peer_number(&s, "port");
    xenevtchn_port_or_error_t local;
    uint32_t *page, *page_ro, *again;
    char name[16];

    check(g && ev);
    for (unsigned i = 0; i < NR_PAGES; i++) {
        snprintf(name, sizeof(name), "rw%u", i);
        refs[i] = peer_number(&s, name);
    }
    /* what is not granted: at all, out of range, to another, for writing, by nobody */
    check(!map(g, s.peer, other + 500, rw));
    check(!map(g, s.peer, 1u << 20, rw));
    check(!map(g, s.peer, other, rw));
    check(!map(g, s.peer, other, PROT_READ));
    check(!map(g, s.peer, ro, rw));
    check(!map(g, s.peer + 1000, refs[0], rw));
    check(xenevtchn_bind_interdomain(ev, s.peer, port + 100) < 0);
    check(xenevtchn_bind_interdomain(ev, s.peer + 1000, port) < 0);

    page = xengnttab_map_domain_grant_refs(g, NR_PAGES, s.peer, refs, rw);
    page_ro = map(g, s.peer, ro, PROT_READ);
    again = map(g, s.peer, refs[0], rw);
    check(page && page_ro && again && page_ro[0] == 4711);
    for (unsigned i = 0; i < NR_PAGES * PAGE / 4; i++)
        check_said(page[i] == i, "word %u of the granter's pages: %x\n", i, page[i]);
    for (unsigned i = 2; i < NR_PAGES * PAGE / 4; i++)
        page[i] = ~i;
    check(again[100] == ~(uint32_t)100);
    check(!xengnttab_unmap(g, again, 1));
    page[0] = page[1] = 0;

    local = xenevtchn_bind_interdomain(ev, s.peer, port);
    check(local > 0);
    check(xenevtchn_bind_interdomain(ev, s.peer, port) < 0);    /* it has one */
    event_wait(ev, (evtchn_port_t)local);
    check(!xenevtchn_notify(ev, (evtchn_port_t)local));
    for (unsigned round = 1; round <= 1000; round++) {
        __atomic_store_n(&page[0], round, __ATOMIC_RELEASE);
        check(!xenevtchn_notify(ev, (evtchn_port_t)local));
        while (__atomic_load_n(&page[1], __ATOMIC_ACQUIRE) != round)
            event_wait(ev, (evtchn_port_t)local);
    }
    check(!xenevtchn_unbind(ev, (evtchn_port_t)local));
    check(!xengnttab_unmap(g, page_ro, 1));
    check(!xengnttab_unmap(g, page, NR_PAGES));
    xengnttab_close(g);
    tell(&s, "done", 1);
}

static void look(void)
{
    struct store s = store_open();
    xengnttab_handle *g = xengnttab_open(NULL, 0);
    xenevtchn_handle *ev = xenevtchn_open(NULL, 0);
    uint32_t ref = peer_number(&s, "rw1"), ro = peer_number(&s, "ro");
    uint32_t port = peer_number(&s, "port");
    xenevtchn_port_or_error_t local;
    uint32_t *page, *page_ro;

    check(g && ev);
    printf("@@ told\n");
    fflush(stdout);
    number_at(&s, "data/paused");
    page = map(g, s.peer, ref, PROT_READ | PROT_WRITE);
    page_ro = map(g, s.peer, ro, PROT_READ);
    check(page && page[0] == PAGE / 4 && page_ro && page_ro[0] == 4711);
    for (unsigned i = 0; i < 3; i++) {
        local = xenevtchn_bind_interdomain(ev, s.peer, port);
        check(local > 0);
        check(!xenevtchn_notify(ev, (evtchn_port_t)local));
        check(!xenevtchn_unbind(ev, (evtchn_port_t)local));
    }
    check(!xengnttab_unmap(g, page, 1));
    check(!xengnttab_unmap(g, page_ro, 1));
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    uint64_t mib = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;

    if (!strcmp(what, "vchan-server"))
        vchan_server(mib);
    else if (!strcmp(what, "vchan-client"))
        vchan_client(mib);
    else if (!strcmp(what, "granter"))
        granter();
    else if (!strcmp(what, "user"))
        user();
    else if (!strcmp(what, "look"))
        look();
    else
        check_said(false, "peers: what?\n");
    return 0;
}
