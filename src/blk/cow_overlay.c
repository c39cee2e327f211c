/* SPDX-License-Identifier: MIT */
#include "blk/cow_overlay.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic.h"

#define MAGIC          "XENOCOW"
#define VERSION        1u
#define HEADER_BYTES   4096u
#define DATA_ALIGN     (1 * MIB)
#define DISK_MAX_BYTES (64 * 1024 * GIB)    /* its bitmaps take 16 GiB each */
#define WORD_BITS      64u

#define BOOT_ID_BYTES  16u
#define BOOT_ID_FILE   "/proc/sys/kernel/random/boot_id"

struct header {
    char magic[8];
    uint32_t version, zero;
    uint64_t size_bytes, durable_offset_bytes, live_offset_bytes, data_offset_bytes;
    uint64_t checksum;
    uint8_t boot_id[BOOT_ID_BYTES];     /* not part of what the checksum is of */
};

_Static_assert(offsetof(struct header, checksum) == 48, "as the format has it");

static uint64_t fnv1a(const void *data, size_t bytes)
{
    const uint8_t *p = data;
    uint64_t h = 0xcbf29ce484222325u;

    while (bytes--)
        h = (h ^ *p++) * 0x100000001b3u;
    return h;
}

static uint64_t bitmap_bytes(const struct cow_overlay *o)
{
    return (uint64_t)o->nr_blocks * COW_BLOCK_BYTES;
}

/* The only one there can be for a disk of this size; no boot id is set. */
static void header_make(const struct cow_overlay *o, uint64_t size_bytes, struct header *h)
{
    uint64_t live = HEADER_BYTES + bitmap_bytes(o);

    *h = (struct header){
        .magic = MAGIC, .version = htole32(VERSION), .size_bytes = htole64(size_bytes),
        .durable_offset_bytes = htole64(HEADER_BYTES), .live_offset_bytes = htole64(live),
        .data_offset_bytes = htole64(align_up(live + bitmap_bytes(o), DATA_ALIGN)),
    };
    h->checksum = htole64(fnv1a(h, offsetof(struct header, checksum)));
}

/* That of this start of the host; zeroes, which are no id, when it cannot be told. */
static void boot_id_read(uint8_t id[BOOT_ID_BYTES])
{
    FILE *f = fopen(BOOT_ID_FILE, "re");
    unsigned byte, nr = 0;

    memset(id, 0, BOOT_ID_BYTES);
    while (f && nr < BOOT_ID_BYTES && (fscanf(f, "-"), fscanf(f, "%2x", &byte) == 1))
        id[nr++] = (uint8_t)byte;
    if (f)
        fclose(f);
    if (nr < BOOT_ID_BYTES)
        memset(id, 0, BOOT_ID_BYTES);
}

/* Shared memory cannot be told that there is no room.  0 or -errno. */
static int live_allocate(int fd, const struct header *h)
{
    off_t live = (off_t)le64toh(h->live_offset_bytes);

    return -posix_fallocate(fd, live, live - (off_t)le64toh(h->durable_offset_bytes));
}

/* ---- making one ---- */

static int file_fill(int fd, const struct header *h)
{
    uint8_t block[HEADER_BYTES] = { 0 };
    off_t end = (off_t)(le64toh(h->data_offset_bytes) + le64toh(h->size_bytes));
    int rc;

    memcpy(block, h, sizeof(*h));
    if (ftruncate(fd, end))
        return -errno;
    rc = live_allocate(fd, h);
    if (rc)
        return rc;
    errno = EIO;
    return pwrite(fd, block, sizeof(block), 0) != sizeof(block) || fsync(fd) ? -errno : 0;
}

static int folder_sync(const char *path)
{
    char *folder = strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
    int fd, rc = 0;

    if (!folder)
        return -ENOMEM;
    if (slash)
        slash[slash == folder] = 0;
    fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd))
        rc = -errno;
    if (fd >= 0)
        close(fd);
    free(folder);
    return rc;
}

/* Whole or not at all: under another name first.  One that somebody else makes meanwhile, or
 * has made, stays. */
