/* SPDX-License-Identifier: MIT */
/* A frontend that writes garbage into a disk's rings: requests that make no sense get an
 * error each; a ring whose indices make none is stopped, and it alone: the same disk's
 * other ring, and another disk, go on.  Both disks are of the null driver: read as zeros. */
#include "pv.h"

#include <xen/grant_table.h>
#include <xen/io/blkif.h>
#include <xen/io/protocols.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>

#include "base/atomic.h"

#define PATIENCE_NS 30000000000ull
#define RING_ENTRIES 32             /* of one page */
#define DISK_SECTORS 2048           /* tests/guest/pv/run says so */
#define FIRST_REF 8                 /* those below are Xen's */

struct ring {
    struct blkif_sring *shared;
    uint32_t port, prod, cons;
};

struct vbd {
    const char *number;             /* in xenstore */
    char back[64];                  /* where its backend's nodes are */
    unsigned nr_rings;
    struct ring ring[2];
};

static void *grants;            /* the table, version 2 with the word "v2" */
static uint32_t next_ref = FIRST_REF;
static uint8_t *data;
static uint32_t data_ref;

/* ---- text ---- */

static unsigned length(const char *s)
{
    unsigned n = 0;

    while (s[n])
        n++;
    return n;
}

/* to = a b c; what does not fit is a mistake of this file. */
static char *join(char *to, unsigned size, const char *a, const char *b, const char *c)
{
    const char *part[] = { a, b, c };
    unsigned n = 0;

    for (unsigned i = 0; i < array_size(part); i++)
        for (const char *p = part[i]; *p && n + 1 < size; p++)
            to[n++] = *p;
    to[n] = 0;
    return to;
}

static void number_text(char *to, uint32_t value)
{
    char digits[10];
    unsigned n = 0;

    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    while (n)
        *to++ = digits[--n];
    *to = 0;
}

static bool contains(const char *text, const char *what)
{
    unsigned n = length(what), i;

    for (; *text; text++) {
        for (i = 0; i < n && text[i] == what[i]; i++)
            ;
        if (i == n)
            return true;
    }
    return false;
}

/* ---- xenstore ---- */

static void store_copy(char *p, unsigned n, bool out)
{
    struct xenstore_domain_interface *s = pv_kernel_va(pv_start_info->store_mfn);
    uint32_t port = pv_start_info->store_evtchn;

    while (n) {
        if (out && s->req_prod - load_acquire(&s->req_cons) < XENSTORE_RING_SIZE) {
            s->req[s->req_prod & (XENSTORE_RING_SIZE - 1)] = *p++;
            store_release(&s->req_prod, s->req_prod + 1);
            n--;
        } else if (!out && load_acquire(&s->rsp_prod) != s->rsp_cons) {
            *p++ = s->rsp[s->rsp_cons & (XENSTORE_RING_SIZE - 1)];
            store_release(&s->rsp_cons, s->rsp_cons + 1);
            n--;
        } else {
            pv_evtchn_send(port);
            PV_CALL(sched_op, SCHEDOP_yield, 0);
        }
    }
    pv_evtchn_send(port);
}

/* The answer, ended by a null; "" where there is none. */
static const char *store_call(uint32_t type, const char *path, const char *value)
{
    static char answer[XENSTORE_PAYLOAD_MAX + 1];
    unsigned path_bytes = length(path) + 1, value_bytes = value ? length(value) : 0;
    struct xsd_sockmsg m = { .type = type, .len = path_bytes + value_bytes };

    store_copy((char *)&m, sizeof(m), true);
    store_copy((char *)(uintptr_t)path, path_bytes, true);
    store_copy((char *)(uintptr_t)value, value_bytes, true);
    store_copy((char *)&m, sizeof(m), false);
    store_copy(answer, min_of(m.len, (uint32_t)XENSTORE_PAYLOAD_MAX), false);
    answer[m.type == XS_ERROR ? 0 : m.len] = 0;
    return answer;
}

