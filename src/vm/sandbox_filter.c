/* SPDX-License-Identifier: MIT */
/* A program for the kernel's filter (seccomp(2)) is made of a table: two instructions for a plain
 * call, some more for one of whose arguments something is asked.  The table begins with what
 * serving a disk does all the time, since the program is run from the top for each call.
 *
 * io_uring does without these calls what it is asked for.  So the rings of such a process are
 * restricted to what a disk takes (blk/driver_file.c), and no others can be made when it is
 * sealed. */
#include "vm/sandbox_filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/types.h"

enum ask {
    ASK_NOTHING,
    ASK_NO_BITS,        /* of the argument may be set */
    ASK_ALL_BITS,       /* must be */
    ASK_EQUAL,
    ASK_EQUAL_PID,      /* the process's own number */
    REFUSE,             /* with the errno in value */
};

struct rule {
    int call;
    enum ask ask;
    unsigned arg;
    uint32_t value;
};

/* What serving takes. */
static const struct rule serve_rules[] = {
    { SYS_futex }, { SYS_io_uring_enter }, { SYS_write }, { SYS_read }, { SYS_ppoll },
    { SYS_preadv2 }, { SYS_pwritev2 }, { SYS_sched_yield }, { SYS_poll },
    { SYS_clock_gettime }, { SYS_clock_nanosleep }, { SYS_getcpu },
    /* the guest's process */
    { SYS_recvmsg }, { SYS_sendmsg }, { SYS_close }, { SYS_getppid },
    /* another size */
    { SYS_fstat }, { SYS_newfstatat }, { SYS_ftruncate },
    { SYS_ioctl, ASK_EQUAL, 1, (uint32_t)BLKGETSIZE64 },
    /* memory, of which none may become a program */
    { SYS_mmap, ASK_NO_BITS, 2, PROT_EXEC }, { SYS_mprotect, ASK_NO_BITS, 2, PROT_EXEC },
    { SYS_munmap }, { SYS_madvise }, { SYS_mremap }, { SYS_brk }, { SYS_getrandom },
    /* ends, good and bad */
    { SYS_exit }, { SYS_exit_group }, { SYS_rt_sigprocmask }, { SYS_rt_sigreturn },
    { SYS_rt_sigaction }, { SYS_restart_syscall }, { SYS_getpid }, { SYS_gettid },
    { SYS_tgkill, ASK_EQUAL_PID, 0 },
    /* how many processors there are, which an allocator may ask for */
    { SYS_sched_getaffinity }, { SYS_openat, REFUSE, 0, EACCES },
};

/* What beginning takes besides. */
static const struct rule begin_rules[] = {
    { SYS_io_uring_setup }, { SYS_io_uring_register }, { SYS_eventfd2 }, { SYS_pread64 },
    { SYS_fcntl },
    { SYS_clone, ASK_ALL_BITS, 0, CLONE_THREAD }, { SYS_clone3, REFUSE, 0, ENOSYS },
    { SYS_set_robust_list }, { SYS_rseq }, { SYS_sched_setaffinity }, { SYS_seccomp },
    { SYS_prctl, ASK_EQUAL, 0, PR_SET_NAME }, { SYS_prctl, ASK_EQUAL, 0, PR_SET_PDEATHSIG },
};

#define INSNS_PER_RULE 6u
#define INSNS_MAX (INSNS_PER_RULE * (array_size(serve_rules) + array_size(begin_rules)) + 8)

struct program {
    unsigned nr;
    struct sock_filter insn[INSNS_MAX];
};

static void add(struct program *p, struct sock_filter insn)
{
    p->insn[p->nr++] = insn;
}

static void load(struct program *p, size_t offset)
{
    add(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void give(struct program *p, uint32_t verdict)
{
    add(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, verdict));
}

static void jump(struct program *p, uint16_t test, uint32_t value, uint8_t yes, uint8_t no)
{
    add(p, (struct sock_filter)BPF_JUMP((uint16_t)(BPF_JMP | test | BPF_K), value, yes, no));
}

/* Falls through, with the call's number loaded, where the rule does not apply. */
static void rule_add(struct program *p, const struct rule *r)
{
    /* the low half of the argument: this is a little-endian machine */
    size_t arg = offsetof(struct seccomp_data, args) + r->arg * sizeof(uint64_t);

    if (r->ask == ASK_NOTHING || r->ask == REFUSE) {
        jump(p, BPF_JEQ, (uint32_t)r->call, 0, 1);
        give(p, r->ask == REFUSE ? SECCOMP_RET_ERRNO | r->value : SECCOMP_RET_ALLOW);
        return;
    }
    jump(p, BPF_JEQ, (uint32_t)r->call, 0, r->ask == ASK_ALL_BITS ? 5 : 4);
    load(p, arg);
    if (r->ask == ASK_ALL_BITS) {
        add(p, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, r->value));
        jump(p, BPF_JEQ, r->value, 0, 1);
    } else if (r->ask == ASK_NO_BITS) {
        jump(p, BPF_JSET, r->value, 1, 0);
    } else {
        jump(p, BPF_JEQ, r->ask == ASK_EQUAL_PID ? (uint32_t)getpid() : r->value, 0, 1);
    }
    give(p, SECCOMP_RET_ALLOW);
    load(p, offsetof(struct seccomp_data, nr));
}

static void rules_add(struct program *p, const struct rule *rules, size_t nr)
{
    for (size_t i = 0; i < nr; i++)
        rule_add(p, &rules[i]);
}

int sandbox_filter_set(enum sandbox_filter which, struct err *e)
{
    struct program p = { .nr = 0 };
    struct sock_fprog prog = { .filter = p.insn };
    long rc;

    load(&p, offsetof(struct seccomp_data, arch));
    jump(&p, BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0);
    give(&p, SECCOMP_RET_KILL_PROCESS);
    /* the numbers of the x32 ABI have a bit that none of the rules' has */
    load(&p, offsetof(struct seccomp_data, nr));
    rules_add(&p, serve_rules, array_size(serve_rules));
    if (which == SANDBOX_FILTER_BEGIN)
        rules_add(&p, begin_rules, array_size(begin_rules));
    give(&p, SECCOMP_RET_KILL_PROCESS);
    prog.len = (unsigned short)p.nr;
    rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog);
    if (!rc)
        return 0;
    /* above 0: the number of a thread that has other filters */
    return err_set(e, rc < 0 ? errno : EBUSY, "the system calls of a process that serves a disk "
                   "cannot be filtered: %s", strerror(rc < 0 ? errno : EBUSY));
}
