/* SPDX-License-Identifier: MIT */
/* Builds domains in real guest memory and looks at them as the guest would:
 * through the page tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <errno.h>

#include <xen/elfnote.h>
#include <xen/xen.h>

#include "pv_domain.h"

#define P_PRESENT 0x01ull
#define P_RW      0x02ull
#define P_USER    0x04ull
#define P_ADDRESS 0x000ffffffffff000ull

static const uint64_t *table_at(const struct domain *d, uint64_t entry)
{
    const uint64_t *t = guest_mem_ptr(&d->mem, gpa(entry & P_ADDRESS), PAGE_SIZE);

    assert_non_null(t);
    return t;
}

/* The entries on the way to va, or 0 from where on nothing is present. */
static void walk(const struct domain *d, uint64_t va, uint64_t entry[4])
{
    const uint64_t *t = table_at(d, d->r.l4_gpa.v);

    memset(entry, 0, 4 * sizeof(*entry));
    for (unsigned level = 0; level < 4; level++) {
        entry[level] = t[va >> (39 - 9 * level) & 511];
        if (!(entry[level] & P_PRESENT))
            return;
        if (level < 3)
            t = table_at(d, entry[level]);
    }
}

/* Leaf entry of va, 0 if not mapped */
static uint64_t leaf(const struct domain *d, uint64_t va)
{
    uint64_t entry[4];

    walk(d, va, entry);
    return entry[3];
}

static void *guest_ptr(const struct domain *d, uint64_t va, uint64_t bytes)
{
    uint64_t l1 = leaf(d, va);

    assert_true(l1 & P_PRESENT);
    return guest_mem_ptr(&d->mem, gpa((l1 & P_ADDRESS) + (va & PAGE_MASK)), bytes);
}

/* Present leaves below all L4 slots outside the hole, counted without knowing
 * what should be there. */
static uint64_t count_leaves(const struct domain *d, uint64_t entry, unsigned level)
{
    const uint64_t *t = table_at(d, entry);
    uint64_t n = 0;

    for (unsigned i = 0; i < 512; i++) {
        if (level == 4 && i >= PV_HOLE_L4_FIRST && i < PV_HOLE_L4_FIRST + PV_HOLE_L4_SLOTS)
            continue;
        if (t[i] & P_PRESENT)
            n += level == 1 ? 1 : count_leaves(d, t[i], level - 1);
    }
    return n;
}

/* What holds for every domain. */
static void assert_layout_is_sound(struct domain *d)
{
    const struct pv_build_result *r = &d->r;
    const struct start_info *si = guest_ptr(d, r->start_info_va, sizeof(*si));
    uint64_t nr_mapped = (r->virt_end - r->virt_base) >> PAGE_SHIFT;
    uint64_t p2m_apart = r->p2m_tables.nr ? r->p2m.nr : 0;
    uint64_t stack_pfn = ((r->stack_ptr - r->virt_base) >> PAGE_SHIFT) - 1;

    assert_int_equal(r->virt_end % (4 * MIB), 0);
    assert_true(r->virt_end - r->stack_ptr >= 512 * KIB);
    assert_true(r->nr_pages_used <= d->p.nr_pages);
    for (uint64_t pfn = 0; pfn < nr_mapped; pfn++) {
        uint64_t l1 = leaf(d, r->virt_base + (pfn << PAGE_SHIFT));
        bool table = pfn >= r->tables.first_pfn && pfn < r->tables.first_pfn + r->tables.nr;

        assert_int_equal(l1 & P_ADDRESS, (DOMAIN_FIRST_MFN + pfn) << PAGE_SHIFT);
        assert_int_equal(!!(l1 & P_RW), !table);
    }
    assert_int_equal(count_leaves(d, r->l4_gpa.v, 4), nr_mapped + p2m_apart);
    assert_memory_equal(table_at(d, r->l4_gpa.v) + PV_HOLE_L4_FIRST, d->p.hole_l4,
                        sizeof(d->p.hole_l4));

    assert_string_equal(si->magic, "xen-3.0-x86_64");
    assert_int_equal(si->nr_pages, d->p.nr_pages);
    assert_int_equal(si->shared_info, 0x77000);
    assert_int_equal(si->store_mfn, r->store_mfn);
    assert_int_equal(si->store_evtchn, 1);
    assert_int_equal(si->console.domU.mfn, r->console_mfn);
    assert_int_equal(si->console.domU.evtchn, 2);
    assert_int_equal(si->nr_pt_frames, r->tables.nr);
    assert_int_equal(leaf(d, si->pt_base) & P_ADDRESS, r->l4_gpa.v);
    assert_string_equal((const char *)si->cmd_line, d->p.cmdline);
    assert_true(si->flags & SIF_VIRT_P2M_4TOOLS);
    assert_false(si->flags & (SIF_PRIVILEGED | SIF_INITDOMAIN));
    /* in the order of xen.h */
    assert_int_equal(r->store_mfn, r->start_info_mfn + 1);
    assert_int_equal(r->console_mfn, r->start_info_mfn + 2);
    assert_int_equal(r->tables.first_pfn + DOMAIN_FIRST_MFN, r->start_info_mfn + 3);
    assert_int_equal(stack_pfn, r->tables.first_pfn + r->tables.nr);

    for (uint64_t pfn = 0; pfn < d->p.nr_pages; pfn += PAGE_SIZE / 8) {
        const uint64_t *p2m = guest_ptr(d, si->mfn_list + pfn * 8, 8);

        for (uint64_t i = 0; i < PAGE_SIZE / 8 && pfn + i < d->p.nr_pages; i++)
            assert_int_equal(p2m[i], DOMAIN_FIRST_MFN + pfn + i);
    }
}

