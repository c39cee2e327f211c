/* SPDX-License-Identifier: MIT */
#include "guest.h"

#include <xen/xen.h>

#define KERNEL_VA 0xffffffff80123000ull
#define USER_VA   0x400000ull
#define NOWHERE   (RAM_MFN + RAM_MAX)

static uint64_t root;

static uint8_t level_of(uint64_t mfn)
{
    return shim_domain.frame_info[mfn - RAM_MFN] & FRAME_LEVEL_MASK;
}

/* The frame of the table of level on the way to va. */
static uint64_t table_of(uint64_t va, unsigned level)
{
    uint64_t table = root;

    for (unsigned l = 4; l > level; l--)
        table = (*guest_entry(table, (unsigned)(va >> (PAGE_SHIFT + 9 * (l - 1))) & 511) &
                 PTE_FRAME) >> PAGE_SHIFT;
    return table;
}

static uint64_t *entry_of(uint64_t va, unsigned level)
{
    return guest_entry(table_of(va, level),
                       (unsigned)(va >> (PAGE_SHIFT + 9 * (level - 1))) & 511);
}

static uint64_t maddr_of(uint64_t va, unsigned level)
{
    return (table_of(va, level) << PAGE_SHIFT) + ((uint64_t)entry_of(va, level) & PAGE_MASK);
}

static void begin(uint32_t flags)
{
    guest_begin(flags);
    root = guest_frame_new();
    guest_map(root, KERNEL_VA, guest_frame_new(), PTE_WRITE);
    guest_map(root, USER_VA, guest_frame_new(), PTE_WRITE | PTE_USER);
    mmu_root_prepare(root, false);
    VCPU->kernel_cr3 = root << PAGE_SHIFT;
}

static int64_t update(uint64_t ptr, uint64_t val)
{
    struct mmu_update u = { .ptr = ptr, .val = val };

    return mmu_update(VCPU, (uint64_t)&u, 1, 0, DOMID_SELF);
}

static int64_t ext(unsigned cmd, uint64_t mfn)
{
    struct mmuext_op op = { .cmd = cmd, .arg1.mfn = mfn };

    return mmuext_op(VCPU, (uint64_t)&op, 1, 0, DOMID_SELF);
}

static void a_walk_ends_where_the_address_does(void **state)
{
    unsigned level;

    begin(RING3);
    assert_ptr_equal(mmu_walk(root << PAGE_SHIFT, KERNEL_VA, &level), entry_of(KERNEL_VA, 1));
    assert_int_equal(level, 1);
    /* an entry that is not present can be written; a table that is not there cannot */
    assert_ptr_equal(mmu_walk(root << PAGE_SHIFT, KERNEL_VA + PAGE_SIZE, &level),
                     entry_of(KERNEL_VA, 1) + 1);
    assert_null(mmu_walk(root << PAGE_SHIFT, 0x7f0000000000, &level));
    *entry_of(KERNEL_VA, 2) |= PTE_HUGE;
    assert_ptr_equal(mmu_walk(root << PAGE_SHIFT, KERNEL_VA, &level), entry_of(KERNEL_VA, 2));
    assert_int_equal(level, 2);
}

static void a_walk_stays_within_ram(void **state)
{
    unsigned level;

    begin(RING3);
    assert_null(mmu_walk(NOWHERE << PAGE_SHIFT, KERNEL_VA, &level));
    assert_null(mmu_walk(0, KERNEL_VA, &level));
    *entry_of(KERNEL_VA, 3) = NOWHERE << PAGE_SHIFT | PTE_PRESENT | PTE_WRITE;
    mmu_walk(root << PAGE_SHIFT, KERNEL_VA, &level);
    assert_int_equal(level, 3);
}

static void tables_below_a_root_are_known(void **state)
{
    begin(RING3);
    assert_int_equal(level_of(root), 4);
    for (unsigned level = 1; level < 4; level++) {
        assert_int_equal(level_of(table_of(KERNEL_VA, level)), level);
        assert_int_equal(level_of(table_of(USER_VA, level)), level);
    }
}

