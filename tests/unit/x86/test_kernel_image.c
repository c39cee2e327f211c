/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <xen/elfnote.h>

#include "elf_image.h"
#include "x86/kernel_image.h"

#define ENTRY 0x100040

static const struct image_shape shape = {
    .paddr = 0x100000, .text_bytes = 700, .mem_bytes = 0x5000, .entry = ENTRY,
    .place = NOTES_IN_SEGMENT,
};

static const enum payload_format formats[] = {
    PAYLOAD_ELF, PAYLOAD_GZIP, PAYLOAD_XZ, PAYLOAD_LZMA, PAYLOAD_LZ4, PAYLOAD_ZSTD,
};

/* The image used by tests that do not care about its notes. */
static void make_plain(struct image *out)
{
    struct notes n = { 0 };

    notes_add_common(&n);
    image_make(out, &shape, &n);
}

/* A heap copy of exactly the image's size, so that a sanitizer sees reads
 * beyond the end. */
static int parse_bytes(const void *data, size_t bytes, struct kernel_image *k, struct err *e,
                       void **copy)
{
    *copy = malloc(bytes ? bytes : 1);
    memcpy(*copy, data, bytes);
    err_clear(e);
    return kernel_image_parse(*copy, bytes, "the-kernel", NULL, k, e);
}

static void assert_text_loaded(const struct kernel_image *k)
{
    assert_int_equal(k->nr_segments, 1);
    assert_int_equal(k->segment[0].file_bytes, shape.text_bytes);
    assert_int_equal(k->segment[0].mem_bytes, shape.mem_bytes);
    for (size_t i = 0; i < shape.text_bytes; i++)
        assert_int_equal(k->segment[0].data[i], image_text_byte(i));
}

/* Refused with this text, and nothing left behind. */
static void assert_refused(const struct image *i, int code, const char *text)
{
    struct kernel_image k;
    struct err e;
    void *copy;

    assert_int_equal(parse_bytes(i->data, i->bytes, &k, &e, &copy), -code);
    free(copy);
    assert_null(k.map);
    assert_string_equal(e.file, "the-kernel");
    if (!strstr(e.text, text))
        fail_msg("message \"%s\" lacks \"%s\"", e.text, text);
}

static void elf_file_is_loaded(void **state)
{
    struct kernel_image k;
    struct image i;
    struct err e;
    void *copy;

    make_plain(&i);
    assert_int_equal(parse_bytes(i.data, i.bytes, &k, &e, &copy), 0);
    assert_text_loaded(&k);
    assert_int_equal(k.entry, ENTRY);
    assert_int_equal(k.virt_start, 0x100000);
    assert_int_equal(k.virt_end, 0x105000);
    assert_null(k.map);
    kernel_image_free(&k);
    free(copy);
}

static void gzip_file_is_loaded(void **state)
{
    struct image i, gz;
    struct kernel_image k;
    struct err e;
    void *copy;

    make_plain(&i);
    payload_compress(PAYLOAD_GZIP, &i, &gz);
    assert_int_equal(parse_bytes(gz.data, gz.bytes, &k, &e, &copy), 0);
    free(copy);
    assert_text_loaded(&k);
    kernel_image_free(&k);
    assert_null(k.map);
}

static void bzimage_is_loaded_in_every_format(void **state)
{
    struct image i, payload, bz;

    make_plain(&i);
    for (unsigned f = 0; f < array_size(formats); f++) {
        struct kernel_image k;
        struct err e;
        void *copy;
        int rc;

        payload_compress(formats[f], &i, &payload);
        bzimage_make(&payload, &bz);
        rc = parse_bytes(bz.data, bz.bytes, &k, &e, &copy);
        if (rc)
            fail_msg("%s: %s", payload_format_name(formats[f]), e.text);
        assert_text_loaded(&k);
        kernel_image_free(&k);
        free(copy);
    }
}

static void truncation_at_any_byte_is_an_error(void **state)
{
    struct image i, payload, bz;

    make_plain(&i);
    for (unsigned f = 0; f < array_size(formats); f++) {
        size_t needed;

        payload_compress(formats[f], &i, &payload);
        bzimage_make(&payload, &bz);
        needed = bz.bytes - 32;     /* code behind the payload is not missed */
        for (size_t bytes = 0; bytes < needed; bytes++) {
            struct kernel_image k;
            struct err e;
            void *copy;

            if (!parse_bytes(bz.data, bytes, &k, &e, &copy))
                fail_msg("%s: loaded from %zu of %zu bytes", payload_format_name(formats[f]), bytes,
                         needed);
            assert_true(e.code && e.text[0]);
            assert_null(k.map);
            free(copy);
        }
    }
}

