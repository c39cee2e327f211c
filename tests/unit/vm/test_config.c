/* SPDX-License-Identifier: MIT */
/* What the corpus cannot show: files, words, uuids, limits, the table of keys. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "stderr_capture.h"
#include "vm/config.h"
#include "vm/config_keys.h"
#include "vm/config_uuid.h"
#include "vm/xlcfg.h"

#define MINIMAL "name='g'; kernel='/k'; memory=64\n"

static int parse(const char *text, struct vm_config **c, struct err *e)
{
    return vm_config_parse(text, strlen(text), "f", NULL, 0, c, e);
}

/* A temporary file with this text; the caller unlinks and frees the path. */
static char *file_with(const char *text, size_t len)
{
    char *path = strdup("/tmp/xenolith-test-config-XXXXXX");
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    close(fd);
    return path;
}

static void a_file_and_words_are_read_in_turn(void **state)
{
    char *path = file_with(MINIMAL, strlen(MINIMAL));
    char *words[] = { "memory=128", "vcpus=2" };
    struct vm_config *c = NULL;
    struct err e = { .code = 0 };

    assert_int_equal(vm_config_read(path, words, 2, &c, &e), 0);
    assert_string_equal(c->file, path);
    assert_true(c->memory_bytes == 128 * MIB);
    assert_int_equal(c->vcpus, 2);
    vm_config_free(c);
    unlink(path);
    free(path);
}

static void words_alone_make_a_guest(void **state)
{
    char *words[] = { "name='g'", "kernel='/k'", "memory=64" };
    struct vm_config *c = NULL;
    struct err e = { .code = 0 };

    assert_int_equal(vm_config_read(NULL, words, 3, &c, &e), 0);
    assert_string_equal(c->file, "command line");
    assert_string_equal(c->kernel, "/k");
    vm_config_free(c);
}

static void an_unreadable_file_is_named(void **state)
{
    static const struct { const char *file; int code; const char *part; } t[] = {
        { "/nonexistent/x.cfg", ENOENT, "unable to open configuration file" },
        { "/", EISDIR, "unable to read configuration file" },
        { "/dev/zero", E2BIG, "larger than" },
        { "", ENOENT, "unable to open" },
    };

    for (unsigned i = 0; i < array_size(t); i++) {
        struct vm_config *c = (struct vm_config *)&c;
        struct err e = { .code = 0 };

        assert_int_equal(vm_config_read(t[i].file, NULL, 0, &c, &e), -t[i].code);
        assert_string_equal(e.file, t[i].file);
        assert_int_equal(e.line, 0);
        assert_non_null(strstr(e.text, t[i].part));
        assert_ptr_equal(c, &c);        /* untouched */
    }
}

static void standard_input_is_a_dash(void **state)
{
    char *path = file_with(MINIMAL, strlen(MINIMAL));
    struct vm_config *c = NULL;
    struct err e = { .code = 0 };

    assert_non_null(freopen(path, "r", stdin));
    assert_int_equal(vm_config_read("-", NULL, 0, &c, &e), 0);
    assert_string_equal(c->file, "-");
    vm_config_free(c);
    unlink(path);
    free(path);
}

static void random_uuids_differ_and_are_version_4(void **state)
{
    struct vm_config *a = NULL, *b = NULL;
    struct err e = { .code = 0 };

    assert_int_equal(parse(MINIMAL, &a, &e), 0);
    assert_int_equal(parse(MINIMAL, &b, &e), 0);
    assert_memory_not_equal(a->uuid, b->uuid, VM_UUID_BYTES);
    assert_int_equal(a->uuid[6] >> 4, 4);
    assert_int_equal(a->uuid[8] >> 6, 2);
    vm_config_free(a);
    vm_config_free(b);
}

static void uuids_survive_parse_and_format(void **state)
{
    uint8_t uuid[VM_UUID_BYTES];
    char text[VM_UUID_TEXT_BYTES];

    assert_int_equal(vm_uuid_parse("01234567-89AB-cdef-FEDC-ba9876543210", uuid), 0);
    assert_int_equal(uuid[0], 0x01);
    assert_int_equal(uuid[15], 0x10);
    assert_string_equal(vm_uuid_format(uuid, text), "01234567-89ab-cdef-fedc-ba9876543210");
}

static void bad_uuids_are_refused_and_nothing_is_written(void **state)
{
    static const char *const t[] = {
        "", "0", "01234567", "0123456789abcdeffedcba9876543210",
        "01234567-89ab-cdef-fedc-ba987654321", "01234567-89ab-cdef-fedc-ba98765432100",
        "01234567-89ab-cdef-fedc-ba98765432g0", "01234567+89ab-cdef-fedc-ba9876543210",
        " 1234567-89ab-cdef-fedc-ba9876543210", "01234567-89ab-cdef-fedc-",
    };
    uint8_t uuid[VM_UUID_BYTES], before[VM_UUID_BYTES];

    memset(uuid, 0x5a, sizeof(uuid));
    memcpy(before, uuid, sizeof(uuid));
    for (unsigned i = 0; i < array_size(t); i++) {
        assert_int_equal(vm_uuid_parse(t[i], uuid), -EINVAL);
        assert_memory_equal(uuid, before, sizeof(uuid));
    }
}