static void unpinning_a_root_forgets_its_lower_half(void **state)
{
    begin(RING3);
    assert_int_equal(ext(MMUEXT_PIN_L4_TABLE, root), 0);
    assert_int_equal(ext(MMUEXT_PIN_L4_TABLE, root), -XEN_EINVAL);
    assert_int_equal(ext(MMUEXT_UNPIN_TABLE, root), 0);
    assert_int_equal(ext(MMUEXT_UNPIN_TABLE, root), -XEN_EINVAL);
    assert_int_equal(level_of(root), 0);
    assert_int_equal(level_of(table_of(USER_VA, 1)), 0);
    assert_int_equal(level_of(table_of(KERNEL_VA, 1)), 1);
}

static void a_table_pinned_by_itself_is_remembered(void **state)
{
    begin(RING3);
    assert_int_equal(ext(MMUEXT_PIN_L4_TABLE, root), 0);
    assert_int_equal(ext(MMUEXT_PIN_L1_TABLE, table_of(USER_VA, 1)), 0);
    assert_int_equal(ext(MMUEXT_UNPIN_TABLE, root), 0);
    assert_int_equal(level_of(table_of(USER_VA, 1)), 1);
}

/* The lower half of a level-4 table that points to itself is walked once a level. */
static void a_table_in_itself_ends(void **state)
{
    begin(RING3);
    *guest_entry(root, 5) = root << PAGE_SHIFT | PTE_PRESENT | PTE_WRITE;
    mmu_table_unmark(root);
    mmu_table_mark(root, 4);
    assert_int_not_equal(level_of(root), 0);
}

static void every_root_has_the_shims_slots(void **state)
{
    begin(RING3);
    for (unsigned i = 0; i < SHIM_HOLE_SLOTS; i++)
        assert_int_equal(*guest_entry(root, 256 + i), fake_boot.hole_l4[i]);
    assert_int_equal(*guest_entry(root, 255), 0);
    assert_int_equal(*guest_entry(root, 272), 0);
}

static void a_user_root_has_no_m2p(void **state)
{
    uint64_t user;

    begin(RING3);
    user = guest_frame_new();
    assert_int_equal(ext(MMUEXT_NEW_USER_BASEPTR, user), 0);
    assert_int_equal(VCPU->user_cr3, user << PAGE_SHIFT);
    assert_int_equal(*guest_entry(user, 256), 0);
    assert_int_equal(*guest_entry(user, 271), 0);
    for (unsigned i = 1; i < 15; i++)
        assert_int_equal(*guest_entry(user, 256 + i), fake_boot.hole_l4[i]);
    /* one root for both modes keeps it: the kernel needs it */
    assert_int_equal(ext(MMUEXT_NEW_USER_BASEPTR, root), 0);
    assert_int_equal(*guest_entry(root, 256), fake_boot.hole_l4[0]);
}

static void the_shims_slots_are_not_the_guests(void **state)
{
    uint64_t other;

    begin(RING3);
    for (unsigned slot = 256; slot < 272; slot++) {
        assert_int_equal(update((root << PAGE_SHIFT) + slot * 8, 0), -XEN_EINVAL);
        assert_int_equal(*guest_entry(root, slot), fake_boot.hole_l4[slot - 256]);
    }
    assert_int_equal(update((root << PAGE_SHIFT) + 255 * 8, 0), 0);
    /* unpinned, but in use */
    mmu_table_unmark(root);
    assert_int_equal(update((root << PAGE_SHIFT) + 257 * 8, 0), -XEN_EINVAL);
    VCPU->kernel_cr3 = 0;
    shim_vcpu(1)->user_cr3 = root << PAGE_SHIFT;
    assert_int_equal(update((root << PAGE_SHIFT) + 257 * 8, 0), -XEN_EINVAL);
    /* some other page: entry 257 is like any other */
    other = guest_frame_new();
    assert_int_equal(update((other << PAGE_SHIFT) + 257 * 8, 0x1000), 0);
    assert_int_equal(*guest_entry(other, 257), 0x1000);
}

