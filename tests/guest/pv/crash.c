/* SPDX-License-Identifier: MIT */
/* Ends of which Xen's rules leave no other: the domain crashes, with a reason that
 * can be read.  The word on the command line says which. */
#include "pv.h"

#include <xen/callback.h>

static struct iret_context context;

static void no_handler(void)
{
    CHECK_EQ(PV_CALL(set_trap_table, 0), 0);
    __asm__ volatile("ud2");
}

static void bad_stack(void)
{
    __asm__ volatile("mov $0x123456789000, %rsp; ud2");
}

static void hole_stack(void)
{
    __asm__ volatile("mov $0xffff810010001000, %rsp; ud2");
}

static void bad_iret(void)
{
    __asm__ volatile("mov $0x123456789000, %%rsp; mov $23, %%eax; syscall" : : : "memory");
}

static void no_user_tables(void)
{
    context = (struct iret_context){ .rip = 0x400000, .cs = FLAT_USER_CS, .rflags = RFLAGS_IF,
                                     .ss = FLAT_USER_SS };
    pv_iret_user(&context);
}

static void no_iret_handler(void)
{
    CHECK_EQ(PV_CALL(set_trap_table, 0), 0);
    pv_user_init();
    context = (struct iret_context){ .rip = 0x400000, .cs = 0x7ff3, .rflags = RFLAGS_IF,
                                     .ss = FLAT_USER_SS };
    pv_iret_user(&context);
}

/* A handler that is not mapped: the fault of its fetch goes to it as well. */
static void nowhere_handler(void)
{
    CHECK_EQ(pv_gate(14, 0x123456789000, 0), 0);
    *(volatile uint8_t *)0x123456780000 = 1;
}

/* A root with nothing in it but what Xen puts there. */
static void empty_root(void)
{
    struct mmuext_op op = { .cmd = MMUEXT_NEW_BASEPTR, .arg1.mfn = pv_mfn(pv_page()) };

    PV_CALL(mmuext_op, &op, 1, 0, DOMID_SELF);
}

/* A page where no memory is: mapped, if that is possible, and read. */
static void no_memory(void)
{
    volatile uint8_t *page = pv_page();

    PV_CALL(update_va_mapping, page, 0x3000 | PTE_P | PTE_W | PTE_U, UVMF_INVLPG);
    *page = 1;
}

void test_main(void)
{
    static const struct { const char *word; void (*fn)(void); } ends[] = {
        { "no-handler", no_handler }, { "bad-stack", bad_stack }, { "hole-stack", hole_stack },
        { "bad-iret", bad_iret }, { "no-user-tables", no_user_tables },
        { "no-iret-handler", no_iret_handler }, { "nowhere-handler", nowhere_handler },
        { "empty-root", empty_root }, { "no-memory", no_memory },
    };

    if (pv_word("shutdown-crash"))
        pv_shutdown(SHUTDOWN_crash);
    if (pv_word("shutdown-unknown"))
        pv_shutdown(99);
    for (unsigned i = 0; i < array_size(ends); i++)
        if (pv_word(ends[i].word))
            ends[i].fn();
    pv_fail(__FILE__, __LINE__, "still there after %s", (const char *)pv_start_info->cmd_line);
}