static void truncated_elf_is_an_error_at_any_byte(void **state)
{
    struct image i;

    make_plain(&i);
    for (size_t bytes = 0; bytes < i.bytes; bytes++) {
        struct kernel_image k;
        struct err e;
        void *copy;

        if (!parse_bytes(i.data, bytes, &k, &e, &copy))
            fail_msg("loaded from %zu of %zu bytes", bytes, i.bytes);
        assert_true(e.code && e.text[0]);
        free(copy);
    }
}

static void truncated_payload_is_an_error_at_any_byte(void **state)
{
    struct image i, payload, bz;

    make_plain(&i);
    /* The header is honest about the shorter payload, and the size is appended:
     * only the compressed data themselves can tell. */
    for (unsigned f = 1; f < array_size(formats); f++) {
        payload_compress(formats[f], &i, &payload);
        for (size_t bytes = 8; bytes < payload.bytes; bytes++) {
            struct image cut = payload;
            struct kernel_image k;
            struct err e;
            void *copy;

            cut.bytes = bytes;
            memcpy(cut.data + bytes - 4, payload.data + payload.bytes - 4, 4);
            bzimage_make(&cut, &bz);
            if (!parse_bytes(bz.data, bz.bytes, &k, &e, &copy))
                fail_msg("%s: loaded from %zu of %zu bytes", payload_format_name(formats[f]), bytes,
                         payload.bytes);
            assert_null(k.map);
            free(copy);
        }
    }
}

static void corrupt_payload_never_loads_other_text(void **state)
{
    /* lz4's legacy frame and zstd without checksum do not detect a changed
     * literal; the other formats carry a check value. */
    const enum payload_format checked[] = { PAYLOAD_GZIP, PAYLOAD_XZ };
    struct image i, payload, bz;

    make_plain(&i);
    for (unsigned f = 0; f < array_size(checked); f++) {
        payload_compress(checked[f], &i, &payload);
        for (size_t at = 12; at < payload.bytes - 8; at++) {
            struct image bad = payload;
            struct kernel_image k;
            struct err e;
            void *copy;

            bad.data[at] ^= 0x20;
            bzimage_make(&bad, &bz);
            if (!parse_bytes(bz.data, bz.bytes, &k, &e, &copy)) {
                assert_int_equal(k.elf_bytes, i.bytes);
                if (memcmp(k.elf, i.data, i.bytes))
                    fail_msg("%s: byte %zu changed unseen", payload_format_name(checked[f]), at);
                kernel_image_free(&k);
            }
            free(copy);
        }
    }
}

static void payload_of_another_size_than_declared_is_an_error(void **state)
{
    struct image i, payload, bz;

    make_plain(&i);
    for (unsigned f = 1; f < array_size(formats); f++) {
        for (int delta = -1; delta <= 1; delta += 2) {
            uint32_t declared = (uint32_t)(i.bytes + (size_t)delta);

            payload_compress(formats[f], &i, &payload);
            memcpy(payload.data + payload.bytes - 4, &declared, 4);
            bzimage_make(&payload, &bz);
            assert_refused(&bz, ENOEXEC, payload_format_name(formats[f]));
        }
    }
}

static void absurd_payload_size_is_an_error(void **state)
{
    const uint32_t sizes[] = { 0, (uint32_t)GIB + 1, UINT32_MAX };
    struct image i, payload, bz;

    make_plain(&i);
    payload_compress(PAYLOAD_ZSTD, &i, &payload);
    for (unsigned n = 0; n < array_size(sizes); n++) {
        memcpy(payload.data + payload.bytes - 4, &sizes[n], 4);
        bzimage_make(&payload, &bz);
        assert_refused(&bz, ENOEXEC, "expected 1 to 1073741824");
    }
}

static void bzip2_and_lzo_are_refused_by_name(void **state)
{
    struct image bz, payload = { .data = "BZh91AY&SY........", .bytes = 18 };

    bzimage_make(&payload, &bz);
    assert_refused(&bz, ENOTSUP, "bzip2 payload: expected gzip, xz, lzma, lz4 or zstd");
    memcpy(payload.data, "\x89LZO", 4);
    bzimage_make(&payload, &bz);
    assert_refused(&bz, ENOTSUP, "lzo payload");
}