static void ring3_every_present_entry_is_for_user_mode(void **state)
{
    uint64_t frame;

    begin(RING3);
    frame = guest_frame_new();
    assert_int_equal(update(maddr_of(KERNEL_VA, 1), frame << PAGE_SHIFT | PTE_PRESENT), 0);
    assert_int_equal(*entry_of(KERNEL_VA, 1), frame << PAGE_SHIFT | PTE_PRESENT | PTE_USER);
    assert_int_equal(update(maddr_of(KERNEL_VA, 1), frame << PAGE_SHIFT), 0);
    assert_int_equal(*entry_of(KERNEL_VA, 1), frame << PAGE_SHIFT);
    assert_int_equal(mmu_update_va_mapping(VCPU, KERNEL_VA, frame << PAGE_SHIFT | PTE_PRESENT, 0),
                     0);
    assert_int_equal(*entry_of(KERNEL_VA, 1) & PTE_USER, PTE_USER);
    *entry_of(KERNEL_VA, 1) &= ~PTE_USER;
    assert_int_equal(ext(MMUEXT_PIN_L1_TABLE, table_of(KERNEL_VA, 1)), 0);
    assert_int_equal(*entry_of(KERNEL_VA, 1) & PTE_USER, PTE_USER);
}

static void ring1_user_mode_gets_no_upper_half(void **state)
{
    begin(RING1);
    assert_int_equal(update((root << PAGE_SHIFT) + 300 * 8,
                            guest_frame_new() << PAGE_SHIFT | PTE_PRESENT | PTE_USER), 0);
    assert_int_equal(*guest_entry(root, 300) & (PTE_PRESENT | PTE_USER), PTE_PRESENT);
    /* written behind our back: found as the root is loaded */
    *guest_entry(root, 300) |= PTE_USER;
    assert_int_equal(ext(MMUEXT_NEW_BASEPTR, root), 0);
    assert_int_equal(*guest_entry(root, 300) & PTE_USER, 0);
    /* the lower half is the guest's to say, and below level 4 all is */
    assert_int_equal(*entry_of(USER_VA, 1) & PTE_USER, PTE_USER);
    assert_int_equal(update(maddr_of(KERNEL_VA, 1), 0x1000 | PTE_PRESENT), 0);
    assert_int_equal(*entry_of(KERNEL_VA, 1), 0x1000 | PTE_PRESENT);
}

static void a_linked_table_becomes_known(void **state)
{
    uint64_t l1;

    begin(RING3);
    l1 = guest_frame_new();
    assert_int_equal(level_of(l1), 0);
    assert_int_equal(update(maddr_of(USER_VA + (2 << 20), 2), l1 << PAGE_SHIFT | PTE_PRESENT), 0);
    assert_int_equal(level_of(l1), 1);
}

static void accessed_and_dirty_are_kept_or_not(void **state)
{
    const uint64_t ad = PTE_ACCESSED | PTE_DIRTY;

    begin(RING3);
    *entry_of(USER_VA, 1) |= ad;
    assert_int_equal(update(maddr_of(USER_VA, 1) | MMU_PT_UPDATE_PRESERVE_AD, 0x5000 | PTE_PRESENT),
                     0);
    assert_int_equal(*entry_of(USER_VA, 1) & (ad | PTE_FRAME), 0x5000 | ad);
    assert_int_equal(update(maddr_of(USER_VA, 1) | MMU_NORMAL_PT_UPDATE, 0x6000 | PTE_PRESENT), 0);
    assert_int_equal(*entry_of(USER_VA, 1) & (ad | PTE_FRAME), 0x6000);
    assert_int_equal(update(maddr_of(USER_VA, 1) | MMU_PT_UPDATE_NO_TRANSLATE,
                            0x7000 | PTE_PRESENT | ad), 0);
    assert_int_equal(*entry_of(USER_VA, 1) & (ad | PTE_FRAME), 0x7000 | ad);
}

static void the_m2p_follows(void **state)
{
    begin(RING3);
    assert_int_equal(update((RAM_MFN + 3) << PAGE_SHIFT | MMU_MACHPHYS_UPDATE, 77), 0);
    assert_int_equal(shim_domain.m2p[3], 77);
    assert_int_equal(update(NOWHERE << PAGE_SHIFT | MMU_MACHPHYS_UPDATE, 77), -XEN_EINVAL);
    assert_int_equal(update((RAM_MFN - 1) << PAGE_SHIFT | MMU_MACHPHYS_UPDATE, 77), -XEN_EINVAL);
}

