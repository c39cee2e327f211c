/* SPDX-License-Identifier: MIT */
/* The FIFO ABI against a guest that takes events off its queues as the ABI says:
 * order, priorities, moves between queues, pages that come late or go away, and
 * several vCPUs sending at once. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "evtchn_guest.h"

#define WORDS_PER_PAGE 1024
#define ARRAY_GFN      64       /* event words in pages from here on */
#define PENDING        (1u << EVTCHN_FIFO_PENDING)
#define MASKED         (1u << EVTCHN_FIFO_MASKED)
#define LINKED         (1u << EVTCHN_FIFO_LINKED)

static struct evtchn_fifo_control_block *control(struct guest *g, unsigned vcpu)
{
    return (void *)(g->memory + vcpu * PAGE_SIZE);
}

static event_word_t *word(struct guest *g, uint32_t port)
{
    return (event_word_t *)(void *)(g->memory + ARRAY_GFN * PAGE_SIZE) + port;
}

static int control_add(struct guest *g, unsigned vcpu)
{
    struct evtchn_init_control op = { .control_gfn = vcpu, .vcpu = vcpu };

    return evtchn_init_control(&g->d, &op);
}

static int page_add(struct guest *g, unsigned n)
{
    return evtchn_expand_array(&g->d, &(struct evtchn_expand_array){ ARRAY_GFN + n });
}

static struct guest *fifo_guest(unsigned nr_vcpus, unsigned nr_pages)
{
    struct guest *g = guest_create(nr_vcpus);

    for (unsigned i = 0; i < nr_vcpus; i++)
        require(!control_add(g, i));
    for (unsigned i = 0; i < nr_pages; i++)
        require(!page_add(g, i));
    return g;
}

static uint32_t ipi_open(struct guest *g, unsigned vcpu)
{
    struct evtchn_bind_ipi op = { .vcpu = vcpu };

    require(!evtchn_bind_ipi(&g->d, &op));
    return op.port;
}

static uint32_t host_port_open(struct guest *g, uint32_t link)
{
    struct evtchn_alloc_unbound op = { .dom = DOMID_SELF, .remote_dom = 0 };

    require(!evtchn_alloc_unbound(&g->d, &op));
    require(!guest_host_bind(g, op.port, link));
    return op.port;
}

static void port_send(struct guest *g, uint32_t port)
{
    require(!evtchn_send(&g->d, &(struct evtchn_send){ .port = port }));
}

static void priority_set(struct guest *g, uint32_t port, uint32_t priority)
{
    require(!evtchn_set_priority(&g->d, &(struct evtchn_set_priority){ port, priority }));
}

/* The guest's side of one vCPU: heads it has read but not yet walked. */
struct consumer {
    struct guest *g;
    unsigned vcpu;
    uint32_t head[EVTCHN_FIFO_MAX_QUEUES];
    uint32_t ready;
};

