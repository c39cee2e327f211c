/* SPDX-License-Identifier: MIT */
/* A 32-bit program: system calls by int 0x80 and by the entry the kernel names in
 * the auxiliary vector (SYSENTER or SYSCALL, by vendor), six arguments, a signal
 * and its return, a segment of the GDT's thread area, a bad pointer.
 *
 * It is built without a C library, so that the machine that builds it needs none
 * for 32 bits; the numbers are Linux's for i386 (asm/unistd_32.h). */
typedef unsigned int u32;

enum {
    NR_EXIT = 1, NR_WRITE = 4, NR_GETPID = 20, NR_KILL = 37, NR_UNAME = 122,
    NR_RT_SIGRETURN = 173, NR_RT_SIGACTION = 174, NR_MMAP2 = 192, NR_SET_THREAD_AREA = 243,
};

#define AT_SYSINFO      32
#define SIGUSR1         10
#define SA_RESTORER     0x04000000u
#define SA_SIGINFO      4u
#define EFAULT          14
#define PROT_RW         3
#define MAP_PRIVATE_ANONYMOUS 0x22

static long call_int80(long nr, long a, long b, long c)
{
    long r;

    __asm__ volatile("int $0x80" : "=a"(r) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory");
    return r;
}

static long call_entry(u32 entry, long nr, long a, long b, long c)
{
    long r;

    __asm__ volatile("call *%1" : "=a"(r) : "r"(entry), "a"(nr), "b"(a), "c"(b), "d"(c)
                     : "memory");
    return r;
}

/* The sixth argument is in ebp, which the compiler may be using. */
static long mmap2(u32 length, u32 protection, u32 flags)
{
    long r;

    __asm__ volatile("push %%ebp\n\txor %%ebp, %%ebp\n\tint $0x80\n\tpop %%ebp"
                     : "=a"(r)
                     : "a"(NR_MMAP2), "b"(0), "c"(length), "d"(protection), "S"(flags), "D"(-1)
                     : "memory");
    return r;
}

static void leave(int status)
{
    for (;;)
        call_int80(NR_EXIT, status, 0, 0);
}

static void check_line(int as_it_should_be, const char *text)
{
    u32 length = 0;

    if (as_it_should_be)
        return;
    while (text[length])
        length++;
    call_int80(NR_WRITE, 1, (long)text, length);
    leave(1);
}
#define check(condition) check_line(condition, "compat32: not so: " #condition "\n")

struct signal_action {
    void (*handler)(int, void *, void *);
    u32 flags;
    void (*restorer)(void);
    u32 mask[2];
};

struct thread_area {
    u32 entry_number, base, limit;
    u32 flags;              /* bit fields of struct user_desc */
};
#define THREAD_AREA_32BIT_PAGES 0x51    /* seg_32bit, limit_in_pages, useable */

void restorer(void);
__asm__("restorer: mov $173, %eax\n\tint $0x80\n");

/* Written in the handler: through the stack, since this program must have no
 * relocations to care about. */
static volatile int nr_signals;

static void handler(int number, void *info, void *context)
{
    if (number == SIGUSR1)
        nr_signals++;
}

static void check_system_calls(u32 entry)
{
    char *page, utsname[6 * 65];
    long pid = call_int80(NR_GETPID, 0, 0, 0);
    int i;

    check(pid > 0);
    check(entry != 0);
    for (i = 0; i < 1000; i++) {
        check(call_int80(NR_GETPID, 0, 0, 0) == pid);
        check(call_entry(entry, NR_GETPID, 0, 0, 0) == pid);
    }
    check(call_entry(entry, NR_UNAME, (long)utsname, 0, 0) == 0);
    check(utsname[0] == 'L' && utsname[4] == 'x');
    page = (char *)mmap2(8192, PROT_RW, MAP_PRIVATE_ANONYMOUS);
    check((u32)page < 0xfffff000u);
    page[8191] = 1;
    check(call_int80(NR_WRITE, 1, 0x1000, 4) == -EFAULT);
    check(call_entry(entry, NR_WRITE, 1, 0x1000, 4) == -EFAULT);
    check(call_entry(entry, NR_UNAME, (long)0xffffd000u, 0, 0) == -EFAULT);
}

static void check_signal(u32 entry)
{
    struct signal_action a = { handler, SA_SIGINFO | SA_RESTORER, restorer, { 0, 0 } };
    long pid = call_int80(NR_GETPID, 0, 0, 0), r;

    /* four arguments: the last is the size of the mask */
    __asm__ volatile("int $0x80" : "=a"(r)
                     : "a"(NR_RT_SIGACTION), "b"(SIGUSR1), "c"(&a), "d"(0), "S"(8)
                     : "memory");
    check(r == 0);
    check(call_int80(NR_KILL, pid, SIGUSR1, 0) == 0);
    check(nr_signals == 1);
    check(call_entry(entry, NR_KILL, pid, SIGUSR1, 0) == 0);
    check(nr_signals == 2);
}

static void check_thread_area(void)
{
    static const u32 word = 0x600df00d;
    struct thread_area t = { ~0u, (u32)&word, 0xfffff, THREAD_AREA_32BIT_PAGES };
    u32 seen;

    check(call_int80(NR_SET_THREAD_AREA, (long)&t, 0, 0) == 0);
    __asm__ volatile("mov %w1, %%gs\n\tmov %%gs:0, %0" : "=r"(seen)
                     : "r"(t.entry_number * 8 + 3));
    check(seen == word);
    /* still there after another process had this processor */
    call_int80(158 /* sched_yield */, 0, 0, 0);
    __asm__ volatile("mov %%gs:0, %0" : "=r"(seen));
    check(seen == word);
}

/* argc, argv..., NULL, environment..., NULL, auxiliary vector */
__attribute__((noreturn, used)) static void program(u32 *stack)
{
    u32 *p = stack + 1 + stack[0] + 1, entry = 0;

    while (*p)
        p++;
    for (p++; *p; p += 2)
        if (*p == AT_SYSINFO)
            entry = p[1];
    check_system_calls(entry);
    check_signal(entry);
    check_thread_area();
    leave(0);
    __builtin_unreachable();
}

__asm__(".globl _start\n_start:\n\tmov %esp, %eax\n\tand $-16, %esp\n\tsub $12, %esp\n"
        "\tpush %eax\n\tcall program\n");
