/* SPDX-License-Identifier: MIT */
/* Two guests: one grants, the other uses what it was granted and tries what it was not.  The
 * number of each is next to the other's.  The user gives commands, in a page that it maps
 * from the beginning to the end, and the granter answers. */
#include "pv.h"

#include <xen/grant_table.h>

/* The granter's references. */
enum { REF_CONTROL = 8, REF_RW, REF_RO, REF_OTHER, REF_REVOKED, REF_NO_RAM, REF_RW2 };

enum command {
    CMD_NONE, CMD_USE, CMD_STATUS, CMD_SEND, CMD_CLOSE, CMD_PENDING, CMD_WORD, CMD_GIVE_NEW,
    CMD_FAREWELL,
};

struct control {
    uint32_t port, second_port;
    uint32_t command, done;             /* numbered: done follows */
    uint32_t what, arg;
    int32_t result;
    uint32_t status, dom, peer_port;
};

static domid_t self, peer, absent;

static void relax(void)
{
    PV_CALL(sched_op, SCHEDOP_yield, 0);
}

static uint32_t load(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void store(uint32_t *p, uint32_t value)
{
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);
}

static int64_t evtchn(unsigned cmd, void *op)
{
    return PV_CALL(event_channel_op, cmd, op);
}

static struct evtchn_status status_of(uint32_t port)
{
    struct evtchn_status s = { .dom = DOMID_SELF, .port = port };

    CHECK_EQ(evtchn(EVTCHNOP_status, &s), 0);
    return s;
}

static bool take_pending(uint32_t port)
{
    uint64_t bit = (uint64_t)1 << (port % 64);

    return __atomic_fetch_and(&pv_shared->evtchn_pending[port / 64], ~bit, __ATOMIC_SEQ_CST) & bit;
}

static void wait_pending(uint32_t port)
{
    while (!take_pending(port))
        relax();
}

/* ---- the granter ---- */

static volatile struct grant_entry_v1 *table;

static void give(grant_ref_t ref, uint64_t mfn, unsigned flags, domid_t to)
{
    table[ref].frame = (uint32_t)mfn;
    table[ref].domid = to;
    __atomic_store_n(&table[ref].flags, (uint16_t)flags, __ATOMIC_SEQ_CST);
}

static void table_map(void)
{
    uint64_t frame = 0;
    struct gnttab_setup_table s = { .dom = DOMID_SELF, .nr_frames = 1, .frame_list.p = &frame };

    table = pv_page();
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_setup_table, &s, 1), 0);
    CHECK_EQ(s.status, GNTST_okay);
    CHECK_EQ(PV_CALL(update_va_mapping, table,
                     frame << PAGE_SHIFT | PTE_P | PTE_W | PTE_U | PTE_NX, UVMF_INVLPG), 0);
}

static uint32_t port_for_peer(void)
{
    struct evtchn_alloc_unbound op = { .dom = DOMID_SELF, .remote_dom = peer };
    struct evtchn_status s;

    CHECK_EQ(evtchn(EVTCHNOP_alloc_unbound, &op), 0);
    s = status_of(op.port);
    CHECK_EQ(s.status, EVTCHNSTAT_unbound);
    CHECK_EQ(s.u.unbound.dom, peer);
    CHECK_EQ(pv_evtchn_send(op.port), 0);       /* dropped */
    return op.port;
}

static int32_t obey(struct control *c, uint32_t *rw)
{
    struct evtchn_status s;

    switch (c->what) {
    case CMD_USE:
        return table[c->arg].flags & (GTF_reading | GTF_writing);
    case CMD_STATUS:
        s = status_of(c->arg);
        c->status = s.status;
        c->dom = s.status == EVTCHNSTAT_unbound ? s.u.unbound.dom : s.u.interdomain.dom;
        c->peer_port = s.u.interdomain.port;
        return 0;
    case CMD_SEND:
        return (int32_t)pv_evtchn_send(c->arg);
    case CMD_CLOSE:
        return (int32_t)pv_evtchn_close(c->arg);
    case CMD_PENDING:
        return take_pending(c->arg);
    case CMD_WORD:
        return (int32_t)rw[c->arg];
    case CMD_GIVE_NEW:
        give(REF_RW2, pv_mfn(rw), GTF_permit_access, peer);
        return 0;
    default:
        return -1;
    }
}

