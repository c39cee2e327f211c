/* SPDX-License-Identifier: MIT */
/* The initial memory of a 64-bit Xen PV domain: "Start-of-day memory layout" in
 * xen/xen.h, in the shape that Xen's own toolstack gives it. */
#ifndef XENOLITH_X86_PV_BUILD_H
#define XENOLITH_X86_PV_BUILD_H

#include "mem/guest_mem.h"
#include "x86/kernel_image.h"

/* L4 slots that belong to the hypervisor, HYPERVISOR_VIRT_START to _END. */
#define PV_HOLE_L4_FIRST 256
#define PV_HOLE_L4_SLOTS 16

struct pv_build_params {
    const struct guest_mem *mem;
    uint64_t first_mfn;         /* machine frame of pseudo-physical frame 0; frame p is
                                 * first_mfn + p.  All RAM is in one region and zero,
                                 * but for a kernel that was expanded there. */
    uint64_t nr_pages;          /* of RAM */
    const struct kernel_image *kernel;
    int ramdisk_fd;             /* -1: none; read from offset 0; stays the caller's */
    uint64_t ramdisk_bytes;
    const char *ramdisk_name;   /* for messages */
    const char *cmdline;
    uint64_t shared_info_mfn;
    uint32_t store_port, console_port;
    uint64_t hole_l4[PV_HOLE_L4_SLOTS];
    bool user_bit;              /* _PAGE_USER in all entries but the hole's: the kernel is to
                                 * run in ring 3; clear: supervisor pages, for ring 1 */
    /* Called with the page that the notes name as hypercall page; NULL: the
     * page stays as the kernel has it. */
    void (*fill_hypercall_page)(void *page);
};

struct pv_frames {
    uint64_t first_pfn, nr;
};

struct pv_build_result {
    /* registers of vCPU 0; rsi is start_info_va */
    uint64_t entry;
    uint64_t stack_ptr;
    uint64_t start_info_va;
    gpa_t l4_gpa;
    uint64_t start_info_mfn, store_mfn, console_mfn;
    uint64_t virt_base, virt_end;       /* of the initial mapping, from frame 0 on */
    struct pv_frames tables;            /* its page tables, mapped read-only; L4 first */
    struct pv_frames p2m;
    struct pv_frames p2m_tables;        /* of a p2m outside the initial mapping; nr 0: inside */
    struct pv_frames ramdisk;
    uint64_t nr_pages_used;             /* frames from 0 on; the rest is untouched */
};

/* 0, or -errno with e naming the file at fault and what was expected (-ENOMEM:
 * too little RAM, and how much is needed); then guest memory is in no defined
 * state. */
int pv_build(const struct pv_build_params *p, struct pv_build_result *out, struct err *e);

#endif
