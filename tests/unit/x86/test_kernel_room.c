/* SPDX-License-Identifier: MIT */
/* A compressed kernel that is expanded in the guest's RAM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "elf_image.h"
#include "x86/kernel_image.h"

#define ROOM_BYTES (64 * KIB)
#define PADDR      0x4000u
#define TEXT_BYTES 700u
#define HALF       350u

static const enum payload_format formats[] = {
    PAYLOAD_GZIP, PAYLOAD_XZ, PAYLOAD_LZMA, PAYLOAD_LZ4, PAYLOAD_ZSTD,
};

struct world {
    struct image elf, payload, bz;
    struct kernel_room room;
    struct kernel_image k;
    struct err e;
    unsigned nr_expected;
    uint64_t offset, bytes;     /* of the last expectation */
};

static void expected(void *arg, uint64_t offset, uint64_t bytes)
{
    struct world *w = arg;

    w->nr_expected++;
    w->offset = offset;
    w->bytes = bytes;
}

static void world_make(struct world *w)
{
    static const struct image_shape shape = {
        .paddr = PADDR, .text_bytes = TEXT_BYTES, .mem_bytes = 0x3000, .entry = PADDR,
        .place = NOTES_IN_SECTION,
    };
    struct notes n = { 0 };

    memset(w, 0, sizeof(*w));
    notes_add_common(&n);
    image_make(&w->elf, &shape, &n);
    w->room = (struct kernel_room){ .ram = calloc(1, ROOM_BYTES), .bytes = ROOM_BYTES,
                                    .expect = expected, .arg = w };
}

/* The text becomes two segments of half of it each, at these addresses. */
static void world_split(struct world *w, uint64_t first, uint64_t second)
{
    Elf64_Phdr *ph = image_phdr(&w->elf);

    ph[0].p_filesz = HALF;
    ph[0].p_memsz = HALF;
    ph[1] = ph[0];
    ph[0].p_paddr = first;
    ph[1].p_offset += HALF;
    ph[1].p_paddr = second;
    ph[1].p_memsz = 0x1000;
    image_ehdr(&w->elf)->e_phnum = 2;
    image_ehdr(&w->elf)->e_entry = first;
}

static int world_load(struct world *w, enum payload_format f)
{
    payload_compress(f, &w->elf, &w->payload);
    bzimage_make(&w->payload, &w->bz);
    return kernel_image_parse(w->bz.data, w->bz.bytes, "the-kernel", &w->room, &w->k, &w->e);
}

static void world_end(struct world *w)
{
    kernel_image_free(&w->k);
    free(w->room.ram);
}

static void assert_room_clear(const struct world *w)
{
    for (uint64_t i = 0; i < ROOM_BYTES; i++)
        assert_int_equal(w->room.ram[i], 0);
}

/* All of the text is in these two places, and nothing anywhere else. */
static void assert_placed(struct world *w, uint64_t first, uint64_t second)
{
    kernel_image_place(&w->k, w->room.ram);
    for (unsigned i = 0; i < TEXT_BYTES; i++) {
        uint8_t *at = w->room.ram + (i < HALF ? first + i : second + i - HALF);

        assert_int_equal(*at, image_text_byte(i));
        *at = 0;
    }
    assert_room_clear(w);
}

static void it_is_expanded_where_it_belongs(void **state)
{
    for (unsigned f = 0; f < array_size(formats); f++) {
        struct world w;

        world_make(&w);
        assert_int_equal(world_load(&w, formats[f]), 0);
        assert_true(w.k.in_room);
        assert_null(w.k.map);
        assert_ptr_equal(w.k.segment[0].data, w.room.ram + PADDR);
        assert_int_equal(w.nr_expected, 1);
        assert_int_equal(w.offset, PADDR - image_phdr(&w.elf)->p_offset);
        assert_int_equal(w.bytes, w.elf.bytes);
        assert_placed(&w, PADDR, PADDR + HALF);
        world_end(&w);
    }
}