static void granter(void)
{
    struct control *c = pv_page();
    uint32_t *rw = pv_page(), *ro = pv_page();

    self = pv_own_domid();
    peer = self + 1;
    table_map();
    c->port = port_for_peer();
    c->second_port = port_for_peer();
    for (unsigned i = 0; i < PAGE_SIZE / 4; i++) {
        rw[i] = i;
        ro[i] = ~i;
    }
    give(REF_RW, pv_mfn(rw), GTF_permit_access, peer);
    give(REF_RO, pv_mfn(ro), GTF_permit_access | GTF_readonly, peer);
    give(REF_OTHER, pv_mfn(rw), GTF_permit_access, peer + 1);
    give(REF_REVOKED, pv_mfn(rw), GTF_invalid, peer);
    give(REF_NO_RAM, 0x10000, GTF_permit_access, peer);
    give(REF_CONTROL, pv_mfn(c), GTF_permit_access, peer);
    pv_print("ready\n");
    for (uint32_t n = 1; ; n++) {
        while (load(&c->command) != n)
            relax();
        if (c->what == CMD_FAREWELL)
            break;
        c->result = obey(c, rw);
        store(&c->done, n);
    }
    /* it goes without giving anything back */
    while (table[REF_CONTROL].flags & (GTF_reading | GTF_writing) ||
           table[REF_RO].flags & (GTF_reading | GTF_writing))
        relax();
    while (status_of(c->port).status != EVTCHNSTAT_unbound)
        relax();
    CHECK_EQ(status_of(c->port).u.unbound.dom, peer);
    CHECK_EQ(pv_evtchn_send(c->port), 0);
    CHECK_EQ(pv_evtchn_close(c->port), 0);
    for (unsigned i = 0; i < PAGE_SIZE / 4; i++)
        CHECK_EQ(ro[i], ~i);
}

/* ---- the user ---- */

static struct control *control;
static struct gnttab_map_grant_ref map_op;

static int32_t tell(enum command what, uint32_t arg)
{
    uint32_t n = control->command + 1;

    control->what = what;
    control->arg = arg;
    store(&control->command, n);
    while (what != CMD_FAREWELL && load(&control->done) != n)
        relax();
    return control->result;
}

static int map(void *at, unsigned flags, grant_ref_t ref, domid_t dom)
{
    map_op = (struct gnttab_map_grant_ref){ .host_addr = (uint64_t)at, .flags = flags, .ref = ref,
                                            .dom = dom };
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_map_grant_ref, &map_op, 1), 0);
    return map_op.status;
}

static int unmap(void *at, uint64_t bus, grant_handle_t handle)
{
    struct gnttab_unmap_grant_ref op = { (uint64_t)at, bus, handle, 0 };

    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_unmap_grant_ref, &op, 1), 0);
    return op.status;
}

static void read_at(uint64_t va)
{
    *(volatile uint32_t *)va;
}

static void write_at(uint64_t va)
{
    *(volatile uint32_t *)va = 2;
}

static void check_whose(void)
{
    struct gnttab_query_size q = { .dom = peer };
    struct gnttab_get_version v = { .dom = peer };
    struct gnttab_setup_table t = { .dom = peer, .nr_frames = 1 };
    struct evtchn_alloc_unbound a = { .dom = peer, .remote_dom = DOMID_SELF };
    struct evtchn_status s = { .dom = peer, .port = 1 };
    struct evtchn_reset r = { .dom = peer };

    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_query_size, &q, 1), 0);
    CHECK_EQ(q.status, GNTST_permission_denied);
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_setup_table, &t, 1), 0);
    CHECK_EQ(t.status, GNTST_permission_denied);
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_get_version, &v, 1), -XEN_EPERM);
    CHECK_EQ(evtchn(EVTCHNOP_alloc_unbound, &a), -XEN_EPERM);
    CHECK_EQ(evtchn(EVTCHNOP_status, &s), -XEN_EPERM);
    CHECK_EQ(evtchn(EVTCHNOP_reset, &r), -XEN_EPERM);
    a.dom = s.dom = absent;
    CHECK_EQ(evtchn(EVTCHNOP_alloc_unbound, &a), -XEN_ESRCH);
    CHECK_EQ(evtchn(EVTCHNOP_status, &s), -XEN_ESRCH);
}

