/* SPDX-License-Identifier: MIT */
/* What pv_build() refuses, and in which words. */
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

static void ramdisk_larger_than_memory_is_an_error(void **state)
{
    const uint64_t sizes[] = { 64 * MIB, 1ull << 50, UINT64_MAX };
    struct domain d;

    domain_init_linux(&d, 64 * MIB >> PAGE_SHIFT);
    domain_add_ramdisk(&d, 10);
    d.p.ramdisk_bytes = sizes[0];
    domain_assert_refused(&d, ENOMEM, "need 89 MiB of memory, the guest has 64");
    err_clear(&d.e);
    d.p.ramdisk_bytes = sizes[1];
    domain_assert_refused(&d, ENOMEM, "the guest has 64");
    err_clear(&d.e);
    d.p.ramdisk_bytes = sizes[2];
    domain_assert_refused(&d, EFBIG, "does not fit any guest");
    domain_free(&d);
}

static void mapped_ramdisk_that_leaves_the_address_space_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct domain d;

    notes_add_common(&n);
    note_add_u64(&n, XEN_ELFNOTE_VIRT_BASE, LINUX_BASE);
    note_add_u64(&n, XEN_ELFNOTE_ENTRY, LINUX_BASE + 0x1000000);
    domain_init(&d, &domain_linux_shape, &n, 64 * MIB >> PAGE_SHIFT);
    domain_add_ramdisk(&d, 10);
    d.p.ramdisk_bytes = 2 * GIB;
    domain_assert_refused(&d, ENOEXEC, "do not fit above its VIRT_BASE");
    domain_free(&d);
}

static void ramdisk_that_shrinks_is_an_error_that_names_it(void **state)
{
    struct domain d;

    domain_init_linux(&d, 64 * MIB >> PAGE_SHIFT);
    domain_add_ramdisk(&d, 10);
    d.p.ramdisk_bytes = 11;
    domain_assert_refused(&d, EIO, "ramdisk ended after 10 bytes, expected 11");
    assert_string_equal(d.e.file, "ramdisk");
    domain_free(&d);
}

static void command_line_may_have_1023_bytes_and_no_more(void **state)
{
    char line[1025];
    struct domain d;

    memset(line, 'a', sizeof(line));
    line[1024] = 0;
    domain_init_linux(&d, 64 * MIB >> PAGE_SHIFT);
    d.p.cmdline = line;
    domain_assert_refused(&d, E2BIG, "command line of 1024 bytes, expected at most 1023");
    assert_string_equal(d.e.field, "cmdline");
    err_clear(&d.e);
    line[1023] = 0;
    domain_build(&d);
    domain_free(&d);
}

static void feature_no_pv_guest_has_is_an_error_if_required(void **state)
{
    struct notes n = { 0 };
    struct domain d;

    notes_add_linux(&n);
    note_add_string(&n, XEN_ELFNOTE_FEATURES, "!auto_translated_physmap");
    domain_init(&d, &domain_linux_shape, &n, 64 * MIB >> PAGE_SHIFT);
    domain_assert_refused(&d, ENOTSUP, "requires the Xen feature \"auto_translated_physmap\"");
    domain_free(&d);
}

static void kernel_with_pvh_entry_only_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct domain d;

    notes_add_common(&n);
    note_add_u32(&n, XEN_ELFNOTE_PHYS32_ENTRY, 0x1000000);
    domain_init(&d, &domain_linux_shape, &n, 64 * MIB >> PAGE_SHIFT);
    domain_assert_refused(&d, ENOTSUP, "PVH entry point only");
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
        domain_init(&d, &domain_small_shape, &n, 64 * MIB >> PAGE_SHIFT);
        d.p.nr_pages = 32 * MIB >> PAGE_SHIFT;
        if (bases[b] == 0x7fffffc00000)     /* one 4 MiB region fits exactly; make it two */
            d.p.nr_pages = 64 * MIB >> PAGE_SHIFT, domain_add_ramdisk(&d, 4 * MIB);
        domain_assert_refused(&d, ENOEXEC, "expected canonical addresses outside Xen's");
        domain_free(&d);
    }
}

static void p2m_that_reaches_the_kernel_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct domain d;

    notes_add_linux(&n);
    note_add_u64(&n, XEN_ELFNOTE_INIT_P2M, LINUX_BASE - 0x1000);
    domain_init(&d, &domain_linux_shape, &n, 64 * MIB >> PAGE_SHIFT);
    domain_assert_refused(&d, ENOEXEC, "would reach VIRT_BASE");
    domain_free(&d);
}

static void p2m_in_xens_hole_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct domain d;

    notes_add_linux(&n);
    note_add_u64(&n, XEN_ELFNOTE_INIT_P2M, HYPERVISOR_VIRT_START);
    domain_init(&d, &domain_linux_shape, &n, 64 * MIB >> PAGE_SHIFT);
    domain_assert_refused(&d, ENOEXEC, "p2m list would be mapped");
    domain_free(&d);
}

static void unaligned_virt_base_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct domain d;

    notes_add_common(&n);
    note_add_u64(&n, XEN_ELFNOTE_VIRT_BASE, 0x800);
    note_add_u64(&n, XEN_ELFNOTE_ENTRY, 0x3000);
    domain_init(&d, &domain_small_shape, &n, 64 * MIB >> PAGE_SHIFT);
    domain_assert_refused(&d, ENOEXEC, "VIRT_BASE 0x800 is not the address of a page");
    domain_free(&d);
}

static void memory_that_is_not_there_is_an_error(void **state)
{
    struct domain d;

    domain_init_linux(&d, 64 * MIB >> PAGE_SHIFT);
    d.p.nr_pages += 1;
    domain_assert_refused(&d, EFAULT, "no guest memory at machine frames 0x100000");
    domain_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
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
