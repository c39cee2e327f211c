/* SPDX-License-Identifier: MIT */
/* The shim: a small ring-0 program inside the VM of a PV guest, which is Xen as
 * far as that guest can tell.
 *
 * It runs with interrupts off, on the stack of the vCPU that entered it, to the
 * end of what it was asked, and takes no lock across anything slow; only a
 * blocked vCPU waits inside, with interrupts on around HLT.  All state is in
 * struct shim_domain and struct shim_vcpu. */
#ifndef XENOLITH_SHIM_SHIM_H
#define XENOLITH_SHIM_SHIM_H

#include "base/atomic.h"
#include "base/spinlock.h"
#include "base/types.h"
#include "shim/abi.h"
#include "shim/layout.h"
#include "xen/evtchn.h"
#include "xen/gnttab.h"

#include <xen/vcpu.h>
#include <xen/errno.h>

/* What entry.S leaves on the stack. */
struct shim_regs {
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};
_Static_assert(offsetof(struct shim_regs, rip) == 136, "entry.S");
_Static_assert(offsetof(struct shim_regs, vector) == REGS_VECTOR, "entry.S");

struct shim_tss {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7];
    uint64_t reserved2;
    uint16_t reserved3, iomap;
} __attribute__((packed));

/* One gate of the guest's virtual IDT (set_trap_table). */
struct shim_gate {
    uint64_t address;
    uint16_t cs;
    uint8_t flags;          /* bits 0-1: DPL; bit 2: the gate masks events */
};
#define SHIM_GATE_DPL(g)   ((g)->flags & 3)
#define SHIM_GATE_MASKS(g) ((g)->flags & 4)

enum shim_callback {
    SHIM_CALLBACK_EVENT, SHIM_CALLBACK_FAILSAFE, SHIM_CALLBACK_SYSCALL64,
    SHIM_CALLBACK_SYSCALL32, SHIM_CALLBACK_SYSENTER, SHIM_CALLBACK_NMI,
    SHIM_NR_CALLBACKS,
};

/* On the way of every system call and hypercall: see shim.ld. */
#define shim_hot __attribute__((hot))

/* Descriptor tables as the processor reads them: copies of the guest's, made
 * harmless, with Xen's own page at the end of the GDT. */
#define SHIM_GDT_ENTRIES 8192
#define SHIM_LDT_ENTRIES 8192
#define GDT_GUEST_ENTRIES 7168          /* FIRST_RESERVED_GDT_ENTRY: Xen's page follows */
struct shim_tables {
    uint64_t gdt[SHIM_GDT_ENTRIES];
    uint64_t ldt[SHIM_LDT_ENTRIES];
};

/* Doorbells that are put off: see doorbell.c. */
struct shim_doorbells {
    unsigned nr;
    struct { uint32_t link, port, turns; } waiting[4];
    uint64_t since_ns;          /* the first of them */
};

/* What KVM tells of the thread (its struct kvm_steal_time): ns it wanted to run and could
 * not. */
struct shim_steal {
    uint64_t steal_ns;
    uint32_t version, flags;
    uint8_t preempted, reserved[47];
} __attribute__((aligned(64)));

struct shim_vcpu {
    uint64_t scratch;           /* AREA_SCRATCH */
    unsigned id;
    bool kernel_mode;           /* the guest's kernel runs, not its user space */
    bool initialised;           /* VCPUOP_initialise was done */
    bool nmi_pending;
    bool nmi_in_handler;        /* the next one waits for an iret */
    bool vcpu_info_placed;      /* VCPUOP_register_vcpu_info was done */
    bool cr0_ts;                /* guest's CR0.TS */
    bool cpuid_faulting;        /* guest's MSR_MISC_FEATURES_ENABLES: not in user mode */
    uint8_t iopl;
    uint32_t up;                /* VCPUOP_up; another vCPU sets it */
    uint32_t idle;              /* blocked in the shim: no need to interrupt for a flush */
    uint32_t flush_wanted;      /* times others wanted this TLB flushed */
    uint32_t flush_done;        /* flush_wanted when it last was; see tlb.c */
    uint32_t eoi_word;          /* KVM's paravirtual EOI: bit 0, no EOI is needed */
    bool eoi_paravirt;

    struct shim_vcpu_status *status;
    struct xen_hostwaker *waker;
    struct shim_tables *tables;

    /* MMU */
    uint64_t kernel_cr3, user_cr3;

    /* traps */
    uint64_t kernel_sp;
    struct { uint64_t address; bool masks; } callback[SHIM_NR_CALLBACKS];
    uint64_t debugreg[8];       /* as the guest set them; 6 as it last happened */
    struct shim_regs start;     /* where VCPUOP_initialise wants it to begin */
    uint64_t fs_base, gs_base_kernel, gs_base_user, cr4;

