/* SPDX-License-Identifier: MIT */
#include "place/thread.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>
#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif

const uint32_t *place_thread_cpu(void)
{
#ifdef RSEQ_SIG
    const struct rseq *r;

    if (!__rseq_size)       /* the C library was told not to register it, or could not */
        return NULL;
    r = (const struct rseq *)((const char *)__builtin_thread_pointer() + __rseq_offset);
    return &r->cpu_id;
#else
    return NULL;
#endif
}

int place_thread_move(uint32_t cpu)
{
    cpu_set_t allowed, one;

    if (sched_getaffinity(0, sizeof(allowed), &allowed))
        return -errno;
    if (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &allowed))
        return -EINVAL;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof(one), &one) || sched_setaffinity(0, sizeof(allowed), &allowed))
        return -errno;
    return 0;
}