static void assert_text_at(const struct domain *d, uint64_t va, uint64_t bytes)
{
    const uint8_t *p = guest_ptr(d, va, bytes);

    for (uint64_t i = 0; i < bytes; i++)
        assert_int_equal(p[i], image_text_byte(i));
}

static void linux_is_built_with_p2m_and_ramdisk_apart(void **state)
{
    const struct start_info *si;
    struct domain d;

    domain_init_linux(&d, 64 * MIB >> PAGE_SHIFT);
    domain_add_ramdisk(&d, 100001);
    domain_build(&d);
    assert_layout_is_sound(&d);
    assert_int_equal(d.r.entry, LINUX_BASE + 0x1000010);
    assert_text_at(&d, LINUX_BASE + 0x1000000, 3000);

    si = guest_ptr(&d, d.r.start_info_va, sizeof(*si));
    assert_int_equal(si->mfn_list, LINUX_P2M);
    assert_int_equal(si->first_p2m_pfn, d.r.p2m.first_pfn);
    assert_int_equal(d.r.p2m_tables.first_pfn, d.r.p2m.first_pfn + d.r.p2m.nr);
    assert_int_equal(d.r.p2m_tables.nr, 3);
    assert_int_equal(si->nr_p2m_frames, d.r.p2m.nr + 3);
    /* frames that the initial mapping does not reach */
    assert_true(d.r.p2m.first_pfn >= (d.r.virt_end - d.r.virt_base) >> PAGE_SHIFT);

    assert_true(si->flags & SIF_MOD_START_PFN);
    assert_int_equal(si->mod_start, d.r.ramdisk.first_pfn);
    assert_int_equal(si->mod_len, 100001);
    assert_true(si->mod_start >= (d.r.virt_end - d.r.virt_base) >> PAGE_SHIFT);
    const uint8_t *rd = guest_mem_ptr(
        &d.mem, gpa((DOMAIN_FIRST_MFN + si->mod_start) << PAGE_SHIFT), 100001);
    for (size_t i = 0; i < 100001; i++)
        assert_int_equal(rd[i], (uint8_t)(i * 3 + 1));
    domain_free(&d);
}

static void kernel_without_notes_gets_p2m_and_ramdisk_mapped(void **state)
{
    const struct start_info *si;
    struct domain d;

    domain_init_small(&d, 32 * MIB >> PAGE_SHIFT);
    domain_add_ramdisk(&d, 5000);
    domain_build(&d);
    assert_layout_is_sound(&d);
    assert_int_equal(d.r.virt_base, 0);
    assert_int_equal(d.r.entry, 0x2000);
    assert_int_equal(d.r.p2m_tables.nr, 0);

    si = guest_ptr(&d, d.r.start_info_va, sizeof(*si));
    assert_int_equal(si->mod_start, 0xb000);    /* kernel ends at 0xa010 */
    assert_int_equal(si->mod_len, 5000);
    assert_int_equal(si->mfn_list, 0xd000);
    assert_int_equal(si->first_p2m_pfn, 0);
    assert_int_equal(si->nr_p2m_frames, 0);
    assert_false(si->flags & SIF_MOD_START_PFN);
    const uint8_t *rd = guest_ptr(&d, si->mod_start, 5000);
    for (size_t i = 0; i < 5000; i++)
        assert_int_equal(rd[i], (uint8_t)(i * 3 + 1));
    domain_free(&d);
}

