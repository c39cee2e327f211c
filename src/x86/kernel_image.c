/* SPDX-License-Identifier: MIT */
#include "x86/kernel_image.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xen/elfnote.h>

#include "base/num.h"
#include "x86/elf_notes.h"
#include "x86/payload.h"

/* Linux boot protocol, Documentation/x86/boot.rst, "The Real-Mode Kernel
 * Header": offsets within the file. */
#define BZ_SETUP_SECTS    0x1f1     /* 1 byte, in 512-byte sectors; 0 means 4 */
#define BZ_BOOT_FLAG      0x1fe     /* 2 bytes */
#define BZ_HEADER         0x202     /* 4 bytes */
#define BZ_VERSION        0x206     /* 2 bytes */
#define BZ_PAYLOAD_OFFSET 0x248     /* 4 bytes, from the protected-mode code */
#define BZ_PAYLOAD_LENGTH 0x24c     /* 4 bytes */
#define BZ_HEADER_END     0x250

#define BZ_BOOT_FLAG_VALUE  0xaa55u
#define BZ_HEADER_VALUE     0x53726448u     /* "HdrS" */
#define BZ_VERSION_PAYLOAD  0x0208u         /* the first to tell where the payload is */

static uint32_t le_at(const uint8_t *p, unsigned bytes)
{
    uint32_t v = 0;

    while (bytes--)
        v = v << 8 | p[bytes];
    return v;
}

static bool is_bzimage(const uint8_t *p, size_t bytes)
{
    return bytes >= BZ_HEADER_END && le_at(p + BZ_BOOT_FLAG, 2) == BZ_BOOT_FLAG_VALUE &&
           le_at(p + BZ_HEADER, 4) == BZ_HEADER_VALUE;
}

/* Narrows *data, *bytes from the whole file to the payload. */
static int bzimage_payload(const uint8_t **data, size_t *bytes, struct err *e)
{
    const uint8_t *p = *data;
    unsigned version = le_at(p + BZ_VERSION, 2);
    uint64_t sectors = p[BZ_SETUP_SECTS] ? p[BZ_SETUP_SECTS] : 4;
    uint64_t start = (sectors + 1) * 512 + le_at(p + BZ_PAYLOAD_OFFSET, 4);
    uint64_t len = le_at(p + BZ_PAYLOAD_LENGTH, 4);

    if (version < BZ_VERSION_PAYLOAD)
        return err_set(e, ENOEXEC, "bzImage of boot protocol %u.%02u, expected 2.08 or later "
                       "(Linux 2.6.24)", version >> 8, version & 0xff);
    if (!len)
        return err_set(e, ENOEXEC, "bzImage has no payload, expected a compressed kernel");
    if (start + len > *bytes)
        return err_set(e, ENOEXEC, "bzImage payload ends at byte %" PRIu64 ", the file has %zu: "
                       "truncated", start + len, *bytes);
    *data = p + start;
    *bytes = len;
    return 0;
}

