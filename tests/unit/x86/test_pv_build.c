/* SPDX-License-Identifier: MIT */
/* Builds domains in real guest memory and looks at them as the guest would:
 * through the page tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#include <xen/elfnote.h>
#include <xen/features.h>
#include <xen/xen.h>

#include "elf_image.h"
#include "x86/pv_build.h"

#define FIRST_MFN   0x100000ull
#define P_PRESENT   0x01ull
#define P_RW        0x02ull
#define P_USER      0x04ull
#define P_ADDRESS   0x000ffffffffff000ull
#define LINUX_BASE  0xffffffff80000000ull
#define LINUX_P2M   0x8000000000ull

struct domain {
    struct image file;
    struct kernel_image kernel;
    struct guest_mem mem;
    struct pv_build_params p;
    struct pv_build_result r;
    struct err e;
};

static void fill_page(void *page)
{
    memset(page, 0xc3, PAGE_SIZE);
}

static void domain_init(struct domain *d, const struct image_shape *s, const struct notes *n,
                        uint64_t nr_pages)
{
    memset(d, 0, sizeof(*d));
    image_make(&d->file, s, n);
    if (kernel_image_parse(d->file.data, d->file.bytes, "kernel", &d->kernel, &d->e))
        fail_msg("%s", d->e.text);
    err_clear(&d->e);
    guest_mem_init(&d->mem);
    assert_int_equal(guest_mem_add(&d->mem, gpa(FIRST_MFN << PAGE_SHIFT), nr_pages << PAGE_SHIFT,
                                   "ram", false, &d->e), 0);
    d->p = (struct pv_build_params){
        .mem = &d->mem, .first_mfn = FIRST_MFN, .nr_pages = nr_pages, .kernel = &d->kernel,
        .ramdisk_fd = -1, .ramdisk_name = "ramdisk", .cmdline = "console=hvc0 quiet",
        .shared_info_mfn = 0x77, .store_port = 1, .console_port = 2, .user_bit = true,
        .fill_hypercall_page = fill_page,
    };
    for (unsigned i = 0; i < PV_HOLE_L4_SLOTS; i++)
        d->p.hole_l4[i] = i ? 0 : 0x9000 | P_PRESENT;
}

static void domain_free(struct domain *d)
{
    if (d->p.ramdisk_fd >= 0)
        close(d->p.ramdisk_fd);
    kernel_image_free(&d->kernel);
    guest_mem_free(&d->mem);
}

static void add_ramdisk(struct domain *d, size_t bytes)
{
    int fd = memfd_create("ramdisk", MFD_CLOEXEC);
    uint8_t *data = malloc(bytes);

    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(i * 3 + 1);
    assert_int_equal(write(fd, data, bytes), (ssize_t)bytes);
    free(data);
    d->p.ramdisk_fd = fd;
    d->p.ramdisk_bytes = bytes;
}

static void build(struct domain *d)
{
    if (pv_build(&d->p, &d->r, &d->e))
        fail_msg("%s", d->e.text);
}

static void assert_build_refused(struct domain *d, int code, const char *text)
{
    assert_int_equal(pv_build(&d->p, &d->r, &d->e), -code);
    if (!strstr(d->e.text, text))
        fail_msg("message \"%s\" lacks \"%s\"", d->e.text, text);
}

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

        assert_int_equal(l1 & P_ADDRESS, (FIRST_MFN + pfn) << PAGE_SHIFT);
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
    assert_int_equal(r->tables.first_pfn + FIRST_MFN, r->start_info_mfn + 3);
    assert_int_equal(stack_pfn, r->tables.first_pfn + r->tables.nr);

    for (uint64_t pfn = 0; pfn < d->p.nr_pages; pfn += PAGE_SIZE / 8) {
        const uint64_t *p2m = guest_ptr(d, si->mfn_list + pfn * 8, 8);

        for (uint64_t i = 0; i < PAGE_SIZE / 8 && pfn + i < d->p.nr_pages; i++)
            assert_int_equal(p2m[i], FIRST_MFN + pfn + i);
    }
}

static void assert_text_at(const struct domain *d, uint64_t va, uint64_t bytes)
{
    const uint8_t *p = guest_ptr(d, va, bytes);

    for (uint64_t i = 0; i < bytes; i++)
        assert_int_equal(p[i], image_text_byte(i));
}

static const struct image_shape linux_shape = {
    .paddr = 0x1000000, .text_bytes = 3000, .mem_bytes = 0x412345, .entry = 0x1000000,
};
static const struct image_shape small_shape = {
    .paddr = 0x2000, .text_bytes = 3000, .mem_bytes = 0x8010, .entry = 0x2000,
};

static void linux_notes(struct notes *n)
{
    notes_add_common(n);
    note_add_u64(n, XEN_ELFNOTE_VIRT_BASE, LINUX_BASE);
    note_add_u64(n, XEN_ELFNOTE_INIT_P2M, LINUX_P2M);
    note_add_u64(n, XEN_ELFNOTE_ENTRY, LINUX_BASE + 0x1000010);
    note_add_u32(n, XEN_ELFNOTE_MOD_START_PFN, 1);
}

static void linux_domain(struct domain *d, uint64_t nr_pages)
{
    struct notes n = { 0 };

    linux_notes(&n);
    domain_init(d, &linux_shape, &n, nr_pages);
}

static void small_domain(struct domain *d, uint64_t nr_pages)
{
    struct notes n = { 0 };

    notes_add_common(&n);
    note_add_u64(&n, XEN_ELFNOTE_HYPERCALL_PAGE, 0x3000);
    domain_init(d, &small_shape, &n, nr_pages);
}

static void linux_is_built_with_p2m_and_ramdisk_apart(void **state)
{
    const struct start_info *si;
    struct domain d;

    linux_domain(&d, 64 * MIB >> PAGE_SHIFT);
    add_ramdisk(&d, 100001);
    build(&d);
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
    const uint8_t *rd = guest_mem_ptr(&d.mem, gpa((FIRST_MFN + si->mod_start) << PAGE_SHIFT), 100001);
    for (size_t i = 0; i < 100001; i++)
        assert_int_equal(rd[i], (uint8_t)(i * 3 + 1));
    domain_free(&d);
}

static void kernel_without_notes_gets_p2m_and_ramdisk_mapped(void **state)
{
    const struct start_info *si;
    struct domain d;

    small_domain(&d, 32 * MIB >> PAGE_SHIFT);
    add_ramdisk(&d, 5000);
    build(&d);
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

    linux_domain(&d, 64 * MIB >> PAGE_SHIFT);
    build(&d);
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

    small_domain(&d, 32 * MIB >> PAGE_SHIFT);
    build(&d);
    page = guest_ptr(&d, 0x3000, PAGE_SIZE);
    assert_int_equal(page[0], 0xc3);
    assert_int_equal(page[PAGE_SIZE - 1], 0xc3);
    assert_text_at(&d, 0x2000, 3000);
    assert_int_equal(*(uint8_t *)guest_ptr(&d, 0x4000, 1), 0);
    domain_free(&d);
}

static void paddr_offset_is_taken_off_segment_addresses(void **state)
{
    struct image_shape s = linux_shape;
    struct notes n = { 0 };
    struct domain d;

    s.paddr = LINUX_BASE + 0x200000;
    notes_add_common(&n);
    note_add_u64(&n, XEN_ELFNOTE_VIRT_BASE, LINUX_BASE);
    note_add_u64(&n, XEN_ELFNOTE_PADDR_OFFSET, LINUX_BASE);
    note_add_u64(&n, XEN_ELFNOTE_ENTRY, LINUX_BASE + 0x200000);
    domain_init(&d, &s, &n, 32 * MIB >> PAGE_SHIFT);
    build(&d);
    assert_layout_is_sound(&d);
    assert_text_at(&d, LINUX_BASE + 0x200000, 3000);
    domain_free(&d);
}

static void assert_user_bit(bool user)
{
    struct domain d;
    uint64_t entry[4];

    linux_domain(&d, 64 * MIB >> PAGE_SHIFT);
    d.p.user_bit = user;
    build(&d);
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
        struct image_shape s = small_shape;
        struct notes n = { 0 };
        struct domain d;

        notes_add_common(&n);
        note_add_u64(&n, XEN_ELFNOTE_VIRT_BASE, bases[b]);
        note_add_u64(&n, XEN_ELFNOTE_ENTRY, bases[b] + 0x2000);
        s.mem_bytes = GIB;
        domain_init(&d, &s, &n, 2 * GIB >> PAGE_SHIFT);
        build(&d);
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
        domain_init(&d, &small_shape, &n, 64 * MIB >> PAGE_SHIFT);
        build(&d);
        assert_int_equal(d.r.p2m_tables.nr, cases[c].nr_tables);
        assert_int_equal(count_leaves(&d, d.r.l4_gpa.v, 4),
                         d.r.p2m.nr + ((d.r.virt_end - d.r.virt_base) >> PAGE_SHIFT));
        assert_int_equal(*(uint64_t *)guest_ptr(&d, cases[c].p2m + 8 * 5000, 8), FIRST_MFN + 5000);
        domain_free(&d);
    }
}

static void unusable_init_p2m_counts_as_none(void **state)
{
    const uint64_t addresses[] = { LINUX_P2M + 8, LINUX_BASE + 0x40000000 };

    for (unsigned a = 0; a < array_size(addresses); a++) {
        struct notes n = { 0 };
        struct domain d;

        linux_notes(&n);
        note_add_u64(&n, XEN_ELFNOTE_INIT_P2M, addresses[a]);
        domain_init(&d, &linux_shape, &n, 64 * MIB >> PAGE_SHIFT);
        build(&d);
        assert_layout_is_sound(&d);
        assert_int_equal(d.r.p2m_tables.nr, 0);
        domain_free(&d);
    }
}

static void memory_above_4_gib_is_listed_in_the_p2m(void **state)
{
    struct domain d;

    linux_domain(&d, 6 * GIB >> PAGE_SHIFT);
    build(&d);
    assert_int_equal(*(uint64_t *)guest_ptr(&d, LINUX_P2M + 8 * (d.p.nr_pages - 1), 8),
                     FIRST_MFN + d.p.nr_pages - 1);
    assert_int_equal(d.r.p2m.nr, 12 * MIB >> PAGE_SHIFT);
    assert_int_equal(d.r.p2m_tables.nr, 2 + 6);
    domain_free(&d);
}

static void memory_just_large_enough_suffices_and_a_page_less_does_not(void **state)
{
    struct domain d;
    uint64_t need;

    small_domain(&d, 32 * MIB >> PAGE_SHIFT);
    build(&d);
    need = d.r.nr_pages_used;
    domain_free(&d);

    small_domain(&d, need);
    build(&d);
    assert_layout_is_sound(&d);
    assert_int_equal(d.r.nr_pages_used, need);
    domain_free(&d);

    small_domain(&d, need - 1);
    assert_build_refused(&d, ENOMEM, "need 4 MiB of memory, the guest has 3");
    assert_string_equal(d.e.file, "kernel");
    domain_free(&d);
}

static void ramdisk_larger_than_memory_is_an_error(void **state)
{
    const uint64_t sizes[] = { 64 * MIB, 1ull << 50, UINT64_MAX };
    struct domain d;

    linux_domain(&d, 64 * MIB >> PAGE_SHIFT);
    add_ramdisk(&d, 10);
    d.p.ramdisk_bytes = sizes[0];
    assert_build_refused(&d, ENOMEM, "need 89 MiB of memory, the guest has 64");
    err_clear(&d.e);
    d.p.ramdisk_bytes = sizes[1];
    assert_build_refused(&d, ENOMEM, "the guest has 64");
    err_clear(&d.e);
    d.p.ramdisk_bytes = sizes[2];
    assert_build_refused(&d, EFBIG, "does not fit any guest");
    domain_free(&d);
}

static void mapped_ramdisk_that_leaves_the_address_space_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct domain d;

    notes_add_common(&n);
    note_add_u64(&n, XEN_ELFNOTE_VIRT_BASE, LINUX_BASE);
    note_add_u64(&n, XEN_ELFNOTE_ENTRY, LINUX_BASE + 0x1000000);
    domain_init(&d, &linux_shape, &n, 64 * MIB >> PAGE_SHIFT);
    add_ramdisk(&d, 10);
    d.p.ramdisk_bytes = 2 * GIB;
    assert_build_refused(&d, ENOEXEC, "do not fit above its VIRT_BASE");
    domain_free(&d);
}

static void ramdisk_that_shrinks_is_an_error_that_names_it(void **state)
{
    struct domain d;

    linux_domain(&d, 64 * MIB >> PAGE_SHIFT);
    add_ramdisk(&d, 10);
    d.p.ramdisk_bytes = 11;
    assert_build_refused(&d, EIO, "ramdisk ended after 10 bytes, expected 11");
    assert_string_equal(d.e.file, "ramdisk");
    domain_free(&d);
}

static void command_line_may_have_1023_bytes_and_no_more(void **state)
{
    char line[1025];
    struct domain d;

    memset(line, 'a', sizeof(line));
    line[1024] = 0;
    linux_domain(&d, 64 * MIB >> PAGE_SHIFT);
    d.p.cmdline = line;
    assert_build_refused(&d, E2BIG, "command line of 1024 bytes, expected at most 1023");
    assert_string_equal(d.e.field, "cmdline");
    err_clear(&d.e);
    line[1023] = 0;
    build(&d);
    assert_layout_is_sound(&d);
    domain_free(&d);
}

static void feature_no_pv_guest_has_is_an_error_if_required(void **state)
{
    struct notes n = { 0 };
    struct domain d;

    linux_notes(&n);
    note_add_string(&n, XEN_ELFNOTE_FEATURES, "!auto_translated_physmap");
    domain_init(&d, &linux_shape, &n, 64 * MIB >> PAGE_SHIFT);
    assert_build_refused(&d, ENOTSUP, "requires the Xen feature \"auto_translated_physmap\"");
    domain_free(&d);
}

static void kernel_with_pvh_entry_only_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct domain d;

    notes_add_common(&n);
    note_add_u32(&n, XEN_ELFNOTE_PHYS32_ENTRY, 0x1000000);
    domain_init(&d, &linux_shape, &n, 64 * MIB >> PAGE_SHIFT);
    assert_build_refused(&d, ENOTSUP, "PVH entry point only");
    domain_free(&d);
}

static void addresses_in_xens_hole_or_not_canonical_are_errors(void **state)
{
    const uint64_t bases[] = {
        HYPERVISOR_VIRT_START, HYPERVISOR_VIRT_END - 0x400000, HYPERVISOR_VIRT_START - 0x400000,
        0x7fffffc00000, 0x0000900000000000, 0x7000000000000000,
    };

    for (unsigned b = 0; b < array_size(bases); b++) {
        struct notes n = { 0 };
        struct domain d;

        notes_add_common(&n);
        note_add_u64(&n, XEN_ELFNOTE_VIRT_BASE, bases[b]);
        note_add_u64(&n, XEN_ELFNOTE_ENTRY, bases[b] + 0x2000);
        domain_init(&d, &small_shape, &n, 64 * MIB >> PAGE_SHIFT);
        d.p.nr_pages = 32 * MIB >> PAGE_SHIFT;
        if (bases[b] == 0x7fffffc00000)     /* one 4 MiB region fits exactly; make it two */
            d.p.nr_pages = 64 * MIB >> PAGE_SHIFT, add_ramdisk(&d, 4 * MIB);
        assert_build_refused(&d, ENOEXEC, "expected canonical addresses outside Xen's");
        domain_free(&d);
    }
}

