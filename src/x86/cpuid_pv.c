/* SPDX-License-Identifier: MIT */
/* Both tables are copies of the supported one, leaf by leaf (cpuid_leaves[]: what
 * is not listed is not shown), from which features are taken away:
 *
 *   hardware  supported, less rows of cpuid_pv_hidden[] that hide from all
 *   kernel    supported, less all rows, less what cpufeatureset.h does not know
 *   both      less what needs a state component that is not in XCR0
 *
 * then the few words that are numbers, not features, are set: sizes of leaf 0xd,
 * topology (one thread, one core, one package per vCPU), Xen's leaves. */
#include "x86/cpuid_pv.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <xen/arch-x86/cpufeatureset.h>
#include <xen/arch-x86/cpuid.h>

/* XCR0 components, Intel SDM volume 1, 13.1 */
#define XCR0_X87      (1ull << 0)
#define XCR0_SSE      (1ull << 1)
#define XCR0_AVX      (1ull << 2)
#define XCR0_AVX512   (7ull << 5)    /* opmask, upper halves of 0-15, 16-31 */
#define XCR0_LEGACY_BYTES 576        /* legacy area and header */

#define LEAF_BASIC_MAX    0xdu
#define LEAF_EXTENDED     0x80000000u
#define LEAF_EXTENDED_MAX 0x80000021u

/* AMD repeats these bits of leaf 1 edx in leaf 0x80000001 edx. */
#define AMD_COMMON_EDX 0x0183f3ffu

#define VENDOR_AMD_EBX   0x68747541u    /* "Auth" enticAMD */
#define VENDOR_HYGON_EBX 0x6f677948u    /* "Hygo" nGenuine */

enum cpuid_reg { REG_EAX, REG_EBX, REG_ECX, REG_EDX };

static const struct feature_word {
    uint32_t function, index;
    enum cpuid_reg reg;
} feature_words[X86_FEATURE_WORDS] = {
    [0] = { 1, 0, REG_EDX },
    [1] = { 1, 0, REG_ECX },
    [2] = { 0x80000001, 0, REG_EDX },
    [3] = { 0x80000001, 0, REG_ECX },
    [4] = { 0xd, 1, REG_EAX },
    [5] = { 7, 0, REG_EBX },
    [6] = { 7, 0, REG_ECX },
    [7] = { 0x80000007, 0, REG_EDX },
    [8] = { 0x80000008, 0, REG_EBX },
    [9] = { 7, 0, REG_EDX },
    [10] = { 7, 1, REG_EAX },
    [11] = { 0x80000021, 0, REG_EAX },
    [12] = { 7, 1, REG_EBX },
    [13] = { 7, 2, REG_EDX },
    [14] = { 7, 1, REG_ECX },
    [15] = { 7, 1, REG_EDX },
    /* 16 and 17 are an MSR */
    [18] = { 0x80000021, 0, REG_ECX },
};

static const struct {
    uint32_t function;
    bool kernel, hardware;
} cpuid_leaves[] = {
    { 0, true, true },              /* vendor */
    { 1, true, true },
    { 2, true, true },              /* caches and TLBs */
    { 4, true, true },              /* caches */
    { 6, false, true },             /* the LAPIC timer runs on in deep sleep */
    { 7, true, true },
    { 0xb, true, true },            /* topology */
    { 0xd, true, true },            /* XSAVE */
    { 0x80000000, true, true },
    { 0x80000001, true, true },
    { 0x80000002, true, true },     /* brand string */
    { 0x80000003, true, true },
    { 0x80000004, true, true },
    { 0x80000005, true, true },     /* caches and TLBs */
    { 0x80000006, true, true },
    { 0x80000007, true, true },
    { 0x80000008, true, true },
    { 0x8000001d, true, true },     /* caches */
    { 0x80000021, true, true },
};

