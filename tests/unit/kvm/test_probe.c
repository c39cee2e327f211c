/* SPDX-License-Identifier: MIT */
/* What is read out of /proc/cpuinfo, and what people are told to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kvm/probe.h"

static struct kvm_cpuinfo parse(const char *text)
{
    /* A copy of exact size lets the sanitizer see a read beyond the end. */
    size_t len = strlen(text);
    char *copy = malloc(len ? len : 1);
    struct kvm_cpuinfo info;

    assert_non_null(copy);
    memcpy(copy, text, len);
    kvm_cpuinfo_parse(copy, len, &info);
    free(copy);
    return info;
}

static void test_intel_with_vmx(void **state)
{
    struct kvm_cpuinfo info = parse("processor\t: 0\n"
                                    "vendor_id\t: GenuineIntel\n"
                                    "model name\t: Some CPU @ 2.00GHz\n"
                                    "flags\t\t: fpu vme vmx sse\n"
                                    "vmx flags\t: ept vpid svm\n"
                                    "bugs\t\t:\n"
                                    "\n");

    assert_string_equal(info.vendor, "GenuineIntel");
    assert_true(info.vmx);
    assert_false(info.svm);
    assert_false(info.hypervisor);
}

static void test_amd_guest_with_svm_as_last_flag(void **state)
{
    struct kvm_cpuinfo info = parse("vendor_id\t: AuthenticAMD\nflags\t\t: fpu hypervisor svm\n");

    assert_string_equal(info.vendor, "AuthenticAMD");
    assert_false(info.vmx);
    assert_true(info.svm);
    assert_true(info.hypervisor);
}

static void test_flags_are_whole_words(void **state)
{
    struct kvm_cpuinfo info = parse("flags : vmxnet avmx svm_lock xsvm hypervisors\n");

    assert_false(info.vmx);
    assert_false(info.svm);
    assert_false(info.hypervisor);
}

static void test_only_the_first_processor_counts(void **state)
{
    struct kvm_cpuinfo info = parse("vendor_id : A\nflags : fpu\n\nvendor_id : B\nflags : vmx\n");

    assert_string_equal(info.vendor, "A");
    assert_false(info.vmx);
}

static void test_flags_elsewhere_do_not_count(void **state)
{
    struct kvm_cpuinfo info = parse("model name : vmx svm\nmy flags : vmx\nflags x : svm\n");

    assert_false(info.vmx);
    assert_false(info.svm);
}

static void test_text_may_end_anywhere(void **state)
{
    const char *text = "vendor_id\t: GenuineIntel\nflags\t\t: fpu vmx\n\n";
    char part[64];

    for (size_t len = 0; len <= strlen(text); len++) {
        struct kvm_cpuinfo info;

        memcpy(part, text, len);
        part[len] = '\0';
        info = parse(part);
        assert_int_equal(info.vmx, len >= strlen("vendor_id\t: GenuineIntel\nflags\t\t: fpu vmx"));
    }
}

static void test_overlong_vendor_is_cut(void **state)
{
    struct kvm_cpuinfo info = parse("vendor_id : AVendorWithAVeryLongName\nflags : svm\n");

    assert_string_equal(info.vendor, "AVendorWithAVer");
    assert_true(info.svm);
}

static void test_line_without_colon_is_skipped(void **state)
{
    struct kvm_cpuinfo info = parse("no colon here\n: no key\nflags : svm");

    assert_true(info.svm);
}

static void test_probe_is_consistent_with_itself(void **state)
{
    struct kvm_probe p;
    char text[512];

    kvm_probe(&p);
    if (p.kind == KVM_KIND_NONE) {
        assert_true(p.open_errno || p.api_version != 12 || p.nr_missing);
    } else {
        assert_int_equal(p.open_errno, 0);
        assert_int_equal(p.nr_missing, 0);
        assert_int_equal(p.kind == KVM_KIND_HARDWARE, p.cpu.vmx || p.cpu.svm);
    }
    assert_int_equal(kvm_probe_advice(&p, text, sizeof(text))[0] == '\0',
                     p.kind == KVM_KIND_HARDWARE);
}

static void expect_advice(struct kvm_probe p, const char *part)
{
    char text[512];

    if (!strstr(kvm_probe_advice(&p, text, sizeof(text)), part))
        fail_msg("\"%s\" does not contain \"%s\"", text, part);
    assert_null(strchr(text, '\n'));
}

static void test_advice_with_no_device(void **state)
{
    struct kvm_probe p = { .kind = KVM_KIND_NONE, .open_errno = ENOENT };

    expect_advice(p, "firmware");
    expect_advice(p, "xenolith lab");
    p.cpu.hypervisor = true;
    expect_advice(p, "nested virtualization");
    p.cpu.svm = true;
    expect_advice(p, "modprobe kvm_amd");
    p.cpu.svm = false;
    p.cpu.vmx = true;
    expect_advice(p, "modprobe kvm_intel");
    p.open_errno = ENODEV;
    expect_advice(p, "modprobe kvm_intel");
}

static void test_advice_without_permission(void **state)
{
    expect_advice((struct kvm_probe){ .open_errno = EACCES }, "group kvm");
    expect_advice((struct kvm_probe){ .open_errno = EPERM }, "group kvm");
}

static void test_advice_names_other_errors(void **state)
{
    expect_advice((struct kvm_probe){ .open_errno = EMFILE }, strerror(EMFILE));
    expect_advice((struct kvm_probe){ .api_version = 11 }, "version 11");
}

static void test_advice_names_what_is_missing(void **state)
{
    struct kvm_probe p = { .api_version = 12, .nr_missing = 2,
                           .missing = { "KVM_CAP_IRQFD", "KVM_CAP_IOEVENTFD" } };

    expect_advice(p, "KVM_CAP_IRQFD KVM_CAP_IOEVENTFD");
}

static void test_advice_for_software_kvm(void **state)
{
    expect_advice((struct kvm_probe){ .kind = KVM_KIND_SOFTWARE, .api_version = 12 }, "slowly");
    expect_advice((struct kvm_probe){ .kind = KVM_KIND_SOFTWARE, .api_version = 12 },
                  "xenolith lab");
}

static void test_advice_fits_any_buffer(void **state)
{
    struct kvm_probe p = { .api_version = 12, .nr_missing = 2,
                           .missing = { "KVM_CAP_IRQFD", "KVM_CAP_IOEVENTFD" } };
    char text[64];

    for (size_t size = 1; size <= sizeof(text); size++)
        assert_true(strlen(kvm_probe_advice(&p, text, size)) < size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_intel_with_vmx),
        cmocka_unit_test(test_amd_guest_with_svm_as_last_flag),
        cmocka_unit_test(test_flags_are_whole_words),
        cmocka_unit_test(test_only_the_first_processor_counts),
        cmocka_unit_test(test_flags_elsewhere_do_not_count),
        cmocka_unit_test(test_text_may_end_anywhere),
        cmocka_unit_test(test_overlong_vendor_is_cut),
        cmocka_unit_test(test_line_without_colon_is_skipped),
        cmocka_unit_test(test_probe_is_consistent_with_itself),
        cmocka_unit_test(test_advice_with_no_device),
        cmocka_unit_test(test_advice_without_permission),
        cmocka_unit_test(test_advice_names_other_errors),
        cmocka_unit_test(test_advice_names_what_is_missing),
        cmocka_unit_test(test_advice_for_software_kvm),
        cmocka_unit_test(test_advice_fits_any_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