static void p2m_that_reaches_the_kernel_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct domain d;

    linux_notes(&n);
    note_add_u64(&n, XEN_ELFNOTE_INIT_P2M, LINUX_BASE - 0x1000);
    domain_init(&d, &linux_shape, &n, 64 * MIB >> PAGE_SHIFT);
    assert_build_refused(&d, ENOEXEC, "would reach VIRT_BASE");
    domain_free(&d);
}

static void p2m_in_xens_hole_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct domain d;

    linux_notes(&n);
    note_add_u64(&n, XEN_ELFNOTE_INIT_P2M, HYPERVISOR_VIRT_START);
    domain_init(&d, &linux_shape, &n, 64 * MIB >> PAGE_SHIFT);
    assert_build_refused(&d, ENOEXEC, "p2m list would be mapped");
    domain_free(&d);
}

static void unaligned_virt_base_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct domain d;

    notes_add_common(&n);
    note_add_u64(&n, XEN_ELFNOTE_VIRT_BASE, 0x800);
    note_add_u64(&n, XEN_ELFNOTE_ENTRY, 0x3000);
    domain_init(&d, &small_shape, &n, 64 * MIB >> PAGE_SHIFT);
    assert_build_refused(&d, ENOEXEC, "VIRT_BASE 0x800 is not the address of a page");
    domain_free(&d);
}

static void memory_that_is_not_there_is_an_error(void **state)
{
    struct domain d;

    linux_domain(&d, 64 * MIB >> PAGE_SHIFT);
    d.p.nr_pages += 1;
    assert_build_refused(&d, EFAULT, "no guest memory at machine frames 0x100000");
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
        cmocka_unit_test(ramdisk_larger_than_memory_is_an_error),
        cmocka_unit_test(mapped_ramdisk_that_leaves_the_address_space_is_an_error),
        cmocka_unit_test(ramdisk_that_shrinks_is_an_error_that_names_it),
        cmocka_unit_test(command_line_may_have_1023_bytes_and_no_more),
        cmocka_unit_test(feature_no_pv_guest_has_is_an_error_if_required),
        cmocka_unit_test(kernel_with_pvh_entry_only_is_an_error),
        cmocka_unit_test(addresses_in_xens_hole_or_not_canonical_are_errors),
        cmocka_unit_test(p2m_that_reaches_the_kernel_is_an_error),
        cmocka_unit_test(p2m_in_xens_hole_is_an_error),
        cmocka_unit_test(unaligned_virt_base_is_an_error),
        cmocka_unit_test(memory_that_is_not_there_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
