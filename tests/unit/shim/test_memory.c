/* SPDX-License-Identifier: MIT */
#include "guest.h"

#include <xen/memory.h>

static uint64_t list[RAM_MAX];

static int64_t call(unsigned cmd, unsigned nr, unsigned order)
{
    struct xen_memory_reservation r = { .extent_start.p = list, .nr_extents = nr,
                                        .extent_order = order, .domid = DOMID_SELF };

    return memory_op(VCPU, cmd, (uint64_t)&r);
}

static void what_is_taken_was_free_and_is_mapped(void **state)
{
    guest_begin(RING3);
    for (unsigned i = 0; i < 4; i++)
        list[i] = 1000 + i;
    assert_int_equal(call(XENMEM_populate_physmap, 4, 0), 4);
    assert_int_equal(shim_domain.status->nr_pages, RAM_PAGES + 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_in_range(list[i], RAM_MFN + RAM_PAGES, RAM_MFN + RAM_MAX - 1);
        assert_int_equal(shim_domain.m2p[list[i] - RAM_MFN], 1000 + i);
        assert_int_equal(shim_domain.frame_info[list[i] - RAM_MFN], 0);
        for (unsigned k = 0; k < i; k++)
            assert_int_not_equal(list[k], list[i]);
    }
}

static void no_more_than_there_is(void **state)
{
    guest_begin(RING3);
    memset(list, 0, sizeof(list));
    assert_int_equal(call(XENMEM_populate_physmap, RAM_MAX, 0), RAM_MAX - RAM_PAGES);
    assert_int_equal(shim_domain.status->nr_pages, RAM_MAX);
    assert_int_equal(call(XENMEM_populate_physmap, 1, 0), 0);
}

static void extents_are_whole(void **state)
{
    guest_begin(RING3);
    list[0] = 512;
    assert_int_equal(call(XENMEM_populate_physmap, 1, 4), 1);
    for (unsigned k = 0; k < 16; k++)
        assert_int_equal(shim_domain.m2p[list[0] - RAM_MFN + k], 512 + k);
    assert_int_equal(call(XENMEM_populate_physmap, 1, 5), 0);       /* only 16 are left */
    assert_int_equal(shim_domain.status->nr_pages, RAM_PAGES + 16);
    assert_int_equal(call(XENMEM_decrease_reservation, 1, 4), 1);
    assert_int_equal(shim_domain.status->nr_pages, RAM_PAGES);
}

static void what_is_given_back_is_told(void **state)
{
    const uint64_t *told;

    guest_begin(RING3);
    list[0] = RAM_MFN + 5;
    list[1] = RAM_MFN + 9;
    assert_int_equal(call(XENMEM_decrease_reservation, 2, 0), 2);
    assert_int_equal(fake_cpu.nr_outs, 1);
    assert_int_equal(fake_cpu.out[0].port, SHIM_IO_RELEASE);
    assert_int_equal(fake_cpu.out[0].value, 2);
    told = (const uint64_t *)VCPU->status->text;
    assert_int_equal(told[0], 5);
    assert_int_equal(told[1], 9);
    assert_int_equal(shim_domain.m2p[5], ~(uint64_t)0);
    assert_int_equal(shim_domain.frame_info[5], FRAME_FREE);
    assert_int_equal(shim_domain.status->nr_pages, RAM_PAGES - 2);
}

static void given_back_once(void **state)
{
    guest_begin(RING3);
    list[0] = list[1] = RAM_MFN + 5;
    assert_int_equal(call(XENMEM_decrease_reservation, 2, 0), 1);
    assert_int_equal(call(XENMEM_decrease_reservation, 1, 0), 0);
    list[0] = RAM_MFN + RAM_PAGES;
    assert_int_equal(call(XENMEM_decrease_reservation, 1, 0), 0);
    list[0] = RAM_MFN + RAM_MAX;
    assert_int_equal(call(XENMEM_decrease_reservation, 1, 0), 0);
    list[0] = RAM_MFN + RAM_PAGES - 1;
    assert_int_equal(call(XENMEM_decrease_reservation, 1, 1), 0);   /* its second half is free */
    assert_int_equal(shim_domain.status->nr_pages, RAM_PAGES - 1);
}

static void a_root_in_use_stays(void **state)
{
    guest_begin(RING3);
    list[0] = RAM_MFN + 4;
    shim_vcpu(1)->user_cr3 = (uint64_t)(RAM_MFN + 5) << PAGE_SHIFT;
    assert_int_equal(call(XENMEM_decrease_reservation, 1, 1), 0);
    assert_int_equal(fake_cpu.nr_outs, 0);
    shim_vcpu(1)->user_cr3 = 0;
    assert_int_equal(call(XENMEM_decrease_reservation, 1, 1), 1);
}

