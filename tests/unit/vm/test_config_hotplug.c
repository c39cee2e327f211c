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

/* In all that a line may say, and in the line itself. */
static void expect_same(const struct vm_disk *a, const struct vm_disk *b)
{
    assert_string_equal(a->spec, b->spec);
    assert_string_equal(a->target, b->target);
    assert_string_equal(a->driver, b->driver);
    assert_string_equal(a->filters ? a->filters : "", b->filters ? b->filters : "");
    assert_int_equal(a->reconnect_s, b->reconnect_s);
    assert_int_equal(a->size_bytes, b->size_bytes);
    assert_string_equal(a->vdev, b->vdev);
    assert_int_equal(a->vdev_number, b->vdev_number);
    assert_int_equal(a->format, b->format);
    assert_int_equal(a->readonly, b->readonly);
    assert_int_equal(a->shared_write, b->shared_write);
    assert_int_equal(a->cdrom, b->cdrom);
    assert_int_equal(a->discard, b->discard);
    assert_int_equal(a->direct_io_safe, b->direct_io_safe);
    assert_int_equal(a->persistent_grants, b->persistent_grants);
    assert_int_equal(a->untrusted, b->untrusted);
}

static void the_setting_gives_the_same_disks_again(void **state)
{
    static const char *const specs[] = {
        "vdev=xvde,target=/with \"quotes\", 'of' both kinds\\n and a \\ backslash",
        "driver=null,size=10M,vdev=xvdf", "/line\tbreak,raw,xvdg,w!", "/dev/x,,hda1,r",
        "vdev=xvdh,access=r,persistent-grants,target=/\303\274mlaut\001",
        "/i,qcow2,xvdi,w", "/j,vhd,xvdj,reconnect=5", "qcow2:/k,xvdk,r", "/l,vmdk,xvdl",
        "vdev=xvdm,reconnect=0,target=nbd+unix:///a,b?socket=/s", "driver=ram,size=4k,vdev=xvdn",
        "/o,raw,xvdo,w,filter=qos:iops=10:bps=1M:group=a,filter=verify,no-discard",
        "/p,raw,xvdp,r,direct-io-safe,filter=cow:file=/with \"quotes\" and :colons",
        "/q,raw,hdc:cdrom,r", "file:/r,sda,w", "backendtype=qdisk,untrusted,vdev=xvdr,target=r",
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

        expect_same(a, b);
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

static void a_size_that_changes_is_in_the_line(void **state)
{
    static const struct { const char *before, *after; } lines[] = {
        { "driver=null,size=1G,vdev=xvde", "driver=null,size=4096,vdev=xvde" },
        { "driver=null,vdev=xvde, size=1G", "driver=null,vdev=xvde,size=4096" },
        { "size=512,vdev=xvde,size=512,driver=null,filter=delay:time=1us,",
          "size=4096,vdev=xvde,size=4096,driver=null,filter=delay:time=1us," },
        { "driver=null,size=1M,vdev=xvde,target=", "driver=null,size=4096,vdev=xvde,target=" },
        /* an image says itself how large it is */
        { "vdev=xvde,target=/a,size=1G", "vdev=xvde,target=/a,size=1G" },
    };

    for (unsigned i = 0; i < array_size(lines); i++) {
        struct vm_config *c = parse(NULL, 0);
        struct vm_disk *d, again;
        unsigned number;

        add(c, lines[i].before);
        assert_int_equal(vm_config_vdev_number("xvde", &number), 0);
        assert_int_equal(vm_config_disk_resized(c, number, 4096), 0);
        d = vm_config_disk_find(c, number);
        assert_string_equal(d->spec, lines[i].after);
        assert_int_equal(vm_config_disk_parse(d->spec, &again, &(struct err){ 0 }), 0);
        expect_same(d, &again);
        vm_config_disk_free(&again);
        vm_config_free(c);
    }
}

static void a_size_that_stays_changes_nothing(void **state)
{
    char word[] = "disk=[\"driver=null,size=1G,vdev=xvda\"]", *words[] = { word };
    struct vm_config *c = parse(words, 1);
    unsigned number = c->disks[0].vdev_number;

    assert_int_equal(vm_config_disk_resized(c, number, 1 * GIB), 0);
    assert_int_equal(vm_config_disk_resized(c, number + 1, 1 * MIB), 0);
    assert_false(c->disks_changed);
    assert_int_equal(vm_config_disk_resized(c, number, 2 * GIB), 0);
    assert_true(c->disks_changed);
    vm_config_free(c);
}

static void what_cannot_be_served_is_refused_as_in_a_file(void **state)
{
    static const struct { const char *spec; int rc; } bad[] = {
        { "", -EINVAL }, { "/a,raw", -EINVAL }, { "/a,qcow2,xvda,driver=null", -EINVAL },
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
        cmocka_unit_test(a_size_that_changes_is_in_the_line),
        cmocka_unit_test(a_size_that_stays_changes_nothing),
        cmocka_unit_test(what_cannot_be_served_is_refused_as_in_a_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