/* Fills *eh; without section headers, e_shnum is 0. */
static int elf_header_check(const uint8_t *elf, size_t bytes, Elf64_Ehdr *eh, struct err *e)
{
    uint64_t table;

    if (bytes < sizeof(*eh))
        return err_set(e, ENOEXEC, "ELF header of 64 bytes expected, %zu found: truncated", bytes);
    memcpy(eh, elf, sizeof(*eh));
    if (eh->e_ident[EI_CLASS] == ELFCLASS32)
        return err_set(e, ENOEXEC, "32-bit kernel, expected a 64-bit x86 one");
    if (eh->e_ident[EI_CLASS] != ELFCLASS64 || eh->e_ident[EI_DATA] != ELFDATA2LSB ||
        eh->e_machine != EM_X86_64)
        return err_set(e, ENOEXEC, "ELF file of class %u, byte order %u, machine %u, expected a "
                       "64-bit x86 kernel (2, 1, %u)", eh->e_ident[EI_CLASS], eh->e_ident[EI_DATA],
                       eh->e_machine, EM_X86_64);
    if (eh->e_type != ET_EXEC && eh->e_type != ET_DYN)
        return err_set(e, ENOEXEC, "ELF file of type %u, expected an executable", eh->e_type);
    if (!eh->e_phnum || eh->e_phnum == PN_XNUM || eh->e_phentsize != sizeof(Elf64_Phdr))
        return err_set(e, ENOEXEC, "%u ELF program headers of %u bytes, expected some of %zu",
                       eh->e_phnum, eh->e_phentsize, sizeof(Elf64_Phdr));
    table = (uint64_t)eh->e_phnum * sizeof(Elf64_Phdr);
    if (eh->e_phoff > bytes || table > bytes - eh->e_phoff)
        return err_set(e, ENOEXEC, "ELF program headers lie beyond the %zu bytes of the kernel: "
                       "truncated", bytes);
    if (!eh->e_shoff)
        eh->e_shnum = 0;
    if (!eh->e_shnum)
        return 0;
    table = (uint64_t)eh->e_shnum * sizeof(Elf64_Shdr);
    if (eh->e_shentsize != sizeof(Elf64_Shdr))
        return err_set(e, ENOEXEC, "ELF section headers of %u bytes, expected %zu",
                       eh->e_shentsize, sizeof(Elf64_Shdr));
    if (eh->e_shoff > bytes || table > bytes - eh->e_shoff)
        return err_set(e, ENOEXEC, "ELF section headers lie beyond the %zu bytes of the kernel: "
                       "truncated", bytes);
    return 0;
}

/* Takes the loadable segments; *start and *end are their lowest and highest
 * physical address. */
static int elf_segments_take(const Elf64_Ehdr *eh, struct kernel_image *k,
                             uint64_t *start, uint64_t *end, struct err *e)
{
    *start = UINT64_MAX;
    *end = 0;
    for (unsigned i = 0; i < eh->e_phnum; i++) {
        uint64_t top;
        Elf64_Phdr ph;

        memcpy(&ph, k->elf + eh->e_phoff + i * sizeof(ph), sizeof(ph));
        if (ph.p_type != PT_LOAD || !ph.p_memsz)
            continue;
        if (ph.p_offset > k->elf_bytes || ph.p_filesz > k->elf_bytes - ph.p_offset)
            return err_set(e, ENOEXEC, "ELF segment %u lies beyond the %zu bytes of the kernel: "
                           "truncated", i, k->elf_bytes);
        if (ph.p_filesz > ph.p_memsz)
            return err_set(e, ENOEXEC, "ELF segment %u has %" PRIu64 " bytes in the file and only %"
                           PRIu64 " in memory", i, ph.p_filesz, ph.p_memsz);
        if (num_add_overflows(ph.p_paddr, ph.p_memsz, &top))
            return err_set(e, ENOEXEC, "ELF segment %u ends beyond 2^64", i);
        if (k->nr_segments == KERNEL_IMAGE_SEGMENTS_MAX)
            return err_set(e, ENOEXEC, "more than %u loadable ELF segments",
                           KERNEL_IMAGE_SEGMENTS_MAX);
        k->segment[k->nr_segments++] = (struct kernel_segment){
            .data = k->elf + ph.p_offset, .paddr = ph.p_paddr,
            .file_bytes = ph.p_filesz, .mem_bytes = ph.p_memsz,
        };
        *start = min_of(*start, ph.p_paddr);
        *end = max_of(*end, top);
    }
    if (!k->nr_segments)
        return err_set(e, ENOEXEC, "no loadable ELF segment");
    if (*end - *start > KERNEL_IMAGE_BYTES_MAX)
        return err_set(e, ENOEXEC, "ELF segments span %" PRIu64 " bytes, expected at most %" PRIu64,
                       *end - *start, KERNEL_IMAGE_BYTES_MAX);
    return 0;
}

/* What Xen's own loader demands of the notes. */
static int notes_check(struct kernel_image *k, uint64_t entry, uint64_t start, uint64_t end,
                       struct err *e)
{
    const struct xen_notes *n = &k->notes;

