/* SPDX-License-Identifier: MIT */
/* The contract between the shim and the process that runs it: where things lie
 * in guest-physical memory, what the process fills in before the first
 * instruction, what the shim tells and asks afterwards.  Freestanding.
 *
 * Guest-physical layout, which the guest knows as machine memory:
 *
 *   SHIM_GPA      the shim's region, SHIM_REGION_BYTES, offsets SHIM_OFF_*
 *   PEER_GPA      windows in which pages show that other guests grant: one for pages that
 *                 may be written to, then one for pages that may not
 *   RAM_GPA       guest RAM, contiguous: pseudo-physical frame p is machine
 *                 frame (RAM_GPA >> 12) + p at start of day
 *   after RAM     (2 MiB aligned) what grows with RAM: the shim's page tables,
 *                 the M2P table, one byte of frame information a frame
 *
 * RAM starts at 4 GiB so that nothing KVM keeps below (LAPIC page, TSS) can
 * ever lie inside it, whatever its size.
 *
 * The process trusts nothing it reads back from here: whoever runs in ring 0 of
 * the VM is the guest, as far as the host is concerned. */
#ifndef XENOLITH_SHIM_ABI_H
#define XENOLITH_SHIM_ABI_H

#include "base/types.h"
#include "xen/gnttab.h"
#include "xen/hostlink.h"
#include "xen/hostload.h"

#define SHIM_ABI_VERSION  1
#define SHIM_VCPUS_MAX    64
#define SHIM_CPUID_MAX    128

#define SHIM_GPA          ((uint64_t)0x10000000)
#define SHIM_REGION_BYTES (32 * MIB)
#define PEER_GPA          ((uint64_t)0x20000000)
#define PEER_PAGES        4096                          /* in each window */
#define PEER_BYTES        (PEER_PAGES * PAGE_SIZE)
#define RAM_GPA           (4 * GIB)

#define SHIM_OFF_BOOT        0x00000        /* struct shim_boot */
#define SHIM_OFF_SHARED_INFO 0x04000        /* Xen's shared_info page */
#define SHIM_OFF_STATUS      0x05000        /* struct shim_status */
#define SHIM_OFF_REQUESTS    0x05800        /* struct shim_requests */
#define SHIM_OFF_VCPU_STATUS 0x06000        /* struct shim_vcpu_status, a page each */
#define SHIM_OFF_WAKERS      0x4b000        /* struct xen_hostwaker[SHIM_VCPUS_MAX] */
#define SHIM_OFF_LINKS       0x50000        /* struct xen_hostlink[XEN_HOSTLINK_MAX] */
#define SHIM_OFF_GRANTS      0x80000        /* GNTTAB_FRAMES_MAX pages of entries */
#define SHIM_OFF_GRANT_USE   0xc0000        /* the status frames that go with them */
#define SHIM_OFF_IMAGE       0x200000       /* the program, see SHIM_IMAGE_VA */
#define SHIM_OFF_HEAP        0x1200000      /* pages the shim hands out itself */

/* Virtual addresses, in Xen's hole (L4 slots 256 to 271) of every page table. */
#define SHIM_HOLE_SLOT_FIRST 256
#define SHIM_HOLE_SLOTS      16
#define SHIM_M2P_VA          0xffff800000000000ull      /* slot 256 */
#define SHIM_IMAGE_VA        0xffff808000000000ull      /* slot 257 */
#define SHIM_DM_VA           0xffff810000000000ull      /* slot 258 on: all memory */
#define SHIM_DM_SLOTS        13
#define SHIM_M2P_ALIAS_VA    0xffff878000000000ull      /* slot 271, on software KVM */

/* I/O ports of the VMM, 32-bit writes; XEN_DOORBELL_IO_PORT is in hostlink.h. */
#define SHIM_IO_CONSOLE   0x0524    /* n bytes in the vCPU's text[]: guest console output */
#define SHIM_IO_LOG       0x0528    /* the same: a message of the shim, for the log */
#define SHIM_IO_SHUTDOWN  0x052c    /* SHUTDOWN_* of xen/sched.h */
#define SHIM_IO_CRASH     0x0530    /* n bytes in text[]: why the shim ends the guest */
#define SHIM_IO_LINK      0x0534    /* number of a link whose state or vcpu changed */
#define SHIM_IO_RELEASE   0x0538    /* n frame numbers in text[]: RAM to give back */
#define SHIM_IO_PEER      0x053c    /* struct shim_peer_call in text[]; returns when done */