    /* descriptor tables */
    uint64_t gdt_mfn[14];
    unsigned gdt_entries;
    uint64_t ldt_base;
    unsigned ldt_entries;
    uint64_t ldt_mfn[16];       /* behind each page of the LDT */

    /* time, guest ns; 0: not set */
    uint64_t singleshot_ns, periodic_ns, periodic_next_ns, poll_ns;
    bool poll_timed;            /* SCHEDOP_poll has a timeout */
    uint32_t exit_ns;           /* what an exit of the VM costs */
    uint32_t idle_poll_ns;      /* how long to poll before HLT; see idle.c */
    uint64_t due_ns;            /* the next of all deadlines, as time_arm() saw them; 0: none */
    uint64_t armed_tsc;         /* what the LAPIC holds; 0: nothing */

    struct shim_doorbells doorbells;

    /* a hypercall is to be made again, or another, with these arguments: batch.c */
    bool again;
    uint64_t again_nr, again_arg[4];

    /* vcpu_time_info and runstate */
    struct vcpu_runstate_info runstate;
    uint64_t runstate_va;       /* guest address of its copy, 0: none */
    uint64_t steal_seen_ns;     /* as much of it is in runstate */
    struct shim_steal steal;

    struct shim_gate gate[256];
    struct shim_tss tss;
};
_Static_assert(sizeof(struct shim_steal) == 64, "KVM");
_Static_assert(offsetof(struct shim_vcpu, scratch) == AREA_SCRATCH, "entry.S");
_Static_assert(sizeof(struct shim_vcpu) <= AREA_IST_FIRST, "area");

#define SHIM_WATCHDOGS 2

struct shim_domain {
    const struct shim_boot *boot;
    uint32_t flags;             /* boot's: asked for everywhere */
    uint32_t nr_vcpus;
    struct shim_status *status;
    struct shared_info *shared;
    struct xen_hostlink *links;
    uint8_t *frame_info;        /* FRAME_* per frame of RAM */
    uint64_t *m2p;              /* entry of RAM's first frame */
    uint64_t heap_next, heap_end;
    struct spinlock heap_lock;
    struct spinlock memory_lock;    /* populate and release of frames */
    uint64_t memory_cursor;
    uint64_t vm_assist;         /* bit per VMASST_TYPE_* */
    bool pirq_eoi_page;         /* PHYSDEVOP_pirq_eoi_gmfn_* was done */
    struct spinlock watchdog_lock;
    uint64_t watchdog_ns[SHIM_WATCHDOGS];   /* when each runs out; 0: not in use */
    bool fsgsbase;              /* the guest may be shown the instructions for bases */
    struct spinlock requests_lock;  /* what the host asks of links is done in order */
    uint64_t link_vcpu_mask[SHIM_VCPUS_MAX][XEN_HOSTLINK_MAX / 64]; /* links a vCPU serves */
    struct evtchn_domain evtchn;
    struct gnttab gnttab;
    struct { uint64_t low, high; } idt[256];
};

/* What the shim knows of a frame of RAM. */
#define FRAME_LEVEL_MASK 0x07   /* page table of this level, 0: none */
#define FRAME_PINNED     0x08   /* by MMUEXT_PIN_*, and not only reached from one */
#define FRAME_OPENED     0x10   /* the shim made a mapping of it writable: see mmu_fault_fixed() */
#define FRAME_LEAVING    0x40   /* the guest gave it back; the host may yet clear it */
#define FRAME_FREE       0x80   /* the host has it back */

extern struct shim_domain shim_domain;
extern uint8_t vcpu_areas[];

/* The vCPU whose stack this is. */
static inline struct shim_vcpu *shim_vcpu_current(void)
{
    uint64_t sp;

    __asm__ volatile("mov %%rsp, %0" : "=r"(sp));
    return (struct shim_vcpu *)((sp - 1) & ~(uint64_t)(AREA_BYTES - 1));
}

static inline struct shim_vcpu *shim_vcpu(unsigned id)
{
    return (struct shim_vcpu *)(vcpu_areas + (size_t)id * AREA_BYTES);
}

static inline bool shim_flag(uint32_t flag)
{
    return shim_domain.flags & flag;
}

/* All of guest-physical memory, through the shim's own map. */
static inline void *shim_dm(uint64_t gpa_addr)
{
    return (void *)(SHIM_DM_VA + gpa_addr);
}

/* start.c */
struct shim_regs *shim_start(uint64_t id);
void *shim_page_alloc(void *unused);

/* trap.c */
void shim_trap(struct shim_regs *r);
int shim_syscall(struct shim_regs *r) shim_hot;
struct shim_regs *shim_leave_ist(struct shim_regs *r);

