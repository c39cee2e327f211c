/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <stdint.h>

#include <xen/arch-x86/cpufeatureset.h>
#include <xen/arch-x86/cpuid.h>

#include "x86/cpuid_pv.h"
#include "x86/meltdown.h"

#define INDEXED X86_CPUID_INDEXED

/* A processor that has every feature bit set, on a KVM that offers all of it:
 * what must not show has to be taken away by name. */
static const struct x86_cpuid_entry everything[] = {
    { .function = 0, .eax = 0x1f, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69 },
    { .function = 1, .eax = 0x906ea, .ebx = 0x07100800, .ecx = ~0u, .edx = ~0u },
    { .function = 2, .eax = 0x76036301 },
    { .function = 4, .index = 0, .flags = INDEXED, .eax = 0x1c004121, .ebx = 0x1c0003f },
    { .function = 4, .index = 1, .flags = INDEXED, .eax = 0x1c004122, .ebx = 0x1c0003f },
    { .function = 5, .eax = 0x40, .ebx = 0x40 },
    { .function = 6, .eax = 4 },
    { .function = 7, .index = 0, .flags = INDEXED, .eax = 3, .ebx = ~0u, .ecx = ~0u, .edx = ~0u },
    { .function = 7, .index = 1, .flags = INDEXED, .eax = ~0u, .ebx = ~0u, .ecx = ~0u, .edx = ~0u },
    { .function = 7, .index = 2, .flags = INDEXED, .eax = ~0u, .ebx = ~0u, .ecx = ~0u, .edx = ~0u },
    { .function = 0xa, .eax = 0x07300404, .edx = 0x603 },
    { .function = 0xb, .index = 0, .flags = INDEXED, .eax = 1, .ebx = 2, .ecx = 0x100, .edx = 7 },
    { .function = 0xd, .index = 0, .flags = INDEXED, .eax = 0x602ff, .ebx = 0x340, .ecx = 0x2b00 },
    { .function = 0xd, .index = 1, .flags = INDEXED, .eax = ~0u, .ebx = 0x3c0, .ecx = 0x1900 },
    { .function = 0xd, .index = 2, .flags = INDEXED, .eax = 0x100, .ebx = 0x240 },
    { .function = 0xd, .index = 3, .flags = INDEXED, .eax = 0x40, .ebx = 0x3c0 },
    { .function = 0xd, .index = 4, .flags = INDEXED, .eax = 0x40, .ebx = 0x400 },
    { .function = 0xd, .index = 5, .flags = INDEXED, .eax = 0x40, .ebx = 0x440 },
    { .function = 0xd, .index = 6, .flags = INDEXED, .eax = 0x200, .ebx = 0x480 },
    { .function = 0xd, .index = 7, .flags = INDEXED, .eax = 0x400, .ebx = 0x680 },
    { .function = 0xd, .index = 9, .flags = INDEXED, .eax = 8, .ebx = 0xa80 },
    { .function = 0xd, .index = 17, .flags = INDEXED, .eax = 0x40, .ebx = 0xac0, .ecx = 2 },
    { .function = 0xd, .index = 18, .flags = INDEXED, .eax = 0x2000, .ebx = 0xb00, .ecx = 6 },
    { .function = 0x14, .index = 0, .flags = INDEXED, .eax = 1, .ebx = 0xf },
    { .function = 0x1f, .index = 0, .flags = INDEXED, .eax = 1, .ebx = 2, .ecx = 0x100 },
    { .function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b },
    { .function = 0x40000001, .eax = ~0u },
    { .function = 0x80000000, .eax = 0x80000022 },
    { .function = 0x80000001, .ecx = ~0u, .edx = ~0u },
    { .function = 0x80000002, .eax = 0x65746e49 },
    { .function = 0x80000007, .eax = ~0u, .ebx = ~0u, .ecx = ~0u, .edx = ~0u },
    { .function = 0x80000008, .eax = 0x302e39, .ebx = ~0u, .ecx = 0x3007, .edx = 0x10007 },
    { .function = 0x8000000a, .eax = 1, .ebx = 8, .edx = ~0u },
    { .function = 0x80000021, .eax = ~0u, .ebx = ~0u, .ecx = ~0u, .edx = ~0u },
};

struct tables {
    struct x86_cpuid_entry supported[array_size(everything)];
    struct cpuid_pv_params p;
    struct x86_cpuid_table hw, kernel;
};

