/* SPDX-License-Identifier: MIT */
#include "guest.h"

static struct vcpu_runstate_info shown;

/* At 1000 ns, running; KVM has counted 500 ns of the thread's life before. */
static void begin(uint64_t steal_ns)
{
    guest_begin(RING3);
    fake_cpu.now_ns = 1000;
    fake_cpu.steal_ns = steal_ns;
    memset(&shown, 0, sizeof(shown));
    sched_runstate_init(VCPU);
    VCPU->runstate_va = (uint64_t)&shown;
}

static void assert_times(uint64_t running, uint64_t runnable, uint64_t blocked, uint64_t offline)
{
    const uint64_t *time = VCPU->runstate.time;

    assert_int_equal(time[RUNSTATE_running], running);
    assert_int_equal(time[RUNSTATE_runnable], runnable);
    assert_int_equal(time[RUNSTATE_blocked], blocked);
    assert_int_equal(time[RUNSTATE_offline], offline);
}

static void what_was_stolen_before_is_nobodys(void **state)
{
    begin(500);
    fake_cpu.now_ns = 2000;
    sched_runstate_attend(VCPU);
    assert_int_equal(shown.state_entry_time, 0);        /* no news, nothing written */
    sched_runstate(VCPU, RUNSTATE_running);
    assert_times(1000, 0, 0, 0);
}

static void a_running_vcpu_is_kept_waiting(void **state)
{
    begin(500);
    VCPU->steal.steal_ns += 300;
    fake_cpu.now_ns = 2000;
    sched_runstate_attend(VCPU);
    assert_times(700, 300, 0, 0);
    assert_int_equal(shown.time[RUNSTATE_runnable], 300);
    assert_int_equal(shown.state_entry_time, 2000);
    assert_int_equal(shown.state, RUNSTATE_running);
    fake_cpu.now_ns = 2500;
    sched_runstate_attend(VCPU);
    assert_int_equal(shown.state_entry_time, 2000);     /* once */
}

static void a_woken_one_waits_too(void **state)
{
    begin(500);
    fake_cpu.now_ns = 2000;
    sched_runstate(VCPU, RUNSTATE_blocked);
    fake_cpu.now_ns = 5000;
    VCPU->steal.steal_ns += 1000;
    sched_runstate(VCPU, RUNSTATE_running);
    assert_times(1000, 1000, 2000, 0);
}

static void one_that_is_not_up_wants_no_processor(void **state)
{
    begin(500);
    sched_runstate(VCPU, RUNSTATE_offline);
    fake_cpu.now_ns = 5000;
    VCPU->steal.steal_ns += 1000;
    sched_runstate(VCPU, RUNSTATE_running);
    assert_times(0, 0, 0, 4000);
    fake_cpu.now_ns = 6000;
    sched_runstate(VCPU, RUNSTATE_running);
    assert_times(1000, 0, 0, 4000);
}

static void no_more_is_stolen_than_has_passed(void **state)
{
    begin(500);
    VCPU->steal.steal_ns += 1000000;
    fake_cpu.now_ns = 1400;
    sched_runstate(VCPU, RUNSTATE_running);
    assert_times(0, 400, 0, 0);
}

static void nothing_is_stolen_where_nobody_counts(void **state)
{
    begin(0);
    fake_cpu.now_ns = 2000;
    sched_runstate_attend(VCPU);
    sched_runstate(VCPU, RUNSTATE_running);
    assert_times(1000, 0, 0, 0);
}

static void the_flag_says_that_it_changes(void **state)
{
    begin(500);
    shim_domain.vm_assist = 1 << VMASST_TYPE_runstate_update_flag;
    VCPU->steal.steal_ns += 300;
    fake_cpu.now_ns = 2000;
    sched_runstate_attend(VCPU);
    assert_int_equal(shown.state_entry_time, 2000);     /* and the flag is gone again */
    assert_int_equal(shown.time[RUNSTATE_runnable], 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_stolen_before_is_nobodys),
        cmocka_unit_test(a_running_vcpu_is_kept_waiting),
        cmocka_unit_test(a_woken_one_waits_too),
        cmocka_unit_test(one_that_is_not_up_wants_no_processor),
        cmocka_unit_test(no_more_is_stolen_than_has_passed),
        cmocka_unit_test(nothing_is_stolen_where_nobody_counts),
        cmocka_unit_test(the_flag_says_that_it_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