/* bounce.c: the guest's own handlers */
void shim_bounce_trap(struct shim_vcpu *v, struct shim_regs *r, unsigned vector, bool has_error,
                      uint64_t error);
void shim_bounce_callback(struct shim_vcpu *v, struct shim_regs *r, enum shim_callback which)
    shim_hot;
void shim_toggle_mode(struct shim_vcpu *v);
/* Delivers what is due just before the guest goes on. */
void shim_deliver(struct shim_vcpu *v, struct shim_regs *r) shim_hot;
void shim_iret(struct shim_vcpu *v, struct shim_regs *r) shim_hot;

/* hypercall.c */
void shim_hypercall(struct shim_vcpu *v, struct shim_regs *r) shim_hot;

/* batch.c: one goes through a list.  Zeroed to begin with. */
struct shim_batch {
    uint64_t end_ns;            /* 0: nobody has looked at the time yet */
    unsigned cost;              /* since somebody has */
    bool over;
};
/* Asked before every element but the first: true, it is time to stop.  cost is that of an
 * element, 16 for one that may take some tens of microseconds. */
bool batch_over(struct shim_batch *b, unsigned cost);
/* What a call returns then: the number and the arguments of a call for the rest. */
int64_t hypercall_again(struct shim_vcpu *v, uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2,
                        uint64_t a3);

/* access.c: what the guest points to.  0 or -EFAULT. */
bool guest_range_ok(uint64_t va, uint64_t bytes) shim_hot;
int guest_read(void *to, uint64_t from_va, uint64_t bytes) shim_hot;
int guest_write(uint64_t to_va, const void *from, uint64_t bytes) shim_hot;

/* mmu.c */
bool mmu_frame_ok(uint64_t mfn);
/* The same, and the guest has not given it back. */
bool mmu_frame_held(uint64_t mfn);
uint64_t *mmu_walk(uint64_t cr3, uint64_t va, unsigned *level);
/* 0: it stands for the guest itself; else what Xen says to frames of that domain's. */
int64_t mmu_foreign(domid_t domid);
int64_t mmu_update(struct shim_vcpu *v, uint64_t req_va, uint64_t count, uint64_t done_va,
                   uint64_t domid);
int64_t mmu_update_va_mapping(struct shim_vcpu *v, uint64_t va, uint64_t val, uint64_t flags);
/* The guest kernel's fault is one that Xen would have prevented: try again. */
bool mmu_fault_fixed(struct shim_vcpu *v, uint64_t va, uint64_t error);
void mmu_load_root(struct shim_vcpu *v);
void mmu_table_mark(uint64_t mfn, unsigned level);
void mmu_table_unmark(uint64_t mfn);
void mmu_root_prepare(uint64_t mfn, bool user);
bool mmu_root_in_use(uint64_t mfn);
/* As far as the shim knows: what keeps Xen from making a table of the frame. */
bool mmu_frame_mapped_writable(const struct shim_vcpu *v, uint64_t mfn);
/* Likewise, what keeps Xen from taking the frame away: it is a table, or mapped. */
bool mmu_frame_used(const struct shim_vcpu *v, uint64_t mfn);
/* The last-level entry for an address, or the one at a machine address; NULL: none. */
uint64_t *mmu_entry_at(const struct shim_vcpu *v, uint64_t addr, bool machine);
/* Writes it, unless Xen would not. */
bool mmu_entry_set(uint64_t *e, uint64_t pte);
/* The frame is RAM of the guest's that Xen would let it write to by itself. */
bool mmu_frame_writable(uint64_t mfn);
/* An entry of the tables the kernel runs on leads to one of nr frames that are not RAM.
 * Such tables as no kernel builds may hide it. */
bool mmu_frames_mapped(const struct shim_vcpu *v, uint64_t first_mfn, uint64_t nr);

/* mmuext.c */
int64_t mmuext_op(struct shim_vcpu *v, uint64_t ops_va, uint64_t count, uint64_t done_va,
                  uint64_t domid);

/* tlb.c */
void tlb_flush_local(void);
void tlb_flush_page_local(uint64_t va);
void tlb_flush_vcpus(struct shim_vcpu *v, uint64_t vcpu_mask);
void tlb_flush_serve(struct shim_vcpu *v);
bool tlb_flush_due(const struct shim_vcpu *v);

/* descriptor.c */
void descriptor_tables_init(struct shim_vcpu *v);
int descriptor_set_gdt(struct shim_vcpu *v, uint64_t frames_va, uint64_t entries);
int descriptor_set_gdt_frames(struct shim_vcpu *v, const uint64_t *mfns, unsigned entries);
bool descriptor_ldt_ok(uint64_t base, uint64_t entries);
int descriptor_set_ldt(struct shim_vcpu *v, uint64_t base, uint64_t entries);
int descriptor_update(uint64_t maddr, uint64_t value);

