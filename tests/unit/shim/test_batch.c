/* SPDX-License-Identifier: MIT */
/* Hypercalls that go through a list, short of time: each stops, says what is left, and in
 * the end all is done once. */
#include "guest.h"

#include <xen/memory.h>

#define UPDATES 200
#define FRAMES  24
#define MS      1000000

/* A tick of this much, and the second look at the time is one too many. */
static void begin(void)
{
    guest_begin(RING3);
    fake_cpu.now_ns = MS;
    fake_cpu.tick_ns = MS;
}

/* True once: v wants the call again. */
static bool again(void)
{
    bool wanted = VCPU->again;

    VCPU->again = false;
    return wanted;
}

static const uint64_t *args(void)
{
    return VCPU->again_arg;
}

static void time_is_looked_at_by_cost(void **state)
{
    struct shim_batch b = { 0 };
    unsigned nr = 0;

    begin();
    while (!batch_over(&b, 1))
        nr++;
    assert_int_equal(nr, 31);
    assert_true(b.over);
    b = (struct shim_batch){ 0 };
    fake_cpu.tick_ns = 0;
    for (unsigned i = 0; i < 1000; i++)
        assert_false(batch_over(&b, 16));
    fake_cpu.now_ns += MS;
    assert_true(batch_over(&b, 16));
}