/* Takes the next event off; 0: nothing is there.  *fired: it was pending. */
static uint32_t event_take(struct consumer *c, bool *fired)
{
    struct evtchn_fifo_control_block *cb = control(c->g, c->vcpu);
    uint32_t port, q, w;

    c->ready |= swap_acq_rel(&cb->ready, 0);
    if (!c->ready)
        return 0;
    q = (uint32_t)__builtin_ctz(c->ready);
    port = c->head[q] ? c->head[q] : load_acquire(&cb->head[q]);
    require(port);
    w = load_acquire(word(c->g, port));
    while (!__atomic_compare_exchange_n(word(c->g, port), &w,
                                        w & ~(LINKED | EVTCHN_FIFO_LINK_MASK), false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
        ;
    c->head[q] = w & EVTCHN_FIFO_LINK_MASK;
    if (!c->head[q])
        c->ready &= ~(1u << q);
    w = load_acquire(word(c->g, port));
    *fired = w & PENDING && !(w & MASKED);
    if (*fired)
        fetch_and(word(c->g, port), ~PENDING);
    return port;
}

static void taken_check(struct consumer *c, const uint32_t *ports, size_t nr)
{
    bool fired;

    for (size_t i = 0; i < nr; i++) {
        assert_int_equal(event_take(c, &fired), ports[i]);
        assert_true(fired);
    }
    assert_int_equal(event_take(c, &fired), 0);
}

static void control_block_is_judged(void **state)
{
    static const struct { uint64_t gfn; uint32_t offset, vcpu; int ret; } rows[] = {
        { 0, 0, 2, -ENOENT }, { 0, 4, 0, -EINVAL }, { 0, 4096, 0, -EINVAL },
        { 0, 4032, 0, -EINVAL }, { 0, UINT32_MAX - 7, 0, -EINVAL },
        { GUEST_PAGES, 0, 0, -EINVAL }, { UINT64_MAX, 0, 0, -EINVAL },
        { 1, 4024, 0, 0 }, { 2, 0, 0, -EINVAL }, { 1, 0, 1, 0 },
    };
    struct guest *g = guest_create(2);
    struct evtchn_expand_array early = { .array_gfn = ARRAY_GFN };

    assert_int_equal(evtchn_expand_array(&g->d, &early), -EOPNOTSUPP);
    for (size_t i = 0; i < array_size(rows); i++) {
        struct evtchn_init_control op = {
            .control_gfn = rows[i].gfn, .offset = rows[i].offset, .vcpu = rows[i].vcpu,
        };

        assert_int_equal(evtchn_init_control(&g->d, &op), rows[i].ret);
        if (!rows[i].ret)
            assert_int_equal(op.link_bits, EVTCHN_FIFO_LINK_BITS);
    }
    guest_free(g);
}

static void array_grows_to_128_pages(void **state)
{
    struct guest *g = fifo_guest(1, 0);
    struct evtchn_expand_array bad = { .array_gfn = GUEST_PAGES };

    assert_int_equal(evtchn_expand_array(&g->d, &bad), -EINVAL);
    for (unsigned i = 0; i < 128; i++)
        assert_int_equal(page_add(g, i), 0);
    assert_int_equal(page_add(g, 128), -ENOSPC);
    guest_free(g);
}

static void events_are_taken_in_the_order_sent(void **state)
{
    struct guest *g = fifo_guest(1, 1);
    struct consumer c = { .g = g };
    uint32_t p[] = { ipi_open(g, 0), ipi_open(g, 0), ipi_open(g, 0) };
    uint32_t order[] = { p[2], p[0], p[1] };

    port_send(g, p[2]);
    port_send(g, p[0]);
    port_send(g, p[2]);
    port_send(g, p[1]);
    assert_int_equal(g->kicks[0], 1);
    assert_int_equal(control(g, 0)->ready, 1u << EVTCHN_FIFO_PRIORITY_DEFAULT);
    taken_check(&c, order, 3);
    guest_check(g);
    port_send(g, p[1]);
    taken_check(&c, &p[1], 1);
    guest_free(g);
}

static void higher_priority_is_taken_first(void **state)
{
    struct guest *g = fifo_guest(1, 1);
    struct consumer c = { .g = g };
    uint32_t p[] = { ipi_open(g, 0), ipi_open(g, 0), ipi_open(g, 0) };
    uint32_t order[] = { p[2], p[1], p[0] };

    priority_set(g, p[0], EVTCHN_FIFO_PRIORITY_MIN);
    priority_set(g, p[2], EVTCHN_FIFO_PRIORITY_MAX);
    for (unsigned i = 0; i < 3; i++)
        port_send(g, p[i]);
    taken_check(&c, order, 3);
    guest_free(g);
}

static void priority_is_judged(void **state)
{
    static const struct { struct evtchn_set_priority op; int ret; } rows[] = {
        { { 1, 16 }, -EINVAL }, { { 1, 15 }, 0 }, { { 9, 1 }, -EACCES }, { { 99999, 1 }, -EINVAL },
    };
    struct guest *g = fifo_guest(1, 1);

    assert_int_equal(ipi_open(g, 0), 1);
    for (size_t i = 0; i < array_size(rows); i++)
        assert_int_equal(evtchn_set_priority(&g->d, &rows[i].op), rows[i].ret);
    guest_free(g);
}

static void reopened_port_has_the_default_priority(void **state)
{
    struct guest *g = fifo_guest(1, 1);
    uint32_t port = ipi_open(g, 0);

    priority_set(g, port, 0);
    assert_int_equal(evtchn_close(&g->d, &(struct evtchn_close){ port }), 0);
    assert_int_equal(ipi_open(g, 0), port);
    port_send(g, port);
    assert_int_equal(control(g, 0)->ready, 1u << EVTCHN_FIFO_PRIORITY_DEFAULT);
    guest_free(g);
}

static void masked_event_is_linked_by_unmask(void **state)
{
    struct guest *g = fifo_guest(1, 1);
    struct consumer c = { .g = g };
    uint32_t port = ipi_open(g, 0);

    *word(g, port) = MASKED;
    port_send(g, port);
    assert_int_equal(*word(g, port), MASKED | PENDING);
    assert_int_equal(g->kicks[0], 0);
    assert_int_equal(evtchn_unmask(&g->d, &(struct evtchn_unmask){ port }), 0);
    assert_int_equal(g->kicks[0], 1);
    taken_check(&c, &port, 1);
    guest_free(g);
}

static void tail_moved_to_another_vcpu_starts_a_list_there(void **state)
{
    struct guest *g = fifo_guest(2, 1);
    struct consumer c0 = { .g = g }, c1 = { .g = g, .vcpu = 1 };
    uint32_t a = host_port_open(g, 0), b = host_port_open(g, 1);

    assert_int_equal(evtchn_host_event(&g->d, a), 0);
    taken_check(&c0, &a, 1);        /* a stays queue 0's tail */
    assert_int_equal(evtchn_bind_vcpu(&g->d, &(struct evtchn_bind_vcpu){ a, 1 }), 0);
    assert_int_equal(evtchn_host_event(&g->d, a), 0);
    assert_int_equal(evtchn_host_event(&g->d, b), 0);
    taken_check(&c1, &a, 1);
    taken_check(&c0, &b, 1);
    guest_free(g);
}

static void linked_event_stays_on_its_queue_when_the_port_moves(void **state)
{
    struct guest *g = fifo_guest(2, 1);
    struct consumer c0 = { .g = g }, c1 = { .g = g, .vcpu = 1 };
    uint32_t a = host_port_open(g, 0), b = host_port_open(g, 1), both[] = { a, b };

    assert_int_equal(evtchn_host_event(&g->d, a), 0);
    assert_int_equal(evtchn_bind_vcpu(&g->d, &(struct evtchn_bind_vcpu){ a, 1 }), 0);
    assert_int_equal(evtchn_host_event(&g->d, a), 0);
    assert_int_equal(evtchn_host_event(&g->d, b), 0);
    taken_check(&c0, both, 2);
    taken_check(&c1, NULL, 0);
    assert_int_equal(evtchn_host_event(&g->d, a), 0);
    taken_check(&c1, &a, 1);
    guest_free(g);
}

static void freed_port_is_not_reused_while_on_a_list(void **state)
{
    struct guest *g = fifo_guest(1, 1);
    struct consumer c = { .g = g };
    uint32_t port = ipi_open(g, 0);
    bool fired;

    port_send(g, port);
    assert_int_equal(evtchn_close(&g->d, &(struct evtchn_close){ port }), 0);
    assert_int_equal(ipi_open(g, 0), port + 1);
    assert_int_equal(event_take(&c, &fired), port);
    assert_false(fired);
    assert_int_equal(ipi_open(g, 0), port);
    guest_check(g);
    guest_free(g);
}

static void event_before_its_page_comes_with_the_page(void **state)
{
    struct guest *g = fifo_guest(1, 0);
    struct consumer c = { .g = g };
    uint32_t a = ipi_open(g, 0), b = ipi_open(g, 0);

    port_send(g, a);
    port_send(g, b);
    assert_int_equal(evtchn_close(&g->d, &(struct evtchn_close){ b }), 0);
    assert_int_equal(g->kicks[0], 0);
    assert_int_equal(page_add(g, 0), 0);
    taken_check(&c, &a, 1);
    guest_free(g);
}

static void events_of_the_2_level_abi_are_taken_along(void **state)
{
    struct guest *g = guest_create(1);
    struct consumer c = { .g = g };
    uint32_t a = ipi_open(g, 0), b = ipi_open(g, 0);

    port_send(g, b);
    assert_int_equal(control_add(g, 0), 0);
    assert_int_equal(page_add(g, 0), 0);
    taken_check(&c, &b, 1);
    port_send(g, a);
    taken_check(&c, &a, 1);
    guest_free(g);
}

static void reset_goes_back_to_the_2_level_abi(void **state)
{
    struct guest *g = fifo_guest(2, 2);
    uint32_t port = ipi_open(g, 1);

    port_send(g, port);
    assert_int_equal(guest_reset(&g->d, DOMID_SELF), 0);
    memset(g->memory, 0, GUEST_PAGES * PAGE_SIZE);
    guest_check(g);
    port = ipi_open(g, 1);
    port_send(g, port);
    assert_int_equal(g->shared->evtchn_pending[0], 1ul << port);
    for (size_t i = 0; i < GUEST_PAGES * PAGE_SIZE; i++)
        assert_int_equal(g->memory[i], 0);
    assert_int_equal(control_add(g, 1), 0);
    assert_int_equal(page_add(g, 0), 0);
    guest_free(g);
}

static void poll_waits_for_fifo_events_too(void **state)
{
    struct guest *g = fifo_guest(1, 1);
    evtchn_port_t port = ipi_open(g, 0);

    *word(g, port) = MASKED;
    assert_int_equal(evtchn_poll_begin(&g->d, 0, &port, 1), EVTCHN_POLL_WAIT);
    port_send(g, port);
    assert_false(evtchn_poll_waiting(&g->d, 0));
    assert_int_equal(g->kicks[0], 1);
    assert_int_equal(evtchn_poll_begin(&g->d, 0, &port, 1), 0);
    guest_free(g);
}

static void all_131071_ports_can_be_open_and_pending(void **state)
{
    struct guest *g = fifo_guest(1, 128);
    struct consumer c = { .g = g };
    struct evtchn_bind_ipi ipi = { .vcpu = 0 };
    bool fired;

    for (uint32_t port = 1; port < EVTCHN_FIFO_NR_CHANNELS; port++)
        assert_int_equal(ipi_open(g, 0), port);
    assert_int_equal(evtchn_bind_ipi(&g->d, &ipi), -ENOSPC);
    for (uint32_t port = EVTCHN_FIFO_NR_CHANNELS; --port;)
        port_send(g, port);
    for (uint32_t port = EVTCHN_FIFO_NR_CHANNELS; --port;)
        assert_int_equal(event_take(&c, &fired), port);
    assert_int_equal(event_take(&c, &fired), 0);
    assert_int_equal(g->kicks[0], 1);
    assert_int_equal(guest_reset(&g->d, DOMID_SELF), 0);
    guest_check(g);
    guest_free(g);
}

static void scribbled_words_and_blocks_break_nothing_but_the_guest(void **state)
{
    struct guest *g = fifo_guest(2, 1);
    uint32_t p[] = { ipi_open(g, 0), ipi_open(g, 1), host_port_open(g, 0) };

    for (unsigned i = 0; i < 1000; i++) {
        memset(g->memory, (int)(i * 37 & 0xff), (ARRAY_GFN + 1) * PAGE_SIZE);
        port_send(g, p[i & 1]);
        require(!evtchn_host_event(&g->d, p[2]));
        require(!evtchn_bind_vcpu(&g->d, &(struct evtchn_bind_vcpu){ p[2], i >> 1 & 1 }));
        require(!evtchn_unmask(&g->d, &(struct evtchn_unmask){ p[i % 3] }));
        priority_set(g, p[i % 3], i & 15);
    }
    assert_int_equal(guest_state(g, p[2]), EVTCHN_STATE_HOST);
    guest_free(g);
}

/* Several vCPUs send on the same ports to one consumer, while the ports move between
 * two vCPUs' queues and priorities: the last event of each port must arrive, whatever
 * was merged before. */
enum { SENDERS = 3, PORTS = 3, ROUNDS = 20000 };

struct traffic {
    struct guest *g;
    uint32_t port[PORTS];
    uint32_t sent[PORTS];       /* events sent, counted before sending */
    uint32_t done;
};

static void *sender_run(void *arg)
{
    struct traffic *t = arg;

    for (uint32_t i = 0; i < ROUNDS; i++) {
        fetch_add(&t->sent[i % PORTS], 1);
        require(!evtchn_host_event(&t->g->d, t->port[i % PORTS]));
    }
    fetch_add(&t->done, 1);
    return NULL;
}

static void *port_mover_run(void *arg)
{
    struct traffic *t = arg;

    for (uint32_t n = 0; load_acquire(&t->done) < SENDERS; n++) {
        struct evtchn_bind_vcpu move = { t->port[n % PORTS], n / PORTS & 1 };

        require(!evtchn_bind_vcpu(&t->g->d, &move));
        priority_set(t->g, move.port, n >> 5 & 3);
    }
    return NULL;
}

static void no_event_is_lost_between_senders_and_moves(void **state)
{
    struct traffic t = { .g = fifo_guest(2, 1) };
    struct consumer c[2] = { { .g = t.g }, { .g = t.g, .vcpu = 1 } };
    uint32_t seen[PORTS] = { 0 }, idle = 0;
    pthread_t senders[SENDERS], mover;

    for (unsigned i = 0; i < PORTS; i++)
        t.port[i] = host_port_open(t.g, i);
    for (unsigned i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_create(&senders[i], NULL, sender_run, &t), 0);
    assert_int_equal(pthread_create(&mover, NULL, port_mover_run, &t), 0);
    /* idle twice after the senders are through: whatever there was has been taken */
    while (idle < 2) {
        uint32_t done = load_acquire(&t.done), port = 0;
        bool fired = false;

        for (unsigned v = 0; v < 2 && !port; v++) {
            port = event_take(&c[v], &fired);
            for (unsigned i = 0; fired && i < PORTS; i++)
                if (t.port[i] == port)
                    seen[i] = load_acquire(&t.sent[i]);
        }
        if (!port) {
            idle += done == SENDERS;
            sched_yield();
        }
    }
    for (unsigned i = 0; i < SENDERS; i++)
        pthread_join(senders[i], NULL);
    pthread_join(mover, NULL);
    for (unsigned i = 0; i < PORTS; i++) {
        assert_int_equal(seen[i], t.sent[i]);
        assert_int_equal(*word(t.g, t.port[i]) & (PENDING | LINKED), 0);
    }
    guest_check(t.g);
    guest_free(t.g);
}

static void *one_event_run(void *arg)
{
    struct traffic *t = arg;

    require(!evtchn_host_event(&t->g->d, t->port[0]));
    return NULL;
}

/* While a sender waits for the queue the event was last on, another vCPU links the
 * event elsewhere and the guest takes it off: played by this thread, which holds
 * the lock that takes. */
static void sender_that_waited_looks_again_where_the_event_was(void **state)
{
    struct traffic t = { .g = fifo_guest(3, 1) };
    struct evtchn_fifo *f = &t.g->d.fifo;
    struct evtchn_fifo_queue *first = &f->queue[0][EVTCHN_FIFO_PRIORITY_DEFAULT];
    struct evtchn_fifo_queue *other = &f->queue[2][EVTCHN_FIFO_PRIORITY_DEFAULT];
    struct consumer c0 = { .g = t.g }, c1 = { .g = t.g, .vcpu = 1 };
    uint32_t port = t.port[0] = host_port_open(t.g, 0);
    struct evtchn_port *p = evtchn_port_ref(&t.g->d, port);
    pthread_t thread;

    require(!evtchn_host_event(&t.g->d, port));
    taken_check(&c0, &port, 1);
    require(!evtchn_bind_vcpu(&t.g->d, &(struct evtchn_bind_vcpu){ port, 1 }));
    spin_lock(&first->lock);
    assert_int_equal(pthread_create(&thread, NULL, one_event_run, &t), 0);
    while ((uint16_t)(load_acquire(&first->lock.next) - load_acquire(&first->lock.owner)) < 2)
        sched_yield();
    first->tail = 0;
    other->tail = port;
    store_relaxed(&p->fifo_last, 2 * EVTCHN_FIFO_MAX_QUEUES + EVTCHN_FIFO_PRIORITY_DEFAULT);
    spin_unlock(&first->lock);
    pthread_join(thread, NULL);
    assert_int_equal(other->tail, 0);
    taken_check(&c1, &port, 1);
    guest_free(t.g);
}

static void *reset_sender_run(void *arg)
{
    struct traffic *t = arg;

    while (!load_acquire(&t->done))
        evtchn_send(&t->g->d, &(struct evtchn_send){ t->port[0] });
    return NULL;
}

/* After EVTCHNOP_reset has returned the guest may use its pages for other things. */
static void reset_outwaits_senders(void **state)
{
    struct traffic t = { .g = fifo_guest(1, 1) };
    pthread_t threads[2];

    t.port[0] = 1;
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reset_sender_run, &t), 0);
    for (unsigned round = 0; round < 2000; round++) {
        uint64_t *page = (uint64_t *)(void *)word(t.g, 0);

        evtchn_bind_ipi(&t.g->d, &(struct evtchn_bind_ipi){ .vcpu = 0 });
        sched_yield();
        require(!guest_reset(&t.g->d, DOMID_SELF));
        memset(page, 0, PAGE_SIZE);             /* plain writes: a data race if not */
        memset(control(t.g, 0), 0, PAGE_SIZE);
        for (unsigned i = 0; i < PAGE_SIZE / 8; i++)
            require(page[i] == 0);
        require(!control_add(t.g, 0));
        require(!page_add(t.g, 0));
    }
    store_release(&t.done, 1);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    guest_free(t.g);
}

