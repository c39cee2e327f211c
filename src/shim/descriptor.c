/* SPDX-License-Identifier: MIT */
/* Segment descriptors.  The processor reads copies of the guest's GDT and LDT, in
 * which no descriptor leads to ring 0: code and data get at least the DPL of the
 * guest kernel's ring, as Xen does it, and system descriptors are dropped.  The
 * last page of the GDT is Xen's.  Copies follow the guest's tables where Xen
 * would notice a change: set_gdt, set_ldt, update_descriptor. */
#include "shim/cpu.h"
#include "shim/mmu.h"
#include "shim/shim.h"

#define DESC_PRESENT   ((uint64_t)1 << 47)
#define DESC_DPL_SHIFT 45
#define DESC_DPL       ((uint64_t)3 << DESC_DPL_SHIFT)
#define DESC_SEGMENT   ((uint64_t)1 << 44)      /* S: code or data */
#define DESC_PER_PAGE  (PAGE_SIZE / sizeof(uint64_t))

/* flat descriptors: base 0, limit 4 GiB */
#define DESC_CODE64(dpl) (0x00af9b000000ffffull | (uint64_t)(dpl) << DESC_DPL_SHIFT)
#define DESC_CODE32(dpl) (0x00cf9b000000ffffull | (uint64_t)(dpl) << DESC_DPL_SHIFT)
#define DESC_DATA(dpl)   (0x00cf93000000ffffull | (uint64_t)(dpl) << DESC_DPL_SHIFT)

/* How the processor may see what the guest wrote; false when not at all. */
static bool descriptor_tame(uint64_t *d)
{
    unsigned dpl = (*d & DESC_DPL) >> DESC_DPL_SHIFT;
    bool ring1 = shim_flag(SHIM_FLAG_KERNEL_RING1);

    if (!(*d & DESC_PRESENT))
        return true;
    if (!(*d & DESC_SEGMENT))
        return false;
    if (ring1 ? dpl == 0 : dpl < 3)
        *d = (*d & ~DESC_DPL) | (uint64_t)(ring1 ? 1 : 3) << DESC_DPL_SHIFT;
    return true;
}

static void system_descriptor(uint64_t *slot, uint64_t base, uint32_t limit, unsigned type)
{
    slot[0] = (limit & 0xffff) | (base & 0xffffff) << 16 | (uint64_t)(0x80 | type) << 40 |
              (uint64_t)(limit >> 16 & 0xf) << 48 | (base >> 24 & 0xff) << 56;
    slot[1] = base >> 32;
}

void descriptor_tables_init(struct shim_vcpu *v)
{
    struct { uint16_t limit; uint64_t base; } __attribute__((packed)) gdtr = {
        .limit = SHIM_GDT_ENTRIES * 8 - 1, .base = (uint64_t)v->tables->gdt,
    };
    uint64_t *gdt = v->tables->gdt;

    gdt[SEL_SHIM_CODE / 8] = DESC_CODE64(0);
    gdt[SEL_SHIM_DATA / 8] = DESC_DATA(0);
    gdt[SEL_FLAT_CODE32 / 8] = DESC_CODE32(3);
    gdt[SEL_FLAT_DATA / 8] = DESC_DATA(3);
    gdt[SEL_FLAT_CODE64 / 8] = DESC_CODE64(3);
    gdt[SEL_RING1_CODE64 / 8] = DESC_CODE64(1);
    gdt[SEL_RING1_DATA / 8] = DESC_DATA(1);
    system_descriptor(&gdt[SEL_TSS / 8], (uint64_t)&v->tss, sizeof(v->tss) - 1, 9);
    __asm__ volatile("lgdt %0" : : "m"(gdtr));
    __asm__ volatile("mov %0, %%ss; mov %1, %%ds; mov %1, %%es; mov %1, %%fs; mov %1, %%gs"
                     : : "r"(SEL_SHIM_DATA), "r"(0) : "memory");
    shim_reload_cs();
    __asm__ volatile("ltr %0" : : "r"((uint16_t)SEL_TSS));
    cpu_lldt(0);
}

