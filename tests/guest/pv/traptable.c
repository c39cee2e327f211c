/* SPDX-License-Identifier: MIT */
/* The virtual IDT: who may use a gate by INT n, which gates mask events, and what
 * cannot be a gate. */
#include "pv.h"

#define VECTOR 0x90

void do_int(uint64_t arg);
extern uint8_t at_int[], after_int[], user_int[], user_after_int[];
__asm__(".pushsection .text\n"
        "do_int: at_int: int $0x90; after_int: ret\n"
        ".popsection; .pushsection .user, \"ax\"\n"
        "user_int: int $0x90; user_after_int: ud2\n"
        ".popsection");

static void refused(int vector, uint64_t rip)
{
    CHECK_EQ(vector, 13);
    CHECK_EQ(pv_caught.error, VECTOR << 3 | 2);
    CHECK_EQ(pv_caught.rip, rip);
}

static void taken(int vector, uint64_t rip)
{
    CHECK_EQ(vector, VECTOR);
    CHECK_EQ(pv_caught.error, 0);
    CHECK_EQ(pv_caught.rip, rip);
}

static void check_dpl(void)
{
    for (unsigned dpl = 0; dpl < 4; dpl++) {
        CHECK_EQ(pv_gate(VECTOR, (uint64_t)pv_entries[VECTOR], dpl), 0);
        if (dpl >= 1)
            taken(pv_catch(do_int, 0), (uint64_t)after_int);
        else
            refused(pv_catch(do_int, 0), (uint64_t)at_int);
        if (dpl == 3)
            taken(pv_user_run(user_int, 0), PV_USER_ADDRESS(user_after_int));
        else
            refused(pv_user_run(user_int, 0), PV_USER_ADDRESS(user_int));
    }
}

static void check_masks(void)
{
    for (unsigned masks = 0; masks < 2; masks++)
        for (unsigned before = 0; before < 2; before++) {
            CHECK_EQ(pv_gate(VECTOR, (uint64_t)pv_entries[VECTOR], 3 | masks << 2), 0);
            *pv_event_mask() = (uint8_t)before;
            CHECK_EQ(pv_catch(do_int, 0), VECTOR);
            CHECK_EQ(pv_caught_mask, masks | before);
            CHECK_EQ(pv_caught.cs >> 32 & 0xff, before);
            CHECK_EQ(*pv_event_mask(), before);
        }
}

static void check_addresses(void)
{
    struct trap_info two[3] = {
        { .vector = VECTOR, .flags = 3, .cs = FLAT_KERNEL_CS,
          .address = (uint64_t)pv_entries[VECTOR] },
        { .vector = 0x91, .flags = 3, .cs = FLAT_KERNEL_CS, .address = 0x8000000000000000 },
    };

    CHECK_EQ(pv_gate(VECTOR, 0, 0), 0);         /* the end of a list: changes nothing */
    CHECK_EQ(PV_CALL(set_trap_table, two), -XEN_EINVAL);
    taken(pv_catch(do_int, 0), (uint64_t)after_int);    /* what came before it counts */
    /* no table at all clears every gate; with none for #GP, the fault would be the end */
    CHECK_EQ(PV_CALL(set_trap_table, 0), 0);
    pv_traps_init();
    CHECK_EQ(pv_gate(VECTOR, (uint64_t)pv_entries[VECTOR], 0), 0);
    refused(pv_catch(do_int, 0), (uint64_t)at_int);
}

void test_main(void)
{
    pv_user_init();
    check_dpl();
    check_masks();
    check_addresses();
}