static int file_make(const char *path, const struct header *h, struct err *e)
{
    char *temporary;
    int fd, rc;

    if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
        return err_set(e, ENOMEM, "out of memory");
    fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        rc = err_set(e, errno, "an overlay cannot be made: %s", strerror(errno));
        free(temporary);
        return rc;
    }
    rc = file_fill(fd, h);
    close(fd);
    if (!rc && link(temporary, path) && errno != EEXIST)
        rc = -errno;
    unlink(temporary);
    free(temporary);
    if (!rc)
        rc = folder_sync(path);
    return rc ? err_set(e, -rc, "an overlay cannot be made: %s", strerror(-rc)) : 0;
}

/* ---- reading one ---- */

static int header_judge(int fd, const struct header *expected, struct header *h, struct err *e)
{
    if (pread(fd, h, sizeof(*h), 0) != sizeof(*h) || memcmp(h->magic, MAGIC, sizeof(h->magic)))
        return err_set(e, EINVAL, "is no overlay: expected a file that filter=cow has made");
    if (le32toh(h->version) != VERSION)
        return err_set(e, EINVAL, "is an overlay of version %u, expected %u", le32toh(h->version),
                       VERSION);
    if (le64toh(h->checksum) != fnv1a(h, offsetof(struct header, checksum)))
        return err_set(e, EINVAL, "is an overlay with a damaged header");
    if (h->size_bytes != expected->size_bytes)
        return err_set(e, EINVAL, "is an overlay of a disk of %llu bytes, which has %llu now",
                       (unsigned long long)le64toh(h->size_bytes),
                       (unsigned long long)le64toh(expected->size_bytes));
    if (memcmp(h, expected, offsetof(struct header, boot_id)))
        return err_set(e, EINVAL, "is an overlay with an impossible header");
    return 0;
}

static int read_failed(struct err *e, int code)
{
    return err_set(e, code, "its bitmap cannot be read: %s", strerror(code));
}

/* Calls take() for each block of the durable bitmap that is no hole. */
static int durable_each(int fd, struct cow_overlay *o, struct err *e,
                        void (*take)(struct cow_overlay *o, uint32_t block, const uint64_t *bits))
{
    const off_t base = (off_t)o->bitmap_offset_bytes;
    uint64_t bits[COW_BLOCK_BYTES / sizeof(uint64_t)];
    uint32_t block = 0;

    while (block < o->nr_blocks) {
        off_t data = lseek(fd, base + (off_t)block * COW_BLOCK_BYTES, SEEK_DATA);

        if (data < 0)
            return errno == ENXIO ? 0 : read_failed(e, errno);
        block = (uint32_t)min_of((uint64_t)(data - base) / COW_BLOCK_BYTES,
                                 (uint64_t)o->nr_blocks);
        if (block == o->nr_blocks)
            return 0;
        errno = EIO;
        if (pread(fd, bits, sizeof(bits), base + (off_t)block * COW_BLOCK_BYTES) != sizeof(bits))
            return read_failed(e, errno);
        take(o, block++, bits);
    }
    return 0;
}

static uint64_t *block_at(const struct cow_overlay *o, uint32_t block)
{
    return o->written + block * (COW_BLOCK_BYTES / sizeof(uint64_t));
}

static void block_take(struct cow_overlay *o, uint32_t block, const uint64_t *bits)
{
    memcpy(block_at(o, block), bits, COW_BLOCK_BYTES);
}

static void block_compare(struct cow_overlay *o, uint32_t block, const uint64_t *bits)
{
    if (!memcmp(block_at(o, block), bits, COW_BLOCK_BYTES))
        o->dirty[block / WORD_BITS] &= ~(1ull << block % WORD_BITS);
}

/* Blocks with bits that the durable bitmap, of which holes are empty blocks, does not have. */
static int dirty_find(int fd, struct cow_overlay *o, struct err *e)
{
    static const uint64_t none[COW_BLOCK_BYTES / sizeof(uint64_t)];

    for (uint32_t block = 0; block < o->nr_blocks; block++)
        if (memcmp(block_at(o, block), none, sizeof(none)))
            cow_overlay_set_dirty(o, block);
    return durable_each(fd, o, e, block_compare);
}

/* Leaves alone what is the same, so that what is empty takes no memory. */
static void bitmap_copy(const struct cow_overlay *o, uint64_t *to, const uint64_t *from)
{
    const size_t words = COW_BLOCK_BYTES / sizeof(uint64_t);

    for (uint32_t block = 0; block < o->nr_blocks; block++)
        if (memcmp(to + block * words, from + block * words, COW_BLOCK_BYTES))
            memcpy(to + block * words, from + block * words, COW_BLOCK_BYTES);
}