static void tables_init(struct tables *t)
{
    memset(t, 0, sizeof(*t));
    memcpy(t->supported, everything, sizeof(everything));
    t->p = (struct cpuid_pv_params){
        .supported = t->supported, .nr_supported = array_size(everything), .tsc_deadline = true,
        .tsc_stable = true, .tsc_khz = 2000000, .xen_version = 4 << 16 | 17,
    };
}

static void tables_make(struct tables *t)
{
    struct err e = { 0 };

    assert_int_equal(cpuid_pv_tables(&t->p, &t->hw, &t->kernel, &e), 0);
}

static struct x86_cpuid_entry *supported(struct tables *t, uint32_t function, uint32_t index)
{
    return (struct x86_cpuid_entry *)x86_cpuid_find(t->supported, array_size(t->supported),
                                                    function, index);
}

static struct x86_cpuid_entry get(const struct x86_cpuid_table *t, uint32_t function,
                                  uint32_t index)
{
    const struct x86_cpuid_entry *c = x86_cpuid_find(t->entry, t->nr, function, index);

    return c ? *c : (struct x86_cpuid_entry){ 0 };
}

/* The words of cpufeatureset.h, spelled out once more. */
static uint32_t word(const struct x86_cpuid_table *t, unsigned w)
{
    switch (w) {
    case 0: return get(t, 1, 0).edx;
    case 1: return get(t, 1, 0).ecx;
    case 2: return get(t, 0x80000001, 0).edx;
    case 3: return get(t, 0x80000001, 0).ecx;
    case 4: return get(t, 0xd, 1).eax;
    case 5: return get(t, 7, 0).ebx;
    case 6: return get(t, 7, 0).ecx;
    case 7: return get(t, 0x80000007, 0).edx;
    case 8: return get(t, 0x80000008, 0).ebx;
    case 9: return get(t, 7, 0).edx;
    case 10: return get(t, 7, 1).eax;
    case 11: return get(t, 0x80000021, 0).eax;
    case 12: return get(t, 7, 1).ebx;
    case 13: return get(t, 7, 2).edx;
    case 14: return get(t, 7, 1).ecx;
    case 15: return get(t, 7, 1).edx;
    case 18: return get(t, 0x80000021, 0).ecx;
    default: fail_msg("no word %u", w); return 0;
    }
}

static bool has(const struct x86_cpuid_table *t, unsigned feature)
{
    return word(t, feature / 32) >> feature % 32 & 1;
}

static void every_row_is_hidden_where_it_says(void **state)
{
    struct tables t;

    tables_init(&t);
    tables_make(&t);
    assert_true(cpuid_pv_nr_hidden > 50);
    for (unsigned i = 0; i < cpuid_pv_nr_hidden; i++) {
        const struct cpuid_pv_hidden *h = &cpuid_pv_hidden[i];

        if (has(&t.kernel, h->feature))
            fail_msg("%s shows in the kernel table", h->name);
        if (has(&t.hw, h->feature) != (h->scope == CPUID_PV_HIDE_KERNEL))
            fail_msg("%s: wrong in the hardware table", h->name);
        for (unsigned n = 0; n < i; n++)
            assert_int_not_equal(cpuid_pv_hidden[n].feature, h->feature);
    }
}

static void what_a_pv_kernel_cannot_have_is_hidden_from_it(void **state)
{
    const unsigned hidden[] = {
        XEN_X86_FEATURE_PSE, XEN_X86_FEATURE_PGE, XEN_X86_FEATURE_MTRR, XEN_X86_FEATURE_MCE,
        XEN_X86_FEATURE_PCID, XEN_X86_FEATURE_SMEP, XEN_X86_FEATURE_SMAP, XEN_X86_FEATURE_UMIP,
        XEN_X86_FEATURE_PKU, 6 * 32 + 16 /* LA57 */,
        XEN_X86_FEATURE_XSAVES, XEN_X86_FEATURE_PAGE1GB, XEN_X86_FEATURE_MONITOR,
        XEN_X86_FEATURE_TOPOEXT, XEN_X86_FEATURE_SVM, XEN_X86_FEATURE_VMX,
        XEN_X86_FEATURE_X2APIC, XEN_X86_FEATURE_TSC_DEADLINE, XEN_X86_FEATURE_ARCH_CAPS,
    };
    struct tables t;

    tables_init(&t);
    tables_make(&t);
    for (unsigned i = 0; i < array_size(hidden); i++)
        assert_false(has(&t.kernel, hidden[i]));
}

