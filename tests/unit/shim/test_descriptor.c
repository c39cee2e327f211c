/* SPDX-License-Identifier: MIT */
#include "guest.h"

#define CODE(dpl)   (0x00af9b000000ffffull | (uint64_t)(dpl) << 45)
#define DATA(dpl)   (0x00cf93000000ffffull | (uint64_t)(dpl) << 45)
#define CALL_GATE   0x00008c0000000000ull
#define TSS_DESC    0x0000890000000067ull
#define NOT_PRESENT 0x00000c0000000000ull

static uint64_t gdt_frame;

static uint64_t *guest_gdt(unsigned entry)
{
    return guest_entry(gdt_frame, entry);
}

static void begin(uint32_t flags)
{
    guest_begin(flags);
    gdt_frame = guest_frame_new();
}

static void ring3_every_segment_is_ring_3s(void **state)
{
    begin(RING3);
    for (unsigned dpl = 0; dpl < 4; dpl++) {
        *guest_gdt(dpl) = CODE(dpl);
        *guest_gdt(4 + dpl) = DATA(dpl);
    }
    assert_int_equal(descriptor_set_gdt_frames(VCPU, &gdt_frame, 8), 0);
    for (unsigned dpl = 0; dpl < 4; dpl++) {
        assert_int_equal(VCPU->tables->gdt[dpl], CODE(3));
        assert_int_equal(VCPU->tables->gdt[4 + dpl], DATA(3));
    }
}

static void ring1_only_ring_0_is_raised(void **state)
{
    begin(RING1);
    for (unsigned dpl = 0; dpl < 4; dpl++)
        *guest_gdt(dpl) = CODE(dpl);
    assert_int_equal(descriptor_set_gdt_frames(VCPU, &gdt_frame, 4), 0);
    assert_int_equal(VCPU->tables->gdt[0], CODE(1));
    for (unsigned dpl = 1; dpl < 4; dpl++)
        assert_int_equal(VCPU->tables->gdt[dpl], CODE(dpl));
}

static void system_descriptors_do_not_get_in(void **state)
{
    begin(RING3);
    *guest_gdt(0) = CALL_GATE;
    *guest_gdt(1) = TSS_DESC;
    *guest_gdt(2) = NOT_PRESENT;
    assert_int_equal(descriptor_set_gdt_frames(VCPU, &gdt_frame, 3), 0);
    assert_int_equal(VCPU->tables->gdt[0], 0);
    assert_int_equal(VCPU->tables->gdt[1], 0);
    assert_int_equal(VCPU->tables->gdt[2], NOT_PRESENT);
}

static void a_shorter_table_leaves_nothing_behind(void **state)
{
    begin(RING3);
    for (unsigned i = 0; i < 512; i++)
        *guest_gdt(i) = DATA(3);
    assert_int_equal(descriptor_set_gdt_frames(VCPU, &gdt_frame, 512), 0);
    assert_int_equal(descriptor_set_gdt_frames(VCPU, &gdt_frame, 3), 0);
    assert_int_equal(VCPU->tables->gdt[2], DATA(3));
    assert_int_equal(VCPU->tables->gdt[3], 0);
    assert_int_equal(VCPU->tables->gdt[511], 0);
}

static void the_table_is_judged_before_it_is_used(void **state)
{
    uint64_t frames[2];

    begin(RING3);
    *guest_gdt(0) = DATA(3);
    frames[0] = gdt_frame;
    frames[1] = RAM_MFN + RAM_MAX;
    assert_int_equal(descriptor_set_gdt_frames(VCPU, frames, 513), -XEN_EINVAL);
    assert_int_equal(VCPU->tables->gdt[0], 0);
    assert_int_equal(descriptor_set_gdt(VCPU, (uint64_t)frames, 7169), -XEN_EINVAL);
    assert_int_equal(descriptor_set_gdt(VCPU, 0xffff800000000000, 1), -XEN_EFAULT);
    assert_int_equal(descriptor_set_gdt(VCPU, (uint64_t)frames, 512), 0);
}

static void updates_reach_every_copy(void **state)
{
    begin(RING3);
    assert_int_equal(descriptor_set_gdt_frames(VCPU, &gdt_frame, 16), 0);
    assert_int_equal(descriptor_set_gdt_frames(shim_vcpu(1), &gdt_frame, 4), 0);
    assert_int_equal(descriptor_update((gdt_frame << PAGE_SHIFT) + 3 * 8, DATA(0)), 0);
    assert_int_equal(*guest_gdt(3), DATA(3));
    assert_int_equal(VCPU->tables->gdt[3], DATA(3));
    assert_int_equal(shim_vcpu(1)->tables->gdt[3], DATA(3));
    assert_int_equal(descriptor_update((gdt_frame << PAGE_SHIFT) + 5 * 8, DATA(0)), 0);
    assert_int_equal(VCPU->tables->gdt[5], DATA(3));
    assert_int_equal(shim_vcpu(1)->tables->gdt[5], 0);      /* beyond its limit */
    /* a page that is in nobody's table is just written */
    assert_int_equal(descriptor_update(guest_frame_new() << PAGE_SHIFT, DATA(0)), 0);
}