/* What is written, from the live bitmap; or, where that is of an earlier start of the host,
 * from the durable one, and then the live one is made anew. */
static int bitmaps_open(int fd, const struct header *h, bool readonly, struct cow_overlay *o,
                        struct err *e)
{
    const uint8_t none[BOOT_ID_BYTES] = { 0 };
    uint8_t boot_id[BOOT_ID_BYTES];
    int rc;

    boot_id_read(boot_id);
    o->live = mmap(NULL, bitmap_bytes(o), readonly ? PROT_READ : PROT_READ | PROT_WRITE,
                   MAP_SHARED, fd, (off_t)le64toh(h->live_offset_bytes));
    if (o->live == MAP_FAILED) {
        o->live = NULL;
        return err_set(e, errno, "cannot be mapped: %s", strerror(errno));
    }
    if (!memcmp(h->boot_id, boot_id, sizeof(boot_id)) && memcmp(boot_id, none, sizeof(none))) {
        bitmap_copy(o, o->written, o->live);
        return readonly ? 0 : dirty_find(fd, o, e);
    }
    rc = durable_each(fd, o, e, block_take);
    if (rc || readonly)
        return rc;
    bitmap_copy(o, o->live, o->written);
    errno = EIO;
    if (pwrite(fd, boot_id, sizeof(boot_id), offsetof(struct header, boot_id)) != sizeof(boot_id))
        return err_set(e, errno, "cannot be written: %s", strerror(errno));
    return 0;
}

static int overlay_load(const char *path, const struct header *expected, bool readonly,
                        struct cow_overlay *o, struct err *e)
{
    int fd = open(path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC), rc;
    struct header h;
    struct stat st;

    if (fd < 0 || fstat(fd, &st)) {
        rc = err_set(e, errno, "cannot be opened: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return rc;
    }
    rc = header_judge(fd, expected, &h, e);
    if (!rc && (uint64_t)st.st_size < le64toh(h.data_offset_bytes) + le64toh(h.size_bytes))
        rc = err_set(e, EINVAL, "is an overlay that has been cut short");
    if (!rc && !readonly) {
        /* a copy of an overlay has holes where it was empty */
        rc = live_allocate(fd, &h);
        if (rc)
            err_set(e, -rc, "has no room for its bitmap: %s", strerror(-rc));
    }
    if (!rc) {
        o->dirty = calloc(div_round_up(o->nr_blocks, WORD_BITS), sizeof(*o->dirty));
        o->marking = calloc(o->nr_blocks, sizeof(*o->marking));
        o->written = calloc(o->nr_blocks, COW_BLOCK_BYTES);
        rc = o->dirty && o->marking && o->written ? bitmaps_open(fd, &h, readonly, o, e)
                                                  : err_set(e, ENOMEM, "out of memory");
    }
    close(fd);
    return rc;
}

static int overlay_open(const char *path, const struct header *h, bool readonly, bool no_direct,
                        struct cow_overlay *o, struct err *e)
{
    struct stat st;
    int rc;

    if (!readonly && stat(path, &st) && errno == ENOENT) {
        rc = file_make(path, h, e);
        if (rc)
            return rc;
    }
    /* claims it as well: nobody else may change what is read next */
    rc = blk_disk_open(&(struct blk_spec){ .driver = "file", .path = path, .readonly = readonly,
                                           .no_direct = no_direct }, &o->disk, e);
    if (rc)
        return rc;
    if (blk_disk_props(o->disk)->block_device)
        return err_set(e, EINVAL, "is a block device: expected a file, or none yet");
    return overlay_load(path, h, readonly, o, e);
}

int cow_overlay_open(const char *path, uint64_t size_bytes, bool readonly, bool no_direct,
                     struct cow_overlay *out, struct err *e)
{
    struct header h;
    int rc;