static void ordinary_features_show_in_both(void **state)
{
    const unsigned shown[] = {
        XEN_X86_FEATURE_FPU, XEN_X86_FEATURE_TSC, XEN_X86_FEATURE_PAE, XEN_X86_FEATURE_CX8,
        XEN_X86_FEATURE_SEP, XEN_X86_FEATURE_PAT, XEN_X86_FEATURE_FXSR, XEN_X86_FEATURE_SSE2,
        XEN_X86_FEATURE_CX16, XEN_X86_FEATURE_AESNI, XEN_X86_FEATURE_XSAVE, XEN_X86_FEATURE_AVX,
        XEN_X86_FEATURE_HYPERVISOR, XEN_X86_FEATURE_SYSCALL, XEN_X86_FEATURE_NX,
        XEN_X86_FEATURE_LM, XEN_X86_FEATURE_RDTSCP, XEN_X86_FEATURE_LAHF_LM,
        XEN_X86_FEATURE_XSAVEOPT, XEN_X86_FEATURE_XSAVEC, XEN_X86_FEATURE_XGETBV1,
        XEN_X86_FEATURE_AVX2, XEN_X86_FEATURE_AVX512F, XEN_X86_FEATURE_AVX512_BF16,
        XEN_X86_FEATURE_ERMS, XEN_X86_FEATURE_FSGSBASE, XEN_X86_FEATURE_FSRM,
        XEN_X86_FEATURE_RDPID, XEN_X86_FEATURE_CLZERO,
        XEN_X86_FEATURE_LFENCE_DISPATCH, XEN_X86_FEATURE_ITSC, XEN_X86_FEATURE_MD_CLEAR,
    };
    struct tables t;

    tables_init(&t);
    tables_make(&t);
    for (unsigned i = 0; i < array_size(shown); i++) {
        if (!has(&t.kernel, shown[i]) || !has(&t.hw, shown[i]))
            fail_msg("feature %u:%u", shown[i] / 32, shown[i] % 32);
    }
}

static void the_shim_keeps_what_it_lives_by(void **state)
{
    const unsigned kept[] = {
        XEN_X86_FEATURE_X2APIC, XEN_X86_FEATURE_TSC_DEADLINE, XEN_X86_FEATURE_APIC,
        XEN_X86_FEATURE_PGE, XEN_X86_FEATURE_PSE, XEN_X86_FEATURE_PAGE1GB, XEN_X86_FEATURE_NX,
        XEN_X86_FEATURE_PCID, XEN_X86_FEATURE_FSGSBASE, XEN_X86_FEATURE_SMEP,
        XEN_X86_FEATURE_MTRR, XEN_X86_FEATURE_IBRSB,
    };
    struct tables t;

    tables_init(&t);
    tables_make(&t);
    for (unsigned i = 0; i < array_size(kept); i++)
        assert_true(has(&t.hw, kept[i]));
}

static void tsc_deadline_timer_is_told_apart_from_cpuid(void **state)
{
    struct tables t;

    tables_init(&t);
    supported(&t, 1, 0)->ecx &= ~(1u << 24);    /* as KVM does */
    tables_make(&t);
    assert_true(has(&t.hw, XEN_X86_FEATURE_TSC_DEADLINE));
    t.p.tsc_deadline = false;
    tables_make(&t);
    assert_false(has(&t.hw, XEN_X86_FEATURE_TSC_DEADLINE));
}

static void bits_unknown_to_xen_are_hidden_from_the_kernel(void **state)
{
    struct tables t;

    tables_init(&t);
    tables_make(&t);
    assert_false(has(&t.kernel, 0 * 32 + 18));      /* processor serial number */
    assert_false(has(&t.kernel, 10 * 32 + 26));     /* LAM */
    assert_int_equal(get(&t.kernel, 7, 1).eax & ~(1u << 4 | 1u << 5 | 7u << 10), 0);
}