static void a_list_of_updates(void **state)
{
    static struct mmu_update list[UPDATES];
    unsigned nr_parts = 0;
    uint32_t done = 77;             /* not looked at in the first part */
    int64_t rc;

    begin();
    for (unsigned i = 0; i < UPDATES; i++)
        list[i] = (struct mmu_update){
            (RAM_MFN + i % RAM_PAGES) << PAGE_SHIFT | MMU_MACHPHYS_UPDATE, 1000 + i };
    rc = mmu_update(VCPU, (uint64_t)list, UPDATES, (uint64_t)&done, DOMID_SELF);
    while (again()) {
        assert_int_equal(done, args()[0] / sizeof(list[0]) - (uint64_t)list / sizeof(list[0]));
        assert_int_equal(args()[1], (UPDATES - done) | MMU_UPDATE_PREEMPTED);
        assert_int_equal(shim_domain.m2p[done % RAM_PAGES],
                         done < RAM_PAGES ? shim_domain.m2p[done] :
                         1000 + done - RAM_PAGES);      /* what is next is not done */
        nr_parts++;
        rc = mmu_update(VCPU, args()[0], args()[1], args()[2], args()[3]);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(done, UPDATES);
    assert_in_range(nr_parts, 3, UPDATES / 16);
    for (unsigned i = UPDATES - RAM_PAGES; i < UPDATES; i++)
        assert_int_equal(shim_domain.m2p[i % RAM_PAGES], 1000 + i);
}

/* A fault in a later part is told with the count of all. */
static void a_fault_in_a_later_part(void **state)
{
    static struct mmu_update list[UPDATES];
    uint32_t done = 0;
    int64_t rc;

    begin();
    for (unsigned i = 0; i < UPDATES; i++)
        list[i] = (struct mmu_update){ RAM_MFN << PAGE_SHIFT | MMU_MACHPHYS_UPDATE, i };
    list[150].ptr = MMU_MACHPHYS_UPDATE;    /* of no frame */
    rc = mmu_update(VCPU, (uint64_t)list, UPDATES, (uint64_t)&done, DOMID_SELF);
    while (again())
        rc = mmu_update(VCPU, args()[0], args()[1], args()[2], args()[3]);
    assert_int_equal(rc, -XEN_EINVAL);
    assert_int_equal(done, 150);
}

static void a_list_of_extended_operations(void **state)
{
    static struct mmuext_op list[FRAMES];
    unsigned nr_parts = 0;
    uint32_t done = 0;
    int64_t rc;

    begin();
    for (unsigned i = 0; i < FRAMES; i++) {
        list[i] = (struct mmuext_op){ .cmd = MMUEXT_CLEAR_PAGE, .arg1.mfn = RAM_MFN + 8 + i };
        memset(guest_frame(RAM_MFN + 8 + i), 1, PAGE_SIZE);
    }
    rc = mmuext_op(VCPU, (uint64_t)list, FRAMES, (uint64_t)&done, DOMID_SELF);
    while (again()) {
        assert_int_equal(*(uint8_t *)guest_frame(RAM_MFN + 8 + done), 1);
        nr_parts++;
        rc = mmuext_op(VCPU, args()[0], args()[1], args()[2], args()[3]);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(done, FRAMES);
    assert_in_range(nr_parts, 3, FRAMES);
    for (unsigned i = 0; i < FRAMES; i++)
        assert_int_equal(*(uint8_t *)guest_frame(RAM_MFN + 8 + i), 0);
}

static uint64_t frames[FRAMES];

static int64_t reservation(unsigned cmd, unsigned *nr_parts)
{
    struct xen_memory_reservation r = { .extent_start.p = frames, .nr_extents = FRAMES,
                                        .domid = DOMID_SELF };
    int64_t rc = memory_op(VCPU, cmd, (uint64_t)&r);

    while (again()) {
        ++*nr_parts;
        assert_int_equal(args()[0] & 0x3f, cmd);
        assert_in_range(args()[0] >> 6, 1, FRAMES - 1);
        rc = memory_op(VCPU, args()[0], args()[1]);
    }
    return rc;
}

static void frames_taken_and_given_back(void **state)
{
    unsigned nr_parts = 0;

    begin();
    for (unsigned i = 0; i < FRAMES; i++)
        frames[i] = 500 + i;
    assert_int_equal(reservation(XENMEM_populate_physmap, &nr_parts), FRAMES);
    assert_in_range(nr_parts, 2, FRAMES);
    assert_int_equal(shim_domain.status->nr_pages, RAM_PAGES + FRAMES);
    for (unsigned i = 0; i < FRAMES; i++)
        assert_int_equal(shim_domain.m2p[frames[i] - RAM_MFN], 500 + i);
    nr_parts = 0;
    assert_int_equal(reservation(XENMEM_decrease_reservation, &nr_parts), FRAMES);
    assert_in_range(nr_parts, 2, FRAMES);
    assert_int_equal(shim_domain.status->nr_pages, RAM_PAGES);
}

static void frames_exchanged(void **state)
{
    static uint64_t out[FRAMES];
    struct xen_memory_exchange x = {
        .in = { .extent_start.p = frames, .nr_extents = FRAMES, .domid = DOMID_SELF },
        .out = { .extent_start.p = out, .nr_extents = FRAMES, .domid = DOMID_SELF },
    };
    unsigned nr_parts = 0;
    int64_t rc;

    begin();
    for (unsigned i = 0; i < FRAMES; i++) {
        frames[i] = RAM_MFN + 40 + i;
        out[i] = 700 + i;
    }
    rc = memory_op(VCPU, XENMEM_exchange, (uint64_t)&x);
    while (again()) {
        nr_parts++;
        assert_in_range(x.nr_exchanged, nr_parts, FRAMES - 1);
        rc = memory_op(VCPU, args()[0], args()[1]);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(x.nr_exchanged, FRAMES);
    assert_in_range(nr_parts, 3, FRAMES);
    for (unsigned i = 0; i < FRAMES; i++)
        assert_int_equal(shim_domain.m2p[out[i] - RAM_MFN], 700 + i);
    assert_int_equal(shim_domain.status->nr_pages, RAM_PAGES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_is_looked_at_by_cost),
        cmocka_unit_test(a_list_of_updates),
        cmocka_unit_test(a_fault_in_a_later_part),
        cmocka_unit_test(a_list_of_extended_operations),
        cmocka_unit_test(frames_taken_and_given_back),
        cmocka_unit_test(frames_exchanged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
