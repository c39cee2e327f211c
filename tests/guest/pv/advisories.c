/* SPDX-License-Identifier: MIT */
/* What some of Xen's security advisories were about, as a guest tries it: the kernel
 * lives, and is told what a Xen that has been mended tells it.  The numbers are the
 * advisories'. */
#include "pv.h"

#include <xen/grant_table.h>
#include <xen/memory.h>

#define LAST_PAGE 0x7ffffffff000ull     /* of the lower half */

extern uint8_t end_of_page[];
__asm__(".pushsection .text; .balign 4096; .skip 4094, 0xcc; end_of_page: syscall; .popsection");

static void call_at_the_end(uint64_t unused)
{
    uint64_t rax = __HYPERVISOR_xen_version, rdi = 0;

    __asm__ volatile("mov %[sp], %%rsp; jmp *%[to]"
                     : "+a"(rax), "+D"(rdi)
                     : [sp] "r"(LAST_PAGE + 0xf00), [to] "r"(LAST_PAGE + 4094), "S"(0)
                     : "memory");
    __builtin_unreachable();
}

/* 7: a call whose next instruction would be at no address */
static void check_end_of_lower_half(void)
{
    uint64_t pte = pv_mfn((void *)((uint64_t)end_of_page & ~PAGE_MASK)) << PAGE_SHIFT;

    pv_user_map(LAST_PAGE, pte >> PAGE_SHIFT, PTE_P | PTE_W | PTE_U);
    CHECK_EQ(pv_catch(call_at_the_end, 0), 13);
    CHECK_EQ(pv_caught.error, 0);
    CHECK_EQ(pv_caught.rip, LAST_PAGE + 4096);
    CHECK_EQ(pv_caught.rsp, LAST_PAGE + 0xf00);
}

/* 221, 317: ports nobody has made, and more of them than there are */
static void check_ports(void)
{
    struct evtchn_alloc_unbound alloc = { .dom = DOMID_SELF, .remote_dom = 0 };
    uint32_t port;
    struct sched_poll poll = { .nr_ports = 1, .timeout = 1, .ports.p = &port };
    int64_t rc = 0;

    for (port = 32; port < 4096; port++)
        if (PV_CALL(sched_op, SCHEDOP_poll, &poll))
            pv_fail(__FILE__, __LINE__, "port %u cannot be polled", port);
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_poll, &poll), -XEN_EINVAL);
    for (unsigned i = 0; !rc && i < 4100; i++)
        rc = PV_CALL(event_channel_op, EVTCHNOP_alloc_unbound, &alloc);
    CHECK_EQ(rc, -XEN_ENOSPC);
}

/* 231, 232: memory from nodes that are none; flushes of others' frames */
static void check_memory(void)
{
    struct xen_memory_reservation more = { .nr_extents = 1, .domid = DOMID_SELF };
    struct gnttab_cache_flush flush = { .length = PAGE_SIZE,
                                        .op = GNTTAB_CACHE_INVAL | GNTTAB_CACHE_CLEAN };

    for (; more.mem_flags < 0x10000; more.mem_flags += 0x100)
        CHECK_EQ(PV_CALL(memory_op, XENMEM_increase_reservation, &more), 0);
    for (; flush.a.dev_bus_addr < 1 << 20; flush.a.dev_bus_addr += PAGE_SIZE)
        PV_CALL(grant_table_op, GNTTABOP_cache_flush, &flush, 1);
}

static uint64_t link_to(const void *table)
{
    return pv_mfn(table) << PAGE_SHIFT | PTE_P | PTE_W | PTE_U | PTE_A | PTE_D;
}

/* 286: one multicall updates by address, changes the tables, updates by address; 279: an
 * address that is none is flushed everywhere */
static void check_tables(void)
{
    uint64_t va = (uint64_t)200 << 39, *l3 = pv_page(), *l2[2], *l1[2];
    struct mmu_update u = { .val = 0 };
    struct multicall_entry e[3];

    for (unsigned i = 0; i < 2; i++) {
        l1[i] = pv_page();
        l2[i] = pv_page();
        l2[i][0] = link_to(l1[i]);
        CHECK_EQ(pv_protect(l1[i], PTE_P | PTE_U), 0);
        CHECK_EQ(pv_protect(l2[i], PTE_P | PTE_U), 0);
    }
    l3[0] = link_to(l2[0]);
    CHECK_EQ(pv_protect(l3, PTE_P | PTE_U), 0);
    CHECK_EQ(pv_mmu_update(pv_pte_maddr(va, 4), link_to(l3)), 0);
    u.ptr = pv_pte_maddr(va, 3);
    u.val = link_to(l2[1]);
    e[0] = (struct multicall_entry){ .op = __HYPERVISOR_update_va_mapping,
                                     .args = { va, 0, UVMF_INVLPG } };
    e[1] = (struct multicall_entry){ .op = __HYPERVISOR_mmu_update,
                                     .args = { (uint64_t)&u, 1, 0, DOMID_SELF } };
    e[2] = (struct multicall_entry){ .op = __HYPERVISOR_update_va_mapping,
                                     .args = { va, link_to(pv_page()), UVMF_INVLPG } };
    CHECK_EQ(PV_CALL(multicall, e, 3), 0);
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(e[i].result, 0);
    CHECK_EQ(*(volatile uint64_t *)l1[0], 0);
    CHECK_EQ(*(volatile uint64_t *)l1[1] & PTE_FRAME_MASK, e[2].args[1] & PTE_FRAME_MASK);
    CHECK_EQ(PV_CALL(update_va_mapping, (uint64_t)1 << 63, 0, UVMF_INVLPG | UVMF_ALL),
             -XEN_EINVAL);
}

static unsigned nr_events;

static void event(struct pv_regs *r)
{
    nr_events++;
    pv_shared->vcpu_info[0].evtchn_upcall_pending = 0;
}

/* 296: a vCPU is made, with tables to be looked at, while an event waits */
static void check_vcpu(void)
{
    static struct vcpu_guest_context c;
    uint64_t *l4 = pv_page(), *l3 = pv_page();

    l4[3] = pv_mfn(l3) << PAGE_SHIFT | PTE_P;
    CHECK_EQ(pv_protect(l4, PTE_P | PTE_U), 0);
    CHECK_EQ(pv_protect(l3, PTE_P | PTE_U), 0);
    c.flags = VGCF_IN_KERNEL;
    c.ctrlreg[3] = pv_mfn(l4) << PAGE_SHIFT;
    pv_event_handler = event;
    pv_shared->vcpu_info[0].evtchn_upcall_pending = 1;
    *pv_event_mask() = 0;
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_initialise, 1, &c), 0);
    CHECK(nr_events >= 1);
}

void test_main(void)
{
    pv_user_init();
    check_end_of_lower_half();
    check_memory();
    check_tables();
    check_vcpu();
    check_ports();
}
