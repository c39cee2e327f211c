/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mem/guest_mem.h"

/* Two adjacent regions, a hole, and a third:
 * 16 MiB +2 pages | +1 page | hole of 1 page | +1 page */
#define BASE (16 * MIB)

static int add(struct guest_mem *m, uint64_t base, uint64_t size_bytes)
{
    struct err e = { 0 };
    int ret = guest_mem_add(m, gpa(base), size_bytes, "test", false, &e);

    assert_int_equal(ret, -e.code);
    if (ret < 0)
        assert_true(e.text[0] != '\0');
    return ret;
}

static int setup(void **state)
{
    static struct guest_mem m;

    guest_mem_init(&m);
    assert_int_equal(add(&m, BASE, 2 * PAGE_SIZE), 0);
    assert_int_equal(add(&m, BASE + 2 * PAGE_SIZE, PAGE_SIZE), 0);
    assert_int_equal(add(&m, BASE + 4 * PAGE_SIZE, PAGE_SIZE), 0);
    *state = &m;
    return 0;
}

static int teardown(void **state)
{
    guest_mem_free(*state);
    return 0;
}

static void test_new_memory_is_zero(void **state)
{
    struct guest_mem *m = *state;
    const uint8_t *p = guest_mem_ptr(m, gpa(BASE), 2 * PAGE_SIZE);

    assert_non_null(p);
    for (size_t i = 0; i < 2 * PAGE_SIZE; i++)
        assert_int_equal(p[i], 0);
}

static void test_overlaps_are_refused(void **state)
{
    struct guest_mem *m = *state;
    unsigned before = m->nr_regions;

    assert_int_equal(add(m, BASE, PAGE_SIZE), -EEXIST);
    assert_int_equal(add(m, BASE + PAGE_SIZE, PAGE_SIZE), -EEXIST);
    assert_int_equal(add(m, BASE - PAGE_SIZE, 2 * PAGE_SIZE), -EEXIST);
    assert_int_equal(add(m, BASE - PAGE_SIZE, 64 * PAGE_SIZE), -EEXIST);
    assert_int_equal(add(m, BASE + 3 * PAGE_SIZE, 2 * PAGE_SIZE), -EEXIST);
    assert_int_equal(m->nr_regions, before);
}

static void test_neighbours_are_accepted(void **state)
{
    struct guest_mem *m = *state;

    assert_int_equal(add(m, BASE - PAGE_SIZE, PAGE_SIZE), 0);
    assert_int_equal(add(m, BASE + 3 * PAGE_SIZE, PAGE_SIZE), 0);
    assert_int_equal(add(m, BASE + 5 * PAGE_SIZE, PAGE_SIZE), 0);
}

static void test_partial_pages_are_refused(void **state)
{
    struct guest_mem *m = *state;

    assert_int_equal(add(m, GIB, 0), -EINVAL);
    assert_int_equal(add(m, GIB, PAGE_SIZE + 1), -EINVAL);
    assert_int_equal(add(m, GIB + 8, PAGE_SIZE), -EINVAL);
}

static void test_addresses_beyond_52_bits_are_refused(void **state)
{
    struct guest_mem *m = *state;

    assert_int_equal(add(m, ((uint64_t)1 << 52) - PAGE_SIZE, 2 * PAGE_SIZE), -ERANGE);
    assert_int_equal(add(m, UINT64_MAX & ~PAGE_MASK, 2 * PAGE_SIZE), -ERANGE);
    assert_int_equal(add(m, PAGE_SIZE, UINT64_MAX & ~PAGE_MASK), -ERANGE);
}