/* Features that need a state component. */
static const struct {
    unsigned feature;
    uint64_t xcr0;
} feature_states[] = {
    { XEN_X86_FEATURE_XSAVE, XCR0_X87 | XCR0_SSE },
    { XEN_X86_FEATURE_OSXSAVE, XCR0_X87 | XCR0_SSE },
    { XEN_X86_FEATURE_AVX, XCR0_AVX },
    { XEN_X86_FEATURE_FMA, XCR0_AVX },
    { XEN_X86_FEATURE_F16C, XCR0_AVX },
    { XEN_X86_FEATURE_XOP, XCR0_AVX },
    { XEN_X86_FEATURE_FMA4, XCR0_AVX },
    { XEN_X86_FEATURE_AVX2, XCR0_AVX },
    { XEN_X86_FEATURE_VAES, XCR0_AVX },
    { XEN_X86_FEATURE_VPCLMULQDQ, XCR0_AVX },
    { XEN_X86_FEATURE_AVX_VNNI, XCR0_AVX },
    { XEN_X86_FEATURE_AVX512F, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512DQ, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512_IFMA, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512PF, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512ER, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512CD, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512BW, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512VL, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512_VBMI, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512_VBMI2, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512_VNNI, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512_BITALG, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512_VPOPCNTDQ, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512_4VNNIW, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512_4FMAPS, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512_VP2INTERSECT, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512_FP16, XCR0_AVX512 },
    { XEN_X86_FEATURE_AVX512_BF16, XCR0_AVX512 },
};

static bool leaf_is_indexed(uint32_t function)
{
    return function == 4 || function == 7 || function == 0xb || function == 0xd ||
           function == 0x8000001d || function == XEN_CPUID_LEAF(3) ||
           function == XEN_CPUID_LEAF(4) || function == XEN_CPUID_LEAF(5);
}

const struct x86_cpuid_entry *x86_cpuid_find(const struct x86_cpuid_entry *entries, unsigned nr,
                                             uint32_t function, uint32_t index)
{
    for (unsigned i = 0; i < nr; i++) {
        if (entries[i].function == function &&
            (entries[i].index == index || !leaf_is_indexed(function)))
            return &entries[i];
    }
    return NULL;
}

static uint32_t *entry_reg(struct x86_cpuid_entry *c, enum cpuid_reg reg)
{
    uint32_t *const regs[] = { &c->eax, &c->ebx, &c->ecx, &c->edx };

    return regs[reg];
}

static struct x86_cpuid_entry *table_find(struct x86_cpuid_table *t, uint32_t function,
                                          uint32_t index)
{
    return (struct x86_cpuid_entry *)x86_cpuid_find(t->entry, t->nr, function, index);
}

/* Where a feature is shown; NULL when its leaf is not. */
static uint32_t *feature_reg(struct x86_cpuid_table *t, unsigned word)
{
    const struct feature_word *w = &feature_words[word];
    struct x86_cpuid_entry *c = w->function ? table_find(t, w->function, w->index) : NULL;

    return c ? entry_reg(c, w->reg) : NULL;
}

static bool feature_is_set(const struct x86_cpuid_entry *entries, unsigned nr, unsigned feature)
{
    const struct feature_word *w = &feature_words[feature / 32];
    const struct x86_cpuid_entry *c = x86_cpuid_find(entries, nr, w->function, w->index);

    return c && *entry_reg((struct x86_cpuid_entry *)c, w->reg) >> feature % 32 & 1;
}

static void feature_clear(struct x86_cpuid_table *t, unsigned feature)
{
    uint32_t *reg = feature_reg(t, feature / 32);

    if (reg)
        *reg &= ~(1u << feature % 32);
}

static void feature_set(struct x86_cpuid_table *t, unsigned feature)
{
    uint32_t *reg = feature_reg(t, feature / 32);

    if (reg)
        *reg |= 1u << feature % 32;
}

uint64_t cpuid_pv_xcr0(const struct x86_cpuid_entry *supported, unsigned nr_supported)
{
    const struct x86_cpuid_entry *c = x86_cpuid_find(supported, nr_supported, 0xd, 0);
    uint64_t offered, xcr0 = XCR0_X87 | XCR0_SSE;

    if (!c || !feature_is_set(supported, nr_supported, XEN_X86_FEATURE_XSAVE))
        return 0;
    offered = c->eax | (uint64_t)c->edx << 32;
    if ((offered & xcr0) != xcr0)
        return 0;
    if (offered & XCR0_AVX)
        xcr0 |= XCR0_AVX;
    if (xcr0 & XCR0_AVX && (offered & XCR0_AVX512) == XCR0_AVX512)
        xcr0 |= XCR0_AVX512;
    return xcr0;
}