/* While the host is being told, another vCPU asks for memory. */
static int64_t taken_meanwhile;

static void populate_meanwhile(uint16_t port, uint32_t value)
{
    static uint64_t other[RAM_MAX];
    struct xen_memory_reservation r = { .extent_start.p = other, .nr_extents = RAM_MAX,
                                        .domid = DOMID_SELF };

    taken_meanwhile = memory_op(shim_vcpu(1), XENMEM_populate_physmap, (uint64_t)&r);
}

static void not_handed_out_before_the_host_has_it(void **state)
{
    guest_begin(RING3);
    for (unsigned i = 0; i < 8; i++)
        list[i] = RAM_MFN + i;
    fake_cpu.on_out = populate_meanwhile;
    assert_int_equal(call(XENMEM_decrease_reservation, 8, 0), 8);
    assert_int_equal(taken_meanwhile, RAM_MAX - RAM_PAGES);
    fake_cpu.on_out = NULL;
    assert_int_equal(call(XENMEM_populate_physmap, 9, 0), 8);
    for (unsigned i = 0; i < 8; i++)
        assert_in_range(list[i], RAM_MFN, RAM_MFN + 7);
}

static uint64_t out[RAM_MAX];

static int64_t exchange(unsigned nr_in, unsigned in_order, unsigned nr_out, unsigned out_order,
                        unsigned mem_flags, uint64_t *done)
{
    struct xen_memory_exchange x = {
        .in = { .extent_start.p = list, .nr_extents = nr_in, .extent_order = in_order,
                .domid = DOMID_SELF },
        .out = { .extent_start.p = out, .nr_extents = nr_out, .extent_order = out_order,
                 .domid = DOMID_SELF, .mem_flags = mem_flags },
    };
    int64_t rc = memory_op(VCPU, XENMEM_exchange, (uint64_t)&x);

    *done = x.nr_exchanged;
    return rc;
}

static void a_chunks_own_frames_come_first(void **state)
{
    uint64_t done;

    guest_begin(RING3);
    for (unsigned i = 0; i < 8; i++)
        list[i] = RAM_MFN + 16 + (i ^ 5);
    memset(guest_frame(list[0]), 0xaa, PAGE_SIZE);
    out[0] = 1000;
    assert_int_equal(exchange(8, 0, 1, 3, 0, &done), 0);
    assert_int_equal(done, 8);
    assert_int_equal(out[0], RAM_MFN + 16);
    assert_int_equal(*(uint64_t *)guest_frame(list[0]), 0);
    assert_int_equal(fake_cpu.nr_outs, 0);
    for (unsigned k = 0; k < 8; k++) {
        assert_int_equal(shim_domain.m2p[16 + k], 1000 + k);
        assert_int_equal(shim_domain.frame_info[16 + k], 0);
    }
    assert_int_equal(shim_domain.status->nr_pages, RAM_PAGES);
}

static void what_is_no_extent_is_exchanged_for_free_frames(void **state)
{
    uint64_t done;

    guest_begin(RING3);
    for (unsigned i = 0; i < 8; i++)
        list[i] = RAM_MFN + 16 + 2 * i;
    assert_int_equal(exchange(8, 0, 1, 3, 0, &done), 0);
    assert_in_range(out[0], RAM_MFN + RAM_PAGES, RAM_MFN + RAM_MAX - 8);
    assert_int_equal(out[0] % 8, 0);
    assert_int_equal(fake_cpu.nr_outs, 1);
    assert_int_equal(fake_cpu.out[0].value, 8);
    assert_int_equal(shim_domain.frame_info[16], FRAME_FREE);
    assert_int_equal(shim_domain.m2p[16], ~(uint64_t)0);
    assert_int_equal(shim_domain.status->nr_pages, RAM_PAGES);
}

