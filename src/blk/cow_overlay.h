/* SPDX-License-Identifier: MIT */
/* An overlay's file: which sectors of a disk were written since it was made, and what to.
 * All numbers are little-endian.
 *
 *   offset  bytes
 *        0      8   "XENOCOW" and a zero
 *        8      4   version, 1
 *       12      4   0
 *       16      8   size of the disk in bytes
 *       24      8   where the durable bitmap begins: 4096
 *       32      8   where the live bitmap begins, behind the other, which is as long
 *       40      8   where the data begin, a multiple of 1 MiB behind that
 *       48      8   FNV-1a of the 48 bytes before
 *       56     16   the host's boot id when the live bitmap was last valid
 *     4096          bitmaps: bit s % 8 of byte s / 8 is set if sector s, of 512 bytes, is to be
 *                   read from here
 *     data          sector s at 512 * s; a hole where nothing was written
 *
 * The live bitmap is shared memory: a bit is set when the data have been written, as far as
 * programs can tell, so a server that is killed leaves what one would who wrote to the
 * disk itself.  The kernel may bring it to the medium before the data, so it is worth nothing
 * once the host has been started anew.  Then the durable one counts, whose bits reach the
 * medium only after the data have: one that has not when the host stops leaves what the base
 * holds, as a disk may do with what was not flushed. */
#ifndef XENOLITH_BLK_COW_OVERLAY_H
#define XENOLITH_BLK_COW_OVERLAY_H

#include "base/err.h"
#include "blk/disk.h"

/* The bitmap is written in blocks of so many bytes. */
#define COW_BLOCK_BYTES   4096u
#define COW_BLOCK_SECTORS (COW_BLOCK_BYTES * 8)

struct cow_overlay {
    struct blk_disk *disk;          /* the file, by the file driver */
    uint64_t bitmap_offset_bytes;   /* the durable one's */
    uint64_t data_offset_bytes;
    uint32_t nr_blocks;
    uint64_t *written;              /* a bit for each sector, of all threads */
    uint64_t *live;                 /* the same in the file: only ever written to */
    uint64_t *dirty;                /* a bit for each block in which the durable one differs */
    uint32_t *marking;              /* of each block: threads between its bits and dirty's */
};

/* Opens the overlay at path for a disk of size_bytes; makes it if it is not there, unless
 * readonly.  0 or -errno with e naming path. */
int cow_overlay_open(const char *path, uint64_t size_bytes, bool readonly, bool no_direct,
                     struct cow_overlay *out, struct err *e);
void cow_overlay_close(struct cow_overlay *o);

/* How many sectors from first on, at most max, are all here or all not; *here says which. */
uint64_t cow_overlay_run(const struct cow_overlay *o, uint64_t first, uint64_t max, bool *here);
/* These sectors' data are here now. */
void cow_overlay_mark(struct cow_overlay *o, uint64_t first, uint64_t nr);
/* Whether a block of these sectors' bits is still to be written. */
bool cow_overlay_is_dirty(const struct cow_overlay *o, uint64_t first, uint64_t nr);

/* The first dirty block from `from` on, which is clean then and copied to copy; nr_blocks if
 * there is none. */
uint32_t cow_overlay_take_dirty(struct cow_overlay *o, uint32_t from, void *copy);
void cow_overlay_set_dirty(struct cow_overlay *o, uint32_t block);

#endif
