/* SPDX-License-Identifier: MIT */
/* The thread's loop: turn, turn, turn ... nothing to do: poll, then sleep, and lend the
 * queue out meanwhile where that pays.
 *
 * A turn takes what the ring holds, hands all of it to the engine with one
 * flush, reaps what is done, shows the guest all responses with one publish and
 * notifies at most once.
 *
 * Polling.  While the thread polls, the ring's req_event stays where it is, so
 * the guest does not notify: each notification saved is an exit of the guest and
 * a wake-up of this thread.  How long to poll is learnt (dev/poll_window.h).
 * What polling saves is an exit of the guest, so where an exit is dear (an emulator, a
 * nested guest) the longest window is POLL_MAX_EXITS of them, if that is more.
 * Whether sleeping was long cannot tell: that figure holds the exit and the
 * wake-up that polling would have saved.  sched_yield() every POLL_YIELD_NS lets
 * another thread have the processor, a virtual CPU of the guest not least; on a
 * processor nobody else wants it costs little.  Time in which somebody else had
 * it is not polling and does not count: a guest that fills its ring while this
 * thread waits its turn is then met by one turn for all of it.
 *
 * Interrupts.  One for a vCPU that runs is owed for a while (xen/hostport.h): most
 * often the guest is in the shim again before the time of OWED_MAX_EXITS exits has
 * passed and needs none.  What is owed is paid before the thread sleeps, at the latest.
 *
 * Sleeping.  vbd_ring_arm() asks for a notification and looks at the ring once
 * more; then blk_queue_wait() sleeps for the port's kick_fd and for completions
 * at once.  vbd_queue_stop() writes to kick_fd too.
 *
 * Crowds.  Where more want a processor than the host has (xen/hostload.h), polling would
 * keep the guest from making the requests that are polled for, so the thread sleeps at
 * once.  To be woken for each request would be as dear; so, for a guest that keeps
 * several under way, the thread wakes by itself after LOOK_NS, and says so by
 * xen_hostport_awake(): then the guest's doorbells wait for each other, and one wake-up
 * serves many requests.  Both conditions are remembered for some sleeps, since in either
 * a single moment says little.
 *
 * Lending.  What a driver answers at once (null, memory, a hit in the page cache) takes less
 * than to wake a thread.  So a thread that sleeps after work of that kind lends its queue:
 * the vCPU that rings leaves the VM anyhow, and serves the ring itself (xen/hostcall.h).
 * It must not wait, so what turns out to take longer is left to the thread, which it rings
 * for.  A guest that keeps several requests under way is served by the thread, which works
 * while the guest makes the next ones; but in a crowd it could not, and there the vCPU's
 * thread serves all that its doorbells have waited for.  A vCPU that serves itself, having
 * the ring's events too, has every answer before it makes the next request: how many the
 * guest keeps under way cannot be seen then, and each costs an exit.  So when such calls
 * follow each other fast, the thread is woken to poll, or in a crowd to look.
 *
 * In a crowd the thread also takes its processor from some vCPU when it wakes.  Best from
 * the one that rang, which has left the VM already and most often waits for the answer; to
 * take it from another costs an exit more, and that one may have been polling for the
 * answer.  The kernel wakes a thread where it slept, so it is enough to go there once.
 *
 * Another life.  With a record (xen_vbd_record.h), what a thread does that has died in another
 * process is gone on with: what it had asked the guest for by req_event, or owed it, or was
 * about to raise, nobody knows, so the thread looks at the ring first, and interrupts once. */
#include "dev/xen_vbd_queue.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/loop.h"
#include "dev/poll_window.h"
#include "place/thread.h"

#define TURN_REQUESTS_MAX 32u
#define POLL_YIELD_NS     10000u
#define POLL_MAX_EXITS    32u
#define POLL_LIMIT_NS     2000000u
#define OWED_MAX_EXITS    32u
#define OWED_MIN_NS       20000u
#define SLEEPS_REMEMBERED 16u
#define SERVE_REQUESTS    8u        /* in a turn of a vCPU's thread ... */
#define SERVE_TURNS_MAX   8u        /* and how many: the vCPU waits for them */
#define SERVE_BYTES_MAX   (256 * KIB)
#define LOOK_NS           2000000
#define APART_MAX         4u
#define BRISK_CALLS       32u
#define RECORD_TURNS      64u       /* after so many, the counters go to the record */
#define STACK_BYTES       ((size_t)256 * KIB)  /* no room for a huge page */

