/* SPDX-License-Identifier: MIT */
/* The thread's loop: turn, turn, turn ... nothing to do: poll, then sleep.
 *
 * A turn takes what the virtqueue holds, hands it to the engine with one flush, reaps what is
 * done, shows the driver all answers at once and notifies at most once.  A turn is half
 * of what the last burst was, within bounds, so that the driver is awake and at work before all
 * of it is done; and no shorter, since each publish moves cache lines between processors.
 *
 * Polling.  While the thread polls, the driver does not notify; each notification saved is a
 * system call or an exit of the driver's and a wake-up of this thread.  poll_window.h says how
 * long.  sched_yield() every POLL_YIELD_NS lets another thread have the processor, the client
 * not least; time in which somebody else had it is not polling and does not count.  One that
 * keeps it ends the polling.
 *
 * Sleeping.  The client's kick descriptor is watched edge-triggered by an epoll descriptor and
 * never read: a wake-up costs one system call, and there is no read that a client could make
 * wait by reading first.  With requests in flight the engine sleeps for them and for the epoll
 * descriptor at once.
 *
 * Stopping.  A client can fill the counter of its call descriptor, so that a write to it
 * waits.  It is this queue alone that waits then, and vub_queue_stop() empties the counter. */
#include "dev/vhost_user_blk_queue.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/loop.h"
#include "dev/poll_window.h"
#include "place/thread.h"

#define TURN_REQUESTS_MIN 16u
#define TURN_REQUESTS_MAX 32u
#define POLL_YIELD_NS     10000u
#define POLL_CROWDED_NS   500000u   /* no yield to a thread with little to do takes that long */
#define POLL_LOOKS        8u        /* between two looks at the clock */
#define STOP_PATIENCE_NS  1000000
#define STACK_BYTES       ((size_t)256 * KIB)  /* no room for a huge page */

struct vub_queue {
    struct vub_queue_params params;
    char name[16];
    pthread_t thread;
    sem_t started, ended;
    int start_rc;
    struct err *start_err;
    int epoll_fd;
    int stop_fd;
    bool stop;                      /* set by vub_queue_stop() */

    cacheline_aligned struct vblk_ring ring;
    struct blk_queue *blk;
    struct poll_window window;
    unsigned turn;                  /* requests that one takes at most */
    unsigned burst;                 /* taken since there were none */
    const char *fault;              /* the virtqueue's, for other threads */
    uint64_t wakes, sleeps, polls_hit, polls_missed;
};

static void count(uint64_t *counter)
{
    store_relaxed(counter, *counter + 1);
}

static int queue_open(struct vub_queue *q, struct err *e)
{
    struct blk_queue_params p = {
        .nr_reqs = vblk_ring_nr_reqs(q->params.ring.vq.num),
        .max_iov = VBLK_IOV_MAX,
        .wake_fd = q->epoll_fd,
        .complete = vblk_ring_complete,
        .arg = &q->ring,
    };
    int rc = vblk_ring_init(&q->ring, &q->params.ring);

    if (rc)
        return err_set(e, -rc, "out of memory for a queue of %u requests", p.nr_reqs);
    rc = blk_queue_open(q->params.disk, &p, &q->blk, e);
    if (rc) {
        vblk_ring_free(&q->ring);
        return rc;
    }
    vblk_ring_set_queue(&q->ring, q->blk);
    q->turn = TURN_REQUESTS_MIN;
    q->window.max_ns = q->params.poll_max_ns;
    return 0;
}

static void fault_report(struct vub_queue *q)
{
    /* pairs with vub_queue_fault() */
    store_release(&q->fault, virtqueue_fault(&q->ring.vq));
    /* nobody is to wake this thread any more but to stop it */
    epoll_ctl(q->epoll_fd, EPOLL_CTL_DEL, q->params.kick_fd, NULL);
    eventfd_write(q->params.fault_fd, 1);
    eventfd_write(q->params.err_fd, 1);
}