static void check_refusals(void *at)
{
    CHECK_EQ(map(at, GNTMAP_host_map, REF_RW, absent), GNTST_bad_domain);
    CHECK_EQ(map(at, GNTMAP_host_map, REF_RW, DOMID_SELF), GNTST_bad_domain);
    CHECK_EQ(map(at, GNTMAP_host_map, 100000, peer), GNTST_bad_gntref);
    CHECK_EQ(map(at, 0, REF_RW, peer), GNTST_bad_gntref);
    CHECK_EQ(map(at, GNTMAP_host_map, REF_OTHER, peer), GNTST_general_error);
    CHECK_EQ(map(at, GNTMAP_host_map, REF_REVOKED, peer), GNTST_general_error);
    CHECK_EQ(map(at, GNTMAP_host_map, REF_RO, peer), GNTST_general_error);
    CHECK_EQ(map(at, GNTMAP_host_map, REF_NO_RAM, peer), GNTST_bad_page);
    CHECK_EQ(map((void *)0x123456789000, GNTMAP_host_map, REF_RW, peer), GNTST_general_error);
    for (grant_ref_t ref = REF_RW; ref <= REF_NO_RAM; ref++)
        CHECK_EQ(tell(CMD_USE, ref), 0);
}

static void check_map(uint32_t *at)
{
    void *again = pv_page();
    grant_handle_t handle;
    uint64_t bus;

    CHECK_EQ(map(at, GNTMAP_host_map | GNTMAP_device_map, REF_RW, peer), GNTST_okay);
    handle = map_op.handle;
    bus = map_op.dev_bus_addr;
    CHECK_EQ(tell(CMD_USE, REF_RW), GTF_reading | GTF_writing);
    CHECK_EQ(at[77], 77);
    at[77] = 1077;
    CHECK_EQ(tell(CMD_WORD, 77), 1077);
    CHECK_EQ(map(again, GNTMAP_host_map, REF_RW, peer), GNTST_okay);
    CHECK_EQ(((uint32_t *)again)[77], 1077);
    CHECK_EQ(unmap(again, 0, map_op.handle), GNTST_okay);
    CHECK_EQ(unmap(again, 0, map_op.handle), GNTST_bad_handle);
    CHECK_EQ(pv_catch(read_at, (uint64_t)again), 14);
    CHECK_EQ(tell(CMD_USE, REF_RW), GTF_reading | GTF_writing);
    CHECK_EQ(unmap(0, bus + PAGE_SIZE, handle), GNTST_general_error);
    CHECK_EQ(unmap(at, 0, handle), GNTST_okay);
    CHECK_EQ(tell(CMD_USE, REF_RW), GTF_reading | GTF_writing);
    CHECK_EQ(unmap(0, bus, handle), GNTST_okay);
    CHECK_EQ(tell(CMD_USE, REF_RW), 0);
    /* only a grant shows it */
    CHECK_EQ(PV_CALL(update_va_mapping, at, bus | PTE_P | PTE_U, UVMF_INVLPG), -XEN_EINVAL);
}

static void check_readonly(uint32_t *at)
{
    CHECK_EQ(map(at, GNTMAP_host_map | GNTMAP_readonly, REF_RO, peer), GNTST_okay);
    CHECK_EQ(tell(CMD_USE, REF_RO), GTF_reading);
    CHECK_EQ(at[5], ~5u);
    CHECK_EQ(pv_catch(write_at, (uint64_t)at), 14);
    CHECK_EQ(PV_CALL(update_va_mapping, at, map_op.dev_bus_addr | PTE_P | PTE_W | PTE_U,
                     UVMF_INVLPG), -XEN_EINVAL);
    CHECK_EQ(pv_catch(write_at, (uint64_t)at), 14);
    CHECK_EQ(unmap(at, 0, map_op.handle), GNTST_okay);
    CHECK_EQ(tell(CMD_USE, REF_RO), 0);
}