struct vbd_queue {
    struct vbd_queue_params params;
    char name[16];
    pthread_t thread;
    sem_t started;
    int start_rc;
    struct err *start_err;
    bool stop;                      /* set by vbd_queue_stop() */

    cacheline_aligned struct vbd_ring ring;
    struct blk_queue *blk;
    struct poll_window window;
    uint64_t owed_since_ns;         /* an interrupt is owed to the guest; 0: none */
    uint64_t owed_max_ns;
    unsigned busy, crowded;         /* sleeps for which either is taken to hold */
    unsigned apart;                 /* wake-ups in a row away from who rang */
    bool looking;                   /* asleep for LOOK_NS at most */
    bool prompt;                    /* what was taken last, the driver answered at once */
    uint64_t served_ns;             /* when a vCPU's thread last had served */
    unsigned brisk;                 /* calls in a row that a polling thread would have met */
    const char *fault;              /* the ring's, for other threads */
    unsigned record_turns;
    struct vbd_queue_counters before;       /* of other lives */
    uint64_t interrupts, kicks, sleeps, calls, polls_hit, polls_missed;
};

static void count(uint64_t *counter)
{
    store_relaxed(counter, *counter + 1);
}

static void event_raise(int fd)
{
    const uint64_t one = 1;

    if (write(fd, &one, sizeof(one)) < 0)
        return;     /* the counter is full: whoever reads it has been told */
}

/* What an exit costs is the guest's word, so it goes up to a limit only. */
static uint64_t exits_ns(const struct vbd_queue_params *p, unsigned nr)
{
    return min_of(nr * xen_hostport_exit_ns(p->port), (uint64_t)POLL_LIMIT_NS);
}

static uint64_t poll_max(const struct vbd_queue_params *p)
{
    return p->poll_max_ns ? max_of(p->poll_max_ns, exits_ns(p, POLL_MAX_EXITS)) : 0;
}

static int queue_open(struct vbd_queue *q, struct err *e)
{
    struct blk_queue_params p = {
        .nr_reqs = vbd_ring_nr_entries(q->params.ring.abi, q->params.ring.nr_pages),
        .max_iov = VBD_SEGMENTS_MAX,
        .wake_fd = q->params.port->kick_fd,
        .complete = vbd_ring_complete,
        .arg = &q->ring,
    };
    int rc = vbd_ring_init(&q->ring, &q->params.ring);

    if (rc)
        return err_set(e, -rc, "out of memory for a ring of %u requests", p.nr_reqs);
    rc = blk_queue_open(q->params.disk, &p, &q->blk, e);
    if (rc) {
        vbd_ring_free(&q->ring);
        return rc;
    }
    vbd_ring_set_queue(&q->ring, q->blk);
    if (q->ring.record.head) {
        vbd_record_counters(&q->ring.record, &q->before);
        q->before.ring.grants_held = 0;
    }
    q->window.max_ns = poll_max(&q->params);
    q->owed_max_ns = max_of(exits_ns(&q->params, OWED_MAX_EXITS), (uint64_t)OWED_MIN_NS);
    return 0;
}

static void fault_report(struct vbd_queue *q)
{
    struct vbd_record_head *head = q->ring.record.head;

    if (head && !head->faulted) {
        snprintf(head->fault, sizeof(head->fault), "%s", vbd_ring_fault(&q->ring));
        store_release(&head->faulted, 1);   /* pairs with vbd_record_fault() */
    }
    /* pairs with vbd_queue_fault() */
    store_release(&q->fault, vbd_ring_fault(&q->ring));
    event_raise(q->params.fault_fd);
}

static void counters_record(struct vbd_queue *q)
{
    struct vbd_queue_counters c;
    const uint64_t *from = (const uint64_t *)&c;

    if (!q->ring.record.head)
        return;
    q->record_turns = 0;
    vbd_queue_counters(q, &c);
    for (unsigned i = 0; i < sizeof(c) / sizeof(*from); i++)
        store_relaxed(&q->ring.record.head->counters[i], from[i]);
}

static void sent(struct vbd_queue *q, enum xen_hostport_sent what)
{
    if (what == XEN_HOSTPORT_RAISED)
        count(&q->interrupts);
}

