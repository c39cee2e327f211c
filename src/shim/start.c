/* SPDX-License-Identifier: MIT */
/* From the first instruction of a vCPU to its first in the guest. */
#include "shim/cpu.h"
#include "shim/shim.h"

/* The one guest this program is for; zero until shim_start() of vCPU 0. */
struct shim_domain shim_domain;
static struct shim_tables shim_tables[SHIM_MAX_VCPUS] __attribute__((aligned(4096)));
static uint32_t domain_ready;

extern const uint8_t trap_stubs[], syscall64_stubs[], syscall32_stubs[], sysenter_entry[];

#define TRAP_STUB_BYTES    16
#define SYSCALL_STUB_BYTES 64
#define GATE_INTERRUPT     0x8e
#define GATE_DPL3          0x60
/* cleared by SYSCALL: IF, and what must not follow the guest into ring 0 */
#define SYSCALL_CLEARS     (RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT | \
                            RFLAGS_RF | RFLAGS_AC)

/* Freestanding GCC still calls these, perhaps only once all is linked. */
void *memcpy(void *to, const void *from, size_t n) __attribute__((used));
void *memset(void *to, int c, size_t n) __attribute__((used));
int memcmp(const void *a, const void *b, size_t n) __attribute__((used));

void *memcpy(void *to, const void *from, size_t n)
{
    void *d = to;

    __asm__ volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(n) : : "memory");
    return to;
}