static void osxsave_follows_xsave(void **state)
{
    struct tables t;

    tables_init(&t);
    tables_make(&t);
    assert_true(has(&t.kernel, XEN_X86_FEATURE_OSXSAVE));
    assert_false(has(&t.hw, XEN_X86_FEATURE_OSXSAVE));  /* KVM's, from CR4 */
    supported(&t, 1, 0)->ecx &= ~(1u << 26);
    tables_make(&t);
    assert_false(has(&t.kernel, XEN_X86_FEATURE_OSXSAVE));
    assert_int_equal(cpuid_pv_xcr0(t.supported, array_size(t.supported)), 0);
    assert_null(x86_cpuid_find(t.kernel.entry, t.kernel.nr, 0xd, 0));
    assert_false(has(&t.kernel, XEN_X86_FEATURE_AVX));
    assert_false(has(&t.hw, XEN_X86_FEATURE_AVX512F));
    assert_true(has(&t.kernel, XEN_X86_FEATURE_SSE2));
}

static uint64_t xcr0_of(uint32_t offered)
{
    struct tables t;

    tables_init(&t);
    supported(&t, 0xd, 0)->eax = offered;
    return cpuid_pv_xcr0(t.supported, array_size(t.supported));
}

static void xcr0_is_limited_to_avx_512(void **state)
{
    assert_int_equal(xcr0_of(0x602ff), 0xe7);       /* not MPX, PKRU, AMX */
    assert_int_equal(xcr0_of(0xe7), 0xe7);
    assert_int_equal(xcr0_of(0x67), 0x07);          /* AVX-512 whole or not at all */
    assert_int_equal(xcr0_of(0xe3), 0x03);          /* nor without AVX */
    assert_int_equal(xcr0_of(0x07), 0x07);
    assert_int_equal(xcr0_of(0x03), 0x03);
    assert_int_equal(xcr0_of(0x01), 0);
}

static void xsave_leaf_describes_exactly_xcr0(void **state)
{
    struct tables t;

    tables_init(&t);
    tables_make(&t);
    for (unsigned i = 0; i < 2; i++) {
        const struct x86_cpuid_table *table = i ? &t.kernel : &t.hw;

        assert_int_equal(get(table, 0xd, 0).eax, 0xe7);
        assert_int_equal(get(table, 0xd, 0).ebx, 0x680 + 0x400);
        assert_int_equal(get(table, 0xd, 0).ecx, 0x680 + 0x400);
        assert_int_equal(get(table, 0xd, 0).edx, 0);
        assert_int_equal(get(table, 0xd, 1).eax, 7);
        assert_int_equal(get(table, 0xd, 1).ebx, 0x240 + 0x100 + 0x40 + 0x200 + 0x400);
        assert_int_equal(get(table, 0xd, 1).ecx, 0);
        for (unsigned c = 2; c < 64; c++)
            assert_int_equal(!!x86_cpuid_find(table->entry, table->nr, 0xd, c), 0xe7ull >> c & 1);
    }
}

static void avx_512_goes_with_its_state_and_avx_stays(void **state)
{
    struct tables t;

    tables_init(&t);
    supported(&t, 0xd, 0)->eax = 7;
    tables_make(&t);
    assert_false(has(&t.kernel, XEN_X86_FEATURE_AVX512F));
    assert_false(has(&t.hw, XEN_X86_FEATURE_AVX512_BF16));
    assert_false(has(&t.hw, XEN_X86_FEATURE_AVX512_FP16));
    assert_true(has(&t.kernel, XEN_X86_FEATURE_AVX2));
    assert_int_equal(get(&t.kernel, 0xd, 0).ebx, 0x340);
}

static void compacted_size_aligns_where_a_component_asks(void **state)
{
    const uint64_t amx = 1ull << 17 | 1ull << 18;

    assert_int_equal(x86_xsave_bytes(everything, array_size(everything), 3, true), 576);
    assert_int_equal(x86_xsave_bytes(everything, array_size(everything), 1 << 9 | 3, true), 584);
    assert_int_equal(x86_xsave_bytes(everything, array_size(everything), amx | 1 << 9 | 3, true),
                     640 + 0x40 + 0x2000);
    assert_int_equal(x86_xsave_bytes(everything, array_size(everything), amx | 3, false),
                     0xb00 + 0x2000);
}

