/* SPDX-License-Identifier: MIT */
/* The bitmap in which whoever writes a guest's memory from outside says so, a bit for each
 * page of 4 KiB, while the guest is being migrated.  Several threads mark; the reader, another
 * process, takes bits away as it copies. */
#ifndef XENOLITH_MEM_DIRTY_LOG_H
#define XENOLITH_MEM_DIRTY_LOG_H

#include "base/err.h"
#include "base/types.h"
#include "mem/guest_mem.h"

struct dirty_log {
    uint8_t *bits;          /* NULL: nothing is logged */
    uint64_t size_bytes;
    void *map;
    size_t map_bytes;
};

/* Maps size_bytes at offset of fd, which stays the caller's.  0 or -errno. */
int dirty_log_open(struct dirty_log *log, int fd, uint64_t offset_bytes, uint64_t size_bytes,
                   struct err *e);
void dirty_log_close(struct dirty_log *log);

/* After the bytes were written.  Pages beyond the bitmap are left out: it is the reader's. */
void dirty_log_mark(const struct dirty_log *log, gpa_t a, uint64_t len);

#endif
