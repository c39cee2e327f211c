/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/atomic.h"
#include "base/types.h"
#include "place/thread.h"

/* The last processor this thread may use, which is not where it most likely is; skips
 * where there is one only. */
static uint32_t last_allowed(void)
{
    cpu_set_t set;
    uint32_t last = 0;

    assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
    if (CPU_COUNT(&set) < 2) {
        print_message("one processor: a thread has nowhere to move to\n");
        skip();
    }
    for (uint32_t i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set))
            last = i;
    return last;
}

static void moving_leaves_the_thread_as_free_as_it_was(void **state)
{
    cpu_set_t before, after;
    uint32_t cpu = last_allowed();

    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    assert_int_equal(place_thread_move(cpu), 0);
    assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
}

static void a_processor_that_is_not_allowed_is_refused(void **state)
{
    cpu_set_t before, one, after;
    uint32_t last = last_allowed();

    assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(place_thread_move(last ? last - 1 : last + 1), -EINVAL);
    assert_int_equal(place_thread_move(CPU_SETSIZE), -EINVAL);
    assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
    assert_true(CPU_EQUAL(&one, &after));
    assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
}

struct other {
    const uint32_t *cpu;
    uint32_t went_to[2];
    sem_t said, go_on;
};

/* Pinned, so that where it is does not change between being asked and saying so. */
static void pin(uint32_t cpu)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof(one), &one);
}

static void *other_main(void *arg)
{
    struct other *o = arg;

    o->cpu = place_thread_cpu();
    for (unsigned i = 0; i < 2; i++) {
        pin(o->went_to[i]);
        sem_post(&o->said);
        sem_wait(&o->go_on);
    }
    return NULL;
}

static void another_thread_sees_where_a_thread_runs(void **state)
{
    struct other o = { 0 };
    cpu_set_t set;
    pthread_t thread;

    o.went_to[0] = last_allowed();
    assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
    while (!CPU_ISSET(o.went_to[1], &set))
        o.went_to[1]++;
    if (!place_thread_cpu()) {
        print_message("the C library keeps no rseq area\n");
        skip();
    }
    sem_init(&o.said, 0, 0);
    sem_init(&o.go_on, 0, 0);
    assert_int_equal(pthread_create(&thread, NULL, other_main, &o), 0);
    for (unsigned i = 0; i < 2; i++) {
        sem_wait(&o.said);
        assert_int_equal(load_relaxed(o.cpu), o.went_to[i]);
        sem_post(&o.go_on);
    }
    pthread_join(thread, NULL);
}

struct started {
    sem_t named;
    char name[16];
    sigset_t blocked;
    size_t stack_bytes;
};

static void *started_main(void *arg)
{
    struct started *s = arg;
    pthread_attr_t attr;

    sem_wait(&s->named);
    pthread_getname_np(pthread_self(), s->name, sizeof(s->name));
    pthread_sigmask(SIG_BLOCK, NULL, &s->blocked);
    pthread_getattr_np(pthread_self(), &attr);
    pthread_attr_getstacksize(&attr, &s->stack_bytes);
    pthread_attr_destroy(&attr);
    return NULL;
}

static void start(struct started *s, const char *name, int signal)
{
    pthread_t thread;

    sem_init(&s->named, 0, 0);
    assert_int_equal(place_thread_start(&thread, name, 512 * KIB, signal, started_main, s), 0);
    sem_post(&s->named);
    pthread_join(thread, NULL);
    sem_destroy(&s->named);
}

static void a_started_thread_is_as_it_was_asked_for(void **state)
{
    struct started s = { 0 };

    start(&s, "a name that is too long", SIGUSR2);
    assert_string_equal(s.name, "a name that is ");
    assert_false(sigismember(&s.blocked, SIGUSR2));
    assert_true(sigismember(&s.blocked, SIGTERM));
    assert_in_range(s.stack_bytes, 512 * KIB, MIB);
    start(&s, "deaf", 0);
    assert_string_equal(s.name, "deaf");
    assert_true(sigismember(&s.blocked, SIGUSR2));
    assert_true(sigismember(&s.blocked, SIGTERM));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moving_leaves_the_thread_as_free_as_it_was),
        cmocka_unit_test(a_processor_that_is_not_allowed_is_refused),
        cmocka_unit_test(another_thread_sees_where_a_thread_runs),
        cmocka_unit_test(a_started_thread_is_as_it_was_asked_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
