/* SPDX-License-Identifier: MIT */
/* What a guest's kernel does for its programs, one thing at a time, for bench/hypercalls.py:
 *
 *   kernel-calls SECONDS
 *
 * Each call is made over and over for SECONDS by a process of its own on the first virtual
 * CPU.  Three lines for each go to the program that started the guest: "@@ mark 1 NAME N" and
 * "@@ mark 2 NAME N", between which it was made the difference of the two N times, and
 * "@@ call NAME NS", the median time of one.  "none" makes no call.  What is Xen's is left out
 * where there is none; hypercalls are xen_calls.c's, as newer Linux lets no program of a guest's
 * make them. */
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/sys/evtchn.h>

#define NS_PER_S     1000000000ull
#define SLICE_NS     20000000u      /* the median is that of the times of a call in such */
#define SLICES_MAX   1000u
#define WARM_UP_NS   200000000u
#define FAULT_PAGES  256u
#define BATCH        64u            /* of what is shorter than to read the clock */

/* One kind of call; run() makes some and says how many. */
struct call {
    const char *name;
    void (*begin)(void);            /* NULL: nothing to prepare */
    unsigned (*run)(void);
    bool of_xen;                    /* needs an event channel */
};

/* A measuring process has one call, so what it needs for that is one of these. */
static struct {
    int in, out;                    /* of the partner it wakes, or of the event channel */
    evtchn_port_t port;
    uint8_t *pages;
} self;

static void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    printf("@@ failed ");
    vprintf(format, args);
    printf(": %s\n", strerror(errno));
    va_end(args);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set))
        die("virtual CPU %d", cpu);
}

/* ---- programs ---- */

static unsigned none(void)
{
    for (unsigned i = 0; i < BATCH; i++)
        __asm__ volatile("" ::: "memory");
    return BATCH;
}

static unsigned system_call(void)
{
    for (unsigned i = 0; i < BATCH; i++)
        syscall(SYS_getppid);
    return BATCH;
}

static volatile sig_atomic_t nr_signals;

static void on_signal(int number)
{
    (void)number;
    nr_signals++;
}

static void signal_begin(void)
{
    if (signal(SIGUSR1, on_signal) == SIG_ERR)
        die("signal");
}

static unsigned signal_self(void)
{
    raise(SIGUSR1);
    return 1;
}

static void fault_begin(void)
{
    self.pages = mmap(NULL, FAULT_PAGES * 4096, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (self.pages == MAP_FAILED || madvise(self.pages, FAULT_PAGES * 4096, MADV_NOHUGEPAGE))
        die("mmap");
}

static unsigned page_fault(void)
{
    for (unsigned i = 0; i < FAULT_PAGES; i++)
        *(volatile uint8_t *)(self.pages + i * 4096) = 1;
    if (madvise(self.pages, FAULT_PAGES * 4096, MADV_DONTNEED))
        die("madvise");
    return FAULT_PAGES;
}

static unsigned map_unmap(void)
{
    volatile uint8_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                               -1, 0);

    if (p == MAP_FAILED)
        die("mmap");
    *p = 1;
    munmap((void *)p, 4096);
    return 1;
}

static void child_await(pid_t child)
{
    int status;

    if (child < 0 || waitpid(child, &status, 0) != child || status)
        die("a child failed");
}

static unsigned fork_exit(void)
{
    pid_t child = fork();

    if (!child)
        _exit(0);
    child_await(child);
    return 1;
}

static unsigned fork_exec(void)
{
    pid_t child = fork();

    if (!child) {
        execl("/proc/self/exe", "kernel-calls", (char *)NULL);
        _exit(127);
    }
    child_await(child);
    return 1;
}

/* A partner that answers each byte. */
static void partner_begin(int cpu)
{
    int there[2], back[2];

    if (pipe(there) || pipe(back))
        die("pipe");
    self.in = back[0];
    self.out = there[1];
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(cpu);
    for (char byte; read(there[0], &byte, 1) == 1; )
        if (write(back[1], &byte, 1) != 1)
            break;
    _exit(0);
}

static void switch_begin(void)
{
    partner_begin(0);
}

static void wake_begin(void)
{
    partner_begin(1);
}

/* There and back: two switches, or two wake-ups. */
static unsigned partner_ask(void)
{
    char byte = 0;

    if (write(self.out, &byte, 1) != 1 || read(self.in, &byte, 1) != 1)
        die("the partner ended");
    return 2;
}