static void front_write(const struct vbd *v, const char *key, uint32_t value)
{
    char path[128], text[16], folder[64];

    join(folder, sizeof(folder), "device/vbd/", v->number, "/");
    number_text(text, value);
    CHECK(contains(store_call(XS_WRITE, join(path, sizeof(path), folder, key, ""), text), "OK"));
}

static const char *back_read(const struct vbd *v, const char *key)
{
    char path[128];

    return store_call(XS_READ, join(path, sizeof(path), v->back, "/", key), NULL);
}

static bool back_comes_to(const struct vbd *v, const char *key, const char *what)
{
    uint64_t end = pv_time_ns() + PATIENCE_NS;

    while (pv_time_ns() < end)
        if (contains(back_read(v, key), what))
            return true;
    return false;
}

/* ---- a frontend ---- */

static uint32_t grant(void *page)
{
    struct grant_entry_v1 *v1 = (struct grant_entry_v1 *)grants + next_ref;
    union grant_entry_v2 *v2 = (union grant_entry_v2 *)grants + next_ref;

    if (pv_word("v2")) {
        v2->full_page.frame = pv_mfn(page);
        store_release(&v2->hdr.flags, (uint16_t)GTF_permit_access);
    } else {
        v1->frame = (uint32_t)pv_mfn(page);
        store_release(&v1->flags, (uint16_t)GTF_permit_access);
    }
    return next_ref++;
}

static void grants_init(void)
{
    uint64_t frame = 0;
    struct gnttab_setup_table s = { .dom = DOMID_SELF, .nr_frames = 1, .frame_list.p = &frame };
    struct gnttab_set_version version = { .version = 2 };

    if (pv_word("v2"))
        CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_set_version, &version, 1), 0);
    grants = pv_page();
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_setup_table, &s, 1), 0);
    CHECK_EQ(PV_CALL(update_va_mapping, grants,
                     frame << PAGE_SHIFT | PTE_P | PTE_W | PTE_U | PTE_NX, UVMF_INVLPG), 0);
    data = pv_page();
    data_ref = grant(data);
}

static void connect(struct vbd *v)
{
    char path[64];

    join(path, sizeof(path), "device/vbd/", v->number, "/backend");
    join(v->back, sizeof(v->back), store_call(XS_READ, path, NULL), "", "");
    CHECK(back_comes_to(v, "state", "2"));
    front_write(v, "multi-queue-num-queues", v->nr_rings);
    for (unsigned i = 0; i < v->nr_rings; i++) {
        struct evtchn_alloc_unbound a = { .dom = DOMID_SELF };
        struct ring *r = &v->ring[i];
        char key[32];
        const char *queue = v->nr_rings == 1 ? "" : i ? "queue-1/" : "queue-0/";

        CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_alloc_unbound, &a), 0);
        r->port = a.port;
        r->shared = pv_page();
        r->shared->req_event = r->shared->rsp_event = 1;
        front_write(v, join(key, sizeof(key), queue, "ring-ref", ""), grant(r->shared));
        front_write(v, join(key, sizeof(key), queue, "event-channel", ""), r->port);
    }
    front_write(v, "state", XenbusStateInitialised);
    CHECK(back_comes_to(v, "state", "4"));
    front_write(v, "state", XenbusStateConnected);
}

static void ring_show(struct ring *r)
{
    store_release(&r->shared->req_prod, r->prod);
    pv_evtchn_send(r->port);
}

static bool ring_answers(const struct ring *r, uint64_t patience_ns)
{
    uint64_t end = pv_time_ns() + patience_ns;

    while (load_acquire(&r->shared->rsp_prod) == r->cons)
        if (pv_time_ns() > end)
            return false;
        else
            PV_CALL(sched_op, SCHEDOP_yield, 0);
    return true;
}

#define NO_ANSWER 1     /* no status of blkif */