static void a_batch_stops_at_the_first_fault(void **state)
{
    struct mmu_update u[40];
    uint32_t done;

    begin(RING3);
    for (unsigned bad = 0; bad <= array_size(u); bad++) {
        for (unsigned i = 0; i < array_size(u); i++)
            u[i] = (struct mmu_update){
                .ptr = i == bad ? NOWHERE << PAGE_SHIFT : maddr_of(USER_VA, 1),
                .val = i * PAGE_SIZE };
        done = 99;
        assert_int_equal(mmu_update(VCPU, (uint64_t)u, array_size(u), (uint64_t)&done, DOMID_SELF),
                         bad < array_size(u) ? -XEN_EINVAL : 0);
        assert_int_equal(done, bad);
        if (bad)
            assert_int_equal(*entry_of(USER_VA, 1), (bad - 1) * PAGE_SIZE);
    }
    assert_int_equal(mmu_update(VCPU, (uint64_t)u, 1, 0, 7), -XEN_ESRCH);
    fake_cpu.missing = (uintptr_t)u;
    fake_cpu.missing_end = (uintptr_t)(u + 1);
    assert_int_equal(mmu_update(VCPU, (uint64_t)u, 1, 0, DOMID_SELF), -XEN_EFAULT);
}

static void flushes_as_asked(void **state)
{
    uint64_t mask = 2;

    begin(RING3);
    assert_int_equal(mmu_update_va_mapping(VCPU, USER_VA, 0, UVMF_NONE), 0);
    assert_int_equal(fake_cpu.nr_flushes + fake_cpu.nr_invlpg, 0);
    assert_int_equal(mmu_update_va_mapping(VCPU, USER_VA, 0, UVMF_INVLPG), 0);
    assert_int_equal(fake_cpu.invlpg_va, USER_VA);
    assert_int_equal(mmu_update_va_mapping(VCPU, USER_VA, 0, UVMF_TLB_FLUSH), 0);
    assert_int_equal(fake_cpu.nr_flushes, 1);
    /* only vCPU 1 is asked for */
    assert_int_equal(mmu_update_va_mapping(VCPU, USER_VA, 0, UVMF_TLB_FLUSH | (uintptr_t)&mask), 0);
    assert_int_equal(fake_cpu.nr_flushes, 1);
    assert_int_equal(mmu_update_va_mapping(VCPU, USER_VA, 0, UVMF_TLB_FLUSH | UVMF_ALL), 0);
    assert_int_equal(fake_cpu.nr_flushes, 2);
    assert_int_equal(mmu_update_va_mapping(VCPU, 0x7f0000000000, 0, 0), -XEN_EINVAL);
    assert_int_equal(mmu_update_va_mapping(VCPU, 0xffff808000000000, 0, 0), -XEN_EINVAL);
}

static bool fixed(uint64_t va, uint64_t error)
{
    return mmu_fault_fixed(VCPU, va, error);
}

static void a_missing_user_bit_is_set(void **state)
{
    begin(RING3);
    *entry_of(KERNEL_VA, 3) &= ~PTE_USER;
    assert_true(fixed(KERNEL_VA, PF_PRESENT));
    for (unsigned level = 1; level <= 4; level++)
        assert_int_equal(*entry_of(KERNEL_VA, level) & PTE_USER, PTE_USER);
    assert_false(fixed(KERNEL_VA, PF_PRESENT));         /* nothing left to change */
    assert_false(fixed(0xffff808000000000, PF_PRESENT));
    assert_false(fixed(KERNEL_VA, 0));
}