static void notify(struct vbd_queue *q)
{
    enum xen_hostport_sent what = xen_hostport_send(q->params.port, true);

    if (what == XEN_HOSTPORT_OWED)
        q->owed_since_ns = loop_now_ns();
    sent(q, what);
}

/* The interrupt that is owed, if one is: unless the guest has taken the event. */
static void owed_pay(struct vbd_queue *q)
{
    if (!q->owed_since_ns)
        return;
    q->owed_since_ns = 0;
    sent(q, xen_hostport_raise_owed(q->params.port));
}

/* Takes what the ring holds and does of it what can be done at once.  How much was done. */
static unsigned queue_take(struct vbd_queue *q, unsigned max)
{
    unsigned taken = vbd_ring_take(&q->ring, max), done = taken;

    if (taken) {
        done += blk_queue_reap_inline(q->blk);
        q->prompt = blk_disk_props(q->params.disk)->prompt && !blk_queue_nr_inflight(q->blk);
        if (vbd_ring_guest_depth(&q->ring) > 1)
            q->busy = SLEEPS_REMEMBERED;
    }
    return done;
}

/* How much was done. */
static unsigned queue_turn(struct vbd_queue *q)
{
    unsigned done = queue_take(q, TURN_REQUESTS_MAX);

    if (q->busy == SLEEPS_REMEMBERED)
        xen_hostport_awake(q->params.port);
    blk_queue_flush(q->blk);
    done += blk_queue_reap(q->blk);
    if (vbd_ring_publish(&q->ring))
        notify(q);
    if (q->owed_since_ns && loop_now_ns() - q->owed_since_ns > q->owed_max_ns)
        owed_pay(q);
    if (unlikely(vbd_ring_fault(&q->ring) && !q->fault))
        fault_report(q);
    if (unlikely(++q->record_turns == RECORD_TURNS))
        counters_record(q);
    return done;
}

/* True when there was work. */
static bool queue_poll(struct vbd_queue *q)
{
    uint64_t window, last, spent = 0, yielded = 0;

    if (xen_hostport_crowded(q->params.port)) {
        q->crowded = SLEEPS_REMEMBERED;
        return false;
    }
    window = poll_window_next(&q->window);
    if (!window)
        return false;
    last = loop_now_ns();
    while (spent < window && !load_relaxed(&q->stop)) {
        uint64_t now;

        if (queue_turn(q)) {
            poll_window_hit(&q->window, spent);
            count(&q->polls_hit);
            return true;
        }
        if (spent - yielded >= POLL_YIELD_NS) {
            sched_yield();
            yielded = spent;
        } else {
            cpu_relax();
        }
        now = loop_now_ns();
        spent += min_of(now - last, POLL_YIELD_NS);
        last = now;
    }
    poll_window_missed(&q->window);
    count(&q->polls_missed);
    return false;
}

/* In a crowd, to where the vCPU is that has just rung: see above. */
static void queue_follow(struct vbd_queue *q)
{
    int64_t cpu = xen_hostport_caller_cpu(q->params.port);

    if (!q->crowded || cpu < 0 || cpu == sched_getcpu()) {
        q->apart = 0;
    } else if (++q->apart == APART_MAX) {
        q->apart = 0;
        place_thread_move((uint32_t)cpu);   /* where that is not allowed, it stays */
    }
}

/* The guest's notification has been seen. */
static void kick_taken(struct vbd_queue *q)
{
    uint64_t n;

    if (read(q->params.port->kick_fd, &n, sizeof(n)) != sizeof(n))
        return;
    count(&q->kicks);
    queue_follow(q);
}

/* Sleeps with nothing in flight while vCPUs serve the ring, until one of them, or
 * vbd_queue_stop(), needs this thread. */
static void lent_wait(struct vbd_queue *q, bool look)
{
    struct xen_hostport *port = q->params.port;
    struct pollfd kick = { .fd = port->kick_fd, .events = POLLIN };
    struct timespec limit = { .tv_nsec = LOOK_NS };

    xen_hostcall_lend(port->call);
    store_relaxed(&port->link->call, 1);
    do {
        /* pairs with vbd_queue_stop(), which rings once only */
        if (load_acquire(&q->stop))
            sched_yield();
        else if (ppoll(&kick, 1, look ? &limit : NULL, NULL) > 0)
            kick_taken(q);
    } while (!xen_hostcall_take_back(port->call));
    store_relaxed(&port->link->call, 0);
}