static void *reset_run(void *arg)
{
    struct traffic *t = arg;

    require(!guest_reset(&t->g->d, DOMID_SELF));
    store_release(&t->done, 1);
    return NULL;
}

/* This thread is a sender who has read nr_words, and is slow. */
static void reset_waits_for_each_queue(void **state)
{
    for (unsigned i = 0; i < 4; i++) {
        struct traffic t = { .g = fifo_guest(2, 1) };
        struct evtchn_fifo_queue *q = &t.g->d.fifo.queue[i & 1][i & 2 ? 15 : 0];
        pthread_t thread;

        spin_lock(&q->lock);
        assert_int_equal(pthread_create(&thread, NULL, reset_run, &t), 0);
        while (load_acquire(&t.g->d.fifo.nr_words))
            sched_yield();
        for (unsigned n = 0; n < 200; n++, sched_yield())
            assert_int_equal(load_acquire(&t.done), 0);
        spin_unlock(&q->lock);
        pthread_join(thread, NULL);
        guest_free(t.g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control_block_is_judged),
        cmocka_unit_test(array_grows_to_128_pages),
        cmocka_unit_test(events_are_taken_in_the_order_sent),
        cmocka_unit_test(higher_priority_is_taken_first),
        cmocka_unit_test(priority_is_judged),
        cmocka_unit_test(reopened_port_has_the_default_priority),
        cmocka_unit_test(masked_event_is_linked_by_unmask),
        cmocka_unit_test(tail_moved_to_another_vcpu_starts_a_list_there),
        cmocka_unit_test(linked_event_stays_on_its_queue_when_the_port_moves),
        cmocka_unit_test(freed_port_is_not_reused_while_on_a_list),
        cmocka_unit_test(event_before_its_page_comes_with_the_page),
        cmocka_unit_test(events_of_the_2_level_abi_are_taken_along),
        cmocka_unit_test(reset_goes_back_to_the_2_level_abi),
        cmocka_unit_test(poll_waits_for_fifo_events_too),
        cmocka_unit_test(all_131071_ports_can_be_open_and_pending),
        cmocka_unit_test(scribbled_words_and_blocks_break_nothing_but_the_guest),
        cmocka_unit_test(no_event_is_lost_between_senders_and_moves),
        cmocka_unit_test(sender_that_waited_looks_again_where_the_event_was),
        cmocka_unit_test(reset_outwaits_senders),
        cmocka_unit_test(reset_waits_for_each_queue),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
