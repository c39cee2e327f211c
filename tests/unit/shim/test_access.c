/* SPDX-License-Identifier: MIT */
#include "guest.h"

static void addresses_a_guest_may_name(void **state)
{
    assert_true(guest_range_ok(0, 1));
    assert_true(guest_range_ok(0x7fffffffffff, 1));
    assert_true(guest_range_ok(0xffff7fffffffffff & 0x7fffffffffff, 1));
    assert_true(guest_range_ok(0xffff880000000000, PAGE_SIZE));
    assert_true(guest_range_ok(~(uint64_t)0, 1));
}

static void no_address_at_all(void **state)
{
    assert_false(guest_range_ok(0x800000000000, 1));
    assert_false(guest_range_ok(0xffff7fffffffffff, 1));
    assert_false(guest_range_ok(0x7fffffffffff, 2));
    assert_false(guest_range_ok((uint64_t)1 << 63, 8));
}

static void the_hole_and_what_touches_it(void **state)
{
    assert_false(guest_range_ok(0xffff800000000000, 1));
    assert_false(guest_range_ok(0xffff87ffffffffff, 1));
    assert_false(guest_range_ok(0xffff87ffffffffff, 2));
    assert_false(guest_range_ok(0x7ffffffff000, ~(uint64_t)0 - 0x7ffffffff000));
}

static void wrapping_round(void **state)
{
    assert_false(guest_range_ok(~(uint64_t)0, 2));
    assert_false(guest_range_ok(0xfffffffffffff000, ~(uint64_t)0));
    assert_false(guest_range_ok(1, ~(uint64_t)0));
}

static void nothing_is_anywhere(void **state)
{
    assert_true(guest_range_ok(0x800000000000, 0));
}

static void copies_fail_whole(void **state)
{
    uint64_t word = 5, to = 0;

    guest_begin(RING3);
    assert_int_equal(guest_read(&to, (uint64_t)&word, 8), 0);
    assert_int_equal(to, 5);
    assert_int_equal(guest_write((uint64_t)&to, &(uint64_t){ 9 }, 8), 0);
    assert_int_equal(to, 9);
    fake_cpu.readonly = (uintptr_t)&to;
    fake_cpu.readonly_end = fake_cpu.readonly + 8;
    assert_int_equal(guest_write((uint64_t)&to, &word, 8), -XEN_EFAULT);
    fake_cpu.missing = (uintptr_t)&word + 7;
    fake_cpu.missing_end = fake_cpu.missing + 1;
    assert_int_equal(guest_read(&to, (uint64_t)&word, 8), -XEN_EFAULT);
    assert_int_equal(guest_read(&to, 0xffff800000000000, 8), -XEN_EFAULT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_a_guest_may_name),
        cmocka_unit_test(no_address_at_all),
        cmocka_unit_test(the_hole_and_what_touches_it),
        cmocka_unit_test(wrapping_round),
        cmocka_unit_test(nothing_is_anywhere),
        cmocka_unit_test(copies_fail_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