uint32_t x86_xsave_bytes(const struct x86_cpuid_entry *entries, unsigned nr, uint64_t xcr0,
                         bool compacted)
{
    uint32_t bytes = XCR0_LEGACY_BYTES;

    for (unsigned i = 2; i < 63; i++) {
        const struct x86_cpuid_entry *c = x86_cpuid_find(entries, nr, 0xd, i);

        if (!(xcr0 >> i & 1) || !c)
            continue;
        if (compacted)
            bytes = (c->ecx & 2 ? align_up(bytes, 64u) : bytes) + c->eax;
        else
            bytes = max_of(bytes, c->ebx + c->eax);
    }
    return bytes;
}

void x86_tsc_scale(uint32_t khz, uint32_t *mul, int8_t *shift)
{
    uint64_t ns = 1000000, ticks = khz;

    /* ns / ticks in [1/2, 1), so that mul has all of its 32 bits */
    *shift = 0;
    while (ns >= ticks) {
        ticks <<= 1;
        (*shift)++;
    }
    while (ns * 2 < ticks) {
        ns <<= 1;
        (*shift)--;
    }
    *mul = (uint32_t)((ns << 32) / ticks);
}

static void table_add(struct x86_cpuid_table *t, struct x86_cpuid_entry c)
{
    /* Full: cpuid_pv_tables() sees it.  Twice the same: KVM's way to tell what a
     * leaf says when it is read again (leaf 2), once is enough. */
    if (t->nr == X86_CPUID_ENTRIES_MAX || table_find(t, c.function, c.index))
        return;
    c.flags = leaf_is_indexed(c.function) ? X86_CPUID_INDEXED : 0;
    if (!c.flags)
        c.index = 0;
    t->entry[t->nr++] = c;
}

static bool entry_is_shown(const struct x86_cpuid_entry *c, bool kernel, uint64_t xcr0)
{
    for (unsigned i = 0; i < array_size(cpuid_leaves); i++) {
        if (cpuid_leaves[i].function != c->function)
            continue;
        if (!(kernel ? cpuid_leaves[i].kernel : cpuid_leaves[i].hardware))
            return false;
        switch (c->function) {
        case 0xb:               /* made by topology_set() */
            return false;
        case 0xd:
            return xcr0 && (c->index < 2 || (c->index < 63 && xcr0 >> c->index & 1));
        default:
            return true;
        }
    }
    return false;
}

static void features_hide(struct x86_cpuid_table *t, bool kernel, uint64_t xcr0)
{
    if (kernel) {
        uint32_t known[X86_FEATURE_WORDS] = { 0 };

#define XEN_CPUFEATURE(name, value) \
        if ((value) / 32 < X86_FEATURE_WORDS) \
            known[(value) / 32] |= 1u << (value) % 32;
#include <xen/arch-x86/cpufeatureset.h>
#undef XEN_CPUFEATURE
        for (unsigned w = 0; w < X86_FEATURE_WORDS; w++) {
            uint32_t *reg = feature_reg(t, w);

            if (reg)
                *reg &= known[w];
        }
    }
    for (unsigned i = 0; i < cpuid_pv_nr_hidden; i++) {
        if (kernel || cpuid_pv_hidden[i].scope == CPUID_PV_HIDE_ALL)
            feature_clear(t, cpuid_pv_hidden[i].feature);
    }
    for (unsigned i = 0; i < array_size(feature_states); i++) {
        if ((xcr0 & feature_states[i].xcr0) != feature_states[i].xcr0)
            feature_clear(t, feature_states[i].feature);
    }
}

/* Leaf 0xd, so that it agrees with XCR0. */
static void xsave_set(struct x86_cpuid_table *t, uint64_t xcr0)
{
    bool xsavec = feature_is_set(t->entry, t->nr, XEN_X86_FEATURE_XSAVEC);

    for (unsigned i = 0; i < t->nr; i++) {
        struct x86_cpuid_entry *c = &t->entry[i];

        if (c->function != 0xd)
            continue;
        if (c->index == 0) {
            c->eax = (uint32_t)xcr0;
            c->ebx = c->ecx = x86_xsave_bytes(t->entry, t->nr, xcr0, false);
            c->edx = (uint32_t)(xcr0 >> 32);
        } else if (c->index == 1) {
            c->eax &= 7;        /* XSAVEOPT, XSAVEC, XGETBV with ecx 1 */
            c->ebx = xsavec ? x86_xsave_bytes(t->entry, t->nr, xcr0, true) : 0;
            c->ecx = c->edx = 0;
        } else {
            c->ecx &= 2;        /* alignment; not state of XSS */
            c->edx = 0;
        }
    }
}