static void only_page_tables_become_writable(void **state)
{
    uint64_t table;

    begin(RING1);
    table = table_of(USER_VA, 1);
    *entry_of(KERNEL_VA, 1) = table << PAGE_SHIFT | PTE_PRESENT;
    assert_true(fixed(KERNEL_VA, PF_PRESENT | PF_WRITE));
    assert_int_equal(*entry_of(KERNEL_VA, 1) & PTE_WRITE, PTE_WRITE);
    *entry_of(KERNEL_VA, 1) = guest_frame_new() << PAGE_SHIFT | PTE_PRESENT;
    assert_false(fixed(KERNEL_VA, PF_PRESENT | PF_WRITE));
    assert_int_equal(*entry_of(KERNEL_VA, 1) & PTE_WRITE, 0);
    /* not for user space, nor at its addresses */
    *entry_of(KERNEL_VA, 1) = table << PAGE_SHIFT | PTE_PRESENT;
    *entry_of(USER_VA, 1) = table << PAGE_SHIFT | PTE_PRESENT;
    assert_false(fixed(USER_VA, PF_PRESENT | PF_WRITE));
    VCPU->kernel_mode = false;
    assert_false(fixed(KERNEL_VA, PF_PRESENT | PF_WRITE));
}

/* "Try again" where nothing changes would be for ever. */
static void a_write_forbidden_above_is_the_guests_fault(void **state)
{
    begin(RING1);
    assert_true(fixed(KERNEL_VA, PF_PRESENT | PF_WRITE));       /* stale: all allow it */
    for (unsigned level = 2; level <= 4; level++) {
        *entry_of(KERNEL_VA, level) &= ~PTE_WRITE;
        assert_false(fixed(KERNEL_VA, PF_PRESENT | PF_WRITE));
        *entry_of(KERNEL_VA, level) |= PTE_WRITE;
    }
}

static void reserved_bits_are_the_guests_fault(void **state)
{
    begin(RING3);
    *entry_of(KERNEL_VA, 3) &= ~PTE_USER;
    assert_false(fixed(KERNEL_VA, PF_PRESENT | PF_WRITE | PF_RESERVED));
    assert_int_equal(*entry_of(KERNEL_VA, 3) & PTE_USER, 0);
}

static void frames_outside_ram_are_refused(void **state)
{
    begin(RING3);
    for (unsigned cmd = MMUEXT_PIN_L1_TABLE; cmd <= MMUEXT_NEW_BASEPTR; cmd++)
        assert_int_equal(ext(cmd, NOWHERE), -XEN_EINVAL);
    assert_int_equal(ext(MMUEXT_NEW_USER_BASEPTR, ~(uint64_t)0), -XEN_EINVAL);
    assert_int_equal(ext(MMUEXT_CLEAR_PAGE, RAM_MFN - 1), -XEN_EINVAL);
    assert_int_equal(VCPU->kernel_cr3, root << PAGE_SHIFT);
    assert_int_equal(ext(MMUEXT_NEW_USER_BASEPTR, 0), 0);
}

static void a_map_of_the_tables_is_no_branch_of_them(void **state)
{
    uint64_t at, link;

    begin(RING3);
    at = (root << PAGE_SHIFT) + 100 * 8;
    link = root << PAGE_SHIFT | PTE_PRESENT | PTE_USER;
    assert_int_equal(ext(MMUEXT_NEW_BASEPTR, root), 0);
    assert_int_equal(update(at, link | PTE_WRITE), -XEN_EINVAL);
    assert_int_equal(*guest_entry(root, 100), 0);
    assert_int_equal(update(at, link), 0);
    assert_int_equal(*guest_entry(root, 100), link);
    assert_int_equal(level_of(root), 4);
    /* nor when the tables are walked */
    assert_int_equal(ext(MMUEXT_PIN_L4_TABLE, root), 0);
    assert_int_equal(ext(MMUEXT_UNPIN_TABLE, root), 0);
    mmu_root_prepare(root, false);
    assert_int_equal(level_of(root), 4);
    assert_int_equal(level_of(table_of(KERNEL_VA, 3)), 3);
}

