/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <xen/elfnote.h>
#include <xen/features.h>

#include "elf_image.h"
#include "x86/kernel_image.h"

static const struct image_shape plain = {
    .paddr = 0x1000000, .text_bytes = 300, .mem_bytes = 0x3000, .entry = 0x1000000,
};

static int parse(const struct image_shape *shape, const struct notes *n, struct kernel_image *k,
                 struct err *e)
{
    static struct image i;
    void *copy;
    int rc;

    image_make(&i, shape, n);
    copy = malloc(i.bytes);
    memcpy(copy, i.data, i.bytes);
    err_clear(e);
    rc = kernel_image_parse(copy, i.bytes, "k", NULL, k, e);
    free(copy);         /* only k->notes and numbers are looked at */
    return rc;
}

static void add_linux_notes(struct notes *n)
{
    note_add(n, "Linux", 0x100, "x", 2);
    note_add_string(n, XEN_ELFNOTE_GUEST_OS, "linux");
    note_add_string(n, XEN_ELFNOTE_GUEST_VERSION, "2.6");
    note_add_string(n, XEN_ELFNOTE_XEN_VERSION, "xen-3.0");
    note_add_u64(n, XEN_ELFNOTE_VIRT_BASE, 0xffffffff80000000);
    note_add_u64(n, XEN_ELFNOTE_INIT_P2M, 0x8000000000);
    note_add_u64(n, XEN_ELFNOTE_ENTRY, 0xffffffff81000010);
    note_add_u64(n, XEN_ELFNOTE_HYPERCALL_PAGE, 0xffffffff81001000);
    note_add(n, "Xen", XEN_ELFNOTE_FEATURES, "!writable_page_tables|pae_pgdir_above_4gb", 41);
    note_add_u32(n, XEN_ELFNOTE_SUPPORTED_FEATURES, 1 << XENFEAT_dom0);
    note_add_string(n, XEN_ELFNOTE_PAE_MODE, "yes");
}

static void all_notes_of_a_linux_kernel_are_read(void **state)
{
    struct notes n = { 0 };
    struct kernel_image k;
    struct err e;
    const struct xen_notes *x = &k.notes;

    add_linux_notes(&n);
    note_add(&n, "Xen", XEN_ELFNOTE_L1_MFN_VALID, (uint64_t[]){ 1, 3 }, 16);
    note_add_u32(&n, XEN_ELFNOTE_MOD_START_PFN, 1);
    note_add_u64(&n, XEN_ELFNOTE_HV_START_LOW, 0xffff800000000000);
    note_add_u64(&n, XEN_ELFNOTE_PADDR_OFFSET, 0);
    note_add_u32(&n, XEN_ELFNOTE_PHYS32_ENTRY, 0x1000100);
    note_add_u32(&n, XEN_ELFNOTE_SUSPEND_CANCEL, 1);
    assert_int_equal(parse(&plain, &n, &k, &e), 0);
    assert_false(x->legacy);
    assert_int_equal(k.entry, 0xffffffff81000010);
    assert_int_equal(k.virt_start, 0xffffffff81000000);
    assert_int_equal(k.virt_end, 0xffffffff81003000);
    assert_int_equal(x->hypercall_page, 0xffffffff81001000);
    assert_int_equal(x->virt_base, 0xffffffff80000000);
    assert_int_equal(x->init_p2m, 0x8000000000);
    assert_int_equal(x->hv_start_low, 0xffff800000000000);
    assert_int_equal(x->phys32_entry, 0x1000100);
    assert_int_equal(x->mod_start_pfn, 1);
    assert_int_equal(x->suspend_cancel, 1);
    assert_int_equal(x->l1_mfn_valid.mask, 1);
    assert_int_equal(x->l1_mfn_valid.value, 3);
    assert_string_equal(x->guest_os, "linux");
    assert_string_equal(x->guest_version, "2.6");
    assert_string_equal(x->xen_version, "xen-3.0");
    assert_string_equal(x->loader, "");
    assert_string_equal(x->features, "!writable_page_tables|pae_pgdir_above_4gb");
    assert_int_equal(x->features_required, 1 << XENFEAT_writable_page_tables);
    assert_int_equal(x->features_supported, 1 << XENFEAT_writable_page_tables |
                     1 << XENFEAT_pae_pgdir_above_4gb | 1 << XENFEAT_dom0);
    assert_true(xen_notes_have(x, XEN_ELFNOTE_MOD_START_PFN));
    assert_false(xen_notes_have(x, XEN_ELFNOTE_LOADER));
}