/* How much was done. */
static unsigned queue_turn(struct vub_queue *q)
{
    unsigned done = vblk_ring_take(&q->ring, q->turn);

    if (done) {
        q->burst += done;
    } else if (q->burst) {
        q->turn = max_of(q->burst / 2, TURN_REQUESTS_MIN);
        q->turn = min_of(q->turn, TURN_REQUESTS_MAX);
        q->burst = 0;
    }
    blk_queue_flush(q->blk);
    done += blk_queue_reap(q->blk);
    if (vblk_ring_publish(&q->ring))
        eventfd_write(q->params.call_fd, 1);
    if (unlikely(virtqueue_fault(&q->ring.vq) && !q->fault))
        fault_report(q);
    return done;
}

/* True when there was work. */
static bool queue_poll(struct vub_queue *q)
{
    uint64_t window = poll_window_next(&q->window), last, spent = 0, yielded = 0;

    if (!window)
        return false;
    last = loop_now_ns();
    while (spent < window && !load_relaxed(&q->stop)) {
        uint64_t now;

        for (unsigned i = 0; i < POLL_LOOKS; i++) {
            if (queue_turn(q)) {
                poll_window_hit(&q->window, spent);
                count(&q->polls_hit);
                return true;
            }
            cpu_relax();
        }
        if (spent - yielded >= POLL_YIELD_NS) {
            sched_yield();
            yielded = spent;
        }
        now = loop_now_ns();
        if (now - last > POLL_CROWDED_NS) {
            poll_window_crowded(&q->window);
            return false;
        }
        spent += min_of(now - last, (uint64_t)POLL_YIELD_NS);
        last = now;
    }
    poll_window_missed(&q->window);
    count(&q->polls_missed);
    return false;
}

/* Unless there is work after all. */
static void queue_sleep(struct vub_queue *q)
{
    struct epoll_event events[2];
    int timeout_ms = -1;

    if (!vblk_ring_arm(&q->ring)) {
        count(&q->sleeps);
        /* what woke the engine is taken from epoll, lest it wakes it again */
        if (blk_queue_nr_inflight(q->blk))
            timeout_ms = blk_queue_wait(q->blk, -1) ? 0 : -2;
        if (timeout_ms > -2 && epoll_wait(q->epoll_fd, events, 2, timeout_ms) > 0)
            count(&q->wakes);
    }
    virtqueue_disarm(&q->ring.vq);
}

static void *queue_main(void *arg)
{
    struct vub_queue *q = arg;

    q->start_rc = queue_open(q, q->start_err);
    if (q->start_rc) {
        sem_post(&q->started);
        return NULL;
    }
    sem_post(&q->started);
    /* Whoever served this queue before may have answered and died before it said so. */
    eventfd_write(q->params.call_fd, 1);
    virtqueue_disarm(&q->ring.vq);
    /* pairs with vub_queue_stop() */
    while (!load_acquire(&q->stop)) {
        if (!queue_turn(q) && (blk_queue_dormant(q->blk) || !queue_poll(q)))
            queue_sleep(q);
    }
    /* nothing but completions is waited for now */
    epoll_ctl(q->epoll_fd, EPOLL_CTL_DEL, q->stop_fd, NULL);
    vblk_ring_close(&q->ring);
    blk_queue_drain(q->blk);
    while (blk_queue_nr_inflight(q->blk)) {
        if (!queue_turn(q) && blk_queue_nr_inflight(q->blk))
            blk_queue_wait(q->blk, -1);
    }
    /* whoever goes on with it finds it armed */
    virtqueue_arm(&q->ring.vq);
    sem_post(&q->ended);
    return NULL;
}

static int thread_start(struct vub_queue *q, struct err *e)
{
    /* SIGBUS is what this thread itself causes: mem/lost_pages.h */
    int rc = place_thread_start(&q->thread, q->name, STACK_BYTES, SIGBUS, queue_main, q);

    if (rc)
        return err_set(e, -rc, "no thread for %s: %s", q->name, strerror(-rc));
    while (sem_wait(&q->started))
        ;
    if (q->start_rc)
        pthread_join(q->thread, NULL);
    return q->start_rc;
}