static void a_pinned_table_is_not_mapped_writable(void **state)
{
    uint64_t table, at;

    begin(RING3);
    table = guest_frame_new();
    at = maddr_of(KERNEL_VA, 1);
    assert_int_equal(ext(MMUEXT_PIN_L1_TABLE, table), 0);
    assert_int_equal(update(at, table << PAGE_SHIFT | PTE_PRESENT | PTE_WRITE), -XEN_EINVAL);
    assert_int_equal(mmu_update_va_mapping(VCPU, KERNEL_VA,
                                           table << PAGE_SHIFT | PTE_PRESENT | PTE_WRITE, 0),
                     -XEN_EINVAL);
    assert_int_equal(update(at, table << PAGE_SHIFT | PTE_PRESENT), 0);
    /* the table's own place is above */
    assert_int_equal(update(maddr_of(KERNEL_VA + (1 << 21), 2),
                            table << PAGE_SHIFT | PTE_PRESENT | PTE_WRITE), 0);
    assert_int_equal(ext(MMUEXT_UNPIN_TABLE, table), 0);
    assert_int_equal(update(at, table << PAGE_SHIFT | PTE_PRESENT | PTE_WRITE), 0);
}

/* As the domain builder mapped it: frame 0 at virt_base, and so on. */
static void what_is_mapped_writable_is_not_pinned(void **state)
{
    uint64_t frame, va;

    begin(RING3);
    frame = guest_frame_new();
    va = 0xffffffff80000000 + ((frame - RAM_MFN) << PAGE_SHIFT);
    fake_boot.virt_base = 0xffffffff80000000;
    fake_boot.initial_pages = frame - RAM_MFN;
    guest_map(root, va, frame, PTE_WRITE);
    assert_int_equal(ext(MMUEXT_PIN_L1_TABLE, frame), 0);       /* beyond what was mapped */
    assert_int_equal(ext(MMUEXT_UNPIN_TABLE, frame), 0);
    fake_boot.initial_pages++;
    assert_int_equal(ext(MMUEXT_PIN_L1_TABLE, frame), -XEN_EINVAL);
    *entry_of(va, 1) &= ~PTE_WRITE;
    assert_int_equal(ext(MMUEXT_PIN_L1_TABLE, frame), 0);
    /* what the shim did to it for the guest's sake is not held against it */
    assert_true(mmu_fault_fixed(VCPU, va, PF_PRESENT | PF_WRITE) &&
                (*entry_of(va, 1) & PTE_WRITE || mmu_fault_fixed(VCPU, va, PF_PRESENT | PF_WRITE)));
    assert_true(*entry_of(va, 1) & PTE_WRITE);
    assert_int_equal(ext(MMUEXT_UNPIN_TABLE, frame), 0);
    assert_int_equal(ext(MMUEXT_PIN_L1_TABLE, frame), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_walk_ends_where_the_address_does),
        cmocka_unit_test(a_walk_stays_within_ram),
        cmocka_unit_test(tables_below_a_root_are_known),
        cmocka_unit_test(unpinning_a_root_forgets_its_lower_half),
        cmocka_unit_test(a_table_pinned_by_itself_is_remembered),
        cmocka_unit_test(a_table_in_itself_ends),
        cmocka_unit_test(every_root_has_the_shims_slots),
        cmocka_unit_test(a_user_root_has_no_m2p),
        cmocka_unit_test(the_shims_slots_are_not_the_guests),
        cmocka_unit_test(ring3_every_present_entry_is_for_user_mode),
        cmocka_unit_test(ring1_user_mode_gets_no_upper_half),
        cmocka_unit_test(a_linked_table_becomes_known),
        cmocka_unit_test(accessed_and_dirty_are_kept_or_not),
        cmocka_unit_test(the_m2p_follows),
        cmocka_unit_test(a_batch_stops_at_the_first_fault),
        cmocka_unit_test(flushes_as_asked),
        cmocka_unit_test(a_missing_user_bit_is_set),
        cmocka_unit_test(only_page_tables_become_writable),
        cmocka_unit_test(a_write_forbidden_above_is_the_guests_fault),
        cmocka_unit_test(reserved_bits_are_the_guests_fault),
        cmocka_unit_test(frames_outside_ram_are_refused),
        cmocka_unit_test(a_map_of_the_tables_is_no_branch_of_them),
        cmocka_unit_test(a_pinned_table_is_not_mapped_writable),
        cmocka_unit_test(what_is_mapped_writable_is_not_pinned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
