/* SPDX-License-Identifier: MIT */
/* The archive is read back by a reader that knows only the format's description,
 * so that writer and test cannot share a mistake. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cmd/lab_cpio.h"

enum field { F_INO, F_MODE, F_UID, F_GID, F_NLINK, F_MTIME, F_FILESIZE, F_DEVMAJOR,
             F_DEVMINOR, F_RDEVMAJOR, F_RDEVMINOR, F_NAMESIZE, F_CHECK, NR_FIELDS };

struct entry {
    unsigned long fields[NR_FIELDS];
    const char *name;
    const uint8_t *data;
};

/* Reads the entry at *at and moves *at behind it. */
static void entry_read(const struct lab_cpio *c, size_t *at, struct entry *e)
{
    char digits[9] = "";
    int i;

    assert_true(*at % 4 == 0);
    assert_true(*at + 110 <= c->size_bytes);
    assert_memory_equal(c->data + *at, "070701", 6);
    for (i = 0; i < NR_FIELDS; i++) {
        char *end;

        memcpy(digits, c->data + *at + 6 + 8 * i, 8);
        e->fields[i] = strtoul(digits, &end, 16);
        assert_int_equal(*end, '\0');
    }
    e->name = (const char *)c->data + *at + 110;
    assert_int_equal(strlen(e->name) + 1, e->fields[F_NAMESIZE]);
    *at = (*at + 110 + e->fields[F_NAMESIZE] + 3) & ~3ul;
    e->data = c->data + *at;
    *at = (*at + e->fields[F_FILESIZE] + 3) & ~3ul;
    assert_true(*at <= c->size_bytes);
}

static void the_trailer_is_last_and_ends_the_archive(void **state)
{
    struct lab_cpio c;
    struct entry e;
    size_t at = 0;

    lab_cpio_init(&c);
    assert_int_equal(lab_cpio_finish(&c), 0);
    entry_read(&c, &at, &e);
    assert_string_equal(e.name, "TRAILER!!!");
    assert_int_equal(e.fields[F_FILESIZE], 0);
    assert_int_equal(at, c.size_bytes);
    lab_cpio_free(&c);
}

static void contents_of_every_length_are_kept_and_padded(void **state)
{
    uint8_t data[9];
    struct lab_cpio c;
    struct entry e;
    size_t n, at = 0;

    memset(data, 0xa5, sizeof(data));
    lab_cpio_init(&c);
    for (n = 0; n <= sizeof(data); n++)
        lab_cpio_add_file(&c, &"name+pad"[n % 4], 0640, data, n);
    assert_int_equal(lab_cpio_finish(&c), 0);
    for (n = 0; n <= sizeof(data); n++) {
        entry_read(&c, &at, &e);
        assert_string_equal(e.name, &"name+pad"[n % 4]);
        assert_int_equal(e.fields[F_FILESIZE], n);
        assert_memory_equal(e.data, data, n);
        assert_int_equal(e.fields[F_MODE], S_IFREG | 0640);
        assert_int_equal(e.fields[F_NLINK], 1);
    }
    entry_read(&c, &at, &e);
    assert_string_equal(e.name, "TRAILER!!!");
    lab_cpio_free(&c);
}

static void folders_and_devices_have_their_kind_and_number(void **state)
{
    struct lab_cpio c;
    struct entry e;
    size_t at = 0;

    lab_cpio_init(&c);
    lab_cpio_add_dir(&c, "dev", 0755);
    lab_cpio_add_char_device(&c, "dev/console", 0600, 5, 1);
    assert_int_equal(lab_cpio_finish(&c), 0);
    entry_read(&c, &at, &e);
    assert_int_equal(e.fields[F_MODE], S_IFDIR | 0755);
    entry_read(&c, &at, &e);
    assert_int_equal(e.fields[F_MODE], S_IFCHR | 0600);
    assert_int_equal(e.fields[F_RDEVMAJOR], 5);
    assert_int_equal(e.fields[F_RDEVMINOR], 1);
    lab_cpio_free(&c);
}

/* Equal inode numbers would make the kernel take entries for hard links. */
static void inode_numbers_differ(void **state)
{
    struct lab_cpio c;
    struct entry a, b;
    size_t at = 0;

    lab_cpio_init(&c);
    lab_cpio_add_file(&c, "a", 0644, "1", 1);
    lab_cpio_add_file(&c, "b", 0644, "2", 1);
    assert_int_equal(lab_cpio_finish(&c), 0);
    entry_read(&c, &at, &a);
    entry_read(&c, &at, &b);
    assert_int_not_equal(a.fields[F_INO], b.fields[F_INO]);
    lab_cpio_free(&c);
}

static void equal_input_gives_equal_bytes(void **state)
{
    struct lab_cpio c[2];
    int i;

    for (i = 0; i < 2; i++) {
        lab_cpio_init(&c[i]);
        lab_cpio_add_dir(&c[i], "d", 0700);
        lab_cpio_add_file(&c[i], "d/f", 0600, "text", 4);
        assert_int_equal(lab_cpio_finish(&c[i]), 0);
    }
    assert_int_equal(c[0].size_bytes, c[1].size_bytes);
    assert_memory_equal(c[0].data, c[1].data, c[0].size_bytes);
    lab_cpio_free(&c[0]);
    lab_cpio_free(&c[1]);
}

static void a_file_larger_than_the_format_can_say_is_refused(void **state)
{
    struct lab_cpio c;

    lab_cpio_init(&c);
    lab_cpio_add_file(&c, "huge", 0644, "", (size_t)UINT32_MAX + 1);
    lab_cpio_add_file(&c, "small", 0644, "", 0);
    assert_int_equal(lab_cpio_finish(&c), -EFBIG);
    lab_cpio_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_trailer_is_last_and_ends_the_archive),
        cmocka_unit_test(contents_of_every_length_are_kept_and_padded),
        cmocka_unit_test(folders_and_devices_have_their_kind_and_number),
        cmocka_unit_test(inode_numbers_differ),
        cmocka_unit_test(equal_input_gives_equal_bytes),
        cmocka_unit_test(a_file_larger_than_the_format_can_say_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
