/* SPDX-License-Identifier: MIT */
/* What holds between processors:
 *
 *   wakeups   two processes on different processors wake each other, many times,
 *             and none of the wake-ups is lost
 *   clock     time never runs backwards, not even from one processor to another
 */
#include <sched.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "program.h"

#define NR_ROUND_TRIPS 5000
#define NR_MOVES 2000

static void move_to(int cpu)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    check(sched_setaffinity(0, sizeof(one), &one) == 0);
}

static void check_wakeups(void)
{
    int there[2], back[2], status, i;
    char byte = 0;
    pid_t pid;

    check(pipe(there) == 0 && pipe(back) == 0);
    pid = fork();
    check(pid >= 0);
    if (pid == 0) {
        move_to(1);
        for (i = 0; i < NR_ROUND_TRIPS; i++)
            if (read(there[0], &byte, 1) != 1 || write(back[1], &byte, 1) != 1)
                _exit(1);
        _exit(0);
    }
    move_to(0);
    for (i = 0; i < NR_ROUND_TRIPS; i++) {
        char sent = (char)i;

        check(write(there[1], &sent, 1) == 1);
        check(read(back[0], &byte, 1) == 1 && byte == sent);
    }
    check(waitpid(pid, &status, 0) == pid && status == 0);
}

static int64_t now_ns(void)
{
    struct timespec ts;

    check(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static void check_clock(int nr_cpus)
{
    int64_t before = now_ns(), after;

    for (int i = 0; i < NR_MOVES; i++) {
        move_to(i % nr_cpus);
        after = now_ns();
        check_said(after >= before, "from processor %d to %d: %ld ns back\n",
                   (i + nr_cpus - 1) % nr_cpus, i % nr_cpus, (long)(before - after));
        before = after;
    }
}

int main(int argc, char **argv)
{
    int nr_cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);

    if (nr_cpus < 2)
        return skip("there is one processor");
    if (argc == 2 && !strcmp(argv[1], "wakeups"))
        check_wakeups();
    else if (argc == 2 && !strcmp(argv[1], "clock"))
        check_clock(nr_cpus);
    else
        check(!"called as processors wakeups|clock");
    return 0;
}
