/* SPDX-License-Identifier: MIT */
/* On which processor of the host a thread runs, and how it gets to another. */
#ifndef XENOLITH_PLACE_THREAD_H
#define XENOLITH_PLACE_THREAD_H

#include <stdint.h>

/* The number of the processor the calling thread runs on, a word that the kernel keeps
 * (restartable sequences, rseq(2)) and any thread may read, relaxed, until the calling
 * one has ended.  For a thread that runs a vCPU it holds too while the guest runs.
 * NULL where the kernel or the C library keeps none. */
const uint32_t *place_thread_cpu(void);

/* Moves the calling thread to a processor and leaves it as free to go elsewhere as it
 * was.  0, -EINVAL when it may not run there, or another -errno. */
int place_thread_move(uint32_t cpu);

#endif