static void topology_set(struct x86_cpuid_table *t)
{
    const struct x86_cpuid_entry *leaf0 = table_find(t, 0, 0);

    for (unsigned i = 0; i < t->nr; i++) {
        struct x86_cpuid_entry *c = &t->entry[i];

        switch (c->function) {
        case 1:                 /* CLFLUSH line; one logical processor */
            c->ebx = (c->ebx & 0xff00) | 1 << 16;
            break;
        case 4:
        case 0x8000001d:        /* shared by one thread, of one core */
            c->eax &= 0x3fff;
            break;
        case 0x80000008:
            c->ecx = 0;
            break;
        default:
            break;
        }
    }
    if (!leaf0 || leaf0->eax < 0xb)
        return;
    /* level type 1 is thread, 2 core; no bits to shift away, one of each */
    table_add(t, (struct x86_cpuid_entry){ .function = 0xb, .index = 0, .ebx = 1, .ecx = 1 << 8 });
    table_add(t, (struct x86_cpuid_entry){ .function = 0xb, .index = 1, .ebx = 1,
                                           .ecx = 2 << 8 | 1 });
}

void cpuid_pv_set_apic_id(struct x86_cpuid_table *t, uint32_t apic_id)
{
    for (unsigned i = 0; i < t->nr; i++) {
        if (t->entry[i].function == 1)
            t->entry[i].ebx = (t->entry[i].ebx & 0xffffff) | apic_id << 24;
        else if (t->entry[i].function == 0xb)
            t->entry[i].edx = apic_id;
    }
}

/* Words of the kernel table that are neither features nor topology. */
static void kernel_words_set(struct x86_cpuid_table *t, uint64_t xcr0)
{
    struct x86_cpuid_entry *c, *leaf0 = table_find(t, 0, 0), *leaf1 = table_find(t, 1, 0);
    bool amd = leaf0 && (leaf0->ebx == VENDOR_AMD_EBX || leaf0->ebx == VENDOR_HYGON_EBX);

    if (xcr0)
        feature_set(t, XEN_X86_FEATURE_OSXSAVE);
    c = table_find(t, 0x80000001, 0);
    if (c && leaf1 && amd)
        c->edx |= leaf1->edx & AMD_COMMON_EDX;
    c = table_find(t, 0x80000007, 0);
    if (c)
        c->eax = c->ebx = c->ecx = 0;
    c = table_find(t, 0x80000008, 0);
    if (c) {                    /* without 57-bit addresses there are 48 */
        c->eax = (c->eax & 0xff) | 48 << 8;
        c->edx = 0;
    }
    c = table_find(t, 0x80000021, 0);
    if (c)
        c->ebx = c->edx = 0;
}

static uint32_t address_bits(const struct x86_cpuid_table *t)
{
    const struct x86_cpuid_entry *c = x86_cpuid_find(t->entry, t->nr, 0x80000008, 0);

    return c && (c->eax & 0xff) ? c->eax & 0xff : 36;
}

