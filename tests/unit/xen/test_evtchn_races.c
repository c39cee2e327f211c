/* SPDX-License-Identifier: MIT */
/* Threads as vCPUs: events sent while ports are closed, moved and opened again, and
 * polls that must not sleep through an event.  Made to run under a thread
 * sanitizer too: then a missing order shows even when the outcome is right. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "evtchn_guest.h"

#define ROUNDS 20000
#define POLLS  5000
#define PORTS  8

struct racers {
    struct guest *g;
    uint32_t stop;
    uint32_t port;
};

static void *sender_run(void *arg)
{
    struct racers *r = arg;

    for (uint32_t i = 0; !load_relaxed(&r->stop); i++) {
        uint32_t port = 1 + i % PORTS;

        evtchn_send(&r->g->d, &(struct evtchn_send){ .port = port });
        evtchn_host_event(&r->g->d, port);
        evtchn_virq_raise(&r->g->d, 0, VIRQ_DEBUG);
    }
    return NULL;
}

static void *mover_run(void *arg)
{
    struct racers *r = arg;

    for (uint32_t i = 0; !load_relaxed(&r->stop); i++) {
        struct evtchn_bind_vcpu op = { .port = 1 + i % PORTS, .vcpu = i / PORTS % 4 };

        evtchn_bind_vcpu(&r->g->d, &op);
        evtchn_unmask(&r->g->d, &(struct evtchn_unmask){ op.port });
    }
    return NULL;
}

/* One thread opens and closes, so that each port is of each kind in turn. */
static void opener_run(struct racers *r)
{
    struct evtchn_domain *d = &r->g->d;

    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct evtchn_bind_ipi ipi = { .vcpu = i % 4 };
        struct evtchn_alloc_unbound host = { .dom = DOMID_SELF, .remote_dom = 0 };
        struct evtchn_alloc_unbound self = { .dom = DOMID_SELF, .remote_dom = DOMID_SELF };
        struct evtchn_bind_interdomain pair = { .remote_dom = DOMID_SELF };
        struct evtchn_bind_virq virq = { .virq = VIRQ_DEBUG };

        require(!evtchn_bind_ipi(d, &ipi));
        require(!evtchn_alloc_unbound(d, &host));
        require(!guest_host_bind(r->g, host.port, i % GUEST_LINKS));
        require(!evtchn_alloc_unbound(d, &self));
        pair.remote_port = self.port;
        require(!evtchn_bind_interdomain(d, &pair));
        require(!evtchn_bind_virq(d, &virq));
        require(!evtchn_close(d, &(struct evtchn_close){ ipi.port }));
        if (i & 1)
            require(!guest_host_unbind(r->g, host.port, i % GUEST_LINKS));
        require(!evtchn_close(d, &(struct evtchn_close){ host.port }));
        require(!evtchn_close(d, &(struct evtchn_close){ virq.port }));
        require(!evtchn_close(d, &(struct evtchn_close){ self.port }));
        require(!evtchn_close(d, &(struct evtchn_close){ pair.local_port }));
    }
}

static void closing_under_senders_leaves_no_event_behind(void **state)
{
    struct racers r = { .g = guest_create(4) };
    pthread_t threads[3];

    assert_int_equal(pthread_create(&threads[0], NULL, sender_run, &r), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, sender_run, &r), 0);
    assert_int_equal(pthread_create(&threads[2], NULL, mover_run, &r), 0);
    opener_run(&r);
    store_relaxed(&r.stop, 1);
    for (size_t i = 0; i < array_size(threads); i++)
        pthread_join(threads[i], NULL);
    guest_check(r.g);       /* among others: no free port is pending */
    assert_int_equal(r.g->d.nr_ports_used, 0);
    for (unsigned i = 0; i < array_size(r.g->shared->evtchn_pending); i++)
        assert_int_equal(r.g->shared->evtchn_pending[i], 0);
    guest_free(r.g);
}

/* A guest's two vCPUs that each handle only events of ports they think are theirs.
 * The port moves to and fro, never masked: each event must reach somebody. */
static void *handler_run(void *arg)
{
    struct racers *r = arg;
    uintptr_t handled = 0;

    while (!load_acquire(&r->stop)) {
        bool worked = false;

        for (unsigned vcpu = 0; vcpu < 2; vcpu++) {
            struct vcpu_info *vi = evtchn_vcpu_info(&r->g->d, vcpu);

            if (!swap_acq_rel(&vi->evtchn_upcall_pending, 0))
                continue;
            if (!swap_acq_rel(&vi->evtchn_pending_sel, 0))
                continue;
            /* what a stale mark on the old vCPU does: the guest ignores it there */
            if (evtchn_word_vcpu(evtchn_port_word(&r->g->d, r->port)) != vcpu)
                continue;
            if (fetch_and(&r->g->shared->evtchn_pending[0], ~(1ul << r->port)) >> r->port & 1) {
                store_release(&r->g->host_sends[0], ++handled);
                worked = true;
            }
        }
        if (!worked)
            sched_yield();
    }
    return NULL;
}

static void *port_mover_run(void *arg)
{
    struct racers *r = arg;

    for (uint32_t i = 0; !load_acquire(&r->stop); i++)
        require(!evtchn_bind_vcpu(&r->g->d, &(struct evtchn_bind_vcpu){ r->port, i & 1 }));
    return NULL;
}

/* When the mover stops, the port's current vCPU has been told of whatever is
 * pending: the last event cannot be stuck. */