static void notes_are_found_in_sections_without_a_note_segment(void **state)
{
    struct image_shape s = plain;
    struct notes n = { 0 };
    struct kernel_image k;
    struct err e;

    s.place = NOTES_IN_SECTION;
    notes_add_common(&n);
    assert_int_equal(parse(&s, &n, &k, &e), 0);
    assert_string_equal(k.notes.guest_os, "testos");
}

static void kernel_without_xen_notes_is_an_error_that_says_so(void **state)
{
    struct image_shape s = plain;
    struct notes n = { 0 };
    struct kernel_image k;
    struct err e;

    note_add(&n, "GNU", 3, "abcdefgh", 8);
    assert_int_equal(parse(&s, &n, &k, &e), -ENOEXEC);
    assert_non_null(strstr(e.text, "kernel has no Xen ELF notes"));
    s.place = NOTES_NOWHERE;
    assert_int_equal(parse(&s, &n, &k, &e), -ENOEXEC);
    assert_non_null(strstr(e.text, "kernel has no Xen ELF notes"));
}

static void section_count_without_a_section_table_counts_for_nothing(void **state)
{
    struct image_shape s = plain;
    struct notes n = { 0 };
    struct kernel_image k;
    struct image i;
    struct err e = { 0 };
    void *copy;

    s.place = NOTES_NOWHERE;
    notes_add_common(&n);
    image_make(&i, &s, &n);
    image_ehdr(&i)->e_shoff = 0;
    image_ehdr(&i)->e_shnum = 60000;
    copy = malloc(i.bytes);
    memcpy(copy, i.data, i.bytes);
    assert_int_equal(kernel_image_parse(copy, i.bytes, "k", NULL, &k, &e), -ENOEXEC);
    assert_non_null(strstr(e.text, "kernel has no Xen ELF notes"));
    free(copy);
}

static void notes_are_padded_to_4_bytes_in_segments_aligned_to_8(void **state)
{
    struct image_shape s = plain;
    struct notes n = { 0 };
    struct kernel_image k;
    struct image i;
    struct err e = { 0 };

    note_add_u32(&n, XEN_ELFNOTE_SUSPEND_CANCEL, 1);
    notes_add_common(&n);
    image_make(&i, &s, &n);
    image_phdr(&i)[1].p_align = 8;
    assert_int_equal(kernel_image_parse(i.data, i.bytes, "k", NULL, &k, &e), 0);
    assert_string_equal(k.notes.guest_os, "testos");
    assert_int_equal(k.notes.suspend_cancel, 1);
}

static void legacy_section_is_read(void **state)
{
    struct image_shape s = plain;
    struct notes n = { 0 };
    struct kernel_image k;
    struct err e;

    s.place = NOTES_NOWHERE;
    s.paddr = 0xffffffff80100000;
    s.entry = 0xffffffff80100000;
    s.xen_guest = "GUEST_OS=linux,GUEST_VER=2.6,XEN_VER=xen-3.0,VIRT_BASE=0xffffffff80000000,"
                  "HYPERCALL_PAGE=0x102,LOADER=generic,FEATURES=writable_page_tables";
    assert_int_equal(parse(&s, &n, &k, &e), 0);
    assert_true(k.notes.legacy);
    assert_string_equal(k.notes.guest_os, "linux");
    assert_int_equal(k.notes.paddr_offset, 0xffffffff80000000);
    assert_int_equal(k.virt_start, 0xffffffff80100000);
    assert_int_equal(k.notes.hypercall_page, 0xffffffff80102000);
    assert_int_equal(k.notes.features_supported, 1 << XENFEAT_writable_page_tables);

    s.xen_guest = "GUEST_OS=linux,XEN_VER=xen-3.0,VIRT_BASE=high";
    assert_int_equal(parse(&s, &n, &k, &e), -ENOEXEC);
    assert_non_null(strstr(e.text, "VIRT_BASE=high, expected a number"));
}

static void number_of_odd_size_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct kernel_image k;
    struct err e;

    notes_add_common(&n);
    note_add(&n, "Xen", XEN_ELFNOTE_ENTRY, "abc", 3);
    assert_int_equal(parse(&plain, &n, &k, &e), -ENOEXEC);
    assert_non_null(strstr(e.text, "note 1 has 3 bytes, expected a number of 4 or 8"));
}

