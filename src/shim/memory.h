/* SPDX-License-Identifier: MIT */
/* What the calls that move frames of RAM share.  Frames are counted from RAM's first. */
#ifndef XENOLITH_SHIM_MEMORY_H
#define XENOLITH_SHIM_MEMORY_H

#include "shim/shim.h"

#include <xen/memory.h>

#define M2P_INVALID (~(uint64_t)0)
/* The largest extent a domain without devices may ask for: Xen's CONFIG_DOMU_MAX_ORDER. */
#define EXTENT_ORDER_MAX 9

/* DOMID_SELF, or the domain by its number. */
bool memory_self(domid_t domid);

/* The entry of the M2P table for a frame. */
uint64_t *memory_m2p(uint64_t frame);

/* The extent's last frame has an address of so many bits at most; 0: of any. */
bool memory_within_bits(uint64_t first, unsigned order, unsigned address_bits);

/* Takes a free extent, aligned to its size, below 2^address_bits where that is not 0.
 * Its frames count as the guest's.  False: there is none. */
bool memory_take(unsigned order, unsigned address_bits, uint64_t *first);

/* Frames to give back to the host, told a batch at a time.  They are marked
 * FRAME_LEAVING before, and free when the host has been told. */
struct memory_release {
    uint64_t *frames;
    unsigned nr;
};
void memory_release_add(struct memory_release *r, uint64_t frame);
void memory_release_flush(struct memory_release *r);

/* exchange.c: XENMEM_exchange */
int64_t memory_exchange(struct shim_vcpu *v, uint64_t arg_va);

/* physmap.c: all calls that have no other place */
int64_t memory_op_refused(uint64_t cmd, uint64_t start, uint64_t arg_va);

#endif
