/* SPDX-License-Identifier: MIT */
/* How long a queue's thread polls before it sleeps, learnt from what polling met:
 *   - work after t ns: the window becomes at least 4 t (up to max_ns);
 *   - nothing: it loses a quarter, and is given up below POLL_WINDOW_MIN_NS;
 *   - once given up, one idle period in POLL_WINDOW_PROBE_EVERY polls for the longest window,
 *     to learn whether that would pay again;
 *   - another thread that keeps the processor: not at all for POLL_WINDOW_CROWDED_FOR idle
 *     periods.  Whoever sleeps instead gets the processor back when there is work, while who
 *     has given it away waits for its turn. */
#ifndef XENOLITH_DEV_POLL_WINDOW_H
#define XENOLITH_DEV_POLL_WINDOW_H

#include "base/types.h"

#define POLL_WINDOW_MIN_NS      4000u
#define POLL_WINDOW_PROBE_EVERY 16u
#define POLL_WINDOW_CROWDED_FOR 1024u

struct poll_window {
    uint64_t max_ns;            /* 0: never poll */
    uint64_t ns;                /* 0: given up */
    unsigned idle_since_probe;
    unsigned crowded;           /* idle periods for which another thread is taken to be there */
};

/* How long to poll in this idle period. */
static inline uint64_t poll_window_next(struct poll_window *w)
{
    if (w->crowded) {
        w->crowded--;
        return 0;
    }
    if (w->ns)
        return w->ns;
    if (++w->idle_since_probe < POLL_WINDOW_PROBE_EVERY)
        return 0;
    w->idle_since_probe = 0;
    return w->max_ns;
}

static inline void poll_window_hit(struct poll_window *w, uint64_t spent_ns)
{
    w->ns = max_of(w->ns, 4 * (spent_ns + POLL_WINDOW_MIN_NS));
    w->ns = min_of(w->ns, w->max_ns);
}

static inline void poll_window_missed(struct poll_window *w)
{
    w->ns -= w->ns / 4;
    if (w->ns < POLL_WINDOW_MIN_NS)
        w->ns = 0;
}

/* The processor was given away and not given back soon. */
static inline void poll_window_crowded(struct poll_window *w)
{
    w->ns = 0;
    w->crowded = POLL_WINDOW_CROWDED_FOR;
}

#endif
