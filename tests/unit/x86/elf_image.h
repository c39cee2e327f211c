/* SPDX-License-Identifier: MIT */
/* Small ELF64 kernels made at test time: one writable text of known bytes, Xen
 * notes as asked, and the compressed forms a real one comes in. */
#ifndef XENOLITH_TESTS_ELF_IMAGE_H
#define XENOLITH_TESTS_ELF_IMAGE_H

#include <elf.h>

#include "base/types.h"
#include "x86/payload.h"

#define IMAGE_BYTES_MAX 65536
#define IMAGE_NOTES_MAX 4096

struct image {
    uint8_t data[IMAGE_BYTES_MAX];
    size_t bytes;
};

struct notes {
    uint8_t data[IMAGE_NOTES_MAX];
    size_t bytes;
};

enum notes_place { NOTES_IN_SEGMENT, NOTES_IN_SECTION, NOTES_NOWHERE };

struct image_shape {
    uint64_t paddr;             /* of the one loadable segment */
    uint64_t text_bytes;        /* in the file; byte i is image_text_byte(i) */
    uint64_t mem_bytes;
    uint64_t entry;             /* e_entry */
    enum notes_place place;
    const char *xen_guest;      /* contents of a __xen_guest section; NULL: none */
};

uint8_t image_text_byte(uint64_t i);

void note_add(struct notes *n, const char *name, uint32_t type, const void *desc, size_t bytes);
void note_add_u64(struct notes *n, uint32_t type, uint64_t value);
void note_add_u32(struct notes *n, uint32_t type, uint32_t value);
void note_add_string(struct notes *n, uint32_t type, const char *text);
/* XEN_VERSION, LOADER and GUEST_OS: what every kernel has. */
void notes_add_common(struct notes *n);

/* ELF file; its section headers are its last bytes. */
void image_make(struct image *out, const struct image_shape *shape, const struct notes *n);
static inline Elf64_Ehdr *image_ehdr(struct image *i) { return (Elf64_Ehdr *)i->data; }
static inline Elf64_Phdr *image_phdr(struct image *i) { return (Elf64_Phdr *)(i->data + 64); }

/* Compresses in[] with the library of the format and appends the size as the
 * kernel build does (gzip has its own). */
void payload_compress(enum payload_format f, const struct image *in, struct image *out);
/* A bzImage of boot protocol 2.15 around a payload. */
void bzimage_make(const struct image *payload, struct image *out);

#endif
