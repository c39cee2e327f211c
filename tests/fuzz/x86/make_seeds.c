/* SPDX-License-Identifier: MIT */
/* Writes the seed corpus of the kernel image fuzzer to the directory named on
 * the command line: each form a kernel comes in, as small as can be. */
#include <stdio.h>

#include <xen/elfnote.h>

#include "../../unit/x86/elf_image.h"

static int seed_write(const char *dir, const char *name, const struct image *i)
{
    char path[4096];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    if (!f || fwrite(i->data, 1, i->bytes, f) != i->bytes || fclose(f)) {
        perror(path);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const enum payload_format formats[] = {
        PAYLOAD_GZIP, PAYLOAD_XZ, PAYLOAD_LZMA, PAYLOAD_LZ4, PAYLOAD_ZSTD,
    };
    const uint64_t base = 0xffffffff80000000;
    struct image_shape shape = {
        .paddr = 0x1000, .text_bytes = 64, .mem_bytes = 0x3000, .entry = 0x1000,
    };
    static struct image elf, payload, bz;
    struct notes n = { 0 };
    int rc;

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    notes_add_common(&n);
    note_add_string(&n, XEN_ELFNOTE_FEATURES, "!writable_page_tables|pae_pgdir_above_4gb");
    note_add_u64(&n, XEN_ELFNOTE_VIRT_BASE, base);
    note_add_u64(&n, XEN_ELFNOTE_ENTRY, base + 0x1000);
    note_add_u64(&n, XEN_ELFNOTE_HYPERCALL_PAGE, base + 0x2000);
    note_add_u64(&n, XEN_ELFNOTE_INIT_P2M, 0x8000000000);
    note_add_u32(&n, XEN_ELFNOTE_MOD_START_PFN, 1);
    image_make(&elf, &shape, &n);
    rc = seed_write(argv[1], "elf", &elf);
    for (unsigned i = 0; i < array_size(formats); i++) {
        payload_compress(formats[i], &elf, &payload);
        if (formats[i] == PAYLOAD_GZIP)
            rc |= seed_write(argv[1], "elf.gz", &payload);
        bzimage_make(&payload, &bz);
        rc |= seed_write(argv[1], payload_format_name(formats[i]), &bz);
    }
    shape.place = NOTES_NOWHERE;
    shape.xen_guest = "GUEST_OS=linux,XEN_VER=xen-3.0,VIRT_BASE=0x0,HYPERCALL_PAGE=0x2";
    image_make(&elf, &shape, &(struct notes){ 0 });
    return rc | seed_write(argv[1], "legacy", &elf);
}