static void *spin(void *arg)
{
    pin(1);
    for (;;)
        __atomic_store_n((bool *)arg, true, __ATOMIC_RELEASE);
    return NULL;
}

/* A barrier of all threads interrupts the other virtual CPU, and waits for it. */
static void ipi_begin(void)
{
    static bool runs;
    pthread_t thread;

    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) ||
        pthread_create(&thread, NULL, spin, &runs))
        die("membarrier");
    while (!__atomic_load_n(&runs, __ATOMIC_ACQUIRE))
        sched_yield();
}

static unsigned ipi(void)
{
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0))
        die("membarrier");
    return 1;
}

/* A channel of the guest's to itself. */
static void event_begin(void)
{
    struct ioctl_evtchn_bind_unbound_port unbound = { .remote_domain = DOMID_SELF };
    struct ioctl_evtchn_bind_interdomain bind = { .remote_domain = DOMID_SELF };

    self.in = open("/dev/xen/evtchn", O_RDWR | O_CLOEXEC);
    self.out = open("/dev/xen/evtchn", O_RDWR | O_CLOEXEC);
    if (self.in < 0 || self.out < 0)
        die("/dev/xen/evtchn");
    int port = ioctl(self.in, IOCTL_EVTCHN_BIND_UNBOUND_PORT, &unbound);
    if (port < 0)
        die("an event channel");
    bind.remote_port = (unsigned)port;
    port = ioctl(self.out, IOCTL_EVTCHN_BIND_INTERDOMAIN, &bind);
    if (port < 0)
        die("an event channel");
    self.port = (evtchn_port_t)port;
}

/* Sent, taken by the kernel, read and unmasked again. */
static unsigned event_send(void)
{
    struct ioctl_evtchn_notify notify = { .port = self.port };
    evtchn_port_t got;

    if (ioctl(self.out, IOCTL_EVTCHN_NOTIFY, &notify) ||
        read(self.in, &got, sizeof(got)) != sizeof(got) ||
        write(self.in, &got, sizeof(got)) != sizeof(got))
        die("an event");
    return 1;
}

static const struct call calls[] = {
    { "none", NULL, none, false },
    { "system-call", NULL, system_call, false },
    { "signal", signal_begin, signal_self, false },
    { "page-fault", fault_begin, page_fault, false },
    { "mmap-munmap", NULL, map_unmap, false },
    { "fork-exit", NULL, fork_exit, false },
    { "fork-exec", NULL, fork_exec, false },
    { "context-switch", switch_begin, partner_ask, false },
    { "wake-up", wake_begin, partner_ask, false },
    { "ipi", ipi_begin, ipi, false },
    { "event-send", event_begin, event_send, true },
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Returns how often it made the call. */
static uint64_t run_for(const struct call *call, uint64_t ns, double *slices, unsigned *nr_slices)
{
    uint64_t all = 0, begun = now_ns(), t = begun;

    while (t - begun < ns) {
        uint64_t n = 0, from = t;

        do {
            n += call->run();
            t = now_ns();
        } while (t - from < SLICE_NS);
        all += n;
        if (*nr_slices < SLICES_MAX)
            slices[(*nr_slices)++] = (double)(t - from) / (double)n;
    }
    return all;
}

static void measure(const struct call *call, unsigned seconds)
{
    static double slices[SLICES_MAX];
    unsigned nr = 0;

    pin(0);
    if (call->begin)
        call->begin();
    uint64_t before = run_for(call, WARM_UP_NS, slices, &nr);
    nr = 0;
    printf("@@ mark 1 %s %ju\n", call->name, (uintmax_t)before);
    uint64_t n = run_for(call, seconds * NS_PER_S, slices, &nr);
    printf("@@ mark 2 %s %ju\n", call->name, (uintmax_t)(before + n));
    qsort(slices, nr, sizeof(slices[0]), by_value);
    printf("@@ call %s %.1f\n", call->name, slices[nr / 2]);
}

int main(int argc, char **argv)
{
    bool xen = !access("/dev/xen/evtchn", F_OK);

    if (argc < 2)                   /* what fork-exec starts */
        return 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        if (calls[i].of_xen && !xen)
            continue;
        pid_t child = fork();
        if (!child) {
            measure(&calls[i], (unsigned)atoi(argv[1]));
            exit(0);
        }
        child_await(child);
    }
    return 0;
}