static void updates_that_are_refused(void **state)
{
    uint64_t maddr;

    begin(RING3);
    maddr = gdt_frame << PAGE_SHIFT;
    assert_int_equal(descriptor_update(maddr + 4, DATA(3)), -XEN_EINVAL);
    assert_int_equal(descriptor_update((RAM_MFN + RAM_MAX) << PAGE_SHIFT, DATA(3)), -XEN_EINVAL);
    assert_int_equal(descriptor_update(~(uint64_t)7, DATA(3)), -XEN_EINVAL);
    assert_int_equal(descriptor_update(maddr, CALL_GATE), -XEN_EINVAL);
    assert_int_equal(descriptor_update(maddr, TSS_DESC), -XEN_EINVAL);
    assert_int_equal(*guest_gdt(0), 0);
    assert_int_equal(descriptor_update(maddr, NOT_PRESENT), 0);
}

/* In the tests the guest's virtual addresses are the process's own. */
static uint64_t ldt_page[1024] __attribute__((aligned(4096)));

static void an_ldt_is_copied_and_tamed(void **state)
{
    uint64_t root, frame;

    begin(RING3);
    root = guest_frame_new();
    frame = guest_frame_new();
    guest_map(root, (uint64_t)ldt_page, frame, 0);
    VCPU->kernel_cr3 = root << PAGE_SHIFT;
    ldt_page[0] = DATA(0);
    ldt_page[1] = CALL_GATE;
    ldt_page[600] = DATA(3);
    assert_int_equal(descriptor_set_ldt(VCPU, (uint64_t)ldt_page, 700), 0);
    assert_int_equal(fake_cpu.ldt, SEL_LDT);
    assert_int_equal(VCPU->tables->ldt[0], DATA(3));
    assert_int_equal(VCPU->tables->ldt[1], 0);
    assert_int_equal(VCPU->tables->ldt[600], DATA(3));
    assert_int_equal(descriptor_update((frame << PAGE_SHIFT) + 16, DATA(1)), 0);
    assert_int_equal(VCPU->tables->ldt[2], DATA(3));
    assert_int_equal(descriptor_set_ldt(VCPU, 0, 0), 0);
    assert_int_equal(fake_cpu.ldt, 0);
}

static void an_ldt_page_that_is_not_there_is_empty(void **state)
{
    begin(RING3);
    ldt_page[0] = DATA(3);
    ldt_page[512] = DATA(3);
    VCPU->tables->ldt[512] = DATA(3);
    fake_cpu.missing = (uintptr_t)&ldt_page[512];
    fake_cpu.missing_end = (uintptr_t)&ldt_page[1024];
    assert_int_equal(descriptor_set_ldt(VCPU, (uint64_t)ldt_page, 1024), 0);
    assert_int_equal(VCPU->tables->ldt[0], DATA(3));
    assert_int_equal(VCPU->tables->ldt[512], 0);
}

static void an_ldt_that_cannot_be(void **state)
{
    begin(RING3);
    assert_int_equal(descriptor_set_ldt(VCPU, (uint64_t)ldt_page + 8, 1), -XEN_EINVAL);
    assert_int_equal(descriptor_set_ldt(VCPU, (uint64_t)ldt_page + 8, 0), -XEN_EINVAL);
    assert_int_equal(descriptor_set_ldt(VCPU, (uint64_t)ldt_page, 8193), -XEN_EINVAL);
    assert_int_equal(descriptor_set_ldt(VCPU, 0xffff808000000000, 1), -XEN_EINVAL);
    assert_int_equal(descriptor_set_ldt(VCPU, 0x7ffffffff000, 8192), -XEN_EINVAL);
    assert_int_equal(fake_cpu.ldt, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring3_every_segment_is_ring_3s),
        cmocka_unit_test(ring1_only_ring_0_is_raised),
        cmocka_unit_test(system_descriptors_do_not_get_in),
        cmocka_unit_test(a_shorter_table_leaves_nothing_behind),
        cmocka_unit_test(the_table_is_judged_before_it_is_used),
        cmocka_unit_test(updates_reach_every_copy),
        cmocka_unit_test(updates_that_are_refused),
        cmocka_unit_test(an_ldt_is_copied_and_tamed),
        cmocka_unit_test(an_ldt_page_that_is_not_there_is_empty),
        cmocka_unit_test(an_ldt_that_cannot_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
