/* SPDX-License-Identifier: MIT */
/* Xen's part of the address space, L4 slots 256 to 271: not readable but for the
 * M2P, never writable, not by way of a hypercall either, in the kernel and in user
 * space; and its entries cannot be changed. */
#include "pv.h"

#include <xen/memory.h>
#include <xen/version.h>

#define SLOT_BYTES ((uint64_t)1 << 39)
#define HOLE       0xffff800000000000ull

static void read_at(uint64_t va)
{
    *(volatile uint8_t *)va;
}

static void write_at(uint64_t va)
{
    *(volatile uint8_t *)va = 0;
}

static void jump_to(uint64_t va)
{
    ((void (*)(void))va)();
}

extern uint8_t user_read[], user_write[], user_jump[];
__asm__(".pushsection .user, \"ax\"\n"
        "user_read: mov (%rdi), %al; ud2\n"
        "user_write: mov %al, (%rdi); ud2\n"
        "user_jump: jmp *%rdi\n"
        ".popsection");

static void fault(const char *what, uint64_t va, int vector)
{
    if (vector != 14)
        pv_fail(__FILE__, __LINE__, "%s at %lx: vector %d", what, va, vector);
    else if (pv_shared->vcpu_info[0].arch.cr2 != va)
        pv_fail(__FILE__, __LINE__, "%s at %lx: cr2 is %lx", what, va,
                pv_shared->vcpu_info[0].arch.cr2);
}

/* Places all over a slot, with the shim's own among them. */
static uint64_t place(unsigned slot, unsigned i)
{
    static const uint64_t offset[] = {
        0, 0x1000, 0x200000, 0x1000000, 0x10000000, 0x10200000, 0x11200000, 0xfee00000,
        0x100000000, 0x100100000, 0x102000000, 0x1000000000, SLOT_BYTES - 0x1000,
        SLOT_BYTES - 1,
    };

    return i < array_size(offset) ? HOLE + (slot - 256) * SLOT_BYTES + offset[i] : 0;
}

static unsigned slot_of(uint64_t va)
{
    return (unsigned)(va >> 39) & 511;
}

/* The M2P lies here: slot 256, or where Xen says. */
static bool slot_is_m2p(unsigned slot)
{
    struct xen_machphys_mapping map;

    CHECK_EQ(PV_CALL(memory_op, XENMEM_machphys_mapping, &map), 0);
    return slot == slot_of(HOLE) || slot == slot_of(map.v_start);
}

static void check_kernel(unsigned slot)
{
    bool readable = slot_is_m2p(slot);
    uint64_t va;

    for (unsigned i = 0; (va = place(slot, i)); i++) {
        if (!readable)
            fault("kernel read", va, pv_catch(read_at, va));
        fault("kernel write", va, pv_catch(write_at, va));
        fault("kernel jump", va, pv_catch(jump_to, va));
        CHECK_EQ(PV_CALL(xen_version, XENVER_capabilities, va), -XEN_EFAULT);
        CHECK_EQ(PV_CALL(console_io, CONSOLEIO_write, 1, va), -XEN_EFAULT);
        CHECK_EQ(PV_CALL(update_va_mapping, va, 0, UVMF_INVLPG), -XEN_EINVAL);
    }
}

static void check_user(unsigned slot)
{
    bool readable = slot_is_m2p(slot);
    uint64_t va;

    for (unsigned i = 0; (va = place(slot, i)); i++) {
        /* this root serves the kernel too, so the M2P is there */
        if (!readable)
            fault("user read", va, pv_user_run(user_read, va));
        fault("user write", va, pv_user_run(user_write, va));
        fault("user jump", va, pv_user_run(user_jump, va));
    }
}

static void check_entries(unsigned slot)
{
    uint64_t at = (pv_mfn((void *)pv_start_info->pt_base) << PAGE_SHIFT) + slot * 8;
    uint64_t frame = pv_mfn(pv_page()) << PAGE_SHIFT;

    CHECK_EQ(pv_mmu_update(at, 0), -XEN_EINVAL);
    CHECK_EQ(pv_mmu_update(at, frame | PTE_P | PTE_W | PTE_U), -XEN_EINVAL);
    CHECK_EQ(pv_mmu_update(at | MMU_PT_UPDATE_PRESERVE_AD, frame | PTE_P), -XEN_EINVAL);
}

/* Also after the root has been unpinned: it is still in use. */
static void check_unpinned(void)
{
    struct mmuext_op op = { .cmd = MMUEXT_UNPIN_TABLE,
                            .arg1.mfn = pv_mfn((void *)pv_start_info->pt_base) };

    CHECK_EQ(PV_CALL(mmuext_op, &op, 1, 0, DOMID_SELF), 0);
    for (unsigned slot = 256; slot < 272; slot++)
        check_entries(slot);
    op.cmd = MMUEXT_PIN_L4_TABLE;
    CHECK_EQ(PV_CALL(mmuext_op, &op, 1, 0, DOMID_SELF), 0);
}

void test_main(void)
{
    pv_user_init();
    for (unsigned slot = 256; slot < 272; slot++) {
        check_kernel(slot);
        check_user(slot);
        check_entries(slot);
    }
    check_unpinned();
}