    if (strncmp(n->xen_version, "xen-3.0", 7))
        return err_set(e, ENOEXEC, "kernel is for Xen interface \"%s\", expected \"xen-3.0\"",
                       n->xen_version);
    if (strncmp(n->loader, "generic", 7) && strncmp(n->guest_os, "linux", 5))
        return err_set(e, ENOEXEC, "kernel wants loader \"%s\", expected \"generic\"", n->loader);
    if (xen_notes_have(n, XEN_ELFNOTE_PADDR_OFFSET) && !xen_notes_have(n, XEN_ELFNOTE_VIRT_BASE))
        return err_set(e, ENOEXEC, "Xen ELF notes give PADDR_OFFSET but no VIRT_BASE");

    k->virt_start = kernel_image_virt(k, start);
    k->virt_end = kernel_image_virt(k, end);
    k->entry = xen_notes_have(n, XEN_ELFNOTE_ENTRY) ? n->entry : entry;
    if (start < n->paddr_offset || k->virt_start < n->virt_base || k->virt_end <= k->virt_start)
        return err_set(e, ENOEXEC, "kernel segments from physical address %#" PRIx64 " run at %#"
                       PRIx64 " to %#" PRIx64 ", expected above VIRT_BASE %#" PRIx64, start,
                       k->virt_start, k->virt_end, n->virt_base);
    if (k->entry < k->virt_start || k->entry >= k->virt_end)
        return err_set(e, ENOEXEC, "entry point %#" PRIx64 " is not in the kernel, %#" PRIx64
                       " to %#" PRIx64, k->entry, k->virt_start, k->virt_end);
    if (xen_notes_have(n, XEN_ELFNOTE_HYPERCALL_PAGE) &&
        (n->hypercall_page & PAGE_MASK || n->hypercall_page < k->virt_start ||
         n->hypercall_page >= k->virt_end))
        return err_set(e, ENOEXEC, "hypercall page %#" PRIx64 " is not a page of the kernel, %#"
                       PRIx64 " to %#" PRIx64, n->hypercall_page, k->virt_start, k->virt_end);
    if (xen_notes_have(n, XEN_ELFNOTE_INIT_P2M) && n->init_p2m >= k->virt_start &&
        n->init_p2m < k->virt_end)
        return err_set(e, ENOEXEC, "INIT_P2M %#" PRIx64 " lies in the kernel", n->init_p2m);
    return 0;
}

/* k->elf is set */
static int elf_parse(struct kernel_image *k, struct err *e)
{
    uint64_t start, end;
    Elf64_Ehdr eh;
    int rc = elf_header_check(k->elf, k->elf_bytes, &eh, e);

    if (!rc)
        rc = elf_segments_take(&eh, k, &start, &end, e);
    if (!rc)
        rc = elf_notes_read(&eh, k->elf, k->elf_bytes, &k->notes, e);
    return rc ? rc : notes_check(k, eh.e_entry, start, end, e);
}

/* ---- expansion, in the room if it can be ----
 *
 * Most segments of a kernel are as far from each other in memory as in the file.  The
 * image is put where as many as possible lie in their place already, and none below it:
 * then each can be moved down in turn without meeting one that is still to be moved.
 * The program headers that say where that is are read from the first bytes, before it is
 * known whether they are any good: so what came of it is judged at the end. */

#define PEEK_BYTES 4096

/* The offset in RAM at which the image should begin; false: none is known or fits. */
static bool room_choose(const uint8_t *head, size_t bytes, uint64_t elf_bytes,
                        const struct kernel_room *room, uint64_t *offset)
{
    Elf64_Ehdr eh;

    *offset = 0;
    if (bytes < sizeof(eh))
        return false;
    memcpy(&eh, head, sizeof(eh));
    if (eh.e_phentsize != sizeof(Elf64_Phdr) || eh.e_phoff > bytes ||
        eh.e_phnum > (bytes - eh.e_phoff) / sizeof(Elf64_Phdr))
        return false;
    for (unsigned i = 0; i < eh.e_phnum; i++) {
        Elf64_Phdr ph;

        memcpy(&ph, head + eh.e_phoff + i * sizeof(ph), sizeof(ph));
        if (ph.p_type == PT_LOAD && ph.p_filesz && ph.p_paddr > ph.p_offset)
            *offset = max_of(*offset, (uint64_t)ph.p_paddr - ph.p_offset);
    }
    return *offset <= room->bytes && elf_bytes <= room->bytes - *offset;
}

