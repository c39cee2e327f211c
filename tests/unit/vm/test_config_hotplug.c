/* SPDX-License-Identifier: MIT */
/* Disks that a configuration gains and loses after it was read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vm/config.h"

static const char text[] = "name=\"g\"\nkernel=\"/k\"\nmemory=64\n"
                           "disk=[\"/a,raw,xvda,w\", \"/b,raw,xvdb,r\", \"/c,raw,xvdc,w\"]\n";

static struct vm_config *parse(char *const words[], unsigned nr_words)
{
    struct vm_config *c = NULL;
    struct err e = { 0 };

    if (vm_config_parse(text, strlen(text), "test", words, nr_words, &c, &e))
        fail_msg("%s", e.text);
    return c;
}

static void add(struct vm_config *c, const char *spec)
{
    struct vm_disk d;
    struct err e = { 0 };

    if (vm_config_disk_parse(spec, &d, &e))
        fail_msg("%s: %s", spec, e.text);
    assert_int_equal(vm_config_disk_add(c, &d), 0);
}

/* The targets in their order, each with a blank behind it. */
static void expect_targets(const struct vm_config *c, const char *expected)
{
    char seen[256] = "";

    for (unsigned i = 0; i < c->nr_disks; i++)
        strcat(strcat(seen, c->disks[i].target), " ");
    assert_string_equal(seen, expected);
}

static void disks_come_last_and_go_from_anywhere(void **state)
{
    struct vm_config *c = parse(NULL, 0);
    unsigned number;

    assert_false(c->disks_changed);
    assert_int_equal(vm_config_vdev_number("xvdb", &number), 0);
    vm_config_disk_remove(c, number);
    expect_targets(c, "/a /c ");
    assert_true(c->disks_changed);
    assert_null(vm_config_disk_find(c, number));
    add(c, "/d,raw,xvdb,w");
    expect_targets(c, "/a /c /d ");
    assert_string_equal(vm_config_disk_find(c, number)->vdev, "xvdb");
    /* one that is not there */
    vm_config_disk_remove(c, 1);
    expect_targets(c, "/a /c /d ");
    while (c->nr_disks)
        vm_config_disk_remove(c, c->disks[0].vdev_number);
    add(c, "driver=null,size=1G,vdev=xvda");
    assert_int_equal(c->nr_disks, 1);
    vm_config_free(c);
}

static void the_setting_gives_the_same_disks_again(void **state)
{
    static const char *const specs[] = {
        "vdev=xvde,target=/with \"quotes\", 'of' both kinds\\n and a \\ backslash",
        "driver=null,size=10M,vdev=xvdf", "/line\tbreak,raw,xvdg,w!", "/dev/x,,hda1,r",
        "vdev=xvdh,access=r,persistent-grants,target=/\303\274mlaut\001",
    };
    struct vm_config *c = parse(NULL, 0), *again;
    char *word[1];

    for (unsigned i = 0; i < array_size(specs); i++)
        add(c, specs[i]);
    word[0] = vm_config_disks_format(c);
    again = parse(word, 1);
    assert_int_equal(again->nr_disks, c->nr_disks);
    for (unsigned i = 0; i < c->nr_disks; i++) {
        const struct vm_disk *a = &c->disks[i], *b = &again->disks[i];

        assert_string_equal(a->spec, b->spec);
        assert_string_equal(a->target, b->target);
        assert_string_equal(a->vdev, b->vdev);
        assert_string_equal(a->driver, b->driver);
        assert_int_equal(a->size_bytes, b->size_bytes);
        assert_int_equal(a->readonly, b->readonly);
        assert_int_equal(a->shared_write, b->shared_write);
        assert_int_equal(a->persistent_grants, b->persistent_grants);
    }
    vm_config_free(again);
    free(word[0]);
    /* none at all, too */
    while (c->nr_disks)
        vm_config_disk_remove(c, c->disks[0].vdev_number);
    word[0] = vm_config_disks_format(c);
    again = parse(word, 1);
    assert_int_equal(again->nr_disks, 0);
    vm_config_free(again);
    free(word[0]);
    vm_config_free(c);
}

static void what_cannot_be_served_is_refused_as_in_a_file(void **state)
{
    static const struct { const char *spec; int rc; } bad[] = {
        { "", -EINVAL }, { "/a,raw", -EINVAL }, { "/a,qcow2,xvda", -EOPNOTSUPP },
        { "script=x,vdev=xvda,target=/a", -EOPNOTSUPP }, { ",hdc:cdrom,r", -EOPNOTSUPP },
        { "driver=null,vdev=xvda", -EINVAL }, { "/a,raw,xvda,size=1G", -EINVAL },
    };

    for (unsigned i = 0; i < array_size(bad); i++) {
        struct vm_disk d;
        struct err e = { 0 };
        int rc = vm_config_disk_parse(bad[i].spec, &d, &e);

        if (rc != bad[i].rc || !e.text[0])
            fail_msg("'%s': %d, '%s'", bad[i].spec, rc, e.text);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(disks_come_last_and_go_from_anywhere),
        cmocka_unit_test(the_setting_gives_the_same_disks_again),
        cmocka_unit_test(what_cannot_be_served_is_refused_as_in_a_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