static void event_racing_a_move_is_not_stuck(void **state)
{
    struct racers r = { .g = guest_create(2) };
    struct evtchn_alloc_unbound op = { .dom = DOMID_SELF, .remote_dom = 0 };

    require(!evtchn_alloc_unbound(&r.g->d, &op));
    require(!guest_host_bind(r.g, op.port, 0));
    r.port = op.port;
    for (unsigned round = 0; round < 200; round++) {
        struct vcpu_info *vi;
        pthread_t mover, handler;

        store_release(&r.stop, 0);
        assert_int_equal(pthread_create(&mover, NULL, port_mover_run, &r), 0);
        assert_int_equal(pthread_create(&handler, NULL, handler_run, &r), 0);
        for (unsigned i = 0; i < 50; i++)
            require(!evtchn_host_event(&r.g->d, r.port));
        store_release(&r.stop, 1);
        pthread_join(mover, NULL);
        pthread_join(handler, NULL);
        vi = evtchn_vcpu_info(&r.g->d, evtchn_word_vcpu(evtchn_port_word(&r.g->d, r.port)));
        if (evtchn_port_pending(&r.g->d, r.port) == 1)
            assert_int_equal(vi->evtchn_pending_sel & 1, 1);
    }
    guest_free(r.g);
}

/* A poll as the shim does it, but that sleeping is on a condition variable which
 * only vcpu_kick() signals: a lost wake-up would hang here. */
struct poller {
    struct guest *g;
    pthread_mutex_t lock;
    pthread_cond_t kicked;
    bool kick;
    uint32_t port, rounds_done;
};

static void poller_kick(void *ctx, unsigned vcpu)
{
    struct guest *g = ctx;
    struct poller *p = (struct poller *)g->memory;

    if (vcpu != 1)
        return;
    pthread_mutex_lock(&p->lock);
    p->kick = true;
    pthread_cond_signal(&p->kicked);
    pthread_mutex_unlock(&p->lock);
}

static void *poller_run(void *arg)
{
    struct poller *p = arg;
    struct evtchn_domain *d = &p->g->d;
    evtchn_port_t ports[2] = { p->port, p->port + 1 };

    for (uint32_t i = 0; i < POLLS; i++) {
        /* one port and two in turn: the narrowed and the "any" wait */
        while (evtchn_poll_begin(d, 1, ports, 1 + (i & 1)) == EVTCHN_POLL_WAIT) {
            pthread_mutex_lock(&p->lock);
            while (!p->kick)
                pthread_cond_wait(&p->kicked, &p->lock);
            p->kick = false;
            pthread_mutex_unlock(&p->lock);
            evtchn_poll_end(d, 1);
        }
        fetch_and(&p->g->shared->evtchn_pending[0], ~(1ul << p->port));
        store_release(&p->rounds_done, i + 1);
    }
    return NULL;
}

static void poll_sleeps_through_no_event(void **state)
{
    struct guest *g = guest_create(2);
    struct evtchn_ops ops = guest_ops;
    struct poller *p = (struct poller *)g->memory;
    struct evtchn_bind_ipi a = { .vcpu = 1 }, b = { .vcpu = 1 };
    pthread_t thread;

    ops.vcpu_kick = poller_kick;
    g->d.ops = &ops;
    require(!evtchn_bind_ipi(&g->d, &a));
    require(!evtchn_bind_ipi(&g->d, &b));
    g->shared->evtchn_mask[0] = 1ul << a.port | 1ul << b.port;
    *p = (struct poller){ .g = g, .lock = PTHREAD_MUTEX_INITIALIZER,
                          .kicked = PTHREAD_COND_INITIALIZER, .port = a.port };
    assert_int_equal(pthread_create(&thread, NULL, poller_run, p), 0);
    /* exactly one event for each round: without it the poller sleeps for ever */
    for (uint32_t i = 0; i < POLLS; i++) {
        require(!evtchn_send(&g->d, &(struct evtchn_send){ a.port }));
        while (load_acquire(&p->rounds_done) == i)
            sched_yield();
    }
    pthread_join(thread, NULL);
    assert_int_equal(load_acquire(&p->rounds_done), POLLS);
    assert_int_equal(g->d.polling, 0);
    guest_free(g);
}

/* Events sent while a vCPU's record moves are found in the new one. */
static void *record_mover_run(void *arg)
{
    struct racers *r = arg;
    struct vcpu_info *records = (struct vcpu_info *)r->g->memory;

    for (uint32_t i = 0; i < 2000; i++)
        evtchn_vcpu_info_set(&r->g->d, 0, &records[i % 2]);
    return NULL;
}

static void event_racing_a_moving_vcpu_info_is_marked_in_the_new_one(void **state)
{
    struct racers r = { .g = guest_create(1) };
    struct evtchn_bind_ipi op = { .vcpu = 0 };
    pthread_t thread;

    require(!evtchn_bind_ipi(&r.g->d, &op));
    assert_int_equal(pthread_create(&thread, NULL, record_mover_run, &r), 0);
    for (unsigned i = 0; i < 2000; i++) {
        require(!evtchn_send(&r.g->d, &(struct evtchn_send){ op.port }));
        fetch_and(&r.g->shared->evtchn_pending[0], ~(1ul << op.port));
    }
    require(!evtchn_send(&r.g->d, &(struct evtchn_send){ op.port }));
    pthread_join(thread, NULL);
    assert_int_equal(evtchn_vcpu_info(&r.g->d, 0)->evtchn_pending_sel & 1, 1);
    assert_int_equal(evtchn_vcpu_info(&r.g->d, 0)->evtchn_upcall_pending, 1);
    guest_free(r.g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closing_under_senders_leaves_no_event_behind),
        cmocka_unit_test(event_racing_a_move_is_not_stuck),
        cmocka_unit_test(poll_sleeps_through_no_event),
        cmocka_unit_test(event_racing_a_moving_vcpu_info_is_marked_in_the_new_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