#define SHIM_TEXT_BYTES   2048

/* Vectors of the LAPIC; VECTOR_LINK is raised by the process. */
#define SHIM_VECTOR_TIMER 0xe0
#define SHIM_VECTOR_KICK  0xe1
#define SHIM_VECTOR_FLUSH 0xe2
#define SHIM_VECTOR_LINK  0xe3

struct shim_cpuid {
    uint32_t function, index, flags;    /* flags bit 0: index matters */
    uint32_t eax, ebx, ecx, edx;
};

/* How the guest kernel is run: three separate choices, see docs/design.md. */
#define SHIM_FLAG_KERNEL_RING1  (1u << 0)   /* selectors: DPL 1 for the kernel */
#define SHIM_FLAG_USER_BIT      (1u << 1)   /* every present PTE gets USER */
#define SHIM_FLAG_TWO_ROOTS     (1u << 2)   /* CR3 changes between kernel and user */
#define SHIM_FLAG_TSC_STABLE    (1u << 3)   /* pvclock may say so */

/* Written by the process before any vCPU runs, then never again. */
struct shim_boot {
    uint32_t version;           /* SHIM_ABI_VERSION */
    uint32_t flags;             /* SHIM_FLAG_* */
    uint32_t nr_vcpus;
    uint32_t domid;
    uint8_t uuid[16];

    uint64_t first_mfn;         /* of RAM */
    uint64_t nr_pages;          /* of RAM at start of day (memory=) */
    uint64_t max_pages;         /* what it may grow to (maxmem=) */
    uint64_t m2p_gpa;
    uint64_t m2p_va;            /* what the guest is told: SHIM_M2P_VA, or the alias where ring 3
                                 * cannot reach that (software KVM) */
    uint64_t frame_info_gpa;    /* a byte for each of max_pages frames */
    uint64_t hole_l4[SHIM_HOLE_SLOTS];
    uint64_t parking_cr3;       /* hole only: for vCPUs that are not up */
    uint64_t heap_bytes;

    uint64_t virt_base;         /* where the domain builder mapped frame 0 and on */
    uint64_t initial_pages;     /* so many frames */

    /* the first vCPU's start of day */
    uint64_t cr3, rip, rsp, rsi;

    uint32_t store_port, console_port;  /* connected to links 0 and 1 */
    uint32_t store_mfn, console_mfn;    /* their rings, granted to domain 0 */
    uint32_t grant_frames_max, grant_version_max;
    uint32_t evtchn_port_max;
    uint64_t xcr0;

    /* guest ns = ((tsc - tsc_start) << shift, or >> -shift) * mul >> 32 */
    uint64_t tsc_start;
    uint32_t tsc_khz;
    uint32_t tsc_to_ns_mul;
    int32_t tsc_shift;
    uint32_t wallclock_nsec;    /* of guest time 0 */
    uint64_t wallclock_sec;

    uint32_t nr_cpuid;
    struct shim_cpuid cpuid[SHIM_CPUID_MAX];    /* what the guest kernel sees */
};

/* Written by the shim: counters a reader outside may find half a step old. */
struct shim_status {
    uint64_t vcpus_up;          /* bit per vCPU */
    struct gnttab_state grants; /* the host judges it */
    uint64_t nr_pages;          /* that the guest holds */
};

/* What the shim asks of the process about other guests.  The process answers in place; what
 * has an answer is filled when `result` is 0. */
