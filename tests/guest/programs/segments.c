/* SPDX-License-Identifier: MIT */
/* Segments of a local descriptor table: made, used, kept over a switch to another
 * process, inherited, and taken away from a thread that is using one. */
#include <asm/ldt.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

#define SELECTOR(entry) ((entry) << 3 | 7)
#define ENTRY 1

static int ldt_write(unsigned entry, const uint32_t *base, bool empty)
{
    struct user_desc d = {
        .entry_number = entry, .base_addr = (unsigned)(uintptr_t)base, .limit = 0xfffff,
        .seg_32bit = 1, .limit_in_pages = 1, .useable = 1,
    };

    if (empty) {
        d = (struct user_desc){ .entry_number = entry, .read_exec_only = 1,
                                .seg_not_present = 1 };
    }
    return (int)syscall(SYS_modify_ldt, 0x11, &d, sizeof(d));
}

/* GS, since FS is the C library's. */
static uint32_t through_segment(unsigned selector)
{
    uint32_t seen;

    __asm__ volatile("mov %%gs, %%ecx\n\tmov %w1, %%gs\n\tmov %%gs:0, %0\n\tmov %%ecx, %%gs"
                     : "=r"(seen) : "r"(selector) : "ecx", "memory");
    return seen;
}

static sigjmp_buf out;

static void jump_out(int number)
{
    siglongjmp(out, 1);
}

static bool segment_loads(unsigned selector)
{
    if (sigsetjmp(out, 1))
        return false;
    through_segment(selector);
    return true;
}

/* ---- taken away from under a thread ---- */

struct user_of_segment {
    volatile bool loaded, gone;
    bool alive;
};

static void *use_segment(void *arg)
{
    struct user_of_segment *u = arg;
    unsigned selector = SELECTOR(ENTRY);

    __asm__ volatile("mov %w0, %%gs" : : "r"(selector));
    u->loaded = true;
    /* each of these may put the thread aside and bring it back with a selector
     * that no longer loads */
    while (!u->gone)
        sched_yield();
    for (int i = 0; i < 200; i++)
        sched_yield();
    u->alive = true;
    return NULL;
}

static void check_taken_away(const uint32_t *word)
{
    struct user_of_segment u = { 0 };
    pthread_t thread;

    check(ldt_write(ENTRY, word, false) == 0);
    check(pthread_create(&thread, NULL, use_segment, &u) == 0);
    while (!u.loaded)
        sched_yield();
    check(ldt_write(ENTRY, word, true) == 0);
    u.gone = true;
    check(pthread_join(thread, NULL) == 0);
    check(u.alive);
}

int main(void)
{
    uint32_t *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    int status, i;
    pid_t pid;

    check(word != MAP_FAILED);
    *word = 0x600df00d;
    signal(SIGSEGV, jump_out);
    check(!segment_loads(SELECTOR(ENTRY)));
    if (ldt_write(ENTRY, word, false) < 0 && errno == ENOSYS)
        return skip("the kernel has no modify_ldt");
    for (i = 0; i < 100; i++) {
        check(through_segment(SELECTOR(ENTRY)) == 0x600df00d);
        sched_yield();
    }
    pid = fork();
    check(pid >= 0);
    if (pid == 0)
        _exit(through_segment(SELECTOR(ENTRY)) != 0x600df00d);
    check(waitpid(pid, &status, 0) == pid && status == 0);

    /* a table that spans pages */
    check(ldt_write(8191, word, false) == 0);
    check(through_segment(SELECTOR(8191)) == 0x600df00d);
    check(ldt_write(8191, word, true) == 0);
    check(!segment_loads(SELECTOR(8191)));
    check(through_segment(SELECTOR(ENTRY)) == 0x600df00d);
    check_taken_away(word);
    check(!segment_loads(SELECTOR(ENTRY)));
    return 0;
}