/* Its own page moves to where the grant was. */
static void check_replace(uint32_t *at)
{
    uint32_t *own = pv_page();
    struct gnttab_unmap_and_replace op = { (uint64_t)at, (uint64_t)own, 0, 0 };

    own[3] = 0x0712e;
    CHECK_EQ(tell(CMD_GIVE_NEW, 0), 0);
    CHECK_EQ(map(at, GNTMAP_host_map, REF_RW2, peer), GNTST_okay);
    op.handle = map_op.handle;
    CHECK_EQ(at[78], 78);
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_unmap_and_replace, &op, 1), 0);
    CHECK_EQ(op.status, GNTST_okay);
    CHECK_EQ(at[3], 0x0712e);
    CHECK_EQ(pv_catch(read_at, (uint64_t)own), 14);
    CHECK_EQ(tell(CMD_USE, REF_RW2), 0);
}

static int copy(struct gnttab_copy *op)
{
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_copy, op, 1), 0);
    return op->status;
}

static void check_copy(void)
{
    uint32_t *own = pv_page();
    struct gnttab_copy in = {
        .source = { .domid = peer, .u.ref = REF_RO, .offset = 400 },
        .dest = { .domid = DOMID_SELF, .u.gmfn = pv_mfn(own), .offset = 8 },
        .len = 40, .flags = GNTCOPY_source_gref,
    };
    struct gnttab_copy out = {
        .source = { .domid = DOMID_SELF, .u.gmfn = pv_mfn(own), .offset = 8 },
        .dest = { .domid = peer, .u.ref = REF_RW, .offset = 4000 },
        .len = 40, .flags = GNTCOPY_dest_gref,
    };
    struct gnttab_copy across = {
        .source = { .domid = peer, .u.ref = REF_RO }, .dest = { .domid = peer, .u.ref = REF_RW },
        .len = 4, .flags = GNTCOPY_source_gref | GNTCOPY_dest_gref,
    };

    CHECK_EQ(copy(&in), GNTST_okay);
    for (unsigned i = 0; i < 10; i++)
        CHECK_EQ(own[2 + i], ~(100 + i));
    CHECK_EQ(own[1], 0);
    CHECK_EQ(own[12], 0);
    CHECK_EQ(copy(&out), GNTST_okay);
    CHECK_EQ(tell(CMD_WORD, 1000), (int32_t)~100u);
    CHECK_EQ(tell(CMD_WORD, 999), 999);
    CHECK_EQ(copy(&across), GNTST_okay);
    CHECK_EQ(tell(CMD_WORD, 0), (int32_t)~0u);
    CHECK_EQ(tell(CMD_USE, REF_RO), 0);
    CHECK_EQ(tell(CMD_USE, REF_RW), 0);
    out.dest.u.ref = REF_RO;
    CHECK_EQ(copy(&out), GNTST_general_error);
    in.source.u.ref = REF_OTHER;
    CHECK_EQ(copy(&in), GNTST_general_error);
    in.source.u.ref = 100000;
    CHECK_EQ(copy(&in), GNTST_bad_gntref);
    in.source.u.ref = REF_NO_RAM;
    CHECK_EQ(copy(&in), GNTST_bad_page);
    in.source.u.ref = REF_RO;
    in.source.offset = 4090;
    CHECK_EQ(copy(&in), GNTST_bad_copy_arg);
    in.source.domid = absent;
    CHECK_EQ(copy(&in), GNTST_bad_domain);
    in.source.domid = peer;
    in.flags = 0;                               /* a frame of another's */
    CHECK_EQ(copy(&in), GNTST_permission_denied);
    for (grant_ref_t ref = REF_RW; ref <= REF_RW2; ref++)
        CHECK_EQ(tell(CMD_USE, ref), 0);
}

