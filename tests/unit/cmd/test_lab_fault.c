/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cmd/lab_fault.h"

#define SECONDS UINT64_C(1000000000)

/* wait(2)'s encoding */
#define EXITED(n) ((n) << 8)

static void a_beating_lab_runs(void **state)
{
    struct lab_evidence e = { .beat_seen = true, .since_beat_ns = 2 * SECONDS,
                              .qemu_cpu_ns = 4 * SECONDS };

    assert_int_equal(lab_fault_judge(&e), LAB_RUNNING);
}

static void the_end_of_the_command_outweighs_all_that_follows(void **state)
{
    struct lab_evidence e = { .end_seen = true, .qemu_exited = true, .triple_fault = true,
                              .panic = true, .garbled = true, .stopped_by_us = true };

    assert_int_equal(lab_fault_judge(&e), LAB_ENDED);
    assert_false(lab_fault_is(LAB_ENDED));
}

static void a_lab_we_stop_is_not_at_fault(void **state)
{
    struct lab_evidence e = { .stopped_by_us = true, .beat_seen = true, .qemu_exited = true,
                              .qemu_wait_status = SIGKILL, .triple_fault = true };

    assert_int_equal(lab_fault_judge(&e), LAB_STOPPED);
    assert_false(lab_fault_is(LAB_STOPPED));
}

static void a_reset_is_told_by_its_cause(void **state)
{
    struct lab_evidence e = { .beat_seen = true, .qemu_exited = true };

    assert_int_equal(lab_fault_judge(&e), LAB_FAULT_GONE);
    e.panic = true;
    assert_int_equal(lab_fault_judge(&e), LAB_FAULT_PANIC);
    e.triple_fault = true;
    assert_int_equal(lab_fault_judge(&e), LAB_FAULT_TRIPLE);
}

static void a_killed_qemu_is_a_fault_even_before_the_first_beat(void **state)
{
    struct lab_evidence e = { .qemu_exited = true, .qemu_wait_status = SIGSEGV };

    assert_int_equal(lab_fault_judge(&e), LAB_FAULT_CRASHED);
    assert_true(lab_fault_is(LAB_FAULT_CRASHED));
}

static void a_qemu_that_refuses_to_start_is_not_worth_a_retry(void **state)
{
    struct lab_evidence e = { .qemu_exited = true, .qemu_wait_status = EXITED(1) };

    assert_int_equal(lab_fault_judge(&e), LAB_BROKEN);
    assert_false(lab_fault_is(LAB_BROKEN));
}

static void a_reset_before_the_first_beat_is_a_fault(void **state)
{
    struct lab_evidence e = { .qemu_exited = true, .qemu_wait_status = EXITED(0) };

    assert_int_equal(lab_fault_judge(&e), LAB_FAULT_GONE);
}

static void trouble_in_setting_up_is_not_worth_a_retry(void **state)
{
    struct lab_evidence e = { .trouble_seen = true, .qemu_exited = true };

    assert_int_equal(lab_fault_judge(&e), LAB_BROKEN);
}

static void nonsense_from_l1_is_a_fault(void **state)
{
    struct lab_evidence e = { .garbled = true, .beat_seen = true };

    assert_int_equal(lab_fault_judge(&e), LAB_FAULT_GARBLED);
}

static void silence_alone_is_no_fault(void **state)
{
    /* a busy machine: QEMU always wants a processor and seldom has one */
    struct lab_evidence e = { .beat_seen = true, .since_beat_ns = 600 * SECONDS,
                              .qemu_cpu_ns = 20 * SECONDS, .qemu_wanted_ns = 600 * SECONDS };

    assert_int_equal(lab_fault_judge(&e), LAB_RUNNING);
}

static void silence_with_plenty_of_processor_time_is_spinning(void **state)
{
    struct lab_evidence e = { .beat_seen = true, .since_beat_ns = 61 * SECONDS,
                              .qemu_cpu_ns = 61 * SECONDS, .qemu_wanted_ns = 61 * SECONDS };

    assert_int_equal(lab_fault_judge(&e), LAB_FAULT_SPINNING);
    assert_true(lab_fault_is(LAB_FAULT_SPINNING));
}

static void much_processor_time_in_a_short_silence_is_no_fault(void **state)
{
    struct lab_evidence e = { .beat_seen = true, .since_beat_ns = 59 * SECONDS,
                              .qemu_cpu_ns = 64 * 59 * SECONDS };

    assert_int_equal(lab_fault_judge(&e), LAB_RUNNING);
}

static void silence_without_wish_for_a_processor_is_idle(void **state)
{
    struct lab_evidence e = { .beat_seen = true, .since_beat_ns = 61 * SECONDS,
                              .qemu_cpu_ns = SECONDS / 2, .qemu_wanted_ns = SECONDS };

    assert_int_equal(lab_fault_judge(&e), LAB_FAULT_IDLE);
    assert_true(lab_fault_is(LAB_FAULT_IDLE));
}

static void a_boot_is_held_to_the_same_rules(void **state)
{
    struct lab_evidence e = { .since_beat_ns = 61 * SECONDS, .qemu_cpu_ns = 80 * SECONDS };

    assert_int_equal(lab_fault_judge(&e), LAB_FAULT_SPINNING);
}

static void every_fault_has_a_text_and_nothing_else_has(void **state)
{
    int v;

    for (v = LAB_RUNNING; v <= LAB_FAULT_GARBLED; v++)
        assert_int_equal(lab_fault_text(v)[0] != '\0', lab_fault_is(v));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_beating_lab_runs),
        cmocka_unit_test(the_end_of_the_command_outweighs_all_that_follows),
        cmocka_unit_test(a_lab_we_stop_is_not_at_fault),
        cmocka_unit_test(a_reset_is_told_by_its_cause),
        cmocka_unit_test(a_killed_qemu_is_a_fault_even_before_the_first_beat),
        cmocka_unit_test(a_qemu_that_refuses_to_start_is_not_worth_a_retry),
        cmocka_unit_test(a_reset_before_the_first_beat_is_a_fault),
        cmocka_unit_test(trouble_in_setting_up_is_not_worth_a_retry),
        cmocka_unit_test(nonsense_from_l1_is_a_fault),
        cmocka_unit_test(silence_alone_is_no_fault),
        cmocka_unit_test(silence_with_plenty_of_processor_time_is_spinning),
        cmocka_unit_test(much_processor_time_in_a_short_silence_is_no_fault),
        cmocka_unit_test(silence_without_wish_for_a_processor_is_idle),
        cmocka_unit_test(a_boot_is_held_to_the_same_rules),
        cmocka_unit_test(every_fault_has_a_text_and_nothing_else_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