static int watch_open(struct vub_queue *q, struct err *e)
{
    struct epoll_event kick = { .events = EPOLLIN | EPOLLET };
    struct epoll_event stop = { .events = EPOLLIN };

    q->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    q->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->epoll_fd < 0 || q->stop_fd < 0 ||
        epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, q->params.kick_fd, &kick) ||
        epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, q->stop_fd, &stop))
        return err_set(e, errno, "%s: %s", q->name, strerror(errno));
    return 0;
}

static void queue_free(struct vub_queue *q)
{
    if (q->epoll_fd >= 0)
        close(q->epoll_fd);
    if (q->stop_fd >= 0)
        close(q->stop_fd);
    sem_destroy(&q->started);
    sem_destroy(&q->ended);
    free(q);
}

int vub_queue_start(const struct vub_queue_params *p, struct vub_queue **out, struct err *e)
{
    struct vub_queue *q = aligned_alloc(CACHE_LINE_BYTES, align_up(sizeof(*q),
                                        (size_t)CACHE_LINE_BYTES));
    int rc;

    if (!q)
        return err_set(e, ENOMEM, "out of memory");
    memset(q, 0, sizeof(*q));
    q->params = *p;
    q->start_err = e;
    q->epoll_fd = q->stop_fd = -1;
    snprintf(q->name, sizeof(q->name), "%s", p->name);
    sem_init(&q->started, 0, 0);
    sem_init(&q->ended, 0, 0);
    rc = watch_open(q, e);
    if (!rc)
        rc = thread_start(q, e);
    if (rc) {
        queue_free(q);
        return rc;
    }
    *out = q;
    return 0;
}

/* Empties the counter of an eventfd if it is so full that writing waits.  Never waits itself,
 * whoever else reads it. */
static void event_make_room(int fd)
{
    struct pollfd writable = { .fd = fd, .events = POLLOUT };
    uint64_t n;
    struct iovec iov = { &n, sizeof(n) };

    if (poll(&writable, 1, 0) == 0 && preadv2(fd, &iov, 1, -1, RWF_NOWAIT) < 0)
        return;     /* somebody did */
}

uint32_t vub_queue_stop(struct vub_queue *q, struct vub_queue_counters *last)
{
    uint32_t base;

    store_release(&q->stop, true);      /* pairs with queue_main() */
    eventfd_write(q->stop_fd, 1);
    for (;;) {
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += STOP_PATIENCE_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (!sem_timedwait(&q->ended, &until))
            break;
        event_make_room(q->params.call_fd);
        event_make_room(q->params.err_fd);
    }
    pthread_join(q->thread, NULL);
    base = virtqueue_base(&q->ring.vq);
    vub_queue_counters(q, last);
    blk_queue_close(q->blk);    /* its owner has ended: it is ours */
    vblk_ring_free(&q->ring);
    queue_free(q);
    return base;
}

const char *vub_queue_fault(const struct vub_queue *q)
{
    return load_acquire(&q->fault);     /* pairs with fault_report() */
}

void vub_queue_counters(const struct vub_queue *q, struct vub_queue_counters *out)
{
    const struct vblk_ring_counters *c = &q->ring.counters;

    out->ring = (struct vblk_ring_counters){
        .requests = load_relaxed(&c->requests),
        .errors = load_relaxed(&c->errors),
        .notifies = load_relaxed(&c->notifies),
    };
    blk_queue_stats(q->blk, &out->blk);
    out->wakes = load_relaxed(&q->wakes);
    out->sleeps = load_relaxed(&q->sleeps);
    out->polls_hit = load_relaxed(&q->polls_hit);
    out->polls_missed = load_relaxed(&q->polls_missed);
}
