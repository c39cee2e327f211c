/* SPDX-License-Identifier: MIT */
/* How a thread is started, on which processor of the host it runs, and how it gets to another. */
#ifndef XENOLITH_PLACE_THREAD_H
#define XENOLITH_PLACE_THREAD_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Runs main(arg) in a new thread that is called name (its first 15 bytes), has a stack of
 * stack_bytes or the least there may be, and takes no signal but that number (0: none at
 * all: signals are for the thread that runs the event loop).  0 or -errno. */
int place_thread_start(pthread_t *out, const char *name, size_t stack_bytes, int signal,
                       void *(*main)(void *), void *arg);

/* The number of the processor the calling thread runs on, a word that the kernel keeps
 * (restartable sequences, rseq(2)) and any thread may read, relaxed, until the calling
 * one has ended.  For a thread that runs a vCPU it holds too while the guest runs.
 * NULL where the kernel or the C library keeps none. */
const uint32_t *place_thread_cpu(void);

/* Moves the calling thread to a processor and leaves it as free to go elsewhere as it
 * was.  0, -EINVAL when it may not run there, or another -errno. */
int place_thread_move(uint32_t cpu);

#endif