static void payload_that_is_no_elf_is_an_error(void **state)
{
    struct image text = { .data = "this is not a kernel at all", .bytes = 27 }, payload, bz;

    payload_compress(PAYLOAD_XZ, &text, &payload);
    bzimage_make(&payload, &bz);
    assert_refused(&bz, ENOEXEC, "xz payload does not hold an ELF kernel");
}

static void old_boot_protocol_is_an_error(void **state)
{
    struct image i, payload, bz;

    make_plain(&i);
    payload_compress(PAYLOAD_GZIP, &i, &payload);
    bzimage_make(&payload, &bz);
    bz.data[0x206] = 7;
    assert_refused(&bz, ENOEXEC, "boot protocol 2.07, expected 2.08");
}

static void text_file_is_not_a_kernel(void **state)
{
    struct image i = { .data = "#!/bin/sh\necho hello\n", .bytes = 21 };

    assert_refused(&i, ENOEXEC, "not a kernel: expected a bzImage or an ELF file");
    i.bytes = 0;
    assert_refused(&i, ENOEXEC, "not a kernel");
}

static void kernel_of_32_bits_is_an_error(void **state)
{
    struct image i;

    make_plain(&i);
    i.data[EI_CLASS] = ELFCLASS32;
    assert_refused(&i, ENOEXEC, "32-bit kernel, expected a 64-bit x86 one");
}

static void kernel_of_another_machine_is_an_error(void **state)
{
    struct image i;

    make_plain(&i);
    image_ehdr(&i)->e_machine = EM_AARCH64;
    assert_refused(&i, ENOEXEC, "machine 183");
}

static void object_file_is_an_error(void **state)
{
    struct image i;

    make_plain(&i);
    image_ehdr(&i)->e_type = ET_REL;
    assert_refused(&i, ENOEXEC, "type 1, expected an executable");
}

static void segment_beyond_the_file_is_an_error(void **state)
{
    const uint64_t offsets[] = { IMAGE_BYTES_MAX, UINT64_MAX - 10 };
    struct image i;

    for (unsigned n = 0; n < array_size(offsets); n++) {
        make_plain(&i);
        image_phdr(&i)->p_offset = offsets[n];
        assert_refused(&i, ENOEXEC, "segment 0 lies beyond");
    }
}

static void segment_with_wrapping_address_is_an_error(void **state)
{
    struct image i;

    make_plain(&i);
    image_phdr(&i)->p_paddr = UINT64_MAX - 100;
    assert_refused(&i, ENOEXEC, "segment 0 ends beyond 2^64");
}

static void segment_smaller_than_its_data_is_an_error(void **state)
{
    struct image i;

    make_plain(&i);
    image_phdr(&i)->p_memsz = 10;
    assert_refused(&i, ENOEXEC, "700 bytes in the file and only 10 in memory");
}

static void segment_of_absurd_size_is_an_error(void **state)
{
    struct image i;

    make_plain(&i);
    image_phdr(&i)->p_memsz = 1ull << 40;
    assert_refused(&i, ENOEXEC, "span 1099511627776 bytes");
}

static void program_headers_of_another_size_are_an_error(void **state)
{
    struct image i;

    make_plain(&i);
    image_ehdr(&i)->e_phentsize = 32;
    assert_refused(&i, ENOEXEC, "program headers of 32 bytes");
}

static void entry_outside_the_kernel_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct image i;

    notes_add_common(&n);
    note_add_u64(&n, XEN_ELFNOTE_ENTRY, 0x105000);
    image_make(&i, &shape, &n);
    assert_refused(&i, ENOEXEC, "entry point 0x105000 is not in the kernel");
}

static void hypercall_page_outside_the_kernel_is_an_error(void **state)
{
    const uint64_t pages[] = { 0xff000, 0x105000, 0x101010 };

    for (unsigned p = 0; p < array_size(pages); p++) {
        struct notes n = { 0 };
        struct image i;

        notes_add_common(&n);
        note_add_u64(&n, XEN_ELFNOTE_HYPERCALL_PAGE, pages[p]);
        image_make(&i, &shape, &n);
        assert_refused(&i, ENOEXEC, "is not a page of the kernel");
    }
}

static void segment_below_paddr_offset_is_an_error(void **state)
{
    struct notes n = { 0 };
    struct image i;

    notes_add_common(&n);
    note_add_u64(&n, XEN_ELFNOTE_VIRT_BASE, 0xffffffff80000000);
    note_add_u64(&n, XEN_ELFNOTE_PADDR_OFFSET, 0x200000);
    image_make(&i, &shape, &n);
    assert_refused(&i, ENOEXEC, "expected above VIRT_BASE 0xffffffff80000000");
}

