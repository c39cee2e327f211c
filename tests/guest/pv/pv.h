/* SPDX-License-Identifier: MIT */
/* What the small PV kernels of this folder are written with: each is one program
 * that tries one side of the interface, says what was wrong on its console, ends
 * with a line PASS or FAIL and powers off.  No more than Xen promises a 64-bit PV
 * guest is used: they are meant to pass on Xen too. */
#ifndef TESTS_GUEST_PV_PV_H
#define TESTS_GUEST_PV_PV_H

#include "base/types.h"

#include <xen/errno.h>
#include <xen/event_channel.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/xen.h>

/* ---- the program ---- */

/* The test; what it returns to powers off. */
void test_main(void);

extern const struct start_info *pv_start_info;
extern struct shared_info *pv_shared;   /* mapped before test_main() */

/* %s %u %x %d %lu %lx %ld %% */
void pv_print(const char *fmt, ...);
void pv_fail(const char *file, unsigned line, const char *fmt, ...);
void pv_finish(void) __attribute__((noreturn));
void pv_shutdown(unsigned reason) __attribute__((noreturn));

/* The command line begins with it. */
bool pv_word(const char *word);

#define CHECK(cond) \
    ((cond) ? (void)0 : pv_fail(__FILE__, __LINE__, "%s is not so", #cond))
#define CHECK_EQ(got, want) \
    do { \
        int64_t got_ = (int64_t)(got), want_ = (int64_t)(want); \
        if (got_ != want_) \
            pv_fail(__FILE__, __LINE__, "%s is %ld (%lx), not %ld (%lx)", #got, got_, got_, \
                    want_, want_); \
    } while (0)

/* ---- hypercalls ---- */

static inline int64_t pv_hypercall(uint64_t nr, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                                   uint64_t a5)
{
    register uint64_t r10 __asm__("r10") = a4;
    register uint64_t r8 __asm__("r8") = a5;
    int64_t rc;

    __asm__ volatile("syscall" : "=a"(rc), "+D"(a1), "+S"(a2), "+d"(a3), "+r"(r10), "+r"(r8)
                     : "0"(nr) : "rcx", "r11", "memory");
    return rc;
}

#define PV_CALL(name, ...) PV_CALL_(__HYPERVISOR_##name, __VA_ARGS__, 0, 0, 0, 0, 0)
#define PV_CALL_(nr, a, b, c, d, e, ...) \
    pv_hypercall(nr, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e))

extern uint8_t hypercall_page[];

/* As the other domains know us. */
domid_t pv_own_domid(void);

/* EVTCHNOP_send, _unmask, _close: Xen's answer. */
int64_t pv_evtchn_send(uint32_t port);
int64_t pv_evtchn_unmask(uint32_t port);
int64_t pv_evtchn_close(uint32_t port);

/* ---- privileged instructions ---- */

/* CPUID by Xen's prefix, subleaf 0: eax, ebx, ecx, edx. */
static inline void pv_cpuid(uint32_t leaf, uint32_t r[4])
{
    __asm__ volatile("ud2a; .ascii \"xen\"; cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "0"(leaf), "2"(0));
}

static inline uint64_t pv_rdmsr(uint32_t msr)
{
    uint32_t lo, hi;

    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return lo | (uint64_t)hi << 32;
}

static inline void pv_wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

/* ---- traps ---- */

struct pv_regs {
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    uint64_t vector;                    /* or PV_SYSCALL ... */
    uint64_t frame_rcx, frame_r11;
    uint64_t error;                     /* 0 where there is none */
    uint64_t rip, cs, rflags, rsp, ss;  /* cs: bits 32 to 39, the event mask */
};

#define PV_SYSCALL   0x100
#define PV_SYSCALL32 0x101
#define PV_SYSENTER  0x102
#define PV_EVENT     0x103
#define PV_NMI       0x104
#define PV_FAILSAFE  0x105

#define RFLAGS_IF ((uint64_t)1 << 9)
#define RFLAGS_TF ((uint64_t)1 << 8)
#define RFLAGS_RF ((uint64_t)1 << 16)

extern uint64_t pv_failsafe_selectors[4];
extern uint8_t pv_entries[][64];        /* by vector; PV_SYSCALL ... too */
extern uint8_t pv_failsafe_entry[];

/* Handlers for all exceptions, callbacks for all but syscalls: done before
 * test_main(). */
void pv_traps_init(void);
/* The gate of one vector; flags as in struct trap_info. */
int64_t pv_gate(unsigned vector, uint64_t address, unsigned flags);
int64_t pv_callback(unsigned type, const void *address, unsigned flags);

/* Calls fn and returns the vector at which it was interrupted, with the frame in
 * pv_caught; -1: it returned.  Events do not count. */
int pv_catch(void (*fn)(uint64_t), uint64_t arg);
extern struct pv_regs pv_caught;
extern uint8_t pv_caught_mask;          /* the event mask as the handler found it */

static inline uint8_t *pv_event_mask(void)
{
    return &pv_shared->vcpu_info[0].evtchn_upcall_mask;
}

/* Called from the event callback, with events masked. */
extern void (*pv_event_handler)(struct pv_regs *r);

/* NMIs that came, and the event mask as the last one's handler found it. */
extern unsigned pv_nr_nmis;
extern uint8_t pv_nmi_mask;

/* Goes to what c says; does not return but by pv_catch(). */
void pv_iret_user(const struct iret_context *c) __attribute__((noreturn));
void pv_secondary_start(void);
/* What a further vCPU needs to run fn on a stack of its own, in the tables of the first. */
void pv_vcpu_context(struct vcpu_guest_context *c, void (*fn)(void));
/* Makes vCPU 1 of that and starts it. */
void pv_vcpu_start(void (*fn)(void));

/* ---- memory ---- */

#define PV_VIRT_BASE 0xffffffff80000000ull
#define PV_M2P       ((const uint64_t *)0xffff800000000000ull)

#define PTE_P  ((uint64_t)1)
#define PTE_W  ((uint64_t)2)
#define PTE_U  ((uint64_t)4)
#define PTE_A  ((uint64_t)0x20)
#define PTE_D  ((uint64_t)0x40)
#define PTE_NX ((uint64_t)1 << 63)
#define PTE_FRAME_MASK 0x000ffffffffff000ull

/* A zeroed page of the kernel's own; never given back. */
void *pv_page(void);
uint64_t pv_mfn(const void *kernel_va);
void *pv_kernel_va(uint64_t mfn);
/* The entry of the current tables for va at level (1 to 4), read-only; NULL: none. */
const uint64_t *pv_pte(uint64_t va, unsigned level);
uint64_t pv_pte_maddr(uint64_t va, unsigned level);
int64_t pv_mmu_update(uint64_t ptr, uint64_t val);
/* Changes how a page of pv_page() is mapped; 0 or Xen's answer. */
int64_t pv_protect(void *page, uint64_t flags);

/* User mode: .user is seen at PV_USER_TEXT, a page of stack ends at
 * PV_USER_STACK_END, in one root for both modes. */
#define PV_USER_TEXT      0x400000ull
#define PV_USER_STACK_END 0x501000ull
extern uint8_t user_begin[], user_end[];
void pv_user_init(void);
/* Maps a frame for user mode in the same way. */
void pv_user_map(uint64_t va, uint64_t mfn, uint64_t flags);
#define PV_USER_ADDRESS(symbol) (PV_USER_TEXT + (uint64_t)((uint8_t *)(symbol) - user_begin))
/* Runs user code until it traps: what pv_catch() returns.  rdi is arg. */
int pv_user_run(const void *symbol, uint64_t arg);

/* ---- time ---- */

/* Guest time as struct vcpu_time_info of vCPU 0 gives it. */
uint64_t pv_time_ns(void);

#endif