enum shim_peer_op {
    SHIM_PEER_EXISTS,           /* domid: 0 or -ESRCH */
    SHIM_PEER_PORT_WAIT,        /* port waits for domid, by id: 0 or -errno */
    SHIM_PEER_PORT_BIND,        /* port to domid's peer_port: 0 or -errno; link */
    SHIM_PEER_PORT_CLOSE,       /* port */
    /* results are GNTST_* */
    SHIM_PEER_GRANT_MAP,        /* domid's ref, for reading or (write) writing; mfn, of a window */
    SHIM_PEER_GRANT_UNMAP,      /* mfn, once for each time it was the answer */
    SHIM_PEER_GRANT_HOLD,       /* domid's ref, to be copied; hold, and what the entry says */
    SHIM_PEER_GRANT_DROP,       /* hold */
    SHIM_PEER_COPY,             /* bytes, between ends */
};

struct shim_peer_call {
    uint32_t op;                /* enum shim_peer_op */
    int32_t result;
    uint32_t domid, port, peer_port, id, link;
    uint32_t ref, write, hold;
    uint32_t offset, length;    /* of the frame that is granted, what may be used */
    uint32_t transitive, trans_domid, trans_ref;
    uint32_t bytes;
    uint64_t mfn;
    struct gnttab_peer_end from, to;
};

/* Links whose `request` the shim should look at: the process sets bits, then any,
 * then raises the link's interrupt.  And what it says of the host. */
struct shim_requests {
    uint32_t any;
    struct xen_hostload load;
    uint64_t links[XEN_HOSTLINK_MAX / 64];
};

enum shim_trap_counter {
    SHIM_TRAP_BOUNCED, SHIM_TRAP_EMULATED, SHIM_TRAP_PTE_USER, SHIM_TRAP_PTE_WRITE,
    SHIM_TRAP_KICK, SHIM_TRAP_TIMER, SHIM_TRAP_LINK, SHIM_TRAP_FLUSH, SHIM_TRAP_SYSCALL,
    SHIM_TRAP_UPCALL, SHIM_TRAP_HALT, SHIM_TRAP_IPI, SHIM_TRAP_DOORBELL,
    SHIM_TRAP_IDLE_POLL, SHIM_TRAP_CALL,
    SHIM_NR_TRAP_COUNTERS,
};

#define SHIM_NR_HYPERCALLS 64

struct shim_vcpu_status {
    uint64_t hypercalls[SHIM_NR_HYPERCALLS];
    uint64_t traps[SHIM_NR_TRAP_COUNTERS];
    uint32_t blocked;           /* waiting in the shim */
    uint8_t text[SHIM_TEXT_BYTES] __attribute__((aligned(8)));  /* SHIM_IO_CONSOLE ... */
};

_Static_assert(sizeof(struct shim_boot) <= SHIM_OFF_SHARED_INFO - SHIM_OFF_BOOT, "boot record");
_Static_assert(sizeof(struct shim_status) <= SHIM_OFF_REQUESTS - SHIM_OFF_STATUS, "status");
_Static_assert(sizeof(struct shim_vcpu_status) <= PAGE_SIZE, "status page");
_Static_assert(sizeof(struct shim_peer_call) <= SHIM_TEXT_BYTES, "calls about peers");
_Static_assert(SHIM_GPA + SHIM_REGION_BYTES <= PEER_GPA && PEER_GPA + 2 * PEER_BYTES <= RAM_GPA,
               "layout");
_Static_assert(SHIM_OFF_VCPU_STATUS + SHIM_VCPUS_MAX * PAGE_SIZE <= SHIM_OFF_WAKERS, "layout");
_Static_assert(SHIM_OFF_WAKERS + SHIM_VCPUS_MAX * sizeof(struct xen_hostwaker) <=
               SHIM_OFF_LINKS, "layout");
_Static_assert(SHIM_OFF_LINKS + XEN_HOSTLINK_MAX * sizeof(struct xen_hostlink) <= SHIM_OFF_GRANTS,
               "layout");
_Static_assert(SHIM_OFF_GRANTS + GNTTAB_FRAMES_MAX * PAGE_SIZE <= SHIM_OFF_GRANT_USE, "layout");
_Static_assert(SHIM_OFF_GRANT_USE + GNTTAB_STATUS_FRAMES(GNTTAB_FRAMES_MAX) * PAGE_SIZE <=
               SHIM_OFF_IMAGE, "layout");

#endif
