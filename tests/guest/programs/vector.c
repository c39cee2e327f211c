/* SPDX-License-Identifier: MIT */
/* The processor's wide registers belong to each thread: several threads on one
 * processor hold values of their own in all AVX registers over many switches,
 * signals and page faults. */
#include <cpuid.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "program.h"

#define NR_THREADS 4
#define NR_ROUNDS 500

static bool avx_is_there(void)
{
    unsigned a, b, c, d, xcr0, high;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
        return false;
    __asm__("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    return (xcr0 & 6) == 6;
}

/* Loads 16 registers from values, lets others run (a system call, which may not
 * touch them), stores them to seen. */
static void hold(const double values[16][4], double seen[16][4])
{
    long nr = 24;   /* sched_yield */

#define LOAD(n)  "vmovupd " #n "*32(%1), %%ymm" #n "\n\t"
#define STORE(n) "vmovupd %%ymm" #n ", " #n "*32(%2)\n\t"
    __asm__ volatile(
        LOAD(0) LOAD(1) LOAD(2) LOAD(3) LOAD(4) LOAD(5) LOAD(6) LOAD(7)
        LOAD(8) LOAD(9) LOAD(10) LOAD(11) LOAD(12) LOAD(13) LOAD(14) LOAD(15)
        "syscall\n\t"
        STORE(0) STORE(1) STORE(2) STORE(3) STORE(4) STORE(5) STORE(6) STORE(7)
        STORE(8) STORE(9) STORE(10) STORE(11) STORE(12) STORE(13) STORE(14) STORE(15)
        : "+a"(nr) : "r"(values), "r"(seen)
        : "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
          "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

static void scramble(int number)
{
    __asm__ volatile("vxorpd %%ymm0, %%ymm0, %%ymm0\n\tvxorpd %%ymm15, %%ymm15, %%ymm15"
                     : : : "xmm0", "xmm15");
}

static void *keep(void *arg)
{
    double values[16][4], seen[16][4];
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int i, j;

    check(page != MAP_FAILED);
    for (i = 0; i < NR_ROUNDS; i++) {
        for (j = 0; j < 64; j++)
            values[j / 4][j % 4] = (double)(long)arg * 1e6 + i * 64 + j;
        hold(values, seen);
        check(!memcmp(values, seen, sizeof(values)));
        if (i % 10 == 0) {
            check(raise(SIGUSR1) == 0);
            check(madvise(page, 4096, MADV_DONTNEED) == 0);
            page[0] = 1;
        }
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[NR_THREADS];
    cpu_set_t one;
    long i;

    if (!avx_is_there())
        return skip("the processor offers no AVX");
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    check(sched_setaffinity(0, sizeof(one), &one) == 0);
    signal(SIGUSR1, scramble);
    for (i = 0; i < NR_THREADS; i++)
        check(pthread_create(&threads[i], NULL, keep, (void *)i) == 0);
    for (i = 0; i < NR_THREADS; i++)
        check(pthread_join(threads[i], NULL) == 0);
    return 0;
}