static void segments_move_down_to_their_places(void **state)
{
    struct world w;

    /* further apart in memory than in the file: the first moves, by less than its size */
    world_make(&w);
    world_split(&w, PADDR, PADDR + 0x200);
    assert_int_equal(world_load(&w, PAYLOAD_LZ4), 0);
    assert_true(w.k.in_room);
    assert_ptr_equal(w.k.segment[1].data, w.room.ram + PADDR + 0x200);
    assert_placed(&w, PADDR, PADDR + 0x200);
    world_end(&w);
}

static void one_that_cannot_be_moved_leaves_the_room(void **state)
{
    struct world w;

    /* the order in memory is not that of the file */
    world_make(&w);
    world_split(&w, PADDR + 0x1000, PADDR);
    assert_int_equal(world_load(&w, PAYLOAD_LZ4), 0);
    assert_int_equal(w.nr_expected, 1);
    assert_false(w.k.in_room);
    assert_non_null(w.k.map);
    assert_room_clear(&w);
    assert_placed(&w, PADDR + 0x1000, PADDR);
    world_end(&w);
}

static void a_room_too_small_is_not_used(void **state)
{
    struct world w;
    uint64_t needed;

    world_make(&w);
    needed = PADDR - image_phdr(&w.elf)->p_offset + w.elf.bytes;
    w.room.bytes = needed - 1;
    assert_int_equal(world_load(&w, PAYLOAD_GZIP), 0);
    assert_int_equal(w.nr_expected, 0);
    assert_false(w.k.in_room);
    assert_room_clear(&w);
    assert_placed(&w, PADDR, PADDR + HALF);
    kernel_image_free(&w.k);

    w.room.bytes = needed;
    assert_int_equal(world_load(&w, PAYLOAD_GZIP), 0);
    assert_true(w.k.in_room);
    world_end(&w);
}

static void headers_that_lie_choose_no_place_outside(void **state)
{
    static const uint64_t paddr[] = { ROOM_BYTES, UINT64_MAX - 0x2fff, (uint64_t)1 << 63 };

    for (unsigned i = 0; i < array_size(paddr); i++) {
        struct world w;

        world_make(&w);
        image_phdr(&w.elf)->p_paddr = paddr[i];
        world_load(&w, PAYLOAD_ZSTD);
        assert_false(w.k.in_room);
        assert_room_clear(&w);
        world_end(&w);
    }
}

static void a_kernel_that_is_not_compressed_is_used_where_it_is(void **state)
{
    struct world w;

    world_make(&w);
    assert_int_equal(kernel_image_parse(w.elf.data, w.elf.bytes, "the-kernel", &w.room, &w.k,
                                        &w.e), 0);
    assert_int_equal(w.nr_expected, 0);
    assert_false(w.k.in_room);
    assert_room_clear(&w);
    assert_placed(&w, PADDR, PADDR + HALF);
    world_end(&w);
}

static void a_corrupt_payload_is_told_in_the_room_too(void **state)
{
    struct world w;

    for (unsigned f = 0; f < array_size(formats); f++) {
        world_make(&w);
        payload_compress(formats[f], &w.elf, &w.payload);
        w.payload.data[w.payload.bytes - 4]++;      /* the size */
        bzimage_make(&w.payload, &w.bz);
        assert_int_equal(kernel_image_parse(w.bz.data, w.bz.bytes, "the-kernel", &w.room, &w.k,
                                            &w.e), -ENOEXEC);
        assert_string_equal(w.e.file, "the-kernel");
        world_end(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_expanded_where_it_belongs),
        cmocka_unit_test(segments_move_down_to_their_places),
        cmocka_unit_test(one_that_cannot_be_moved_leaves_the_room),
        cmocka_unit_test(a_room_too_small_is_not_used),
        cmocka_unit_test(headers_that_lie_choose_no_place_outside),
        cmocka_unit_test(a_kernel_that_is_not_compressed_is_used_where_it_is),
        cmocka_unit_test(a_corrupt_payload_is_told_in_the_room_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
