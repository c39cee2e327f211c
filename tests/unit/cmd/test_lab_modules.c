/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cmd/lab_modules.h"

static const char dep[] =
    "irqbypass:\n"
    "kvm: irqbypass\n"
    "ccp:\n"
    "kvm-amd: irqbypass kvm ccp\n"
    "tun:\n";
static const char builtin[] = "ext4\nloop\n";

static int resolve(const char *const *wanted, size_t n, struct lab_modules *list)
{
    struct err err = { 0 };

    return lab_modules_resolve(dep, builtin, wanted, n, list, &err);
}

static void dependencies_come_first_and_once(void **state)
{
    const char *const wanted[] = { "kvm-amd", "kvm", "tun" };
    const char *const order[] = { "irqbypass", "kvm", "ccp", "kvm-amd", "tun" };
    struct lab_modules list;
    size_t i;

    assert_int_equal(resolve(wanted, 3, &list), 0);
    assert_int_equal(list.nr_names, 5);
    for (i = 0; i < 5; i++)
        assert_string_equal(list.names[i], order[i]);
}

static void what_is_built_in_is_not_loaded(void **state)
{
    const char *const wanted[] = { "loop", "ext4", "tun" };
    struct lab_modules list;

    assert_int_equal(resolve(wanted, 3, &list), 0);
    assert_int_equal(list.nr_names, 1);
    assert_string_equal(list.names[0], "tun");
}

static void a_missing_module_is_named(void **state)
{
    /* no name is taken for another that it begins or that begins with it */
    const char *const wanted[] = { "kvm-am" };
    struct lab_modules list;
    struct err err = { 0 };

    assert_int_equal(lab_modules_resolve(dep, builtin, wanted, 1, &list, &err), -ENOENT);
    assert_non_null(strstr(err.text, "'kvm-am'"));
}

static void part_of_a_builtin_name_is_not_that_module(void **state)
{
    const char *const wanted[] = { "ext" };
    struct lab_modules list;

    assert_int_equal(resolve(wanted, 1, &list), -ENOENT);
}

static void a_last_line_without_newline_counts(void **state)
{
    const char *const wanted[] = { "b", "c" };
    struct lab_modules list;
    struct err err = { 0 };

    assert_int_equal(lab_modules_resolve("b: a", "c", wanted, 2, &list, &err), 0);
    assert_int_equal(list.nr_names, 2);
    assert_string_equal(list.names[0], "a");
    assert_string_equal(list.names[1], "b");
}

static void too_many_or_too_long_names_are_refused(void **state)
{
    const char *const wanted[] = { "x" };
    char text[1024] = "x:";
    struct lab_modules list;
    struct err err = { 0 };
    int i;

    memset(text + 2, 'y', LAB_MODULE_NAME_BYTES);
    text[2 + LAB_MODULE_NAME_BYTES] = '\0';
    assert_int_equal(lab_modules_resolve(text, "", wanted, 1, &list, &err), -E2BIG);

    strcpy(text, "x:");
    for (i = 0; i < LAB_MAX_MODULES; i++)
        strcat(text, (char[]){ ' ', 'a' + i / 16, 'a' + i % 16, '\0' });
    err_clear(&err);
    assert_int_equal(lab_modules_resolve(text, "", wanted, 1, &list, &err), -E2BIG);
}

/* ---- signatures ---- */

#define MARKER "~Module signature appended~\n"

static void a_signature_is_cut_off(void **state)
{
    static const char module[] = "MODULE" "signature" "\0\0\0\0\0\0\0\0" "\0\0\0\x09" MARKER;

    assert_int_equal(lab_modules_unsigned_bytes(module, sizeof(module) - 1), 6);
}

static void an_unsigned_module_keeps_its_size(void **state)
{
    static const char module[] = "\x7f" "ELF and so on, longer than any trailer could ever be";

    assert_int_equal(lab_modules_unsigned_bytes(module, sizeof(module)), sizeof(module));
    assert_int_equal(lab_modules_unsigned_bytes(module, 3), 3);
    assert_int_equal(lab_modules_unsigned_bytes(module, 0), 0);
}

static void a_signature_longer_than_the_module_is_none(void **state)
{
    static const char module[] = "MODULE" "\0\0\0\0\0\0\0\0" "\0\0\0\x07" MARKER;

    assert_int_equal(lab_modules_unsigned_bytes(module, sizeof(module) - 1),
                     sizeof(module) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dependencies_come_first_and_once),
        cmocka_unit_test(what_is_built_in_is_not_loaded),
        cmocka_unit_test(a_missing_module_is_named),
        cmocka_unit_test(part_of_a_builtin_name_is_not_that_module),
        cmocka_unit_test(a_last_line_without_newline_counts),
        cmocka_unit_test(too_many_or_too_long_names_are_refused),
        cmocka_unit_test(a_signature_is_cut_off),
        cmocka_unit_test(an_unsigned_module_keeps_its_size),
        cmocka_unit_test(a_signature_longer_than_the_module_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