static char *write_file(const char *dir, const void *data, size_t bytes)
{
    static char path[200];
    int fd;

    snprintf(path, sizeof(path), "%s/kernel", dir);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, bytes), (ssize_t)bytes);
    close(fd);
    return path;
}

static void file_is_loaded_and_may_then_be_removed(void **state)
{
    char dir[] = "/tmp/xenolith-test-XXXXXX", *path;
    struct kernel_image k;
    struct err e = { 0 };
    struct image i;

    assert_non_null(mkdtemp(dir));
    make_plain(&i);
    path = write_file(dir, i.data, i.bytes);
    assert_int_equal(kernel_image_load(path, NULL, &k, &e), 0);
    unlink(path);
    rmdir(dir);
    assert_text_loaded(&k);
    assert_string_equal(k.name, path);
    assert_non_null(k.map);
    kernel_image_free(&k);
    kernel_image_free(&k);
}

static void unreadable_files_are_errors_that_name_them(void **state)
{
    char dir[] = "/tmp/xenolith-test-XXXXXX", *path;
    struct kernel_image k;
    struct err e = { 0 };

    assert_non_null(mkdtemp(dir));
    assert_int_equal(kernel_image_load(dir, NULL, &k, &e), -ENOEXEC);
    assert_string_equal(e.file, dir);
    assert_string_equal(e.text, "not a regular file, expected a kernel");

    err_clear(&e);
    path = write_file(dir, "", 0);
    assert_int_equal(kernel_image_load(path, NULL, &k, &e), -ENOEXEC);
    assert_string_equal(e.text, "empty file, expected a kernel");
    unlink(path);

    err_clear(&e);
    assert_int_equal(kernel_image_load(path, NULL, &k, &e), -ENOENT);
    assert_string_equal(e.file, path);
    assert_string_equal(e.text, "cannot open the kernel: No such file or directory");

    err_clear(&e);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(kernel_image_load(path, NULL, &k, &e), -ENOEXEC);
    unlink(path);
    rmdir(dir);
}

static void file_of_absurd_size_is_an_error(void **state)
{
    char dir[] = "/tmp/xenolith-test-XXXXXX", *path;
    struct kernel_image k;
    struct err e = { 0 };

    assert_non_null(mkdtemp(dir));
    path = write_file(dir, "\x7f" "ELF", 4);
    assert_int_equal(truncate(path, (off_t)GIB + 1), 0);
    assert_int_equal(kernel_image_load(path, NULL, &k, &e), -EFBIG);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elf_file_is_loaded),
        cmocka_unit_test(gzip_file_is_loaded),
        cmocka_unit_test(bzimage_is_loaded_in_every_format),
        cmocka_unit_test(truncation_at_any_byte_is_an_error),
        cmocka_unit_test(truncated_elf_is_an_error_at_any_byte),
        cmocka_unit_test(truncated_payload_is_an_error_at_any_byte),
        cmocka_unit_test(corrupt_payload_never_loads_other_text),
        cmocka_unit_test(payload_of_another_size_than_declared_is_an_error),
        cmocka_unit_test(absurd_payload_size_is_an_error),
        cmocka_unit_test(bzip2_and_lzo_are_refused_by_name),
        cmocka_unit_test(payload_that_is_no_elf_is_an_error),
        cmocka_unit_test(old_boot_protocol_is_an_error),
        cmocka_unit_test(text_file_is_not_a_kernel),
        cmocka_unit_test(kernel_of_32_bits_is_an_error),
        cmocka_unit_test(kernel_of_another_machine_is_an_error),
        cmocka_unit_test(object_file_is_an_error),
        cmocka_unit_test(segment_beyond_the_file_is_an_error),
        cmocka_unit_test(segment_with_wrapping_address_is_an_error),
        cmocka_unit_test(segment_smaller_than_its_data_is_an_error),
        cmocka_unit_test(segment_of_absurd_size_is_an_error),
        cmocka_unit_test(program_headers_of_another_size_are_an_error),
        cmocka_unit_test(entry_outside_the_kernel_is_an_error),
        cmocka_unit_test(hypercall_page_outside_the_kernel_is_an_error),
        cmocka_unit_test(segment_below_paddr_offset_is_an_error),
        cmocka_unit_test(file_is_loaded_and_may_then_be_removed),
        cmocka_unit_test(unreadable_files_are_errors_that_name_them),
        cmocka_unit_test(file_of_absurd_size_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
