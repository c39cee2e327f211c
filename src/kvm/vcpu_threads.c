/* SPDX-License-Identifier: MIT */
/* A vCPU thread is parked or in kvm_vcpu_run().  Two request bits decide: PAUSE
 * parks it, STOP ends it.  Bits and nr_parked change under the lock only, so the
 * controlling thread, once it has set PAUSE and seen nr_parked equal nr, knows
 * that no thread can leave its place until the bit is cleared.
 *
 * A thread whose vCPU left for good stays, parked, until STOP: pthread_kill() and
 * the CPU clock need a thread that has not ended. */
#include "kvm/vcpu_threads.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "place/thread.h"

#define REQUEST_PAUSE 1u
#define REQUEST_STOP  2u

struct vcpu_thread {
    struct kvm_vcpu_threads *all;
    struct kvm_vcpu *vcpu;
    pthread_t thread;
};

struct kvm_vcpu_threads {
    const struct kvm_exit_ops *ops;
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t parked;      /* to the controlling thread: nr_parked grew */
    pthread_cond_t requests;    /* to the vCPU threads: bits changed */
    unsigned nr_parked;
    unsigned nr_started;        /* threads that have said where they run */
    unsigned nr;                /* threads that exist */
    const uint32_t **cpus;      /* kvm_vcpu_threads_cpus() */
    struct vcpu_thread thread[];
};

/* The signal's only work is to interrupt KVM_RUN. */
static void ignore_kick(int signo)
{
}

/* Waits until the vCPU may run (true) or the thread must end. */
static bool wait_parked(struct vcpu_thread *me, bool left_for_good)
{
    struct kvm_vcpu_threads *t = me->all;
    uint32_t requests;

    while (!((requests = kvm_vcpu_requests(me->vcpu)) & REQUEST_STOP) &&
           ((requests & REQUEST_PAUSE) || left_for_good))
        pthread_cond_wait(&t->requests, &t->lock);
    return !(requests & REQUEST_STOP);
}

static void *vcpu_thread_main(void *arg)
{
    struct vcpu_thread *me = arg;
    struct kvm_vcpu_threads *t = me->all;
    bool left_for_good = false;

    t->cpus[me - t->thread] = place_thread_cpu();
    pthread_mutex_lock(&t->lock);
    t->nr_started++;
    pthread_cond_signal(&t->parked);
    while (wait_parked(me, left_for_good)) {
        t->nr_parked--;
        pthread_mutex_unlock(&t->lock);
        left_for_good = kvm_vcpu_run(me->vcpu, t->ops, t->arg) != KVM_LEFT_REQUEST;
        pthread_mutex_lock(&t->lock);
        t->nr_parked++;
        pthread_cond_signal(&t->parked);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static void request_all(struct kvm_vcpu_threads *t, uint32_t bits)
{
    for (unsigned i = 0; i < t->nr; i++)
        kvm_vcpu_request(t->thread[i].vcpu, t->thread[i].thread, bits);
}

static int create_thread(struct vcpu_thread *v, struct err *e)
{
    char name[16];
    int ret;

    snprintf(name, sizeof(name), "vcpu %u", kvm_vcpu_id(v->vcpu));
    ret = place_thread_start(&v->thread, name, KVM_VCPU_STACK_BYTES, KVM_KICK_SIGNAL,
                             vcpu_thread_main, v);
    if (ret)
        return err_set(e, -ret, "cannot start the thread of vCPU %u: %s", kvm_vcpu_id(v->vcpu),
                       strerror(-ret));
    return 0;
}

int kvm_vcpu_threads_start(struct kvm_vcpu *const vcpus[], unsigned nr,
                           const struct kvm_exit_ops *ops, void *arg,
                           struct kvm_vcpu_threads **out, struct err *e)
{
    /* SA_RESTART for the system calls of handlers; KVM_RUN is never restarted. */
    struct sigaction kick = { .sa_handler = ignore_kick, .sa_flags = SA_RESTART };
    struct kvm_vcpu_threads *t = calloc(1, sizeof(*t) + nr * sizeof(t->thread[0]));
    int ret;

    if (t)
        t->cpus = calloc(nr, sizeof(t->cpus[0]));
    if (!t || !t->cpus) {
        free(t);
        return err_set(e, ENOMEM, "out of memory");
    }
    sigaction(KVM_KICK_SIGNAL, &kick, NULL);
    t->ops = ops;
    t->arg = arg;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->parked, NULL);
    pthread_cond_init(&t->requests, NULL);

    pthread_mutex_lock(&t->lock);
    for (unsigned i = 0; i < nr; i++) {
        struct vcpu_thread *v = &t->thread[i];

        v->all = t;
        v->vcpu = vcpus[i];
        ret = create_thread(v, e);
        if (ret < 0) {
            pthread_mutex_unlock(&t->lock);
            kvm_vcpu_threads_stop(t);
            return ret;
        }
        /* It waits for the lock, so the bit is there before it looks. */
        kvm_vcpu_request(v->vcpu, v->thread, REQUEST_PAUSE);
        t->nr_parked++;
        t->nr++;
    }
    while (t->nr_started < nr)
        pthread_cond_wait(&t->parked, &t->lock);
    pthread_mutex_unlock(&t->lock);
    *out = t;
    return 0;
}

void kvm_vcpu_threads_pause(struct kvm_vcpu_threads *t)
{
    pthread_mutex_lock(&t->lock);
    request_all(t, REQUEST_PAUSE);
    while (t->nr_parked < t->nr)
        pthread_cond_wait(&t->parked, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

void kvm_vcpu_threads_resume(struct kvm_vcpu_threads *t)
{
    pthread_mutex_lock(&t->lock);
    for (unsigned i = 0; i < t->nr; i++)
        kvm_vcpu_request_clear(t->thread[i].vcpu, REQUEST_PAUSE);
    pthread_cond_broadcast(&t->requests);
    pthread_mutex_unlock(&t->lock);
}

void kvm_vcpu_threads_stop(struct kvm_vcpu_threads *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    request_all(t, REQUEST_STOP);
    pthread_cond_broadcast(&t->requests);
    pthread_mutex_unlock(&t->lock);
    for (unsigned i = 0; i < t->nr; i++)
        pthread_join(t->thread[i].thread, NULL);
    for (unsigned i = 0; i < t->nr; i++)
        kvm_vcpu_request_clear(t->thread[i].vcpu, REQUEST_PAUSE | REQUEST_STOP);
    pthread_cond_destroy(&t->requests);
    pthread_cond_destroy(&t->parked);
    pthread_mutex_destroy(&t->lock);
    free(t->cpus);
    free(t);
}

const uint32_t *const *kvm_vcpu_threads_cpus(const struct kvm_vcpu_threads *t)
{
    return t->cpus;
}

uint64_t kvm_vcpu_threads_cpu_time_ns(const struct kvm_vcpu_threads *t, unsigned i)
{
    struct timespec used;
    clockid_t clock;

    if (pthread_getcpuclockid(t->thread[i].thread, &clock) || clock_gettime(clock, &used) < 0)
        return 0;
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}
