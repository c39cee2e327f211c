/* SPDX-License-Identifier: MIT */
/* A debugger and its child: memory and registers read and written, stops at
 * system calls, single steps, a watchpoint in the debug registers. */
#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

#define NR_STEPS 1000

static volatile long word = 1;

static pid_t child_start(void (*body)(void))
{
    pid_t pid = fork();
    int status;

    check(pid >= 0);
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(100);
        raise(SIGSTOP);
        body();
        _exit(101);
    }
    check(waitpid(pid, &status, 0) == pid);
    check(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    return pid;
}

static int next_stop(pid_t pid, int request)
{
    int status;

    check(ptrace(request, pid, NULL, NULL) == 0);
    check(waitpid(pid, &status, 0) == pid);
    return status;
}

static void child_end(pid_t pid)
{
    check(kill(pid, SIGKILL) == 0);
    check(waitpid(pid, NULL, 0) == pid);
}

/* ---- memory, registers, system calls ---- */

static void exits_with_word(void)
{
    syscall(SYS_getppid);
    _exit((int)word);
}

static void check_syscalls(void)
{
    pid_t pid = child_start(exits_with_word);
    struct user_regs_struct regs;
    int status;

    check(ptrace(PTRACE_PEEKDATA, pid, &word, NULL) == 1);
    check(ptrace(PTRACE_POKEDATA, pid, &word, 42) == 0);
    do {
        status = next_stop(pid, PTRACE_SYSCALL);
        check(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
        check(ptrace(PTRACE_GETREGS, pid, NULL, &regs) == 0);
    } while (regs.orig_rax != SYS_getppid);
    check((long)regs.rax == -ENOSYS);
    /* another call in its place */
    regs.orig_rax = SYS_getpid;
    check(ptrace(PTRACE_SETREGS, pid, NULL, &regs) == 0);
    status = next_stop(pid, PTRACE_SYSCALL);
    check(ptrace(PTRACE_GETREGS, pid, NULL, &regs) == 0);
    check((pid_t)regs.rax == pid);
    status = next_stop(pid, PTRACE_CONT);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

/* ---- single steps ---- */

/* 2 * NR_STEPS instructions after the first; system calls among them are stepped
 * over as one. */
static void counts(void)
{
    __asm__ volatile("mov %0, %%ecx\n"
                     "1: dec %%ecx\n\tjnz 1b\n\t"
                     "mov %1, %%eax\n\tsyscall\n\tnop\n\tud2"
                     : : "i"(NR_STEPS), "i"(SYS_getppid) : "rax", "rcx", "r11", "memory");
}

static void check_steps(void)
{
    pid_t pid = child_start(counts);
    struct user_regs_struct regs;
    unsigned nr_loops = 0, nr_steps = 0;
    uint16_t instruction;
    int status;

    for (;;) {
        check(ptrace(PTRACE_GETREGS, pid, NULL, &regs) == 0);
        instruction = (uint16_t)ptrace(PTRACE_PEEKTEXT, pid, (void *)regs.rip, NULL);
        if (instruction == 0x0b0f)          /* ud2 */
            break;
        nr_loops += instruction == 0xc9ff;  /* dec %ecx */
        check(++nr_steps < 100 * NR_STEPS);
        status = next_stop(pid, PTRACE_SINGLESTEP);
        check(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    }
    check(nr_loops == NR_STEPS);
    child_end(pid);
}

/* ---- a watchpoint ---- */

static void writes_word(void)
{
    for (long i = 0; i < 1000; i++)
        if (i == 500)
            word = i;
    _exit(0);
}

static void check_watchpoint(void)
{
    pid_t pid = child_start(writes_word);
    const size_t dr = offsetof(struct user, u_debugreg);
    const long on_write_8_bytes = 1 | 1 << 16 | 2 << 18;
    long dr6;
    int status;

    if (ptrace(PTRACE_POKEUSER, pid, dr, &word) < 0 ||
        ptrace(PTRACE_POKEUSER, pid, dr + 7 * sizeof(long), on_write_8_bytes) < 0)
        check(!"the debug registers can be set");
    status = next_stop(pid, PTRACE_CONT);
    check(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    check(ptrace(PTRACE_PEEKDATA, pid, &word, NULL) == 500);
    dr6 = ptrace(PTRACE_PEEKUSER, pid, dr + 6 * sizeof(long), NULL);
    check(dr6 & 1);
    check(ptrace(PTRACE_POKEUSER, pid, dr + 7 * sizeof(long), 0) == 0);
    status = next_stop(pid, PTRACE_CONT);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "syscalls"))
        check_syscalls();
    else if (argc == 2 && !strcmp(argv[1], "steps"))
        check_steps();
    else if (argc == 2 && !strcmp(argv[1], "watchpoint"))
        check_watchpoint();
    else
        check(!"called as ptrace syscalls|steps|watchpoint");
    return 0;
}
