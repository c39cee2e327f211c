/* SPDX-License-Identifier: MIT */
#include "guest.h"

#include <stdio.h>
#include <stdlib.h>

#define FAKE_BYTES ((RAM_MFN + RAM_MAX) * PAGE_SIZE)
#define SHARED_GPA 0x1000
#define STATUS_GPA 0x2000
#define VCPU_STATUS_GPA 0x3000

struct shim_domain shim_domain;
struct shim_boot fake_boot;
struct fake_cpu fake_cpu;
uint8_t *fake_memory;
uint8_t vcpu_areas[2 * AREA_BYTES] __attribute__((aligned(AREA_BYTES)));

static struct shim_tables tables[2];
static uint64_t m2p[RAM_MAX];
static uint8_t frame_info[RAM_MAX];
static uint64_t next_frame;
static jmp_buf crash_landing;
static char crash_text[512];

/* ---- what entry.S, start.c, console.c, sched.c and tlb.c do in the VM ---- */

static bool overlaps(uintptr_t at, uint64_t bytes, uintptr_t from, uintptr_t end)
{
    return at < end && at + bytes > from;
}

uint64_t guest_copy_raw(void *to, const void *from, uint64_t bytes)
{
    const struct fake_cpu *c = &fake_cpu;

    if (overlaps((uintptr_t)from, bytes, c->missing, c->missing_end) ||
        overlaps((uintptr_t)to, bytes, c->missing, c->missing_end) ||
        overlaps((uintptr_t)to, bytes, c->readonly, c->readonly_end))
        return bytes;
    memcpy(to, from, bytes);
    return 0;
}

void io_out32(uint16_t port, uint32_t value)
{
    assert_true(fake_cpu.nr_outs < FAKE_OUTS_MAX);
    fake_cpu.out[fake_cpu.nr_outs].port = port;
    fake_cpu.out[fake_cpu.nr_outs++].value = value;
    if (fake_cpu.on_out)
        fake_cpu.on_out(port, value);
}

uint32_t io_in32(uint16_t port)
{
    fake_cpu.nr_ins++;
    fake_cpu.in_port = port;
    return fake_cpu.in_value;
}

void wrmsr(uint32_t msr, uint64_t value)
{
    assert_in_range(msr, MSR_FS_BASE, MSR_KERNEL_GS_BASE);
    assert_true(va_canonical(value));
    fake_cpu.msr[msr - MSR_FS_BASE] = value;
}

int rdmsr_raw(uint32_t msr, uint64_t *value)
{
    assert_int_equal(msr, 0xce);
    *value = fake_cpu.platform_info;
    return fake_cpu.platform_info ? 0 : -1;
}

int wrmsr_raw(uint32_t msr, uint64_t value)
{
    if (msr == MSR_KVM_STEAL_TIME) {
        assert_int_equal(value % 64, 1);
        VCPU->steal.steal_ns = fake_cpu.steal_ns;
        return fake_cpu.steal_ns ? 0 : -1;
    }
    assert_int_equal(msr, 0x140);
    fake_cpu.misc_features = value;
    return 0;
}

uint64_t rdmsr(uint32_t msr)
{
    assert_in_range(msr, MSR_FS_BASE, MSR_KERNEL_GS_BASE);
    return fake_cpu.msr[msr - MSR_FS_BASE];
}

void shim_reload_cs(void)
{
}

void shim_crash(const struct shim_regs *r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(crash_text, sizeof(crash_text), fmt, ap);
    va_end(ap);
    longjmp(crash_landing, 1);
}

const char *guest_crash(void (*fn)(void))
{
    crash_text[0] = 0;
    if (!setjmp(crash_landing))
        fn();
    return crash_text;
}

void sched_wait_up(struct shim_vcpu *v)
{
}

void event_attend(struct shim_vcpu *v)
{
}

uint64_t time_now_ns(void)
{
    return fake_cpu.now_ns += fake_cpu.tick_ns;
}

void tlb_flush_local(void)
{
    fake_cpu.nr_flushes++;
}

void tlb_flush_page_local(uint64_t va)
{
    invlpg(va);
}

