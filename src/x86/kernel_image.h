/* SPDX-License-Identifier: MIT */
/* A kernel for a Xen PV guest: a Linux bzImage (boot protocol 2.08 or later,
 * Documentation/x86/boot.rst, with a gzip, xz, lzma, lz4, zstd or uncompressed
 * payload), a plain ELF64 file, or a gzip-compressed one.  Loading judges all
 * of it: after success every segment lies within the image and the notes are
 * consistent, so that whoever builds the guest only has to fit it into memory. */
#ifndef XENOLITH_X86_KERNEL_IMAGE_H
#define XENOLITH_X86_KERNEL_IMAGE_H

#include "base/err.h"
#include "base/types.h"

/* No kernel is larger, compressed or not. */
#define KERNEL_IMAGE_BYTES_MAX    GIB
#define KERNEL_IMAGE_SEGMENTS_MAX 32

#define XEN_NOTES_STRING_BYTES    64
#define XEN_NOTES_FEATURES_BYTES  512

/* Xen's ELF notes (xen/elfnote.h).  A value counts only if its bit is present;
 * virt_base and paddr_offset hold their defaults otherwise. */
struct xen_notes {
    uint64_t present;           /* bit n: note type n was found */
    bool legacy;                /* from a __xen_guest section instead */
    uint64_t entry;
    uint64_t hypercall_page;    /* virtual address */
    uint64_t virt_base;
    uint64_t paddr_offset;
    uint64_t init_p2m;
    uint64_t hv_start_low;
    uint64_t phys32_entry;
    uint64_t mod_start_pfn;     /* not 0: the ramdisk need not be mapped */
    uint64_t suspend_cancel;
    struct { uint64_t mask, value; } l1_mfn_valid;  /* the first pair */
    char guest_os[XEN_NOTES_STRING_BYTES];
    char guest_version[XEN_NOTES_STRING_BYTES];
    char xen_version[XEN_NOTES_STRING_BYTES];
    char loader[XEN_NOTES_STRING_BYTES];
    char features[XEN_NOTES_FEATURES_BYTES];
    /* Bit n: XENFEAT_* n (xen/features.h), from the string and the number. */
    uint64_t features_supported;
    uint64_t features_required; /* named with '!' */
};

static inline bool xen_notes_have(const struct xen_notes *n, unsigned type)
{
    return n->present >> type & 1;
}

/* One loadable segment; zero bytes follow file_bytes up to mem_bytes. */
struct kernel_segment {
    const uint8_t *data;        /* within the image */
    uint64_t paddr;             /* as in the ELF header */
    uint64_t file_bytes;
    uint64_t mem_bytes;         /* at least file_bytes */
};

struct kernel_image {
    char name[256];             /* of the file, for messages */
    const uint8_t *elf;
    size_t elf_bytes;
    void *map;                  /* what kernel_image_free() unmaps; NULL: the caller's memory */
    size_t map_bytes;
    bool in_room;               /* the image begins at room_offset of the RAM that it is for */
    uint64_t room_offset;
    unsigned nr_segments;
    struct kernel_segment segment[KERNEL_IMAGE_SEGMENTS_MAX];
    /* Where the kernel wants to run, from its notes and segments: pages of
     * virt_start up to virt_end cover every segment. */
    uint64_t virt_start, virt_end;
    uint64_t entry;
    struct xen_notes notes;
};

/* Memory where a compressed kernel may be expanded, so that the larger part of it need
 * not be copied: the guest's RAM from its first frame on, all zero. */
struct kernel_room {
    uint8_t *ram;
    uint64_t bytes;
    /* Called before so many bytes from offset on are written, so that they can be
     * made ready meanwhile; NULL: nobody cares. */
    void (*expect)(void *arg, uint64_t offset, uint64_t bytes);
    void *arg;
};

/* Reads the file at path.  room: NULL, or what outlives *out.  0, or -errno with e naming
 * the file and what was expected of it; then *out needs no freeing, and the room holds
 * anything.  The file may be replaced afterwards but not truncated before
 * kernel_image_free(). */
int kernel_image_load(const char *path, const struct kernel_room *room,
                      struct kernel_image *out, struct err *e);

/* The same for an image in memory, which must outlive *out. */
int kernel_image_parse(const void *data, size_t bytes, const char *name,
                       const struct kernel_room *room, struct kernel_image *out, struct err *e);

/* Brings every segment to its place in RAM, zero but for an image that is in it, which
 * must have space for all of them.  What else there was of the image is cleared: the
 * image can only be freed then. */
void kernel_image_place(const struct kernel_image *k, uint8_t *ram);

/* Gives back all memory; harmless on a zeroed or freed image. */
void kernel_image_free(struct kernel_image *k);

/* Virtual address at which a segment runs. */
static inline uint64_t kernel_image_virt(const struct kernel_image *k, uint64_t paddr)
{
    return paddr - k->notes.paddr_offset + k->notes.virt_base;
}

/* Where in RAM a segment belongs: VIRT_BASE is where its first byte is mapped. */
static inline uint64_t kernel_segment_offset(const struct kernel_image *k,
                                             const struct kernel_segment *s)
{
    return s->paddr - k->notes.paddr_offset;
}

#endif