static void no_ramdisk_leaves_its_fields_zero(void **state)
{
    const struct start_info *si;
    struct domain d;

    domain_init_linux(&d, 64 * MIB >> PAGE_SHIFT);
    domain_build(&d);
    assert_layout_is_sound(&d);
    si = guest_ptr(&d, d.r.start_info_va, sizeof(*si));
    assert_int_equal(si->mod_start, 0);
    assert_int_equal(si->mod_len, 0);
    assert_false(si->flags & SIF_MOD_START_PFN);
    domain_free(&d);
}

static void hypercall_page_is_filled_and_nothing_beside_it(void **state)
{
    const uint8_t *page;
    struct domain d;

    domain_init_small(&d, 32 * MIB >> PAGE_SHIFT);
    domain_build(&d);
    page = guest_ptr(&d, 0x3000, PAGE_SIZE);
    assert_int_equal(page[0], 0xc3);
    assert_int_equal(page[PAGE_SIZE - 1], 0xc3);
    assert_text_at(&d, 0x2000, 3000);
    assert_int_equal(*(uint8_t *)guest_ptr(&d, 0x4000, 1), 0);
    domain_free(&d);
}

static void paddr_offset_is_taken_off_segment_addresses(void **state)
{
    struct image_shape s = domain_linux_shape;
    struct notes n = { 0 };
    struct domain d;

    s.paddr = LINUX_BASE + 0x200000;
    notes_add_common(&n);
    note_add_u64(&n, XEN_ELFNOTE_VIRT_BASE, LINUX_BASE);
    note_add_u64(&n, XEN_ELFNOTE_PADDR_OFFSET, LINUX_BASE);
    note_add_u64(&n, XEN_ELFNOTE_ENTRY, LINUX_BASE + 0x200000);
    domain_init(&d, &s, &n, 32 * MIB >> PAGE_SHIFT);
    domain_build(&d);
    assert_layout_is_sound(&d);
    assert_text_at(&d, LINUX_BASE + 0x200000, 3000);
    domain_free(&d);
}

static void assert_user_bit(bool user)
{
    struct domain d;
    uint64_t entry[4];

    domain_init_linux(&d, 64 * MIB >> PAGE_SHIFT);
    d.p.user_bit = user;
    domain_build(&d);
    assert_layout_is_sound(&d);
    for (uint64_t va = d.r.virt_base; va < d.r.virt_end; va += PAGE_SIZE) {
        walk(&d, va, entry);
        for (unsigned level = 0; level < 4; level++)
            assert_int_equal(!!(entry[level] & P_USER), user);
    }
    walk(&d, LINUX_P2M, entry);
    for (unsigned level = 0; level < 4; level++)
        assert_int_equal(!!(entry[level] & P_USER), user);
    domain_free(&d);
}

static void ring_3_kernel_gets_user_pages(void **state)
{
    assert_user_bit(true);
}

static void ring_1_kernel_gets_supervisor_pages(void **state)
{
    assert_user_bit(false);
}

/* Mappings that cross table boundaries of every level; memory is sparse. */
static void mapping_may_cross_tables_of_every_level(void **state)
{
    const uint64_t bases[] = { 0, 0x40000000 - 0x400000, 0x8000000000 - 0x400000,
                               LINUX_BASE - 0x40000000 };

    for (unsigned b = 0; b < array_size(bases); b++) {
        struct image_shape s = domain_small_shape;
        struct notes n = { 0 };
        struct domain d;

        notes_add_common(&n);
        note_add_u64(&n, XEN_ELFNOTE_VIRT_BASE, bases[b]);
        note_add_u64(&n, XEN_ELFNOTE_ENTRY, bases[b] + 0x2000);
        s.mem_bytes = GIB;
        domain_init(&d, &s, &n, 2 * GIB >> PAGE_SHIFT);
        domain_build(&d);
        assert_layout_is_sound(&d);
        domain_free(&d);
    }
}