static void a_chunk_is_exchanged_whole_or_not(void **state)
{
    uint64_t done;

    guest_begin(RING3);
    /* frames for the first extent, none for the second of the same chunk */
    memset(out, 0, sizeof(out));
    assert_int_equal(call(XENMEM_populate_physmap, RAM_MAX - RAM_PAGES - 4, 0),
                     RAM_MAX - RAM_PAGES - 4);
    list[0] = RAM_MFN + 17;             /* not aligned: of no use as extents of two */
    assert_int_equal(exchange(1, 3, 4, 1, 0, &done), -XEN_ENOMEM);
    assert_int_equal(done, 0);
    assert_int_equal(shim_domain.status->nr_pages, RAM_MAX - 4);
    for (unsigned k = 17; k < 25; k++)
        assert_int_equal(shim_domain.frame_info[k], 0);
    assert_int_equal(call(XENMEM_populate_physmap, 8, 0), 4);
    /* as far as it comes */
    list[0] = RAM_MFN + 16;
    list[1] = RAM_MFN + 25;
    assert_int_equal(exchange(2, 1, 2, 1, 0, &done), -XEN_ENOMEM);
    assert_int_equal(done, 1);
    assert_int_equal(out[0], RAM_MFN + 16);
    list[0] = RAM_MFN + 16;
    assert_int_equal(exchange(1, 1, 1, 1, XENMEMF_address_bits(20), &done), -XEN_ENOMEM);
    assert_int_equal(exchange(1, 1, 1, 1, XENMEMF_address_bits(21), &done), 0);
}

static void frames_in_use_are_not_exchanged(void **state)
{
    uint64_t done;

    guest_begin(RING3);
    list[0] = RAM_MFN + 4;
    list[1] = RAM_MFN + 5;
    shim_vcpu(1)->user_cr3 = (uint64_t)(RAM_MFN + 5) << PAGE_SHIFT;
    assert_int_equal(exchange(2, 0, 1, 1, 0, &done), -XEN_EINVAL);
    assert_int_equal(shim_domain.frame_info[4], 0);
    shim_vcpu(1)->user_cr3 = 0;
    assert_int_equal(exchange(2, 0, 1, 1, 0, &done), 0);
}

static void what_cannot_be_read_is_nothing_done(void **state)
{
    struct xen_memory_reservation other = { .nr_extents = 1, .domid = 12345 };

    guest_begin(RING3);
    assert_int_equal(memory_op(VCPU, XENMEM_populate_physmap, 0xffff800000000000), 0);
    assert_int_equal(memory_op(VCPU, XENMEM_decrease_reservation, (uint64_t)&other), 0);
    assert_int_equal(call(XENMEM_populate_physmap, 1, 63), 0);
    /* the list ends early */
    fake_cpu.missing = (uintptr_t)&list[2];
    fake_cpu.missing_end = (uintptr_t)&list[RAM_MAX];
    list[0] = RAM_MFN;
    list[1] = RAM_MFN + 1;
    assert_int_equal(call(XENMEM_decrease_reservation, 4, 0), 2);
    assert_int_equal(call(XENMEM_populate_physmap, 4, 0), 2);
}

static void sizes(void **state)
{
    struct { uint64_t addr, size; uint32_t type; } __attribute__((packed)) e820;
    struct xen_memory_map map = { .nr_entries = 9, .buffer.p = &e820 };
    domid_t self = DOMID_SELF, own = 7, other = 8;

    guest_begin(RING3);
    assert_int_equal(memory_op(VCPU, XENMEM_current_reservation, (uint64_t)&self), RAM_PAGES);
    assert_int_equal(memory_op(VCPU, XENMEM_maximum_reservation, (uint64_t)&own), RAM_MAX);
    assert_int_equal(memory_op(VCPU, XENMEM_current_reservation, (uint64_t)&other), -XEN_ESRCH);
    assert_int_equal(memory_op(VCPU, XENMEM_memory_map, (uint64_t)&map), 0);
    assert_int_equal(map.nr_entries, 1);
    assert_int_equal(e820.size, RAM_MAX * PAGE_SIZE);
    assert_int_equal(memory_op(VCPU, 63, 0), -XEN_ENOSYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_taken_was_free_and_is_mapped),
        cmocka_unit_test(no_more_than_there_is),
        cmocka_unit_test(extents_are_whole),
        cmocka_unit_test(what_is_given_back_is_told),
        cmocka_unit_test(given_back_once),
        cmocka_unit_test(a_root_in_use_stays),
        cmocka_unit_test(not_handed_out_before_the_host_has_it),
        cmocka_unit_test(a_chunks_own_frames_come_first),
        cmocka_unit_test(what_is_no_extent_is_exchanged_for_free_frames),
        cmocka_unit_test(a_chunk_is_exchanged_whole_or_not),
        cmocka_unit_test(frames_in_use_are_not_exchanged),
        cmocka_unit_test(what_cannot_be_read_is_nothing_done),
        cmocka_unit_test(sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
