/* SPDX-License-Identifier: MIT */
/* Which of the guest's sends leave the VM, and when. */
#include "guest.h"

#define LINK 3
#define PORT 17
#define EXIT_NS 1000

static struct xen_hostlink link[8];

static void begin(bool awake)
{
    guest_begin(RING1);
    memset(link, 0, sizeof(link));
    memset(&VCPU->doorbells, 0, sizeof(VCPU->doorbells));
    shim_domain.links = link;
    VCPU->exit_ns = EXIT_NS;
    for (unsigned i = 0; i < array_size(link); i++)
        link[i].awake = awake;
}

static void assert_rang(unsigned nr, uint32_t last_port)
{
    assert_int_equal(fake_cpu.nr_outs, nr);
    if (nr) {
        assert_int_equal(fake_cpu.out[nr - 1].port, XEN_DOORBELL_IO_PORT);
        assert_int_equal(fake_cpu.out[nr - 1].value, last_port);
    }
}

static void a_host_asleep_is_rung_at_once(void **state)
{
    begin(false);
    doorbell_send(VCPU, PORT, LINK);
    assert_rang(1, PORT);
    doorbell_flush(VCPU);
    assert_rang(1, PORT);
}

static void one_that_is_awake_is_rung_when_the_vcpu_has_nothing_to_do(void **state)
{
    begin(true);
    doorbell_send(VCPU, PORT, LINK);
    doorbell_send(VCPU, PORT, LINK);
    assert_rang(0, 0);
    doorbell_flush(VCPU);
    assert_rang(1, PORT);
    doorbell_flush(VCPU);
    assert_rang(1, PORT);
}

static void the_first_to_wait_says_for_how_long(void **state)
{
    begin(true);
    fake_cpu.now_ns = 5000000;
    doorbell_send(VCPU, PORT, LINK);
    fake_cpu.now_ns += 20 * EXIT_NS;
    doorbell_send(VCPU, PORT + 1, LINK + 1);
    doorbell_attend(VCPU);
    assert_rang(0, 0);
    fake_cpu.now_ns += 13 * EXIT_NS;
    doorbell_attend(VCPU);
    assert_rang(2, PORT + 1);
    assert_int_equal(fake_cpu.out[0].value, PORT);
}

static void a_host_that_has_looked_since_is_not_rung(void **state)
{
    begin(true);
    doorbell_send(VCPU, PORT, LINK);
    link[LINK].turns++;
    doorbell_flush(VCPU);
    assert_rang(0, 0);
}

static void what_is_sent_after_that_look_is_rung(void **state)
{
    begin(true);
    doorbell_send(VCPU, PORT, LINK);
    link[LINK].turns++;
    doorbell_send(VCPU, PORT, LINK);
    doorbell_flush(VCPU);
    assert_rang(1, PORT);
}

static void more_than_can_wait_are_rung_at_once(void **state)
{
    const unsigned room = array_size(VCPU->doorbells.waiting);

    begin(true);
    for (unsigned i = 0; i < room; i++)
        doorbell_send(VCPU, PORT + i, i);
    assert_rang(0, 0);
    doorbell_send(VCPU, PORT + room, room);
    assert_rang(1, PORT + room);
    doorbell_flush(VCPU);
    assert_rang(1 + room, PORT + room - 1);
}

static void a_link_that_may_be_called_is_called_before_it_is_rung(void **state)
{
    begin(false);
    link[LINK].call = 1;
    fake_cpu.in_value = XEN_CALL_SERVED;
    doorbell_send(VCPU, PORT, LINK);
    assert_int_equal(fake_cpu.nr_ins, 1);
    assert_int_equal(fake_cpu.in_port, XEN_CALL_IO_PORT + LINK);
    assert_rang(0, 0);
}

static void a_call_that_nobody_serves_is_rung(void **state)
{
    begin(false);
    link[LINK].call = 1;
    fake_cpu.in_value = ~0u;
    doorbell_send(VCPU, PORT, LINK);
    assert_int_equal(fake_cpu.nr_ins, 1);
    assert_rang(1, PORT);
}

static void one_that_was_put_off_is_called_too(void **state)
{
    begin(true);
    link[LINK].call = 1;
    fake_cpu.in_value = XEN_CALL_SERVED;
    doorbell_send(VCPU, PORT, LINK);
    assert_int_equal(fake_cpu.nr_ins, 0);
    doorbell_flush(VCPU);
    assert_int_equal(fake_cpu.nr_ins, 1);
    assert_rang(0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_asleep_is_rung_at_once),
        cmocka_unit_test(one_that_is_awake_is_rung_when_the_vcpu_has_nothing_to_do),
        cmocka_unit_test(the_first_to_wait_says_for_how_long),
        cmocka_unit_test(a_host_that_has_looked_since_is_not_rung),
        cmocka_unit_test(what_is_sent_after_that_look_is_rung),
        cmocka_unit_test(more_than_can_wait_are_rung_at_once),
        cmocka_unit_test(a_link_that_may_be_called_is_called_before_it_is_rung),
        cmocka_unit_test(a_call_that_nobody_serves_is_rung),
        cmocka_unit_test(one_that_was_put_off_is_called_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
