/* SPDX-License-Identifier: MIT */
/* Memory of another process: where it is found, and what happens when its file is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mem/dirty_log.h"
#include "mem/lost_pages.h"
#include "mem/shared_mem.h"

static int file_make(uint64_t bytes)
{
    int fd = memfd_create("shared", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

static void add(struct shared_mem *m, uint64_t base, uint64_t bytes, uint64_t offset, int fd)
{
    struct err e = { 0 };

    assert_int_equal(shared_mem_add(m, &(struct shared_mem_slot){
        gpa(base), bytes, base + 7 * GIB, offset }, fd, &e), 0);
}

static void addresses_are_found_whatever_the_order(void **state)
{
    struct shared_mem m;
    unsigned hint = 12345;
    int fd = file_make(64 * MIB);

    shared_mem_init(&m);
    for (unsigned i = 0; i < SHARED_MEM_REGIONS_MAX; i++) {
        unsigned k = i * 37 % SHARED_MEM_REGIONS_MAX;

        add(&m, 1 * MIB + k * 64 * KIB, 32 * KIB, k * 32 * KIB, fd);
    }
    for (unsigned k = SHARED_MEM_REGIONS_MAX; k-- > 0;) {
        uint64_t base = 1 * MIB + k * 64 * KIB, len = 8;
        uint8_t *host = shared_mem_ptr(&m, gpa(base + 100), &len, &hint);

        assert_non_null(host);
        assert_int_equal(len, 8);
        *host = (uint8_t)(k + 1);
        assert_ptr_equal(shared_mem_owner_ptr(&m, base + 7 * GIB + 100, 8), host);
        assert_int_equal(shared_mem_gpa(&m, host).v, base + 100);
        len = 100;
        assert_non_null(shared_mem_ptr(&m, gpa(base + 32 * KIB - 1), &len, &hint));
        assert_int_equal(len, 1);
        assert_null(shared_mem_ptr(&m, gpa(base + 32 * KIB), &len, &hint));
        assert_null(shared_mem_ptr(&m, gpa(base - 1), &len, &hint));
        assert_null(shared_mem_owner_ptr(&m, base + 7 * GIB + 32 * KIB - 1, 2));
        assert_null(shared_mem_owner_ptr(&m, base + 7 * GIB, UINT64_MAX));
    }
    for (unsigned k = 0; k < SHARED_MEM_REGIONS_MAX; k++) {
        uint8_t byte;

        assert_int_equal(pread(fd, &byte, 1, (off_t)(k * 32 * KIB + 100)), 1);
        assert_int_equal(byte, (uint8_t)(k + 1));
    }
    shared_mem_free(&m);
    close(fd);
}

static void a_file_offset_need_not_be_a_page(void **state)
{
    struct shared_mem m;
    unsigned hint = 0;
    uint64_t len = 4;
    int fd = file_make(64 * KIB);

    assert_int_equal(pwrite(fd, "here", 4, 5000), 4);
    shared_mem_init(&m);
    add(&m, 1 * MIB, 16 * KIB, 5000, fd);
    assert_memory_equal(shared_mem_ptr(&m, gpa(1 * MIB), &len, &hint), "here", 4);
    shared_mem_free(&m);
    close(fd);
}

static void pages_of_a_cut_file_are_zeroes(void **state)
{
    struct shared_mem m;
    unsigned hint = 0;
    uint64_t len = 1;
    int fd = file_make(64 * KIB);
    volatile uint8_t *host;

    assert_int_equal(lost_pages_replace(), 0);
    shared_mem_init(&m);
    add(&m, 1 * MIB, 64 * KIB, 0, fd);
    host = shared_mem_ptr(&m, gpa(1 * MIB), &len, &hint);
    memset((void *)host, 1, 64 * KIB);
    assert_int_equal(ftruncate(fd, 8 * KIB), 0);
    assert_int_equal(host[8 * KIB - 1], 1);
    assert_int_equal(host[8 * KIB], 0);
    host[40 * KIB] = 5;
    assert_int_equal(host[40 * KIB], 5);
    assert_int_equal(host[63 * KIB], 0);
    shared_mem_free(&m);
    close(fd);
}

static void a_log_has_a_bit_for_each_page(void **state)
{
    struct dirty_log log = { 0 };
    struct err e = { 0 };
    int fd = file_make(2 * PAGE_SIZE);
    uint8_t bytes[16];

    assert_int_equal(dirty_log_open(&log, fd, 4096, 4097, &e), -EINVAL);
    e = (struct err){ 0 };
    assert_int_equal(dirty_log_open(&log, fd, UINT64_MAX, 2, &e), -EINVAL);
    dirty_log_mark(&log, gpa(0), 1);            /* none yet */
    e = (struct err){ 0 };
    assert_int_equal(dirty_log_open(&log, fd, 4090, 16, &e), 0);
    dirty_log_mark(&log, gpa(0), 1);
    dirty_log_mark(&log, gpa(9 * PAGE_SIZE - 1), 2);
    dirty_log_mark(&log, gpa(127 * PAGE_SIZE), 100 * PAGE_SIZE);
    dirty_log_mark(&log, gpa(UINT64_MAX - 10), 100);
    dirty_log_mark(&log, gpa(5 * PAGE_SIZE), 0);
    assert_int_equal(pread(fd, bytes, sizeof(bytes), 4090), sizeof(bytes));
    assert_memory_equal(bytes, ((uint8_t[16]){ [0] = 1, [1] = 3, [15] = 0x80 }), sizeof(bytes));
    dirty_log_close(&log);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_found_whatever_the_order),
        cmocka_unit_test(a_file_offset_need_not_be_a_page),
        cmocka_unit_test(pages_of_a_cut_file_are_zeroes),
        cmocka_unit_test(a_log_has_a_bit_for_each_page),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
