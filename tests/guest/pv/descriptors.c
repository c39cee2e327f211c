/* SPDX-License-Identifier: MIT */
/* GDT and LDT of the guest: what may be in them, and that the processor follows. */
#include "pv.h"

/* data, base 0x12345000, limit 0xfff bytes, present, writable, of a DPL */
#define DATA(dpl) (0x1240923450000fffull | (uint64_t)(dpl) << 45)
#define CALL_GATE 0x00008c0000000000ull
#define TSS_DESC  0x0000890000000067ull
#define NOT_PRESENT 0x00000c0000000000ull     /* a call gate, were it present */
#define ENTRY 40

static uint64_t *gdt, *ldt;

static uint64_t maddr(const uint64_t *entry)
{
    return (pv_mfn(entry) << PAGE_SHIFT) + ((uint64_t)entry & PAGE_MASK);
}

/* The limit the processor finds, or -1 when the selector is not for us. */
static int64_t limit(unsigned selector)
{
    uint64_t l = ~(uint64_t)0;

    __asm__("lsl %1, %0" : "+r"(l) : "r"((uint64_t)selector) : "cc");
    return (int64_t)l;
}

static void load_fs(uint64_t selector)
{
    __asm__ volatile("mov %0, %%fs" : : "r"((uint16_t)selector));
}

static void check_gdt(void)
{
    uint64_t frame, bad = ~(uint64_t)0 >> 20;

    gdt = pv_page();
    gdt[ENTRY] = DATA(0);
    frame = pv_mfn(gdt);
    CHECK_EQ(pv_protect(gdt, PTE_P | PTE_U), 0);        /* Xen wants it so */
    CHECK_EQ(PV_CALL(set_gdt, &frame, 7169), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(set_gdt, &bad, 1), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(set_gdt, &frame, 512), 0);
    CHECK_EQ(limit(ENTRY * 8 | 3), 0xfff);
    CHECK_EQ(pv_catch(load_fs, ENTRY * 8 | 3), -1);
    CHECK_EQ(pv_catch(load_fs, (ENTRY + 1) * 8 | 3), 13);
    CHECK_EQ(limit(FLAT_KERNEL_SS), 0xffffffff);        /* Xen's own are still there */
    CHECK_EQ(pv_catch(load_fs, FLAT_KERNEL_SS), -1);
    CHECK_EQ(pv_catch(load_fs, 0), -1);
    CHECK_EQ(PV_CALL(set_gdt, &frame, ENTRY), 0);       /* shorter now */
    CHECK_EQ(limit(ENTRY * 8 | 3), -1);
    CHECK_EQ(PV_CALL(set_gdt, &frame, 512), 0);
}

static void check_update(void)
{
    uint64_t *e = &gdt[ENTRY + 2];

    CHECK_EQ(PV_CALL(update_descriptor, maddr(e), DATA(0)), 0);
    CHECK_EQ(*e & ~((uint64_t)3 << 45), DATA(0));       /* the table itself, DPL apart */
    CHECK(*e >> 45 & 3);                                /* which is no longer 0 */
    CHECK_EQ(limit((ENTRY + 2) * 8 | 3), 0xfff);        /* and at once */
    CHECK_EQ(PV_CALL(update_descriptor, maddr(e), CALL_GATE), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(update_descriptor, maddr(e), TSS_DESC), -XEN_EINVAL);
    CHECK_EQ(limit((ENTRY + 2) * 8 | 3), 0xfff);        /* the old one holds */
    CHECK_EQ(PV_CALL(update_descriptor, maddr(e) + 4, DATA(3)), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(update_descriptor, ~(uint64_t)0 << 44, DATA(3)), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(update_descriptor, maddr(e), NOT_PRESENT), 0);
    CHECK_EQ(limit((ENTRY + 2) * 8 | 3), -1);
    CHECK_EQ(*e, NOT_PRESENT);
}

static int64_t set_ldt(uint64_t base, unsigned entries)
{
    struct mmuext_op op = { .cmd = MMUEXT_SET_LDT, .arg1.linear_addr = base,
                            .arg2.nr_ents = entries };

    return PV_CALL(mmuext_op, &op, 1, 0, DOMID_SELF);
}

static void check_ldt(void)
{
    ldt = pv_page();
    ldt[1] = DATA(3);
    ldt[2] = DATA(0);
    CHECK_EQ(pv_protect(ldt, PTE_P | PTE_U), 0);
    CHECK_EQ(limit(1 << 3 | 7), -1);
    CHECK_EQ(set_ldt((uint64_t)ldt, 8), 0);
    CHECK_EQ(limit(1 << 3 | 7), 0xfff);
    CHECK_EQ(limit(2 << 3 | 7), 0xfff);
    CHECK_EQ(limit(9 << 3 | 7), -1);
    CHECK_EQ(pv_catch(load_fs, 1 << 3 | 7), -1);
    CHECK_EQ(pv_catch(load_fs, 0), -1);
    CHECK_EQ(PV_CALL(update_descriptor, maddr(&ldt[3]), DATA(3)), 0);
    CHECK_EQ(limit(3 << 3 | 7), 0xfff);
    CHECK_EQ(set_ldt((uint64_t)ldt + 8, 8), -XEN_EINVAL);
    CHECK_EQ(set_ldt((uint64_t)ldt, 8193), -XEN_EINVAL);
    CHECK_EQ(set_ldt(0xffff808000000000, 8), -XEN_EINVAL);
    CHECK_EQ(limit(3 << 3 | 7), 0xfff);
    CHECK_EQ(set_ldt((uint64_t)ldt, 0), 0);
    CHECK_EQ(limit(1 << 3 | 7), -1);
    CHECK_EQ(pv_catch(load_fs, 1 << 3 | 7), 13);
    CHECK_EQ(pv_caught.error, (1 << 3 | 4));
}

void test_main(void)
{
    check_gdt();
    check_update();
    check_ldt();
}