void tlb_flush_vcpus(struct shim_vcpu *v, uint64_t vcpu_mask)
{
}

void tlb_flush_serve(struct shim_vcpu *v)
{
}

bool tlb_flush_due(const struct shim_vcpu *v)
{
    return false;
}

static void *page_alloc(void *unused)
{
    static uint8_t pages[8][4096] __attribute__((aligned(4096)));
    static unsigned nr;

    return pages[nr++ % array_size(pages)];
}

static void vcpu_kick(void *ctx, unsigned vcpu)
{
}

/* ---- the guest ---- */

void guest_begin(uint32_t flags)
{
    static const struct evtchn_ops ops = { .page_alloc = page_alloc, .vcpu_kick = vcpu_kick };

    free(fake_memory);
    fake_memory = aligned_alloc(PAGE_SIZE, FAKE_BYTES);
    assert_non_null(fake_memory);
    memset(fake_memory, 0, FAKE_BYTES);
    memset(vcpu_areas, 0, sizeof(vcpu_areas));
    memset(tables, 0, sizeof(tables));
    memset(frame_info, 0, sizeof(frame_info));
    memset(&fake_cpu, 0, sizeof(fake_cpu));
    for (unsigned i = 0; i < RAM_MAX; i++) {
        m2p[i] = i < RAM_PAGES ? i : ~(uint64_t)0;
        if (i >= RAM_PAGES)
            frame_info[i] = FRAME_FREE;
    }
    fake_boot = (struct shim_boot){
        .m2p_va = SHIM_M2P_VA,
        .flags = flags, .nr_vcpus = 2, .domid = 7, .first_mfn = RAM_MFN, .nr_pages = RAM_PAGES,
        .max_pages = RAM_MAX, .xcr0 = 7,
    };
    for (unsigned i = 0; i < SHIM_HOLE_SLOTS; i++)
        fake_boot.hole_l4[i] = 0xabc00000 + i * PAGE_SIZE + PTE_PRESENT + PTE_WRITE;
    shim_domain = (struct shim_domain){
        .boot = &fake_boot, .flags = fake_boot.flags, .nr_vcpus = fake_boot.nr_vcpus,
        .status = shim_dm(STATUS_GPA), .shared = shim_dm(SHARED_GPA),
        .frame_info = frame_info, .m2p = m2p,
    };
    shim_domain.status->nr_pages = RAM_PAGES;
    assert_int_equal(evtchn_domain_init(&shim_domain.evtchn, &ops, NULL, shim_domain.shared, 2, 7),
                     0);
    for (unsigned i = 0; i < 2; i++) {
        shim_vcpu(i)->id = i;
        shim_vcpu(i)->up = 1;
        shim_vcpu(i)->kernel_mode = true;
        shim_vcpu(i)->tables = &tables[i];
        shim_vcpu(i)->status = shim_dm(VCPU_STATUS_GPA + i * PAGE_SIZE);
    }
    next_frame = RAM_MFN + RAM_PAGES;
}

void *guest_frame(uint64_t mfn)
{
    return shim_dm(mfn << PAGE_SHIFT);
}

uint64_t guest_frame_new(void)
{
    assert_true(next_frame > RAM_MFN);
    memset(guest_frame(--next_frame), 0, PAGE_SIZE);
    return next_frame;
}

uint64_t *guest_entry(uint64_t mfn, unsigned slot)
{
    return (uint64_t *)guest_frame(mfn) + slot;
}

void guest_map(uint64_t root, uint64_t va, uint64_t frame, uint64_t flags)
{
    uint64_t table = root;

    for (unsigned level = 4; ; level--) {
        uint64_t *e = guest_entry(table, (unsigned)(va >> (PAGE_SHIFT + 9 * (level - 1))) & 511);

        if (level == 1) {
            *e = frame << PAGE_SHIFT | flags | PTE_PRESENT;
            return;
        }
        if (!*e)
            *e = guest_frame_new() << PAGE_SHIFT | PTE_PRESENT | PTE_WRITE;
        table = (*e & PTE_FRAME) >> PAGE_SHIFT;
    }
}

/* There are no other guests. */
bool peer_exists(domid_t domid)
{
    return false;
}