static void memory_and_vcpus_reach_their_limits(void **state)
{
    struct vm_config *c = NULL;
    struct err e = { .code = 0 };

    assert_int_equal(parse(MINIMAL "memory=32; maxmem=16777216; vcpus=1; maxvcpus=64", &c, &e), 0);
    assert_true(c->memory_bytes == VM_MEMORY_MIN_BYTES);
    assert_true(c->maxmem_bytes == VM_MEMORY_MAX_BYTES);
    assert_int_equal(c->vcpus, 1);
    assert_int_equal(c->maxvcpus, VM_VCPUS_MAX);
    vm_config_free(c);
}

static void the_number_of_disks_is_limited(void **state)
{
    char text[16384];

    for (unsigned nr = VM_DISKS_MAX; nr <= VM_DISKS_MAX + 1; nr++) {
        struct vm_config *c = NULL;
        struct err e = { .code = 0 };
        char *at = text + sprintf(text, MINIMAL "disk=[");

        for (unsigned i = 0; i < nr; i++)
            at += sprintf(at, "'/a,,d%u',", i);
        strcpy(at, "]");
        assert_int_equal(parse(text, &c, &e), nr > VM_DISKS_MAX ? -E2BIG : 0);
        if (c)
            assert_int_equal(c->nr_disks, nr);
        vm_config_free(c);
    }
}

static void a_path_that_does_not_fit_is_refused(void **state)
{
    char text[8192] = MINIMAL "disk=['vdev=xvda,target=/";
    struct vm_config *c = NULL;
    struct err e = { .code = 0 };
    size_t at = strlen(text);

    memset(text + at, 'p', 5000);
    strcpy(text + at + 5000, "']");
    assert_int_equal(parse(text, &c, &e), -ENAMETOOLONG);
    assert_string_equal(e.field, "disk");
    assert_int_equal(e.line, 2);
}

static void names_of_all_allowed_characters_pass(void **state)
{
    static const char *const good[] = { "a", "_x", "9lives", "Debian-12.amd64:test+1@host" };
    static const char *const bad[] = { ".hidden", "a b", "a/b", "a\\nb", "\\xc3\\xa9", "+", "007" };
    char text[256];

    for (unsigned i = 0; i < array_size(good); i++) {
        struct vm_config *c = NULL;
        struct err e = { .code = 0 };

        snprintf(text, sizeof(text), MINIMAL "name='%s'", good[i]);
        assert_int_equal(parse(text, &c, &e), 0);
        assert_string_equal(c->name, good[i]);
        vm_config_free(c);
    }
    for (unsigned i = 0; i < array_size(bad); i++) {
        struct vm_config *c = NULL;
        struct err e = { .code = 0 };

        snprintf(text, sizeof(text), MINIMAL "name='%s'", bad[i]);
        assert_int_equal(parse(text, &c, &e), -EINVAL);
        assert_string_equal(e.field, "name");
        assert_int_equal(e.line, 2);
    }
}

static void messages_hold_no_control_characters(void **state)
{
    struct vm_config *c = NULL;
    struct err e = { .code = 0 };

    assert_int_equal(parse(MINIMAL "uuid='\\x1b[2J\\x7f'", &c, &e), -EINVAL);
    assert_string_equal(e.text, "Failed to parse UUID: ?[2J?");
}

static void honoured_keys_give_no_warning(void **state)
{
    static const char text[] =
        MINIMAL "type='pv';ramdisk='/r';root='/dev/xvda';extra='ro';maxmem=64;vcpus=1;maxvcpus=1;"
        "disk=[];uuid='01234567-89ab-cdef-fedc-ba9876543210';on_poweroff='destroy';"
        "on_reboot='restart';on_crash='destroy';on_watchdog='destroy';on_soft_reset='soft-reset';"
        "ring='auto';max_queues=0;builder='generic'";
    struct stderr_capture capture;
    struct vm_config *c = NULL;
    struct err e = { .code = 0 };
    char *warnings;
    int rc;

    stderr_capture_start(&capture);
    rc = parse(text, &c, &e);
    warnings = stderr_capture_stop(&capture);
    assert_int_equal(rc, 0);
    assert_string_equal(warnings, "");
    free(warnings);
    vm_config_free(c);
}

static void keys_are_told_apart(void **state)
{
    assert_int_equal(vm_config_key_find("memory"), VM_CONFIG_KEY_HONOURED);
    assert_int_equal(vm_config_key_find("vif"), VM_CONFIG_KEY_IGNORED);
    assert_int_equal(vm_config_key_find("memor"), VM_CONFIG_KEY_UNKNOWN);
    assert_int_equal(vm_config_key_find("memoryy"), VM_CONFIG_KEY_UNKNOWN);
    assert_int_equal(vm_config_key_find(""), VM_CONFIG_KEY_UNKNOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_and_words_are_read_in_turn),
        cmocka_unit_test(words_alone_make_a_guest),
        cmocka_unit_test(an_unreadable_file_is_named),
        cmocka_unit_test(standard_input_is_a_dash),
        cmocka_unit_test(random_uuids_differ_and_are_version_4),
        cmocka_unit_test(uuids_survive_parse_and_format),
        cmocka_unit_test(bad_uuids_are_refused_and_nothing_is_written),
        cmocka_unit_test(memory_and_vcpus_reach_their_limits),
        cmocka_unit_test(the_number_of_disks_is_limited),
        cmocka_unit_test(a_path_that_does_not_fit_is_refused),
        cmocka_unit_test(names_of_all_allowed_characters_pass),
        cmocka_unit_test(messages_hold_no_control_characters),
        cmocka_unit_test(honoured_keys_give_no_warning),
        cmocka_unit_test(keys_are_told_apart),
    };

    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
