/* SPDX-License-Identifier: MIT */
/* Watches removed while events are being dispatched stay allocated, marked
 * dead, until the batch ends: an event later in the same batch may name them. */
#include "base/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"

#define LOOP_BATCH 32

struct loop_fd {
    struct loop *loop;
    struct loop_fd *next_dead;
    int fd;
    bool dead;
    loop_fd_cb cb;
    void *arg;
};

struct loop_timer {
    int fd;
    struct loop_fd *watch;
    loop_timer_cb cb;
    void *arg;
};

struct loop {
    int epoll_fd;
    int wake_fd;
    bool stop;
    bool dispatching;
    struct loop_fd *dead;
    struct loop_fd *wake;
};

static void wake_read(void *arg, uint32_t events)
{
    struct loop *l = arg;
    uint64_t n;

    if (read(l->wake_fd, &n, sizeof(n)) < 0)
        return;
}

struct loop *loop_create(void)
{
    struct loop *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->epoll_fd >= 0 && l->wake_fd >= 0)
        l->wake = loop_fd_add(l, l->wake_fd, EPOLLIN, wake_read, l);
    if (!l->wake) {
        int saved = errno;

        loop_free(l);
        errno = saved;
        return NULL;
    }
    return l;
}

static void reap(struct loop *l)
{
    while (l->dead) {
        struct loop_fd *w = l->dead;

        l->dead = w->next_dead;
        free(w);
    }
}

void loop_free(struct loop *l)
{
    if (!l)
        return;
    if (l->wake)
        loop_fd_remove(l->wake);
    reap(l);
    if (l->epoll_fd >= 0)
        close(l->epoll_fd);
    if (l->wake_fd >= 0)
        close(l->wake_fd);
    free(l);
}

void loop_run_once(struct loop *l, int timeout_ms)
{
    struct epoll_event ev[LOOP_BATCH];
    int n = epoll_wait(l->epoll_fd, ev, LOOP_BATCH, timeout_ms);

    l->dispatching = true;
    for (int i = 0; i < n; i++) {
        struct loop_fd *w = ev[i].data.ptr;

        if (!w->dead)
            w->cb(w->arg, ev[i].events);
    }
    l->dispatching = false;
    reap(l);
}

void loop_run(struct loop *l)
{
    while (!load_acquire(&l->stop))   /* pairs with loop_stop() */
        loop_run_once(l, -1);
    store_relaxed(&l->stop, false);
}

void loop_stop(struct loop *l)
{
    uint64_t one = 1;

    store_release(&l->stop, true);
    if (write(l->wake_fd, &one, sizeof(one)) < 0)
        return;   /* the counter is full: the loop is awake anyway */
}

struct loop_fd *loop_fd_add(struct loop *l, int fd, uint32_t epoll_events,
                            loop_fd_cb cb, void *arg)
{
    struct loop_fd *w = calloc(1, sizeof(*w));
    struct epoll_event ev = { .events = epoll_events };

    if (!w)
        return NULL;
    *w = (struct loop_fd){ .loop = l, .fd = fd, .cb = cb, .arg = arg };
    ev.data.ptr = w;
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev)) {
        free(w);
        return NULL;
    }
    return w;
}

int loop_fd_modify(struct loop_fd *w, uint32_t epoll_events)
{
    struct epoll_event ev = { .events = epoll_events, .data.ptr = w };

    return epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev) ? -errno : 0;
}

void loop_fd_remove(struct loop_fd *w)
{
    if (!w || w->dead)
        return;
    epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    w->dead = true;
    if (w->loop->dispatching) {
        w->next_dead = w->loop->dead;
        w->loop->dead = w;
    } else {
        free(w);
    }
}

static void timer_fired(void *arg, uint32_t events)
{
    struct loop_timer *t = arg;
    uint64_t n;

    if (read(t->fd, &n, sizeof(n)) == sizeof(n))
        t->cb(t->arg);
}

struct loop_timer *loop_timer_add(struct loop *l, loop_timer_cb cb, void *arg)
{
    struct loop_timer *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    t->cb = cb;
    t->arg = arg;
    t->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (t->fd >= 0)
        t->watch = loop_fd_add(l, t->fd, EPOLLIN, timer_fired, t);
    if (!t->watch) {
        if (t->fd >= 0)
            close(t->fd);
        free(t);
        return NULL;
    }
    return t;
}

static void timer_set(struct loop_timer *t, uint64_t delay_ns)
{
    struct itimerspec its = {
        .it_value = { .tv_sec = (time_t)(delay_ns / 1000000000u),
                      .tv_nsec = (long)(delay_ns % 1000000000u) },
    };

    timerfd_settime(t->fd, 0, &its, NULL);
}

void loop_timer_arm(struct loop_timer *t, uint64_t delay_ns)
{
    timer_set(t, delay_ns ? delay_ns : 1);   /* 0 would disarm */
}

void loop_timer_disarm(struct loop_timer *t)
{
    timer_set(t, 0);
}

void loop_timer_remove(struct loop_timer *t)
{
    if (!t)
        return;
    loop_fd_remove(t->watch);
    close(t->fd);
    free(t);
}

uint64_t loop_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}