static unsigned nr_open_fds(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 256; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void test_memory_the_host_cannot_map_leaves_nothing_behind(void **state)
{
    struct guest_mem *m = *state;
    unsigned before = nr_open_fds();

    /* more than the 47 bits a process has */
    assert_true(add(m, GIB, (uint64_t)1 << 51) < 0);
    assert_int_equal(nr_open_fds(), before);
    assert_int_equal(m->nr_regions, 3);
}

static void test_a_ninth_region_is_refused(void **state)
{
    struct guest_mem *m = *state;

    while (m->nr_regions < GUEST_MEM_REGIONS_MAX)
        assert_int_equal(add(m, GIB + m->nr_regions * PAGE_SIZE, PAGE_SIZE), 0);
    assert_int_equal(add(m, 2 * GIB, PAGE_SIZE), -ENOSPC);
}

static void test_ptr_covers_exactly_the_region(void **state)
{
    struct guest_mem *m = *state;
    uint8_t *p = guest_mem_ptr(m, gpa(BASE), 1);

    assert_non_null(p);
    assert_ptr_equal(guest_mem_ptr(m, gpa(BASE + 2 * PAGE_SIZE - 1), 1), p + 2 * PAGE_SIZE - 1);
    assert_ptr_equal(guest_mem_ptr(m, gpa(BASE + 100), 2 * PAGE_SIZE - 100), p + 100);
    assert_null(guest_mem_ptr(m, gpa(BASE + 100), 2 * PAGE_SIZE - 99));
    assert_null(guest_mem_ptr(m, gpa(BASE - 1), 1));
    assert_null(guest_mem_ptr(m, gpa(BASE + 3 * PAGE_SIZE), 1));
    assert_null(guest_mem_ptr(m, gpa(BASE + 3 * PAGE_SIZE), 0));
    assert_null(guest_mem_ptr(m, gpa(0), 1));
}

static void test_ptr_refuses_lengths_that_wrap(void **state)
{
    struct guest_mem *m = *state;

    assert_null(guest_mem_ptr(m, gpa(BASE + 8), UINT64_MAX));
    assert_null(guest_mem_ptr(m, gpa(BASE + 8), UINT64_MAX - BASE));
    assert_null(guest_mem_ptr(m, gpa(BASE + 8), UINT64_MAX - BASE - 7));
    assert_null(guest_mem_ptr(m, gpa(UINT64_MAX), 2));
}

static void test_ptr_refuses_ranges_over_two_regions(void **state)
{
    struct guest_mem *m = *state;

    assert_null(guest_mem_ptr(m, gpa(BASE + 2 * PAGE_SIZE - 4), 8));
}

static void test_copies_cross_adjacent_regions(void **state)
{
    struct guest_mem *m = *state;
    uint64_t a = BASE + 2 * PAGE_SIZE - 5;
    char back[12] = "";

    assert_int_equal(guest_mem_write(m, gpa(a), "hello world", 12), 0);
    assert_memory_equal(guest_mem_ptr(m, gpa(a), 5), "hello", 5);
    assert_memory_equal(guest_mem_ptr(m, gpa(a + 5), 7), " world", 7);
    assert_int_equal(guest_mem_read(m, gpa(a), back, 12), 0);
    assert_string_equal(back, "hello world");
}

static void test_copy_into_a_hole_copies_nothing(void **state)
{
    struct guest_mem *m = *state;
    uint64_t a = BASE + 3 * PAGE_SIZE - 4;
    uint8_t buf[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    const uint8_t zero[4] = { 0 };

    assert_int_equal(guest_mem_write(m, gpa(a), buf, 8), -EFAULT);
    assert_memory_equal(guest_mem_ptr(m, gpa(a), 4), zero, 4);
    assert_int_equal(guest_mem_read(m, gpa(a), buf, 8), -EFAULT);
    assert_int_equal(buf[0], 1);
}

static void test_copies_refuse_lengths_that_wrap(void **state)
{
    struct guest_mem *m = *state;
    uint8_t buf[8] = { 0 };

    assert_int_equal(guest_mem_read(m, gpa(BASE), buf, UINT64_MAX), -EFAULT);
    assert_int_equal(guest_mem_read(m, gpa(BASE), buf, UINT64_MAX - BASE + 1), -EFAULT);
    assert_int_equal(guest_mem_write(m, gpa(UINT64_MAX - 3), buf, 8), -EFAULT);
}

static void test_empty_copies_succeed_anywhere(void **state)
{
    struct guest_mem *m = *state;

    assert_int_equal(guest_mem_read(m, gpa(0), NULL, 0), 0);
    assert_int_equal(guest_mem_write(m, gpa(BASE), NULL, 0), 0);
}

static void test_memfd_shows_the_same_memory(void **state)
{
    struct guest_mem *m = *state;
    char back[4] = "";

    assert_int_equal(guest_mem_write(m, gpa(BASE + 16), "abc", 4), 0);
    assert_int_equal(pread(m->region[0].memfd, back, 4, 16), 4);
    assert_string_equal(back, "abc");
}

static void test_memfd_cannot_be_shrunk(void **state)
{
    struct guest_mem *m = *state;
    struct stat st;

    assert_int_equal(ftruncate(m->region[0].memfd, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(fstat(m->region[0].memfd, &st), 0);
    assert_int_equal(st.st_size, 2 * PAGE_SIZE);
}

static void test_memory_is_populated_lazily(void **state)
{
    struct guest_mem *m = *state;
    struct err e = { 0 };
    struct stat st;

    assert_int_equal(guest_mem_add(m, gpa(4 * GIB), 64 * GIB, "large", true, &e), 0);
    assert_int_equal(fstat(m->region[3].memfd, &st), 0);
    assert_int_equal(st.st_blocks, 0);
}

static void test_host_address_suits_huge_pages(void **state)
{
    struct guest_mem *m = *state;

    assert_int_equal(add(m, 4 * GIB, 4 * MIB), 0);
    assert_int_equal(add(m, 8 * GIB + 5 * PAGE_SIZE, 4 * MIB), 0);
    assert_int_equal((uintptr_t)m->region[3].host % (2 * MIB), 0);
    assert_int_equal((uintptr_t)m->region[4].host % (2 * MIB), 5 * PAGE_SIZE);
}

static void test_free_closes_and_unmaps(void **state)
{
    struct guest_mem *m = *state;
    struct guest_mem_region r = m->region[0];

    guest_mem_free(m);
    assert_int_equal(m->nr_regions, 0);
    assert_int_equal(fcntl(r.memfd, F_GETFD), -1);
    assert_int_equal(msync(r.host, r.size_bytes, MS_ASYNC), -1);
    assert_int_equal(errno, ENOMEM);
    assert_null(guest_mem_ptr(m, gpa(BASE), 1));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_new_memory_is_zero),
        T(test_overlaps_are_refused),
        T(test_neighbours_are_accepted),
        T(test_partial_pages_are_refused),
        T(test_addresses_beyond_52_bits_are_refused),
        T(test_memory_the_host_cannot_map_leaves_nothing_behind),
        T(test_a_ninth_region_is_refused),
        T(test_ptr_covers_exactly_the_region),
        T(test_ptr_refuses_lengths_that_wrap),
        T(test_ptr_refuses_ranges_over_two_regions),
        T(test_copies_cross_adjacent_regions),
        T(test_copy_into_a_hole_copies_nothing),
        T(test_copies_refuse_lengths_that_wrap),
        T(test_empty_copies_succeed_anywhere),
        T(test_memfd_shows_the_same_memory),
        T(test_memfd_cannot_be_shrunk),
        T(test_memory_is_populated_lazily),
        T(test_host_address_suits_huge_pages),
        T(test_free_closes_and_unmaps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
