/* SPDX-License-Identifier: MIT */
#include "vm/pv_populate.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/atomic.h"
#include "base/num.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* A huge page at a time, from low to high: ahead of who writes, never far behind. */
#define PIECE_BYTES (2 * MIB)

static void *populate(void *arg)
{
    struct pv_populate *p = arg;

    while (p->bytes && !load_relaxed(&p->stop)) {
        uint64_t piece = min_of(p->bytes, PIECE_BYTES - (uintptr_t)p->at % PIECE_BYTES);

        if (madvise(p->at, piece, MADV_POPULATE_WRITE) && errno != EINTR && errno != EAGAIN)
            break;
        p->at += piece;
        p->bytes -= piece;
    }
    return NULL;
}

void pv_populate_start(struct pv_populate *p, void *at, uint64_t bytes)
{
    uint64_t lead = (uintptr_t)at & PAGE_MASK;

    p->at = (uint8_t *)at - lead;
    p->bytes = align_up(bytes + lead, PAGE_SIZE);
    p->running = !pthread_create(&p->thread, NULL, populate, p);
}

void pv_populate_end(struct pv_populate *p)
{
    if (!p->running)
        return;
    store_relaxed(&p->stop, true);
    pthread_join(p->thread, NULL);
    p->running = false;
}