/* xen/arch-x86/cpuid.h */
static void xen_leaves_add(struct x86_cpuid_table *t, const struct cpuid_pv_params *p)
{
    bool rdtscp = feature_is_set(t->entry, t->nr, XEN_X86_FEATURE_RDTSCP);
    bool itsc = feature_is_set(t->entry, t->nr, XEN_X86_FEATURE_ITSC);
    uint32_t mul;
    int8_t shift;

    x86_tsc_scale(p->tsc_khz, &mul, &shift);
    table_add(t, (struct x86_cpuid_entry){
        .function = XEN_CPUID_LEAF(0), .eax = XEN_CPUID_LEAF(XEN_CPUID_MAX_NUM_LEAVES),
        .ebx = XEN_CPUID_SIGNATURE_EBX, .ecx = XEN_CPUID_SIGNATURE_ECX,
        .edx = XEN_CPUID_SIGNATURE_EDX });
    table_add(t, (struct x86_cpuid_entry){ .function = XEN_CPUID_LEAF(1), .eax = p->xen_version });
    table_add(t, (struct x86_cpuid_entry){
        .function = XEN_CPUID_LEAF(2), .eax = 1, .ebx = XEN_CPUID_FIRST_LEAF,
        .ecx = XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD });
    /* ebx: tsc_mode 2, never emulated, lets Linux use the TSC as its clock */
    table_add(t, (struct x86_cpuid_entry){
        .function = XEN_CPUID_LEAF(3), .index = 0, .eax = p->tsc_stable << 1 | rdtscp << 2,
        .ebx = itsc ? 2 : 0, .ecx = p->tsc_khz });
    table_add(t, (struct x86_cpuid_entry){
        .function = XEN_CPUID_LEAF(3), .index = 1, .ecx = mul, .edx = (uint32_t)(int32_t)shift });
    table_add(t, (struct x86_cpuid_entry){
        .function = XEN_CPUID_LEAF(3), .index = 2, .eax = p->tsc_khz });
    table_add(t, (struct x86_cpuid_entry){ .function = XEN_CPUID_LEAF(4), .index = 0 });
    table_add(t, (struct x86_cpuid_entry){
        .function = XEN_CPUID_LEAF(5), .index = 0, .ebx = address_bits(t) });
}

static void table_make(struct x86_cpuid_table *t, const struct cpuid_pv_params *p, bool kernel)
{
    uint64_t xcr0 = cpuid_pv_xcr0(p->supported, p->nr_supported);

    t->nr = 0;
    for (unsigned i = 0; i < array_size(cpuid_leaves); i++) {
        for (unsigned n = 0; n < p->nr_supported; n++) {
            const struct x86_cpuid_entry *c = &p->supported[n];

            if (c->function == cpuid_leaves[i].function && entry_is_shown(c, kernel, xcr0))
                table_add(t, *c);
        }
    }
    for (unsigned i = 0; i < t->nr; i++) {
        struct x86_cpuid_entry *c = &t->entry[i];

        if (c->function == 0)
            c->eax = min_of(c->eax, LEAF_BASIC_MAX);
        else if (c->function == LEAF_EXTENDED)
            c->eax = min_of(c->eax, LEAF_EXTENDED_MAX);
        else if (c->function == 7 && c->index == 0)
            c->eax = min_of(c->eax, 2u);
    }
    features_hide(t, kernel, xcr0);
    if (!kernel && p->tsc_deadline)
        feature_set(t, XEN_X86_FEATURE_TSC_DEADLINE);
    if (!p->tsc_stable)
        feature_clear(t, XEN_X86_FEATURE_ITSC);
    feature_set(t, XEN_X86_FEATURE_HYPERVISOR);
    /* KVM shows CR4.OSXSAVE by itself. */
    feature_clear(t, XEN_X86_FEATURE_OSXSAVE);
    xsave_set(t, xcr0);
    topology_set(t);
    if (kernel)
        kernel_words_set(t, xcr0);
    xen_leaves_add(t, p);
}

int cpuid_pv_tables(const struct cpuid_pv_params *p, struct x86_cpuid_table *hardware,
                    struct x86_cpuid_table *kernel, struct err *e)
{
    static const struct {
        unsigned feature;
        const char *name;
    } needed[] = {
        { XEN_X86_FEATURE_LM, "64-bit mode" },
        { XEN_X86_FEATURE_SYSCALL, "SYSCALL" },
        { XEN_X86_FEATURE_FXSR, "FXSAVE" },
        { XEN_X86_FEATURE_X2APIC, "x2APIC" },
    };

    if (!p->tsc_khz)
        return err_set(e, EINVAL, "frequency of the guest's TSC is unknown");
    for (unsigned i = 0; i < array_size(needed); i++) {
        if (!feature_is_set(p->supported, p->nr_supported, needed[i].feature))
            return err_set(e, ENOTSUP, "this host's KVM does not offer %s, which PV guests need",
                           needed[i].name);
    }
    table_make(hardware, p, false);
    table_make(kernel, p, true);
    if (hardware->nr == X86_CPUID_ENTRIES_MAX || kernel->nr == X86_CPUID_ENTRIES_MAX)
        return err_set(e, E2BIG, "this host's KVM offers more CPUID leaves than the %d that fit",
                       X86_CPUID_ENTRIES_MAX - 1);
    return 0;
}