static void overlong_string_is_an_error(void **state)
{
    char text[XEN_NOTES_STRING_BYTES + 1];
    struct notes n = { 0 };
    struct kernel_image k;
    struct err e;

    memset(text, 'x', sizeof(text));
    note_add(&n, "Xen", XEN_ELFNOTE_GUEST_OS, text, sizeof(text));
    assert_int_equal(parse(&plain, &n, &k, &e), -ENOEXEC);
    assert_non_null(strstr(e.text, "string of 65 bytes, expected at most 63"));
}

static void note_past_its_segment_is_an_error(void **state)
{
    const uint32_t sizes[] = { 200, UINT32_MAX };

    for (unsigned s = 0; s < array_size(sizes); s++) {
        for (unsigned word = 0; word < 2; word++) {
            struct notes n = { 0 };
            struct kernel_image k;
            struct err e;

            note_add_u64(&n, XEN_ELFNOTE_ENTRY, 0);
            memcpy(n.data + 4 * word, &sizes[s], 4);
            assert_int_equal(parse(&plain, &n, &k, &e), -ENOEXEC);
            assert_non_null(strstr(e.text, "past its segment"));
        }
    }
}

static void unknown_note_types_are_passed_over(void **state)
{
    const uint32_t types[] = { XEN_ELFNOTE_MAX + 1, 63, 64, 1000, UINT32_MAX };
    struct notes n = { 0 };
    struct kernel_image k;
    struct err e;

    for (unsigned t = 0; t < array_size(types); t++)
        note_add_u64(&n, types[t], 1);
    assert_int_equal(parse(&plain, &n, &k, &e), -ENOEXEC);
    notes_add_common(&n);
    assert_int_equal(parse(&plain, &n, &k, &e), 0);
}

static void unknown_feature_is_an_error_only_if_required(void **state)
{
    struct notes n = { 0 };
    struct kernel_image k;
    struct err e;

    notes_add_common(&n);
    note_add_string(&n, XEN_ELFNOTE_FEATURES, "time_travel|writable_page_tables|");
    assert_int_equal(parse(&plain, &n, &k, &e), 0);
    assert_int_equal(k.notes.features_supported, 1);
    note_add_string(&n, XEN_ELFNOTE_FEATURES, "writable_page_tables|!time_travel");
    assert_int_equal(parse(&plain, &n, &k, &e), -ENOTSUP);
    assert_string_equal(e.text, "kernel requires the unknown Xen feature \"time_travel\"");
}

static void other_xen_interface_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct kernel_image k;
    struct err e;

    notes_add_common(&n);
    note_add_string(&n, XEN_ELFNOTE_XEN_VERSION, "xen-2.0");
    assert_int_equal(parse(&plain, &n, &k, &e), -ENOEXEC);
    assert_string_equal(e.text, "kernel is for Xen interface \"xen-2.0\", expected \"xen-3.0\"");
}

static void other_loader_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct kernel_image k;
    struct err e;

    notes_add_common(&n);
    note_add_string(&n, XEN_ELFNOTE_LOADER, "special");
    assert_int_equal(parse(&plain, &n, &k, &e), -ENOEXEC);
    assert_string_equal(e.text, "kernel wants loader \"special\", expected \"generic\"");
}

static void paddr_offset_without_virt_base_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct kernel_image k;
    struct err e;

    notes_add_common(&n);
    note_add_u64(&n, XEN_ELFNOTE_PADDR_OFFSET, 0x1000);
    assert_int_equal(parse(&plain, &n, &k, &e), -ENOEXEC);
    assert_non_null(strstr(e.text, "PADDR_OFFSET but no VIRT_BASE"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_notes_of_a_linux_kernel_are_read),
        cmocka_unit_test(notes_are_found_in_sections_without_a_note_segment),
        cmocka_unit_test(kernel_without_xen_notes_is_an_error_that_says_so),
        cmocka_unit_test(section_count_without_a_section_table_counts_for_nothing),
        cmocka_unit_test(notes_are_padded_to_4_bytes_in_segments_aligned_to_8),
        cmocka_unit_test(legacy_section_is_read),
        cmocka_unit_test(number_of_odd_size_is_an_error),
        cmocka_unit_test(overlong_string_is_an_error),
        cmocka_unit_test(note_past_its_segment_is_an_error),
        cmocka_unit_test(unknown_note_types_are_passed_over),
        cmocka_unit_test(unknown_feature_is_an_error_only_if_required),
        cmocka_unit_test(other_xen_interface_is_an_error),
        cmocka_unit_test(other_loader_is_an_error),
        cmocka_unit_test(paddr_offset_without_virt_base_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