static void leaves_not_listed_are_not_shown(void **state)
{
    const uint32_t gone[] = { 5, 0xa, 0x14, 0x1f, 0x8000000a };
    struct tables t;

    tables_init(&t);
    tables_make(&t);
    for (unsigned i = 0; i < array_size(gone); i++) {
        assert_null(x86_cpuid_find(t.hw.entry, t.hw.nr, gone[i], 0));
        assert_null(x86_cpuid_find(t.kernel.entry, t.kernel.nr, gone[i], 0));
    }
    assert_int_equal(get(&t.kernel, 0, 0).eax, 0xd);
    assert_int_equal(get(&t.kernel, 0, 0).ebx, 0x756e6547);
    assert_int_equal(get(&t.kernel, 0x80000000, 0).eax, 0x80000021);
    assert_int_equal(get(&t.kernel, 7, 0).eax, 2);
    assert_int_equal(get(&t.kernel, 0x80000002, 0).eax, 0x65746e49);
}

static void every_vcpu_is_a_package_with_its_apic_id(void **state)
{
    struct tables t;

    tables_init(&t);
    tables_make(&t);
    cpuid_pv_set_apic_id(&t.hw, 5);
    cpuid_pv_set_apic_id(&t.hw, 33);
    assert_int_equal(get(&t.hw, 1, 0).ebx, 33u << 24 | 1 << 16 | 0x0800);
    assert_int_equal(get(&t.hw, 0xb, 0).edx, 33);
    assert_int_equal(get(&t.hw, 0xb, 0).ebx, 1);
    assert_int_equal(get(&t.hw, 0xb, 0).ecx, 0x100);
    assert_int_equal(get(&t.hw, 0xb, 1).edx, 33);
    assert_int_equal(get(&t.hw, 0xb, 1).ecx, 0x201);
    assert_int_equal(get(&t.hw, 4, 0).eax, 0x0121);
    assert_int_equal(get(&t.hw, 4, 1).eax, 0x0122);
    assert_int_equal(get(&t.hw, 0x80000008, 0).ecx, 0);
    assert_int_equal(get(&t.kernel, 1, 0).ebx, 1 << 16 | 0x0800);
}

static void xen_leaves_are_shown_instead_of_kvms(void **state)
{
    struct x86_cpuid_entry c;
    struct tables t;

    tables_init(&t);
    tables_make(&t);
    for (unsigned i = 0; i < 2; i++) {
        const struct x86_cpuid_table *table = i ? &t.kernel : &t.hw;

        c = get(table, 0x40000000, 0);
        assert_int_equal(c.eax, 0x40000005);
        assert_memory_equal(&c.ebx, "XenVMMXenVMM", 12);
        assert_int_equal(get(table, 0x40000001, 0).eax, 4 << 16 | 17);
        c = get(table, 0x40000002, 0);
        assert_int_equal(c.eax, 1);
        assert_int_equal(c.ecx, XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD);
        c = get(table, 0x40000003, 0);
        assert_int_equal(c.eax, 1 << 1 | 1 << 2);
        assert_int_equal(c.ebx, 2);
        assert_int_equal(c.ecx, 2000000);
        c = get(table, 0x40000003, 1);
        assert_int_equal(c.ecx, 0x80000000);
        assert_int_equal(c.edx, 0);
        assert_int_equal(get(table, 0x40000003, 2).eax, 2000000);
        assert_int_equal(get(table, 0x40000005, 0).ebx, 0x39);
    }
}

static void unstable_tsc_is_not_called_invariant(void **state)
{
    struct tables t;

    tables_init(&t);
    t.p.tsc_stable = false;
    tables_make(&t);
    assert_false(has(&t.kernel, XEN_X86_FEATURE_ITSC));
    assert_false(has(&t.hw, XEN_X86_FEATURE_ITSC));
    assert_int_equal(get(&t.kernel, 0x40000003, 0).eax, 1 << 2);
    assert_int_equal(get(&t.kernel, 0x40000003, 0).ebx, 0);
}

static void amd_repeats_the_bits_of_leaf_1(void **state)
{
    struct tables t;

    tables_init(&t);
    tables_make(&t);
    assert_int_equal(get(&t.kernel, 0x80000001, 0).edx & 0x0183f3ff, 0);
    memcpy(&supported(&t, 0, 0)->ebx, "Auth", 4);
    tables_make(&t);
    assert_int_equal(get(&t.kernel, 0x80000001, 0).edx & 0x0183f3ff,
                     get(&t.kernel, 1, 0).edx & 0x0183f3ff);
    assert_int_not_equal(get(&t.kernel, 0x80000001, 0).edx & 0x0183f3ff, 0);
    assert_int_equal(get(&t.kernel, 0x80000001, 0).edx & 1 << 3, 0);    /* PSE */
}