void *memset(void *to, int c, size_t n)
{
    void *d = to;

    __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;

    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

void *shim_page_alloc(void *unused)
{
    struct shim_domain *d = &shim_domain;
    void *page = NULL;

    spin_lock(&d->heap_lock);
    if (d->heap_next < d->heap_end) {
        page = shim_dm(d->heap_next);
        d->heap_next += PAGE_SIZE;
    }
    spin_unlock(&d->heap_lock);
    return page;
}

static void idt_init(void)
{
    static const uint8_t ist_of[32] = { [1] = 1, [2] = 2, [8] = 3, [18] = 4 };

    for (unsigned i = 0; i < 256; i++) {
        uint64_t h = (uint64_t)trap_stubs + i * TRAP_STUB_BYTES;
        uint64_t type = GATE_INTERRUPT | (i == 3 || i == 4 || i == 0x80 ? GATE_DPL3 : 0);

        shim_domain.idt[i].low = (h & 0xffff) | (uint64_t)SEL_SHIM_CODE << 16 |
                                 (uint64_t)(i < 32 ? ist_of[i] : 0) << 32 | type << 40 |
                                 (h >> 16 & 0xffff) << 48;
        shim_domain.idt[i].high = h >> 32;
    }
}

static void domain_init(void)
{
    struct shim_domain *d = &shim_domain;

    d->boot = shim_dm(SHIM_GPA + SHIM_OFF_BOOT);
    d->flags = d->boot->flags;
    d->nr_vcpus = d->boot->nr_vcpus;
    d->status = shim_dm(SHIM_GPA + SHIM_OFF_STATUS);
    d->shared = shim_dm(SHIM_GPA + SHIM_OFF_SHARED_INFO);
    d->links = shim_dm(SHIM_GPA + SHIM_OFF_LINKS);
    d->frame_info = shim_dm(d->boot->frame_info_gpa);
    d->m2p = shim_dm(d->boot->m2p_gpa);
    d->heap_next = SHIM_GPA + SHIM_OFF_HEAP;
    d->heap_end = d->heap_next + d->boot->heap_bytes;
    d->status->nr_pages = d->boot->nr_pages;
    d->status->vcpus_up = 1;
    for (uint64_t i = d->boot->nr_pages; i < d->boot->max_pages; i++)
        d->frame_info[i] = FRAME_FREE;
    mmu_root_prepare(d->boot->cr3 >> PAGE_SHIFT, false);
    d->frame_info[(d->boot->cr3 >> PAGE_SHIFT) - d->boot->first_mfn] |= FRAME_PINNED;
    event_init();
    grant_init();
    d->shared->wc_version = 2;
    d->shared->wc_sec = (uint32_t)d->boot->wallclock_sec;
    d->shared->wc_sec_hi = (uint32_t)(d->boot->wallclock_sec >> 32);
    d->shared->wc_nsec = d->boot->wallclock_nsec;
    for (unsigned i = 0; i < XEN_LEGACY_MAX_VCPUS; i++) {
        d->shared->vcpu_info[i].evtchn_upcall_mask = 1;     /* until the guest is ready */
        time_publish(i, &d->shared->vcpu_info[i]);
    }
    idt_init();
}

static void cpu_init(struct shim_vcpu *v)
{
    struct { uint16_t limit; uint64_t base; } __attribute__((packed)) idtr = {
        .limit = sizeof(shim_domain.idt) - 1, .base = (uint64_t)shim_domain.idt,
    };
    uint64_t area = (uint64_t)v;

    v->tss.rsp[0] = area + AREA_BYTES;
    v->tss.rsp[1] = v->tss.rsp[0];
    for (unsigned i = 0; i < AREA_NR_IST; i++)
        v->tss.ist[i] = area + AREA_IST_FIRST + (i + 1) * AREA_IST_BYTES;
    v->tss.iomap = sizeof(v->tss);
    descriptor_tables_init(v);
    __asm__ volatile("lidt %0" : : "m"(idtr));
    wrmsr(MSR_STAR, (uint64_t)SEL_FLAT_CODE32 << 48 | (uint64_t)SEL_SHIM_CODE << 32);
    wrmsr(MSR_LSTAR, (uint64_t)syscall64_stubs + v->id * SYSCALL_STUB_BYTES);
    wrmsr(MSR_CSTAR, (uint64_t)syscall32_stubs + v->id * SYSCALL_STUB_BYTES);
    wrmsr(MSR_SYSCALL_MASK, SYSCALL_CLEARS);
    wrmsr_raw(MSR_SYSENTER_CS, SEL_SHIM_CODE);
    wrmsr_raw(MSR_SYSENTER_ESP, area + AREA_BYTES);
    wrmsr_raw(MSR_SYSENTER_EIP, (uint64_t)sysenter_entry);
    apic_init(v);
}

/* Registers a vCPU starts with: rdi on the stack top down to ss, in the kernel. */
static struct shim_regs *first_regs(struct shim_vcpu *v)
{
    struct shim_regs *r = (struct shim_regs *)((uint8_t *)v + AREA_BYTES) - 1;
    bool ring1 = shim_flag(SHIM_FLAG_KERNEL_RING1);

    *r = v->start;
    r->vector = 0;
    r->error = 0;
    r->rflags = (r->rflags & ~(uint64_t)(RFLAGS_IOPL | RFLAGS_VM)) | RFLAGS_IF | 2;
    r->cs = ring1 ? SEL_RING1_CODE64 : SEL_FLAT_CODE64;
    r->ss = ring1 ? SEL_RING1_DATA : SEL_FLAT_DATA;
    return r;
}

/* On the vCPU's own stack, which first_regs() is about to overwrite from the top:
 * the frames in use lie below. */
struct shim_regs *shim_start(uint64_t id)
{
    struct shim_vcpu *v = shim_vcpu((unsigned)id);
    const struct shim_boot *b;

    v->id = (unsigned)id;
    v->kernel_mode = true;
    v->tables = &shim_tables[id];
    v->status = shim_dm(SHIM_GPA + SHIM_OFF_VCPU_STATUS + id * PAGE_SIZE);
    v->waker = (struct xen_hostwaker *)shim_dm(SHIM_GPA + SHIM_OFF_WAKERS) + id;
    if (id == 0) {
        domain_init();
        b = shim_domain.boot;
        v->kernel_cr3 = b->cr3;
        v->initialised = true;
        v->up = 1;
        v->start = (struct shim_regs){ .rip = b->rip, .rsp = b->rsp, .rsi = b->rsi };
        store_release(&domain_ready, 1);
    } else {
        while (!load_acquire(&domain_ready))
            cpu_relax();
    }
    v->runstate.state = id ? RUNSTATE_offline : RUNSTATE_running;
    cpu_init(v);
    if (!id) {
        emulate_features_init();
        mmu_load_root(v);
    }
    sched_runstate_init(v);
    if (id)
        sched_wait_up(v);
    emulate_debugregs_start(v);
    emulate_cr4_start(v);
    descriptor_set_ldt(v, v->ldt_base, v->ldt_entries);
    time_init(v);
    idle_init(v);
    wrmsr(MSR_FS_BASE, v->fs_base);
    wrmsr(MSR_GS_BASE, v->gs_base_kernel);
    wrmsr(MSR_KERNEL_GS_BASE, v->gs_base_user);
    return first_regs(v);
}