/* The status of one request. */
static int ask(struct ring *r, const struct blkif_request *req)
{
    const struct blkif_response *rsp;

    r->shared->ring[r->prod++ % RING_ENTRIES].req = *req;
    ring_show(r);
    if (!ring_answers(r, PATIENCE_NS))
        return NO_ANSWER;
    rsp = &r->shared->ring[r->cons++ % RING_ENTRIES].rsp;
    r->shared->rsp_event = r->cons + 1;
    CHECK_EQ(rsp->id, req->id);
    return rsp->status;
}

static struct blkif_request a_read(void)
{
    static uint64_t id = 0x1d00;

    return (struct blkif_request){
        .operation = BLKIF_OP_READ, .nr_segments = 1, .id = id++,
        .seg[0] = { .gref = data_ref, .first_sect = 0, .last_sect = 7 },
    };
}

static bool works(struct ring *r)
{
    struct blkif_request req = a_read();
    bool zeros = true;

    __builtin_memset(data, 0xff, PAGE_SIZE);
    if (ask(r, &req) != BLKIF_RSP_OKAY)
        return false;
    for (unsigned i = 0; i < PAGE_SIZE; i++)
        zeros = zeros && !((volatile uint8_t *)data)[i];
    return zeros;
}

/* ---- the tests ---- */

static void check_requests(struct ring *r)
{
    struct blkif_request req = a_read();

    req.operation = 200;
    CHECK_EQ(ask(r, &req), BLKIF_RSP_EOPNOTSUPP);
    req = a_read();
    req.nr_segments = 255;
    CHECK_EQ(ask(r, &req), BLKIF_RSP_ERROR);
    req = a_read();
    req.nr_segments = 0;
    CHECK_EQ(ask(r, &req), BLKIF_RSP_ERROR);
    req = a_read();
    req.seg[0].gref = 0xffffffff;       /* beyond the table */
    CHECK_EQ(ask(r, &req), BLKIF_RSP_ERROR);
    req = a_read();
    req.seg[0].gref = next_ref + 1;     /* grants nothing */
    CHECK_EQ(ask(r, &req), BLKIF_RSP_ERROR);
    req = a_read();
    req.seg[0].last_sect = 8;           /* beyond the page */
    CHECK_EQ(ask(r, &req), BLKIF_RSP_ERROR);
    req = a_read();
    req.seg[0].first_sect = 5;
    req.seg[0].last_sect = 4;
    CHECK_EQ(ask(r, &req), BLKIF_RSP_ERROR);
    req = a_read();
    req.sector_number = DISK_SECTORS - 4;
    CHECK_EQ(ask(r, &req), BLKIF_RSP_ERROR);
    req = a_read();
    req.sector_number = ~(uint64_t)0 - 3;   /* its end wraps */
    CHECK_EQ(ask(r, &req), BLKIF_RSP_ERROR);
    CHECK(works(r));
}

static void check_indices(struct vbd *broken, struct vbd *other)
{
    struct ring *r = &broken->ring[0];

    r->prod = r->cons + RING_ENTRIES + 1;
    ring_show(r);
    CHECK(back_comes_to(broken, "error", "queue 0 stopped"));
    CHECK(works(&broken->ring[1]));
    CHECK(works(&other->ring[0]));
    CHECK_EQ(load_acquire(&r->shared->rsp_prod), r->cons);
    /* it does not come back by indices that make sense again */
    r->prod = r->cons + 1;
    r->shared->ring[r->cons % RING_ENTRIES].req = a_read();
    ring_show(r);
    CHECK(works(&broken->ring[1]));
    CHECK(!ring_answers(r, 200000000));
    CHECK(contains(back_read(broken, "state"), "4"));
}

void test_main(void)
{
    static struct vbd a = { .number = "51712", .nr_rings = 2 };     /* xvda */
    static struct vbd b = { .number = "51728", .nr_rings = 1 };     /* xvdb */

    grants_init();
    connect(&a);
    connect(&b);
    CHECK(works(&a.ring[0]));
    CHECK(works(&a.ring[1]));
    CHECK(works(&b.ring[0]));
    check_requests(&a.ring[0]);
    check_indices(&a, &b);
}
