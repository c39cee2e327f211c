/* SPDX-License-Identifier: MIT */
/* Pointers and frames that a program should not have: the kernel answers -EFAULT
 * or SIGSEGV to this program, and lives.
 *
 *   pointers   system calls get addresses that are nobody's, the kernel's, or no
 *              addresses at all
 *   frames     a signal handler returns to segments and addresses that the
 *              processor refuses, which it finds out in the kernel's last
 *              instruction: under Xen that comes back as the program's fault
 *              or as one in the hypercall
 *   probes     no address of the kernel's half can be read from a program
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "program.h"

static const uint64_t bad[] = {
    0, 8, 0x1000,                       /* nothing is there */
    0x00007ffffffff000, 0x00007fffffffffff,     /* the last bytes of the user half */
    0x0000800000000000, 0x8000000000000000, 0xfffe000000000000,     /* not canonical */
    0xffff800000000000,                 /* the table of machine addresses */
    0xffff808000000000, 0xffff83ffffffffff,     /* Xen's own */
    0xffff888000000000,                 /* the direct map */
    0xffffc90000000000, 0xffffffff81000000,     /* vmalloc, the kernel's text */
    0xfffffffffffff000, 0xffffffffffffffff,
};
#define NR_BAD (sizeof(bad) / sizeof(bad[0]))

static void check_pointers(void)
{
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fds[2], null = open("/proc/self/cmdline", O_RDONLY);
    struct iovec iov;
    size_t i;

    check(page != MAP_FAILED && null >= 0 && pipe(fds) == 0);
    check(munmap(page + 4096, 4096) == 0);
    for (i = 0; i < NR_BAD; i++) {
        void *p = (void *)bad[i];

        check(syscall(SYS_write, fds[1], p, 4) == -1 && errno == EFAULT);
        check(syscall(SYS_pread64, null, p, 4, 0) == -1 && errno == EFAULT);
        /* NULL means something else to these two */
        if (p) {
            check(syscall(SYS_gettimeofday, p, NULL) == -1 && errno == EFAULT);
            check(syscall(SYS_rt_sigaction, SIGUSR1, p, NULL, 8) == -1 && errno == EFAULT);
        }
        check(syscall(SYS_open, p, O_RDONLY) == -1 && errno == EFAULT);
        check(syscall(SYS_uname, p) == -1 && errno == EFAULT);
        check(syscall(SYS_stat, "/", p) == -1 && errno == EFAULT);
        check(syscall(SYS_execve, p, p, p) == -1 && errno == EFAULT);
        iov = (struct iovec){ p, 4 };
        check(syscall(SYS_writev, fds[1], &iov, 1) == -1 && errno == EFAULT);
        check(syscall(SYS_writev, fds[1], p, 1) == -1 && errno == EFAULT);
    }
    /* half good: what could be copied was */
    memcpy(page + 4092, "abcd", 4);
    check(write(fds[1], page + 4092, 8) == 4 || errno == EFAULT);
    check(mprotect(page, 4096, PROT_NONE) == 0);
    check(write(fds[1], page, 4) == -1 && errno == EFAULT);
    check(mprotect(page, 4096, PROT_READ) == 0);
    check(syscall(SYS_uname, page) == -1 && errno == EFAULT);
}

/* ---- frames ---- */

struct frame {
    const char *name;
    int reg;
    uint64_t value;
};

#define CS_GS_FS_SS(cs, gs, fs, ss) \
    ((uint64_t)(ss) << 48 | (uint64_t)(fs) << 32 | (uint64_t)(gs) << 16 | (cs))

static const struct frame frames[] = {
    { "a return address that is not canonical", REG_RIP, 0x0000800000000000 },
    { "a return address in the kernel",         REG_RIP, 0xffffffff81000000 },
    { "a return address in Xen's hole",         REG_RIP, 0xffff800000000000 },
    { "a stack that is not canonical",          REG_RSP, 0x0000800000000000 },
    { "a code segment beyond the table",        REG_CSGSFS, CS_GS_FS_SS(0xfffb, 0, 0, 0x2b) },
    { "a code segment that is data",            REG_CSGSFS, CS_GS_FS_SS(0x2b, 0, 0, 0x2b) },
    { "a code segment of an empty LDT",         REG_CSGSFS, CS_GS_FS_SS(0x07, 0, 0, 0x2b) },
    { "no code segment",                        REG_CSGSFS, CS_GS_FS_SS(0x03, 0, 0, 0x2b) },
    { "a stack segment that is code",           REG_CSGSFS, CS_GS_FS_SS(0x33, 0, 0, 0x33) },
    { "a stack segment of an empty LDT",        REG_CSGSFS, CS_GS_FS_SS(0x33, 0, 0, 0x0f) },
};

/* Where the handler finds the frame it is to make; a child sets it, once. */
static const struct frame *wanted;

static void spoil(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    /* UC_STRICT_RESTORE_SS: or the kernel mends the stack segment */
    uc->uc_flags |= 4;
    uc->uc_mcontext.gregs[wanted->reg] = (greg_t)wanted->value;
}

static void check_frames(void)
{
    struct sigaction a = { .sa_sigaction = spoil, .sa_flags = SA_SIGINFO };
    size_t i, round;

    for (round = 0; round < 20; round++)
        for (i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
            pid_t pid = fork();
            int status;

            check(pid >= 0);
            if (pid == 0) {
                wanted = &frames[i];
                sigaction(SIGUSR1, &a, NULL);
                raise(SIGUSR1);
                /* a stack that cannot be used is noticed at its next use */
                __asm__ volatile("push %rax\n\tpop %rax");
                _exit(0);
            }
            check(waitpid(pid, &status, 0) == pid);
            check_said(WIFSIGNALED(status) &&
                       (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS),
                       "%s: status %x\n", frames[i].name, status);
        }
}

/* ---- probes ---- */

static sigjmp_buf out;

static void jump_out(int number)
{
    siglongjmp(out, 1);
}

static bool readable(uint64_t address)
{
    if (sigsetjmp(out, 1))
        return false;
    (void)*(volatile char *)address;
    return true;
}

static void check_probes(void)
{
    static const uint64_t more[] = {
        0xffff800000000000, 0xffff808000000000, 0xffff830000000000,
        0xffff888000000000, 0xffff888001000000, 0xffffffff80000000,
        0xffffffff81000000, 0xffffffff82000000, 0xffffffffff600000,
    };
    uint64_t slot, offset;
    size_t i;

    signal(SIGSEGV, jump_out);
    signal(SIGBUS, jump_out);
    for (slot = 256; slot < 512; slot++) {
        uint64_t base = 0xffff000000000000 | slot << 39;

        for (offset = 0; offset < UINT64_C(1) << 39; offset = offset ? offset << 1 : 4096)
            check_said(!readable(base + offset), "%lx can be read\n", base + offset);
    }
    for (i = 0; i < sizeof(more) / sizeof(more[0]); i++)
        for (offset = 0; offset < 64 << 12; offset += 4096)
            check_said(!readable(more[i] + offset), "%lx can be read\n", more[i] + offset);
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "pointers"))
        check_pointers();
    else if (argc == 2 && !strcmp(argv[1], "frames"))
        check_frames();
    else if (argc == 2 && !strcmp(argv[1], "probes"))
        check_probes();
    else
        check(!"called as badptr pointers|frames|probes");
    return 0;
}
