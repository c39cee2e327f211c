/* SPDX-License-Identifier: MIT */
/* One thread's event loop over epoll: file descriptors, timers, deferred calls.
 * Everything is called from the thread that runs the loop; only loop_stop() may
 * be called from others. */
#ifndef XENOLITH_BASE_LOOP_H
#define XENOLITH_BASE_LOOP_H

#include "base/types.h"

struct loop;
struct loop_fd;
struct loop_timer;

typedef void (*loop_fd_cb)(void *arg, uint32_t epoll_events);
typedef void (*loop_timer_cb)(void *arg);

/* NULL with errno set when the kernel refuses. */
struct loop *loop_create(void);
void loop_free(struct loop *l);

/* Runs until loop_stop(). */
void loop_run(struct loop *l);
/* Dispatches what is ready, waiting at most timeout_ms (-1: for ever). */
void loop_run_once(struct loop *l, int timeout_ms);
void loop_stop(struct loop *l);

/* Watches fd for epoll_events (EPOLLIN ...).  The loop does not own fd.  NULL
 * with errno set on failure.  Removing is allowed from within any callback. */
struct loop_fd *loop_fd_add(struct loop *l, int fd, uint32_t epoll_events,
                            loop_fd_cb cb, void *arg);
int loop_fd_modify(struct loop_fd *w, uint32_t epoll_events);
void loop_fd_remove(struct loop_fd *w);

/* A one-shot timer, initially not armed. */
struct loop_timer *loop_timer_add(struct loop *l, loop_timer_cb cb, void *arg);
void loop_timer_arm(struct loop_timer *t, uint64_t delay_ns);
void loop_timer_disarm(struct loop_timer *t);
void loop_timer_remove(struct loop_timer *t);

/* CLOCK_MONOTONIC, ns */
uint64_t loop_now_ns(void);

#endif
