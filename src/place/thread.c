/* SPDX-License-Identifier: MIT */
#include "place/thread.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif

#include "base/types.h"

int place_thread_start(pthread_t *out, const char *name, size_t stack_bytes, int signal,
                       void *(*main)(void *), void *arg)
{
    char short_name[16];
    pthread_attr_t attr;
    sigset_t blocked;
    int rc;

    sigfillset(&blocked);
    if (signal)
        sigdelset(&blocked, signal);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, max_of(stack_bytes, (size_t)PTHREAD_STACK_MIN));
    pthread_attr_setsigmask_np(&attr, &blocked);
    rc = pthread_create(out, &attr, main, arg);
    pthread_attr_destroy(&attr);
    if (rc)
        return -rc;
    snprintf(short_name, sizeof(short_name), "%s", name);
    pthread_setname_np(*out, short_name);
    return 0;
}

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