/* Whether kernel_image_place() can move the segments down one by one. */
static bool room_suits(const struct kernel_image *k)
{
    uint64_t from_end = 0, to_end = 0;

    for (unsigned i = 0; i < k->nr_segments; i++) {
        const struct kernel_segment *s = &k->segment[i];
        uint64_t from = k->room_offset + (uint64_t)(s->data - k->elf);
        uint64_t to = kernel_segment_offset(k, s);

        if (!s->file_bytes)
            continue;
        if (to > from || from < from_end || to < to_end)
            return false;
        from_end = from + s->file_bytes;
        to_end = to + s->file_bytes;
    }
    return true;
}

static void *image_memory(size_t bytes)
{
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return map == MAP_FAILED ? NULL : map;
}

/* Sets elf, elf_bytes and who owns them. */
static int image_expand(struct kernel_image *k, enum payload_format f, const uint8_t *data,
                        size_t bytes, const struct kernel_room *room, struct err *e)
{
    uint8_t head[PEEK_BYTES], *to;
    size_t elf_bytes;
    int rc = payload_size(f, data, bytes, KERNEL_IMAGE_BYTES_MAX, &elf_bytes, e);

    if (rc)
        return rc;
    k->in_room = room && room_choose(head, payload_peek(f, data, bytes, head, sizeof(head)),
                                     elf_bytes, room, &k->room_offset);
    if (k->in_room) {
        to = room->ram + k->room_offset;
        if (room->expect)
            room->expect(room->arg, k->room_offset, elf_bytes);
    } else {
        to = k->map = image_memory(elf_bytes);
        k->map_bytes = elf_bytes;
        if (!to)
            return err_set(e, ENOMEM, "no memory to expand the %s payload to %zu bytes",
                           payload_format_name(f), elf_bytes);
    }
    k->elf = to;
    k->elf_bytes = elf_bytes;
    rc = payload_expand(f, data, bytes, to, elf_bytes, e);
    if (!rc && payload_format_of(to, elf_bytes) != PAYLOAD_ELF)
        rc = err_set(e, ENOEXEC, "%s payload does not hold an ELF kernel", payload_format_name(f));
    return rc;
}

/* Gives the room back, as it was. */
static int room_leave(struct kernel_image *k, const struct kernel_room *room, struct err *e)
{
    uint8_t *in_room = room->ram + k->room_offset;

    k->map = image_memory(k->elf_bytes);
    if (!k->map)
        return err_set(e, ENOMEM, "no memory for a kernel of %zu bytes", k->elf_bytes);
    k->map_bytes = k->elf_bytes;
    memcpy(k->map, in_room, k->elf_bytes);
    memset(in_room, 0, k->elf_bytes);
    for (unsigned i = 0; i < k->nr_segments; i++)
        k->segment[i].data = (uint8_t *)k->map + (k->segment[i].data - k->elf);
    k->elf = k->map;
    k->in_room = false;
    return 0;
}

void kernel_image_place(const struct kernel_image *k, uint8_t *ram)
{
    uint64_t at = k->room_offset, end = k->room_offset + k->elf_bytes;

    for (unsigned i = 0; i < k->nr_segments; i++) {
        const struct kernel_segment *s = &k->segment[i];
        uint8_t *to = ram + kernel_segment_offset(k, s);

        if (s->file_bytes && to != s->data)
            memmove(to, s->data, s->file_bytes);
    }
    if (!k->in_room)
        return;
    for (unsigned i = 0; i < k->nr_segments; i++) {
        uint64_t to = kernel_segment_offset(k, &k->segment[i]);

        if (!k->segment[i].file_bytes)
            continue;
        if (to > at)
            memset(ram + at, 0, to - at);
        at = max_of(at, to + k->segment[i].file_bytes);
    }
    if (end > at)
        memset(ram + at, 0, end - at);
}