    *out = (struct cow_overlay){
        .nr_blocks = (uint32_t)div_round_up(size_bytes,
                                            (uint64_t)BLK_SECTOR_BYTES * COW_BLOCK_SECTORS),
    };
    if (size_bytes > DISK_MAX_BYTES) {
        err_at(e, path, 0, NULL);
        return err_set(e, EFBIG, "an overlay for a disk of %llu bytes: expected %llu at most",
                       (unsigned long long)size_bytes, (unsigned long long)DISK_MAX_BYTES);
    }
    header_make(out, size_bytes, &h);
    out->bitmap_offset_bytes = le64toh(h.durable_offset_bytes);
    out->data_offset_bytes = le64toh(h.data_offset_bytes);
    rc = overlay_open(path, &h, readonly, no_direct, out, e);
    if (rc) {
        err_at(e, path, 0, NULL);
        cow_overlay_close(out);
    }
    return rc;
}

void cow_overlay_close(struct cow_overlay *o)
{
    if (o->live)
        munmap(o->live, bitmap_bytes(o));
    free(o->written);
    free(o->dirty);
    free(o->marking);
    blk_disk_close(o->disk);
}

/* ---- the bitmap ---- */

uint64_t cow_overlay_run(const struct cow_overlay *o, uint64_t first, uint64_t max, bool *here)
{
    uint64_t nr = 0;

    while (nr < max) {
        uint64_t at = first + nr;
        unsigned bit = at % WORD_BITS;
        /* pairs with cow_overlay_mark(): the data are here when the bit is */
        uint64_t word = load_acquire(&o->written[at / WORD_BITS]) >> bit;
        uint64_t others;

        if (!nr)
            *here = word & 1;
        others = *here ? ~word : word;
        if (others && (unsigned)__builtin_ctzll(others) < WORD_BITS - bit)
            return min_of(nr + (unsigned)__builtin_ctzll(others), max);
        nr += WORD_BITS - bit;
    }
    return max;
}

void cow_overlay_set_dirty(struct cow_overlay *o, uint32_t block)
{
    fetch_or(&o->dirty[block / WORD_BITS], 1ull << block % WORD_BITS);
}

void cow_overlay_mark(struct cow_overlay *o, uint64_t first, uint64_t nr)
{
    uint64_t end = first + nr;

    for (uint64_t at = first; at < end; at = align_down(at, (uint64_t)WORD_BITS) + WORD_BITS) {
        unsigned bit = at % WORD_BITS;
        uint64_t bits = min_of(end - at, (uint64_t)(WORD_BITS - bit));
        uint64_t mask = (bits == WORD_BITS ? ~0ull : (1ull << bits) - 1) << bit;
        uint64_t *word = &o->written[at / WORD_BITS];
        uint32_t block = (uint32_t)(at / COW_BLOCK_SECTORS);

        /* What anybody here has seen, the next process sees: the live bit comes first.
         * The block is dirty after its bits are set: pairs with cow_overlay_take_dirty().  Who
         * meets bits that another has set, but who is not that far yet, sees to it too. */
        if ((load_acquire(word) & mask) == mask) {
            if (unlikely(load_acquire(&o->marking[block])))
                cow_overlay_set_dirty(o, block);
            continue;
        }
        fetch_add(&o->marking[block], 1);
        fetch_or(&o->live[at / WORD_BITS], mask);
        fetch_or(word, mask);
        cow_overlay_set_dirty(o, block);
        fetch_add(&o->marking[block], -1);
    }
}

bool cow_overlay_is_dirty(const struct cow_overlay *o, uint64_t first, uint64_t nr)
{
    for (uint64_t b = first / COW_BLOCK_SECTORS; b <= (first + nr - 1) / COW_BLOCK_SECTORS; b++)
        if (load_acquire(&o->dirty[b / WORD_BITS]) & 1ull << b % WORD_BITS)
            return true;
    return false;
}

uint32_t cow_overlay_take_dirty(struct cow_overlay *o, uint32_t from, void *copy)
{
    uint64_t *to = copy;
    uint32_t block = from;

    for (; block < o->nr_blocks; block++) {
        uint64_t word = load_relaxed(&o->dirty[block / WORD_BITS]) >> block % WORD_BITS;

        if (word & 1)
            break;
        if (!word)      /* nor any of the others in this word */
            block |= WORD_BITS - 1;
    }
    if (block >= o->nr_blocks)
        return o->nr_blocks;
    fetch_and(&o->dirty[block / WORD_BITS], ~(1ull << block % WORD_BITS));
    for (unsigned i = 0; i < COW_BLOCK_BYTES / sizeof(*to); i++)
        to[i] = load_acquire(&o->written[block * (COW_BLOCK_BYTES / sizeof(*to)) + i]);
    return block;
}
