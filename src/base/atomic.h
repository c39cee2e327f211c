/* SPDX-License-Identifier: MIT */
/* Ordered access to words that another thread, the shim or the guest writes.
 * Freestanding.  Every use of a barrier names the one it pairs with. */
#ifndef XENOLITH_BASE_ATOMIC_H
#define XENOLITH_BASE_ATOMIC_H

#define load_relaxed(p)       __atomic_load_n((p), __ATOMIC_RELAXED)
#define load_acquire(p)       __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define store_relaxed(p, v)   __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define store_release(p, v)   __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define swap_acq_rel(p, v)    __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)
#define fetch_or(p, v)        __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
#define fetch_and(p, v)       __atomic_fetch_and((p), (v), __ATOMIC_SEQ_CST)
#define fetch_add(p, v)       __atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST)
/* Store-to-load order: publish, then look. */
#define barrier_full()        __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define barrier_compiler()    __asm__ volatile("" ::: "memory")
#define cpu_relax()           __asm__ volatile("pause" ::: "memory")

#endif