/* What the ring holds is not for a vCPU's thread, which must not wait. */
static bool needs_thread(const struct vbd_queue *q)
{
    return blk_queue_nr_inflight(q->blk) || vbd_ring_has_taken(&q->ring) ||
           vbd_ring_fault(&q->ring);
}

/* Counts a call.  True when a vCPU that has its answers itself makes so many at once that an
 * exit for each is too much: it may keep many requests under way, and none of them is seen
 * here, since each is answered before it makes the next. */
static bool calls_are_brisk(struct vbd_queue *q, unsigned vcpu)
{
    uint64_t gap_ns = loop_now_ns() - q->served_ns;

    if (vcpu != load_relaxed(&q->params.port->link->vcpu) || gap_ns > q->window.max_ns) {
        q->brisk = 0;
        return false;
    }
    if (++q->brisk < BRISK_CALLS)
        return false;
    q->brisk = 0;
    q->busy = SLEEPS_REMEMBERED;
    poll_window_hit(&q->window, gap_ns);
    return true;
}

static bool ring_serve(struct vbd_queue *q, unsigned vcpu)
{
    uint64_t began_bytes = q->ring.counters.bytes;
    unsigned turns = 0;

    do {
        queue_take(q, SERVE_REQUESTS);
        if (vbd_ring_publish(&q->ring))
            sent(q, xen_hostport_send_from(q->params.port, false, vcpu));
        if (needs_thread(q))
            return false;
        if (!vbd_ring_arm(&q->ring))
            return !q->busy || q->looking;
    } while (++turns < SERVE_TURNS_MAX && q->ring.counters.bytes - began_bytes < SERVE_BYTES_MAX);
    return false;
}

/* In the thread of vCPU `vcpu`, while the queue is lent; see struct xen_hostcall.  Nobody
 * would pay an interrupt that is owed, so it is raised at once. */
static bool queue_serve(void *arg, unsigned vcpu)
{
    struct vbd_queue *q = arg;
    bool brisk, served;

    count(&q->calls);
    if (needs_thread(q))
        return false;       /* it has been rung for already */
    brisk = calls_are_brisk(q, vcpu);
    served = ring_serve(q, vcpu);
    q->served_ns = loop_now_ns();
    if (brisk && !(q->looking && xen_hostport_crowded(q->params.port)))
        return false;       /* the thread polls, or looks */
    return served;
}

/* Unless there is work after all. */
static void queue_sleep(struct vbd_queue *q)
{
    struct xen_hostport *port = q->params.port;
    const bool look = q->busy && q->crowded;

    q->busy -= q->busy > 0;
    q->crowded -= q->crowded > 0;
    if (!look)
        xen_hostport_asleep(port);
    if (vbd_ring_arm(&q->ring))
        return;
    owed_pay(q);
    count(&q->sleeps);
    counters_record(q);
    q->looking = look;
    if (port->call && q->prompt && (!q->busy || look) && !blk_queue_nr_inflight(q->blk))
        lent_wait(q, look);
    else if (blk_queue_wait(q->blk, look ? LOOK_NS : -1))
        kick_taken(q);
    xen_hostport_woken(port);
}

static void another_life(struct vbd_queue *q)
{
    xen_hostport_asleep(q->params.port);
    store_release(&q->params.port->link->pending, 1);
    sent(q, xen_hostport_raise(q->params.port));
}

static void *queue_main(void *arg)
{
    struct vbd_queue *q = arg;

    if (q->params.port->call) {
        q->params.port->call->serve = queue_serve;
        q->params.port->call->arg = q;
    }
    q->start_rc = queue_open(q, q->start_err);
    if (q->start_rc) {
        sem_post(&q->started);
        return NULL;
    }
    sem_post(&q->started);
    if (q->ring.record.head)
        another_life(q);
    /* pairs with vbd_queue_stop() */
    while (!load_acquire(&q->stop)) {
        if (!queue_turn(q) && (blk_queue_dormant(q->blk) || !queue_poll(q)))
            queue_sleep(q);
    }
    vbd_ring_close(&q->ring);
    blk_queue_drain(q->blk);
    while (blk_queue_nr_inflight(q->blk) || vbd_ring_has_taken(&q->ring)) {
        if (!queue_turn(q) && blk_queue_nr_inflight(q->blk))
            queue_sleep(q);
    }
    if (vbd_ring_publish(&q->ring))     /* what was refused by closing */
        notify(q);
    owed_pay(q);
    xen_hostport_asleep(q->params.port);
    vbd_ring_free(&q->ring);
    counters_record(q);
    return NULL;
}