/* emulate.c */
bool emulate_privileged(struct shim_vcpu *v, struct shim_regs *r);
bool emulate_forced(struct shim_vcpu *v, struct shim_regs *r);
bool emulate_stack_fault(struct shim_regs *r);
int64_t emulate_debugreg_set(struct shim_vcpu *v, uint64_t n, uint64_t value);
void emulate_debugregs_start(struct shim_vcpu *v);
void emulate_cr4_start(struct shim_vcpu *v);
/* Finds out what the processor is good for; FS.base is zero afterwards. */
void emulate_features_init(void);
int64_t emulate_debugreg_get(const struct shim_vcpu *v, uint64_t n);

/* event.c */
void event_init(void);
void event_interrupt(struct shim_vcpu *v, unsigned vector);
int64_t event_channel_op(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va);
/* True when the vCPU should stop waiting and go back to its guest. */
bool event_due(struct shim_vcpu *v);
void event_links_serve(struct shim_vcpu *v);
/* The same when the host wants it; for every way back to the guest. */
void event_attend(struct shim_vcpu *v);

/* apic.c */
void apic_init(struct shim_vcpu *v);
void apic_eoi(struct shim_vcpu *v);
void apic_ipi(unsigned vcpu, unsigned vector);

/* time.c */
uint64_t time_now_ns(void);
void time_init(struct shim_vcpu *v);
void time_publish(unsigned vcpu, struct vcpu_info *vi);
/* Deadlines may have changed: serves those that have passed, sets the LAPIC for the rest. */
void time_arm(struct shim_vcpu *v);
/* Serves those that have passed; the LAPIC is as it was. */
void time_attend(struct shim_vcpu *v, uint64_t now_ns);
/* The LAPIC's has come. */
void time_expired(struct shim_vcpu *v);
int64_t time_set_singleshot(struct shim_vcpu *v, uint64_t timeout_ns, bool must_be_future);
int64_t time_set_periodic(struct shim_vcpu *v, uint64_t period_ns);

/* watchdog.c */
int64_t watchdog_op(struct shim_vcpu *v, uint64_t arg_va);
/* When the next one runs out, guest time; 0: none will. */
uint64_t watchdog_next_ns(void);
/* Does not return if one has run out. */
void watchdog_expire(uint64_t now_ns);

/* sched.c */
int64_t sched_op(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va);
int64_t vcpu_op(struct shim_vcpu *v, uint64_t cmd, uint64_t vcpuid, uint64_t arg_va);
void sched_wait_up(struct shim_vcpu *v);

/* runstate.c */
void sched_runstate_init(struct shim_vcpu *v);
/* The vCPU changes to a state, or stays in it: its times are right as of now. */
void sched_runstate(struct shim_vcpu *v, int state);
void sched_runstate_publish(struct shim_vcpu *v);
/* Both, where the host kept the running vCPU from running; in the kernel's root. */
void sched_runstate_attend(struct shim_vcpu *v);

/* doorbell.c */
/* Sends port's event to the host, now or before long. */
void doorbell_send(struct shim_vcpu *v, uint32_t port, uint32_t link);
/* Those that were put off go now: the vCPU will not pass here for a while. */
void doorbell_flush(struct shim_vcpu *v);
/* On the way back to the guest: they go when they have waited long enough. */
void doorbell_attend(struct shim_vcpu *v);

/* idle.c */
/* Measures what an exit costs, for the vCPU and for the host. */
void idle_init(struct shim_vcpu *v);
/* Waits until over() is true; interrupts are served meanwhile. */
typedef bool idle_over(struct shim_vcpu *v);
void idle_wait(struct shim_vcpu *v, idle_over *over);

/* memory.c */
int64_t memory_op(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va);

/* devices.c */
int64_t physdev_op(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va);
int64_t hvm_op(uint64_t cmd, uint64_t arg_va);
int64_t dm_op(domid_t domid, uint64_t nr_bufs, uint64_t bufs_va);

/* grant.c */
void grant_init(void);
int64_t grant_table_op(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va, uint64_t count);

/* peer.c: other guests */
/* Makes the call, through the process, and waits; the result is in c. */
void peer_call(struct shim_vcpu *v, struct shim_peer_call *c);
bool peer_exists(domid_t domid);

/* version.c */
int64_t xen_version(uint64_t cmd, uint64_t arg_va);

/* console.c */
int64_t console_io(struct shim_vcpu *v, uint64_t cmd, uint64_t count, uint64_t arg_va);
void shim_log(const char *fmt, ...);
/* Ends the guest, saying why; r may be NULL. */
void shim_crash(const struct shim_regs *r, const char *fmt, ...) __attribute__((noreturn));
void shim_shutdown(uint32_t reason) __attribute__((noreturn));

#endif
