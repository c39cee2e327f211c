/* SPDX-License-Identifier: MIT */
/* A guest for the shim's parts to work on, in this process: some frames of RAM, page
 * tables in them, one vCPU, and the processor of fake/shim/cpu.h. */
#ifndef TESTS_UNIT_SHIM_GUEST_H
#define TESTS_UNIT_SHIM_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shim/cpu.h"
#include "shim/mmu.h"
#include "shim/shim.h"

#define RAM_MFN    0x100            /* of the first frame of RAM */
#define RAM_PAGES  96               /* at start of day */
#define RAM_MAX    128              /* what it may grow to */

extern struct shim_boot fake_boot;
#define VCPU shim_vcpu(0)

/* Begins a test: zeroed memory, a processor at rest, a guest in ring 3 or 1. */
void guest_begin(uint32_t flags);
#define RING3 (SHIM_FLAG_USER_BIT | SHIM_FLAG_TWO_ROOTS)
#define RING1 SHIM_FLAG_KERNEL_RING1

/* A frame of RAM as the process sees it. */
void *guest_frame(uint64_t mfn);
/* A frame nobody uses, zeroed. */
uint64_t guest_frame_new(void);
/* Entry slot of the table in frame mfn. */
uint64_t *guest_entry(uint64_t mfn, unsigned slot);
/* Maps va to frame with flags (PTE_PRESENT is added to all levels, and to links
 * PTE_WRITE), making tables; the root is frame root. */
void guest_map(uint64_t root, uint64_t va, uint64_t frame, uint64_t flags);

/* The text of the last shim_crash(); fn must end in one. */
const char *guest_crash(void (*fn)(void));

#endif