static int thread_start(struct vbd_queue *q, struct err *e)
{
    int rc = place_thread_start(&q->thread, q->name, STACK_BYTES, 0, queue_main, q);

    if (rc)
        return err_set(e, -rc, "no thread for %s: %s", q->name, strerror(-rc));
    while (sem_wait(&q->started))
        ;
    if (q->start_rc)
        pthread_join(q->thread, NULL);
    return q->start_rc;
}

int vbd_queue_start(const struct vbd_queue_params *p, struct vbd_queue **out, struct err *e)
{
    struct vbd_queue *q = aligned_alloc(CACHE_LINE_BYTES, sizeof(*q));
    int rc;

    if (!q)
        return err_set(e, ENOMEM, "out of memory");
    memset(q, 0, sizeof(*q));
    q->params = *p;
    q->start_err = e;
    snprintf(q->name, sizeof(q->name), "%s", p->name);
    sem_init(&q->started, 0, 0);
    rc = thread_start(q, e);
    if (rc) {
        sem_destroy(&q->started);
        free(q);
        return rc;
    }
    *out = q;
    return 0;
}

void vbd_queue_stop(struct vbd_queue *q, struct vbd_queue_counters *last)
{
    store_release(&q->stop, true);      /* pairs with queue_main() */
    event_raise(q->params.port->kick_fd);
    pthread_join(q->thread, NULL);
    vbd_queue_counters(q, last);
    blk_queue_close(q->blk);    /* its owner has ended: it is ours */
    sem_destroy(&q->started);
    free(q);
}

const char *vbd_queue_fault(const struct vbd_queue *q)
{
    return load_acquire(&q->fault);     /* pairs with fault_report() */
}

void vbd_queue_counters(const struct vbd_queue *q, struct vbd_queue_counters *out)
{
    const struct vbd_ring_counters *c = &q->ring.counters;

    *out = (struct vbd_queue_counters){ .kicks = 0 };
    out->ring = (struct vbd_ring_counters){
        .requests = load_relaxed(&c->requests),
        .segments = load_relaxed(&c->segments),
        .bytes = load_relaxed(&c->bytes),
        .errors = load_relaxed(&c->errors),
        .notifies = load_relaxed(&c->notifies),
        .grants_held = load_relaxed(&c->grants_held),
    };
    blk_queue_stats(q->blk, &out->blk);
    out->interrupts = load_relaxed(&q->interrupts);
    out->kicks = load_relaxed(&q->kicks);
    out->sleeps = load_relaxed(&q->sleeps);
    out->calls = load_relaxed(&q->calls);
    out->polls_hit = load_relaxed(&q->polls_hit);
    out->polls_missed = load_relaxed(&q->polls_missed);
    if (q->ring.record.head)
        vbd_counters_add(out, &q->before);
}

/* ---- from the record ---- */

_Static_assert(sizeof(struct vbd_queue_counters) % sizeof(uint64_t) == 0 &&
               sizeof(struct vbd_queue_counters) <= VBD_RECORD_COUNTERS_MAX * sizeof(uint64_t),
               "counters are all of 64 bits, and the record has room for them");

void vbd_record_counters(const struct vbd_record *r, struct vbd_queue_counters *out)
{
    uint64_t *to = (uint64_t *)out;

    for (unsigned i = 0; i < sizeof(*out) / sizeof(*to); i++)
        to[i] = load_relaxed(&r->head->counters[i]);
}

void vbd_record_fault(const struct vbd_record *r, char text[VBD_RECORD_FAULT_BYTES])
{
    text[0] = 0;
    if (load_acquire(&r->head->faulted)) {      /* pairs with fault_report() */
        memcpy(text, r->head->fault, VBD_RECORD_FAULT_BYTES - 1);
        text[VBD_RECORD_FAULT_BYTES - 1] = 0;
    }
}

void vbd_counters_add(struct vbd_queue_counters *sum, const struct vbd_queue_counters *c)
{
    uint64_t *to = (uint64_t *)sum;
    const uint64_t *from = (const uint64_t *)c;

    for (unsigned i = 0; i < sizeof(*c) / sizeof(uint64_t); i++)
        to[i] += from[i];
}