int descriptor_set_gdt_frames(struct shim_vcpu *v, const uint64_t *mfns, unsigned entries)
{
    unsigned frames = (unsigned)div_round_up(entries, DESC_PER_PAGE);

    for (unsigned i = 0; i < frames; i++)
        if (!mmu_frame_ok(mfns[i]))
            return -XEN_EINVAL;
    for (unsigned i = 0; i < max_of(entries, v->gdt_entries); i++) {
        uint64_t d = 0;

        if (i < entries)
            d = ((uint64_t *)shim_dm(mfns[i / DESC_PER_PAGE] << PAGE_SHIFT))[i % DESC_PER_PAGE];
        v->tables->gdt[i] = descriptor_tame(&d) ? d : 0;
    }
    for (unsigned i = 0; i < array_size(v->gdt_mfn); i++)
        v->gdt_mfn[i] = i < frames ? mfns[i] : 0;
    v->gdt_entries = entries;
    return 0;
}

/* HYPERVISOR_set_gdt (public/arch-x86/xen.h) */
int descriptor_set_gdt(struct shim_vcpu *v, uint64_t frames_va, uint64_t entries)
{
    uint64_t mfns[array_size(v->gdt_mfn)];

    if (entries > GDT_GUEST_ENTRIES)
        return -XEN_EINVAL;
    if (guest_read(mfns, frames_va, div_round_up(entries, DESC_PER_PAGE) * sizeof(mfns[0])))
        return -XEN_EFAULT;
    return descriptor_set_gdt_frames(v, mfns, (unsigned)entries);
}

bool descriptor_ldt_ok(uint64_t base, uint64_t entries)
{
    return entries <= SHIM_LDT_ENTRIES && !(base & PAGE_MASK) &&
           guest_range_ok(base, max_of(entries, (uint64_t)1) * 8);
}

/* MMUEXT_SET_LDT.  Pages of it that are not mapped hold no descriptors. */
int descriptor_set_ldt(struct shim_vcpu *v, uint64_t base, uint64_t entries)
{
    if (!descriptor_ldt_ok(base, entries))
        return -XEN_EINVAL;
    if (!entries) {
        v->ldt_entries = 0;
        cpu_lldt(0);
        return 0;
    }
    /* nothing is loaded from the copy while it is made */
    cpu_lldt(0);
    for (unsigned page = 0; page * DESC_PER_PAGE < entries; page++) {
        unsigned first = page * (unsigned)DESC_PER_PAGE;
        unsigned n = (unsigned)min_of(entries - first, (uint64_t)DESC_PER_PAGE), level;
        uint64_t *pte = mmu_walk(v->kernel_cr3, base + page * PAGE_SIZE, &level);

        v->ldt_mfn[page] = pte && level == 1 && (load_relaxed(pte) & PTE_PRESENT) ?
                           (load_relaxed(pte) & PTE_FRAME) >> PAGE_SHIFT : 0;
        if (guest_read(&v->tables->ldt[first], base + page * PAGE_SIZE, n * 8))
            __builtin_memset(&v->tables->ldt[first], 0, n * 8);
        for (unsigned i = first; i < first + n; i++)
            if (!descriptor_tame(&v->tables->ldt[i]))
                v->tables->ldt[i] = 0;
    }
    v->ldt_base = base;
    v->ldt_entries = (unsigned)entries;
    system_descriptor(&v->tables->gdt[SEL_LDT / 8], (uint64_t)v->tables->ldt,
                      v->ldt_entries * 8 - 1, 2);
    cpu_lldt(SEL_LDT);
    return 0;
}

/* The copies that show the entry at index of frame mfn follow it. */
static void copies_follow(uint64_t mfn, unsigned index, uint64_t value)
{
    for (unsigned i = 0; i < shim_domain.nr_vcpus; i++) {
        struct shim_vcpu *v = shim_vcpu(i);

        for (unsigned k = 0; k < array_size(v->gdt_mfn); k++) {
            unsigned at = k * (unsigned)DESC_PER_PAGE + index;

            if (v->gdt_mfn[k] == mfn && at < v->gdt_entries)
                v->tables->gdt[at] = value;
        }
        for (unsigned k = 0; k < array_size(v->ldt_mfn); k++) {
            unsigned at = k * (unsigned)DESC_PER_PAGE + index;

            if (v->ldt_mfn[k] == mfn && at < v->ldt_entries)
                v->tables->ldt[at] = value;
        }
    }
}

/* HYPERVISOR_update_descriptor (public/arch-x86/xen.h) */
int descriptor_update(uint64_t maddr, uint64_t value)
{
    uint64_t mfn = maddr >> PAGE_SHIFT;

    if ((maddr & 7) || !mmu_frame_ok(mfn) || !descriptor_tame(&value))
        return -XEN_EINVAL;
    *(uint64_t *)shim_dm(maddr) = value;
    copies_follow(mfn, (maddr & PAGE_MASK) / 8, value);
    return 0;
}