static void p2m_apart_shares_tables_with_the_initial_mapping(void **state)
{
    static const struct {
        uint64_t base, p2m;
        unsigned nr_tables;
    } cases[] = {
        { 0x40000000, 0x3fe00000, 2 },      /* same L3 */
        { 0x40400000, 0x40000000, 1 },      /* same L2 */
        { 0x40100000, 0x40000000, 0 },      /* same L1 */
    };

    for (unsigned c = 0; c < array_size(cases); c++) {
        struct notes n = { 0 };
        struct domain d;

        notes_add_common(&n);
        note_add_u64(&n, XEN_ELFNOTE_VIRT_BASE, cases[c].base);
        note_add_u64(&n, XEN_ELFNOTE_ENTRY, cases[c].base + 0x2000);
        note_add_u64(&n, XEN_ELFNOTE_INIT_P2M, cases[c].p2m);
        domain_init(&d, &domain_small_shape, &n, 64 * MIB >> PAGE_SHIFT);
        domain_build(&d);
        assert_int_equal(d.r.p2m_tables.nr, cases[c].nr_tables);
        assert_int_equal(count_leaves(&d, d.r.l4_gpa.v, 4),
                         d.r.p2m.nr + ((d.r.virt_end - d.r.virt_base) >> PAGE_SHIFT));
        assert_int_equal(*(uint64_t *)guest_ptr(&d, cases[c].p2m + 8 * 5000, 8),
                         DOMAIN_FIRST_MFN + 5000);
        domain_free(&d);
    }
}

static void unusable_init_p2m_counts_as_none(void **state)
{
    const uint64_t addresses[] = { LINUX_P2M + 8, LINUX_BASE + 0x40000000 };

    for (unsigned a = 0; a < array_size(addresses); a++) {
        struct notes n = { 0 };
        struct domain d;

        notes_add_linux(&n);
        note_add_u64(&n, XEN_ELFNOTE_INIT_P2M, addresses[a]);
        domain_init(&d, &domain_linux_shape, &n, 64 * MIB >> PAGE_SHIFT);
        domain_build(&d);
        assert_layout_is_sound(&d);
        assert_int_equal(d.r.p2m_tables.nr, 0);
        domain_free(&d);
    }
}

static void memory_above_4_gib_is_listed_in_the_p2m(void **state)
{
    struct domain d;

    domain_init_linux(&d, 6 * GIB >> PAGE_SHIFT);
    domain_build(&d);
    assert_int_equal(*(uint64_t *)guest_ptr(&d, LINUX_P2M + 8 * (d.p.nr_pages - 1), 8),
                     DOMAIN_FIRST_MFN + d.p.nr_pages - 1);
    assert_int_equal(d.r.p2m.nr, 12 * MIB >> PAGE_SHIFT);
    assert_int_equal(d.r.p2m_tables.nr, 2 + 6);
    domain_free(&d);
}

static void memory_just_large_enough_suffices_and_a_page_less_does_not(void **state)
{
    struct domain d;
    uint64_t need;

    domain_init_small(&d, 32 * MIB >> PAGE_SHIFT);
    domain_build(&d);
    need = d.r.nr_pages_used;
    domain_free(&d);

    domain_init_small(&d, need);
    domain_build(&d);
    assert_layout_is_sound(&d);
    assert_int_equal(d.r.nr_pages_used, need);
    domain_free(&d);

    domain_init_small(&d, need - 1);
    domain_assert_refused(&d, ENOMEM, "need 4 MiB of memory, the guest has 3");
    assert_string_equal(d.e.file, "kernel");
    domain_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linux_is_built_with_p2m_and_ramdisk_apart),
        cmocka_unit_test(kernel_without_notes_gets_p2m_and_ramdisk_mapped),
        cmocka_unit_test(no_ramdisk_leaves_its_fields_zero),
        cmocka_unit_test(hypercall_page_is_filled_and_nothing_beside_it),
        cmocka_unit_test(paddr_offset_is_taken_off_segment_addresses),
        cmocka_unit_test(ring_3_kernel_gets_user_pages),
        cmocka_unit_test(ring_1_kernel_gets_supervisor_pages),
        cmocka_unit_test(mapping_may_cross_tables_of_every_level),
        cmocka_unit_test(p2m_apart_shares_tables_with_the_initial_mapping),
        cmocka_unit_test(unusable_init_p2m_counts_as_none),
        cmocka_unit_test(memory_above_4_gib_is_listed_in_the_p2m),
        cmocka_unit_test(memory_just_large_enough_suffices_and_a_page_less_does_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
