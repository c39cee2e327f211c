/* SPDX-License-Identifier: MIT */
/* Memory that is about to be written gets its pages from a thread of its own: clearing
 * them is a good part of a short start, and another processor may do it. */
#ifndef XENOLITH_VM_PV_POPULATE_H
#define XENOLITH_VM_PV_POPULATE_H

#include <pthread.h>

#include "base/types.h"

struct pv_populate {
    pthread_t thread;
    bool running;
    bool stop;                  /* atomic */
    uint8_t *at;
    uint64_t bytes;
};

/* Begins with a zeroed *p that stays in place until pv_populate_end().  Whoever writes
 * to the memory meanwhile need not wait.  Advice: nothing happens where the host has no
 * thread left or its kernel knows no MADV_POPULATE_WRITE (Linux 5.14). */
void pv_populate_start(struct pv_populate *p, void *at, uint64_t bytes);

/* Waits for it, having told it to leave what it has not begun; harmless on a zeroed *p. */
void pv_populate_end(struct pv_populate *p);

#endif