static int64_t bind(domid_t dom, uint32_t port, uint32_t *local)
{
    struct evtchn_bind_interdomain op = { .remote_dom = dom, .remote_port = port };
    int64_t rc = evtchn(EVTCHNOP_bind_interdomain, &op);

    *local = op.local_port;
    return rc;
}

static void check_connected(uint32_t local, uint32_t port)
{
    struct evtchn_status s = status_of(local);

    CHECK_EQ(s.status, EVTCHNSTAT_interdomain);
    CHECK_EQ(s.u.interdomain.dom, peer);
    CHECK_EQ(s.u.interdomain.port, port);
    CHECK_EQ(tell(CMD_STATUS, port), 0);
    CHECK_EQ(control->status, EVTCHNSTAT_interdomain);
    CHECK_EQ(control->dom, self);
    CHECK_EQ(control->peer_port, local);
}

static void wait_pending_there(uint32_t port)
{
    while (!tell(CMD_PENDING, port))
        relax();
}

static void check_events(void)
{
    uint32_t port = control->port, second = control->second_port, local, other;
    struct evtchn_bind_vcpu v = { .vcpu = 0 };

    CHECK_EQ(bind(absent, port, &other), -XEN_ESRCH);
    CHECK_EQ(bind(peer, 0, &other), -XEN_EINVAL);
    CHECK_EQ(bind(peer, port + 100, &other), -XEN_EINVAL);
    CHECK_EQ(bind(peer, 1, &other), -XEN_EINVAL);       /* its store's */
    CHECK_EQ(bind(peer, 100000000, &other), -XEN_EINVAL);

    CHECK_EQ(bind(peer, port, &local), 0);
    CHECK(take_pending(local));                 /* makes up for what was sent before */
    check_connected(local, port);
    CHECK_EQ(bind(peer, port, &other), -XEN_EINVAL);
    for (unsigned i = 0; i < 100; i++) {
        CHECK_EQ(pv_evtchn_send(local), 0);
        wait_pending_there(port);
        CHECK_EQ(tell(CMD_SEND, port), 0);
        wait_pending(local);
    }
    v.port = local;
    CHECK_EQ(evtchn(EVTCHNOP_bind_vcpu, &v), 0);

    /* ours closes: theirs is unbound at once, for us again */
    CHECK_EQ(pv_evtchn_send(local), 0);
    CHECK_EQ(pv_evtchn_close(local), 0);
    CHECK_EQ(tell(CMD_STATUS, port), 0);
    CHECK_EQ(control->status, EVTCHNSTAT_unbound);
    CHECK_EQ(control->dom, self);
    wait_pending_there(port);                   /* what was sent before is there */
    CHECK_EQ(tell(CMD_SEND, port), 0);
    CHECK_EQ(bind(peer, port, &local), 0);
    CHECK(take_pending(local));
    check_connected(local, port);

    /* theirs closes: ours is unbound */
    CHECK_EQ(bind(peer, second, &other), 0);
    check_connected(other, second);
    CHECK(take_pending(other));
    CHECK_EQ(tell(CMD_SEND, second), 0);
    CHECK_EQ(tell(CMD_CLOSE, second), 0);
    CHECK_EQ(status_of(other).status, EVTCHNSTAT_unbound);
    CHECK_EQ(status_of(other).u.unbound.dom, peer);
    wait_pending(other);
    CHECK_EQ(pv_evtchn_send(other), 0);
    CHECK_EQ(pv_evtchn_close(other), 0);
    CHECK_EQ(bind(peer, second, &other), -XEN_EINVAL);
}

static void user(void)
{
    void *at = pv_page();

    self = pv_own_domid();
    peer = self - 1;
    absent = self + 1000;
    control = pv_page();
    CHECK_EQ(map(control, GNTMAP_host_map, REF_CONTROL, peer), GNTST_okay);
    check_whose();
    check_refusals(at);
    check_map(at);
    check_readonly(at);
    check_copy();
    check_replace(at);
    check_events();
    /* ends while it has all of this */
    CHECK_EQ(map(pv_page(), GNTMAP_host_map | GNTMAP_readonly, REF_RO, peer), GNTST_okay);
    tell(CMD_FAREWELL, 0);
}

