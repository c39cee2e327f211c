/* SPDX-License-Identifier: MIT */
#include "elf_image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <xen/elfnote.h>

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "test image: %s\n", what);
        abort();
    }
}

uint8_t image_text_byte(uint64_t i)
{
    return (uint8_t)(i * 7 + (i >> 8));
}

void note_add(struct notes *n, const char *name, uint32_t type, const void *desc, size_t bytes)
{
    Elf64_Nhdr h = { (uint32_t)strlen(name) + 1, (uint32_t)bytes, type };
    size_t at = n->bytes;

    check(at + sizeof(h) + h.n_namesz + bytes + 8 < sizeof(n->data), "too many notes");
    memcpy(n->data + at, &h, sizeof(h));
    at += sizeof(h);
    memcpy(n->data + at, name, h.n_namesz);
    at = align_up(at + h.n_namesz, (size_t)4);
    memcpy(n->data + at, desc, bytes);
    n->bytes = align_up(at + bytes, (size_t)4);
}

void note_add_u64(struct notes *n, uint32_t type, uint64_t value)
{
    note_add(n, "Xen", type, &value, sizeof(value));
}

void note_add_u32(struct notes *n, uint32_t type, uint32_t value)
{
    note_add(n, "Xen", type, &value, sizeof(value));
}

void note_add_string(struct notes *n, uint32_t type, const char *text)
{
    note_add(n, "Xen", type, text, strlen(text) + 1);
}

void notes_add_common(struct notes *n)
{
    note_add_string(n, XEN_ELFNOTE_XEN_VERSION, "xen-3.0");
    note_add_string(n, XEN_ELFNOTE_LOADER, "generic");
    note_add_string(n, XEN_ELFNOTE_GUEST_OS, "testos");
}

void image_make(struct image *out, const struct image_shape *s, const struct notes *n)
{
    static const char names[] = "\0.text\0.notes\0__xen_guest\0.shstrtab";
    const size_t text_at = 64 + 2 * sizeof(Elf64_Phdr);
    const size_t notes_at = align_up(text_at + s->text_bytes, (size_t)8);
    const size_t guest_at = align_up(notes_at + n->bytes, (size_t)8);
    const size_t guest_bytes = s->xen_guest ? strlen(s->xen_guest) + 1 : 0;
    const size_t names_at = guest_at + guest_bytes;
    const size_t sections_at = align_up(names_at + sizeof(names), (size_t)8);
    const Elf64_Phdr segments[2] = {
        { .p_type = PT_LOAD, .p_offset = text_at, .p_vaddr = 0, .p_paddr = s->paddr,
          .p_filesz = s->text_bytes, .p_memsz = s->mem_bytes, .p_align = 4096 },
        { .p_type = PT_NOTE, .p_offset = notes_at, .p_filesz = n->bytes, .p_memsz = n->bytes,
          .p_align = 4 },
    };
    const Elf64_Shdr sections[5] = {
        { .sh_type = SHT_NULL },
        { .sh_name = 1, .sh_type = SHT_PROGBITS, .sh_offset = text_at, .sh_size = s->text_bytes },
        { .sh_name = 7, .sh_type = s->place == NOTES_NOWHERE ? SHT_PROGBITS : SHT_NOTE,
          .sh_offset = notes_at, .sh_size = n->bytes, .sh_addralign = 4 },
        { .sh_name = 14, .sh_type = s->xen_guest ? SHT_PROGBITS : SHT_NULL,
          .sh_offset = guest_at, .sh_size = guest_bytes },
        { .sh_name = 26, .sh_type = SHT_STRTAB, .sh_offset = names_at, .sh_size = sizeof(names) },
    };
    const Elf64_Ehdr eh = {
        .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
        .e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = EV_CURRENT, .e_entry = s->entry,
        .e_phoff = 64, .e_shoff = sections_at, .e_ehsize = 64,
        .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = s->place == NOTES_IN_SEGMENT ? 2 : 1,
        .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 5, .e_shstrndx = 4,
    };

    check(sections_at + sizeof(sections) <= sizeof(out->data), "does not fit");
    memset(out, 0, sizeof(*out));
    memcpy(out->data, &eh, sizeof(eh));
    memcpy(out->data + 64, segments, sizeof(segments));
    for (size_t i = 0; i < s->text_bytes; i++)
        out->data[text_at + i] = image_text_byte(i);
    memcpy(out->data + notes_at, n->data, n->bytes);
    if (s->xen_guest)
        memcpy(out->data + guest_at, s->xen_guest, guest_bytes);
    memcpy(out->data + names_at, names, sizeof(names));
    memcpy(out->data + sections_at, sections, sizeof(sections));
    out->bytes = sections_at + sizeof(sections);
}