int kernel_image_parse(const void *data, size_t bytes, const char *name,
                       const struct kernel_room *room, struct kernel_image *out, struct err *e)
{
    const uint8_t *p = data;
    enum payload_format f;
    bool bz;
    int rc = 0;

    *out = (struct kernel_image){ 0 };
    snprintf(out->name, sizeof(out->name), "%s", name);
    err_at(e, name, 0, NULL);
    if (bytes > KERNEL_IMAGE_BYTES_MAX)
        return err_set(e, EFBIG, "%zu bytes, expected a kernel of at most %" PRIu64, bytes,
                       KERNEL_IMAGE_BYTES_MAX);
    bz = is_bzimage(p, bytes);
    if (bz)
        rc = bzimage_payload(&p, &bytes, e);
    if (rc)
        return rc;

    f = payload_format_of(p, bytes);
    if (f == PAYLOAD_UNKNOWN || (!bz && f != PAYLOAD_ELF && f != PAYLOAD_GZIP))
        return err_set(e, ENOEXEC, "%s", bz ? "bzImage payload of unknown format, expected gzip, "
                       "xz, lzma, lz4 or zstd" : "not a kernel: expected a bzImage or an ELF file");
    out->elf = p;
    out->elf_bytes = bytes;
    if (f != PAYLOAD_ELF)
        rc = image_expand(out, f, p, bytes, room, e);
    if (!rc)
        rc = elf_parse(out, e);
    if (!rc && out->in_room && !room_suits(out))
        rc = room_leave(out, room, e);
    if (rc)
        kernel_image_free(out);
    return rc;
}

/* Maps the whole file for reading. */
static int file_map(const char *path, void **map, size_t *bytes, struct err *e)
{
    struct stat st;
    int fd, code;

    /* O_NONBLOCK: a FIFO must not hang us before fstat() tells */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        code = errno;
        return err_set(e, code, "cannot open the kernel: %s", strerror(code));
    }
    if (fstat(fd, &st) < 0) {
        code = errno;
        close(fd);
        return err_set(e, code, "cannot read the kernel: %s", strerror(code));
    }
    if (!S_ISREG(st.st_mode) || !st.st_size) {
        close(fd);
        return err_set(e, ENOEXEC, S_ISREG(st.st_mode) ? "empty file, expected a kernel"
                                                       : "not a regular file, expected a kernel");
    }
    if ((uint64_t)st.st_size > KERNEL_IMAGE_BYTES_MAX) {
        close(fd);
        return err_set(e, EFBIG, "%jd bytes, expected a kernel of at most %" PRIu64,
                       (intmax_t)st.st_size, KERNEL_IMAGE_BYTES_MAX);
    }
    *bytes = (size_t)st.st_size;
    *map = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    code = errno;
    close(fd);
    if (*map == MAP_FAILED)
        return err_set(e, code, "cannot map the kernel: %s", strerror(code));
    return 0;
}

int kernel_image_load(const char *path, const struct kernel_room *room,
                      struct kernel_image *out, struct err *e)
{
    size_t bytes = 0;
    void *map = NULL;
    int rc;

    *out = (struct kernel_image){ 0 };
    err_at(e, path, 0, NULL);
    rc = file_map(path, &map, &bytes, e);
    if (rc)
        return rc;
    rc = kernel_image_parse(map, bytes, path, room, out, e);
    if (rc || out->map || out->in_room) {           /* failed, or expanded elsewhere */
        munmap(map, bytes);
        return rc;
    }
    out->map = map;
    out->map_bytes = bytes;
    return 0;
}

void kernel_image_free(struct kernel_image *k)
{
    if (k->map)
        munmap(k->map, k->map_bytes);
    *k = (struct kernel_image){ 0 };
}