/* Entries of page tables that no hypercall would write.  It ends, and nobody else does: the
 * granter's pages are as they were. */
static void user_breaks_out(bool write)
{
    uint32_t *at = pv_page(), port;
    uint64_t *e;

    peer = pv_own_domid() - 1;
    control = pv_page();
    CHECK_EQ(map(control, GNTMAP_host_map, REF_CONTROL, peer), GNTST_okay);
    CHECK_EQ(bind(peer, control->port, &port), 0);
    CHECK_EQ(map(at, GNTMAP_host_map | GNTMAP_readonly, REF_RO, peer), GNTST_okay);
    tell(CMD_FAREWELL, 0);
    e = (uint64_t *)pv_pte((uint64_t)at, 1);
    *e = write ? *e | PTE_W : *e + PAGE_SIZE;
    __asm__ volatile("" : : : "memory");
    at[1] = write ? 1 : at[2];
    pv_fail(__FILE__, __LINE__, "still there");
}

/* Its process is killed while it uses all it has. */
static void user_holds(void)
{
    uint32_t *rw = pv_page(), port;

    peer = pv_own_domid() - 1;
    control = pv_page();
    CHECK_EQ(map(control, GNTMAP_host_map, REF_CONTROL, peer), GNTST_okay);
    CHECK_EQ(map(rw, GNTMAP_host_map, REF_RW, peer), GNTST_okay);
    CHECK_EQ(map(pv_page(), GNTMAP_host_map | GNTMAP_readonly, REF_RO, peer), GNTST_okay);
    CHECK_EQ(bind(peer, control->port, &port), 0);
    tell(CMD_FAREWELL, 0);
    pv_print("now\n");
    for (;;) {
        rw[0]++;
        pv_evtchn_send(port);
    }
}

/* The granter's is: what was mapped stays, and all else answers as if it had never been. */
static void user_keeps(void)
{
    uint32_t *rw = pv_page(), *own = pv_page(), port, other;
    grant_handle_t handle;
    struct gnttab_copy in = {
        .source = { .domid = 0, .u.ref = REF_RO },
        .dest = { .domid = DOMID_SELF, .u.gmfn = pv_mfn(own) },
        .len = 40, .flags = GNTCOPY_source_gref,
    };

    peer = pv_own_domid() - 1;
    in.source.domid = peer;
    control = pv_page();
    CHECK_EQ(map(control, GNTMAP_host_map, REF_CONTROL, peer), GNTST_okay);
    CHECK_EQ(map(rw, GNTMAP_host_map, REF_RW, peer), GNTST_okay);
    handle = map_op.handle;
    CHECK_EQ(bind(peer, control->port, &port), 0);
    CHECK_EQ(copy(&in), GNTST_okay);
    pv_print("now\n");
    while (status_of(port).status != EVTCHNSTAT_unbound) {
        rw[100]++;
        CHECK_EQ(pv_evtchn_send(port), 0);
    }
    CHECK_EQ(status_of(port).u.unbound.dom, peer);
    CHECK_EQ(pv_evtchn_send(port), 0);
    CHECK_EQ(rw[77], 77);
    rw[77] = 1077;
    CHECK_EQ(rw[77], 1077);
    CHECK_EQ(map(own, GNTMAP_host_map, REF_RW, peer), GNTST_bad_domain);
    CHECK_EQ(copy(&in), GNTST_bad_domain);
    CHECK_EQ(bind(peer, control->second_port, &other), -XEN_ESRCH);
    CHECK_EQ(pv_evtchn_close(port), 0);
    CHECK_EQ(unmap(rw, 0, handle), GNTST_okay);
    CHECK_EQ(pv_catch(read_at, (uint64_t)rw), 14);
}

void test_main(void)
{
    if (pv_word("granter"))
        granter();
    else if (pv_word("holds"))
        user_holds();
    else if (pv_word("keeps"))
        user_keeps();
    else if (pv_word("writes"))
        user_breaks_out(true);
    else if (pv_word("reads"))
        user_breaks_out(false);
    else
        user();
}