static void put32(struct image *out, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        out->data[out->bytes++] = (uint8_t)(v >> 8 * i);
}

static void compress_gzip(const struct image *in, struct image *out)
{
    z_stream z = {
        .next_in = (uint8_t *)in->data, .avail_in = (uInt)in->bytes,
        .next_out = out->data, .avail_out = sizeof(out->data),
    };

    check(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK, "gzip");
    check(deflate(&z, Z_FINISH) == Z_STREAM_END, "gzip");
    out->bytes = z.total_out;
    deflateEnd(&z);
}

static void compress_lzma(const struct image *in, struct image *out, bool xz)
{
    lzma_stream s = LZMA_STREAM_INIT;
    lzma_options_lzma options;
    lzma_filter filters[3] = {
        { LZMA_FILTER_X86, NULL }, { LZMA_FILTER_LZMA2, &options }, { LZMA_VLI_UNKNOWN, NULL },
    };

    check(!lzma_lzma_preset(&options, 0), "lzma");
    if (xz)     /* as the kernel's scripts/xz_wrap.sh does */
        check(lzma_stream_encoder(&s, filters, LZMA_CHECK_CRC32) == LZMA_OK, "xz");
    else
        check(lzma_alone_encoder(&s, &options) == LZMA_OK, "lzma");
    s.next_in = in->data;
    s.avail_in = in->bytes;
    s.next_out = out->data;
    s.avail_out = sizeof(out->data);
    check(lzma_code(&s, LZMA_FINISH) == LZMA_STREAM_END, "lzma");
    out->bytes = s.total_out;
    lzma_end(&s);
}

/* Two blocks, so that their joint is tested. */
static void compress_lz4(const struct image *in, struct image *out)
{
    const size_t half = in->bytes / 2, part[2] = { half, in->bytes - half };
    const uint8_t *from = in->data;

    out->bytes = 0;
    put32(out, 0x184c2102);
    for (unsigned i = 0; i < 2; i++) {
        int n = LZ4_compress_default((const char *)from, (char *)out->data + out->bytes + 4,
                                     (int)part[i], (int)(sizeof(out->data) - out->bytes - 4));

        check(n > 0, "lz4");
        put32(out, (uint32_t)n);
        out->bytes += (size_t)n;
        from += part[i];
    }
}

void payload_compress(enum payload_format f, const struct image *in, struct image *out)
{
    memset(out, 0, sizeof(*out));
    switch (f) {
    case PAYLOAD_GZIP:
        compress_gzip(in, out);
        return;
    case PAYLOAD_XZ:
    case PAYLOAD_LZMA:
        compress_lzma(in, out, f == PAYLOAD_XZ);
        break;
    case PAYLOAD_LZ4:
        compress_lz4(in, out);
        break;
    case PAYLOAD_ZSTD:
        out->bytes = ZSTD_compress(out->data, sizeof(out->data), in->data, in->bytes, 19);
        check(!ZSTD_isError(out->bytes), "zstd");
        break;
    case PAYLOAD_ELF:
        memcpy(out->data, in->data, in->bytes);
        out->bytes = in->bytes;
        break;
    default:
        check(false, "no such compressor");
    }
    put32(out, (uint32_t)in->bytes);
}

void bzimage_make(const struct image *payload, struct image *out)
{
    const unsigned setup_sects = 1, code_at = (setup_sects + 1) * 512, payload_offset = 48;
    const size_t at = code_at + payload_offset;

    check(at + payload->bytes + 32 <= sizeof(out->data), "does not fit");
    memset(out, 0, sizeof(*out));
    out->data[0x1f1] = setup_sects;
    out->data[0x1fe] = 0x55;
    out->data[0x1ff] = 0xaa;
    memcpy(out->data + 0x202, "HdrS\x0f\x02", 6);
    out->bytes = 0x248;
    put32(out, payload_offset);
    put32(out, (uint32_t)payload->bytes);
    memcpy(out->data + at, payload->data, payload->bytes);
    out->bytes = at + payload->bytes + 32;      /* code follows the payload */
}