static void processor_without_x2apic_is_an_error(void **state)
{
    struct err e = { 0 };
    struct tables t;

    tables_init(&t);
    supported(&t, 1, 0)->ecx &= ~(1u << 21);
    assert_int_equal(cpuid_pv_tables(&t.p, &t.hw, &t.kernel, &e), -ENOTSUP);
    assert_string_equal(e.text, "this host's KVM does not offer x2APIC, which PV guests need");
}

static void tsc_scale_counts_nanoseconds(void **state)
{
    const uint32_t khz[] = { 1, 1000, 999999, 1000000, 1000001, 2500000, 3999999, UINT32_MAX };

    for (unsigned i = 0; i < array_size(khz); i++) {
        uint64_t ticks = (uint64_t)khz[i] * 1000, ns;      /* one second */
        uint32_t mul;
        int8_t shift;

        x86_tsc_scale(khz[i], &mul, &shift);
        assert_true(mul >> 31);
        ns = (uint64_t)(((unsigned __int128)(shift < 0 ? ticks >> -shift : ticks << shift) * mul)
                        >> 32);
        assert_in_range(ns, 999999000, 1000000000);
    }
}

static void more_leaves_than_fit_are_an_error(void **state)
{
    static struct x86_cpuid_entry many[array_size(everything) + 200];
    struct err e = { 0 };
    struct tables t;

    tables_init(&t);
    memcpy(many, everything, sizeof(everything));
    for (unsigned i = 0; i < 200; i++)
        many[array_size(everything) + i] = (struct x86_cpuid_entry){
            .function = 4, .index = i + 2, .flags = INDEXED, .eax = 1 };
    t.p.supported = many;
    t.p.nr_supported = array_size(many);
    assert_int_equal(cpuid_pv_tables(&t.p, &t.hw, &t.kernel, &e), -E2BIG);
    assert_int_equal(t.hw.nr, X86_CPUID_ENTRIES_MAX);
}

static void only_the_words_not_affected_rule_meltdown_out(void **state)
{
    assert_false(x86_meltdown_affected("Not affected\n"));
    assert_false(x86_meltdown_affected("Not affected"));
    assert_true(x86_meltdown_affected("Mitigation: PTI\n"));
    assert_true(x86_meltdown_affected("Vulnerable\n"));
    assert_true(x86_meltdown_affected("Unknown (XEN PV detected, hypervisor mitigation "
                                      "required)\n"));
    assert_true(x86_meltdown_affected("Not affected, they say\n"));
    assert_true(x86_meltdown_affected("Not"));
    assert_true(x86_meltdown_affected(""));
    assert_true(x86_meltdown_affected(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_hidden_where_it_says),
        cmocka_unit_test(what_a_pv_kernel_cannot_have_is_hidden_from_it),
        cmocka_unit_test(ordinary_features_show_in_both),
        cmocka_unit_test(the_shim_keeps_what_it_lives_by),
        cmocka_unit_test(tsc_deadline_timer_is_told_apart_from_cpuid),
        cmocka_unit_test(bits_unknown_to_xen_are_hidden_from_the_kernel),
        cmocka_unit_test(osxsave_follows_xsave),
        cmocka_unit_test(xcr0_is_limited_to_avx_512),
        cmocka_unit_test(xsave_leaf_describes_exactly_xcr0),
        cmocka_unit_test(avx_512_goes_with_its_state_and_avx_stays),
        cmocka_unit_test(compacted_size_aligns_where_a_component_asks),
        cmocka_unit_test(leaves_not_listed_are_not_shown),
        cmocka_unit_test(every_vcpu_is_a_package_with_its_apic_id),
        cmocka_unit_test(xen_leaves_are_shown_instead_of_kvms),
        cmocka_unit_test(unstable_tsc_is_not_called_invariant),
        cmocka_unit_test(amd_repeats_the_bits_of_leaf_1),
        cmocka_unit_test(processor_without_x2apic_is_an_error),
        cmocka_unit_test(tsc_scale_counts_nanoseconds),
        cmocka_unit_test(more_leaves_than_fit_are_an_error),
        cmocka_unit_test(only_the_words_not_affected_rule_meltdown_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
