/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/disk_spec.h"

enum {
    RO = 1, SHARED = 2, CDROM = 4, DISCARD = 8, SAFE = 16, VIRTIO = 32, COLO = 64, UNTRUSTED = 128,
    PERSISTENT = 256,
};

struct good {
    const char *spec, *target, *vdev;
    enum vm_disk_format format;
    unsigned flags;
    const char *script, *backend;
};

#define RAW VM_DISK_FORMAT_RAW
#define EMPTY VM_DISK_FORMAT_EMPTY

static unsigned flags_of(const struct vm_disk *d)
{
    return (d->readonly ? RO : 0) | (d->shared_write ? SHARED : 0) | (d->cdrom ? CDROM : 0) |
           (d->discard ? DISCARD : 0) | (d->direct_io_safe ? SAFE : 0) |
           (d->virtio ? VIRTIO : 0) | (d->colo ? COLO : 0) | (d->untrusted ? UNTRUSTED : 0) |
           (d->persistent_grants ? PERSISTENT : 0);
}

static void assert_same_text(const char *got, const char *expected)
{
    if (expected)
        assert_string_equal(got, expected);
    else
        assert_null(got);
}

static void check_good(const struct good *t, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        struct vm_disk d;
        struct err e = { .code = 0 };
        int rc = vm_disk_spec_parse(t[i].spec, NULL, &d, &e);

        if (rc || flags_of(&d) != t[i].flags)
            print_error("%s: %s\n", t[i].spec, rc ? e.text : "flags differ");
        assert_int_equal(rc, 0);
        assert_string_equal(d.target, t[i].target);
        assert_string_equal(d.vdev, t[i].vdev);
        assert_int_equal(d.format, t[i].format);
        assert_int_equal(flags_of(&d), t[i].flags);
        assert_same_text(d.script, t[i].script);
        assert_same_text(d.backend, t[i].backend);
        vm_disk_spec_free(&d);
    }
}

/* The first of these are the examples of xl-disk-configuration(5). */
static void positional_and_named_parameters_agree(void **state)
{
    static const struct good t[] = {
        { "/dev/vg/v,,hda", "/dev/vg/v", "hda", RAW, DISCARD },
        { "/dev/vg/v,raw,hda,rw", "/dev/vg/v", "hda", RAW, DISCARD },
        { "format=raw, vdev=hda, access=rw, target=/dev/vg/v", "/dev/vg/v", "hda", RAW, DISCARD },
        { "raw:/dev/vg/v,hda,w", "/dev/vg/v", "hda", RAW, DISCARD },
        { "/r.iso,,hdc,cdrom", "/r.iso", "hdc", RAW, RO | CDROM },
        { "/r.iso,,hdc,,cdrom", "/r.iso", "hdc", RAW, RO | CDROM },
        { "/r.iso,raw,hdc,devtype=cdrom", "/r.iso", "hdc", RAW, RO | CDROM },
        { "format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/r.iso", "/r.iso", "hdc", RAW,
          RO | CDROM },
        { "raw:/r.iso,hdc:cdrom,ro", "/r.iso", "hdc", RAW, RO | CDROM },
        { "vdev=xvda,/a", "/a", "xvda", RAW, DISCARD },
        { "format=qcow2,/a,xvda,r", "/a", "xvda", VM_DISK_FORMAT_QCOW2, RO },
        { "/a,raw,xvda,,", "/a", "xvda", RAW, DISCARD },
    };

    check_good(t, array_size(t));
}

static void formats_are_all_known(void **state)
{
    static const struct good t[] = {
        { "/a,qcow,xvda", "/a", "xvda", VM_DISK_FORMAT_QCOW, DISCARD },
        { "/a,qcow2,xvda", "/a", "xvda", VM_DISK_FORMAT_QCOW2, DISCARD },
        { "/a,vhd,xvda", "/a", "xvda", VM_DISK_FORMAT_VHD, DISCARD },
        { "/a,qed,xvda", "/a", "xvda", VM_DISK_FORMAT_QED, DISCARD },
        { "/a,vhdx,xvda", "/a", "xvda", VM_DISK_FORMAT_VHDX, DISCARD },
        { "/a,vmdk,xvda", "/a", "xvda", VM_DISK_FORMAT_VMDK, DISCARD },
        { "/a,vdi,xvda", "/a", "xvda", VM_DISK_FORMAT_VDI, DISCARD },
        { "qcow2:/a,xvda,w", "/a", "xvda", VM_DISK_FORMAT_QCOW2, DISCARD },
        { "qcow:/a,xvda,w", "/a", "xvda", VM_DISK_FORMAT_QCOW, DISCARD },
        { "vhd:/a,xvda,w", "/a", "xvda", VM_DISK_FORMAT_VHD, DISCARD },
        { "tap:aio:qcow2:/a,xvda,w", "/a", "xvda", VM_DISK_FORMAT_QCOW2, DISCARD },
    };

    check_good(t, array_size(t));
}

static void deprecated_prefixes_are_stripped_or_name_a_script(void **state)
{
    static const struct good t[] = {
        { "phy:/dev/sda3,xvda,w", "/dev/sda3", "xvda", RAW, DISCARD },
        { "phy:sda3,xvda,w", "sda3", "xvda", RAW, DISCARD },
        { "file:/a,xvda,r", "/a", "xvda", RAW, RO },
        { "tap:aio:/a,xvda,w", "/a", "xvda", RAW, DISCARD },
        { "tap2:/a,xvda,w", "/a", "xvda", RAW, DISCARD },
        { "tapdisk:/a,xvda,w", "/a", "xvda", RAW, DISCARD },
        { "ioemu:phy: /a,xvda,w", "/a", "xvda", RAW, DISCARD },
        { "file:/a,xvda:disk,w", "/a", "xvda", RAW, DISCARD },
        { "nbd:10.0.0.1,xvda,w", "10.0.0.1", "xvda", RAW, DISCARD, "block-nbd" },
        { "enbd:x,xvda,w", "x", "xvda", RAW, DISCARD, "block-enbd" },
        { "iscsi:x,xvda,w", "x", "xvda", RAW, DISCARD, "block-iscsi" },
        { "drbd:res,xvda,w", "res", "xvda", RAW, DISCARD, "block-drbd" },
        { "server:share,,xvda", "server:share", "xvda", RAW, DISCARD },
    };

    check_good(t, array_size(t));
}

static void target_takes_the_rest_of_the_line(void **state)
{
    static const struct good t[] = {
        { "vdev=xvda,target=/a,b=c,cdrom", "/a,b=c,cdrom", "xvda", RAW, DISCARD },
        { "vdev=xvda,target=/a ", "/a ", "xvda", RAW, DISCARD },
        { "vdev=xvda,target=/a,", "/a", "xvda", RAW, DISCARD },
        { "vdev=xvda,target=phy:/a", "phy:/a", "xvda", RAW, DISCARD },
        { ",,xvda,target=/late", "/late", "xvda", RAW, DISCARD },
    };

    check_good(t, array_size(t));
}

static void access_words_have_their_aliases(void **state)
{
    static const struct good t[] = {
        { "/a,,xvda,r", "/a", "xvda", RAW, RO },
        { "/a,,xvda,ro", "/a", "xvda", RAW, RO },
        { "/a,,xvda,w", "/a", "xvda", RAW, DISCARD },
        { "/a,,xvda,rw", "/a", "xvda", RAW, DISCARD },
        { "/a,,xvda,w!", "/a", "xvda", RAW, DISCARD | SHARED },
        { "/a,,xvda,!", "/a", "xvda", RAW, DISCARD | SHARED },
        { "/a,,xvda,access=w!", "/a", "xvda", RAW, DISCARD | SHARED },
        { "/a,,xvda,w!,cdrom", "/a", "xvda", RAW, RO | CDROM },
    };

    check_good(t, array_size(t));
}

static void flags_and_keys_are_kept(void **state)
{
    static const struct good t[] = {
        { "/a,,xvda,direct-io-safe,discard", "/a", "xvda", RAW, DISCARD | SAFE },
        { "/a,,xvda,no-discard", "/a", "xvda", RAW, 0 },
        { "/a,,xvda,persistent-grants", "/a", "xvda", RAW, DISCARD | PERSISTENT },
        { "/a,,xvda,no-persistent-grants", "/a", "xvda", RAW, DISCARD },
        { "/a,,xvda,r,discard", "/a", "xvda", RAW, RO },
        { "/a,,xvda,backendtype=qdisk,no-colo,trusted", "/a", "xvda", RAW, DISCARD },
        { "/a,,xvda,untrusted", "/a", "xvda", RAW, DISCARD | UNTRUSTED },
        { "/a,,xvda,specification=xen", "/a", "xvda", RAW, DISCARD },
        { "/a,,xvda,specification=virtio,grant_usage=1", "/a", "xvda", RAW, DISCARD | VIRTIO },
        { "/a,,xvda,colo", "/a", "xvda", RAW, DISCARD | COLO },
        { "/a,,xvda,colo-port=9999", "/a", "xvda", RAW, DISCARD | COLO },
        { "/a,,xvda,script=block-x", "/a", "xvda", RAW, DISCARD, "block-x" },
        { "/a,,xvda,backend=dom1", "/a", "xvda", RAW, DISCARD, NULL, "dom1" },
    };

    check_good(t, array_size(t));
}

static void empty_drives_have_no_target(void **state)
{
    static const struct good t[] = {
        { ",hdc:cdrom,r", "", "hdc", EMPTY, RO | CDROM },
        { ",,hdc,,cdrom", "", "hdc", EMPTY, RO | CDROM },
        { "vdev=hdc,cdrom", "", "hdc", EMPTY, RO | CDROM },
        { "vdev=hdc,devtype=cdrom,format=empty", "", "hdc", EMPTY, RO | CDROM },
    };

    check_good(t, array_size(t));
}

static void a_driver_may_be_named(void **state)
{
    struct vm_disk d;
    struct err e = { .code = 0 };

    assert_int_equal(vm_disk_spec_parse("driver=null,size=10G,vdev=xvdb", NULL, &d, &e), 0);
    assert_string_equal(d.driver, "null");
    assert_string_equal(d.target, "");
    assert_true(d.size_bytes == 10 * GIB);
    vm_disk_spec_free(&d);
    assert_int_equal(vm_disk_spec_parse("/a,,xvdb", NULL, &d, &e), 0);
    assert_string_equal(d.driver, "file");
    assert_true(d.size_bytes == 0);
    assert_null(d.filters);
    assert_true(d.quota_bytes == 0 && d.pool_bytes == 0);
    vm_disk_spec_free(&d);
    assert_int_equal(vm_disk_spec_parse("driver=tmem,size=4G,quota=1000,pool=8G,vdev=xvdb", NULL,
                                        &d, &e), 0);
    assert_true(d.quota_bytes == 1000 && d.pool_bytes == 8 * GIB);
    vm_disk_spec_free(&d);
}

static void bad_lines_say_what_is_wrong(void **state)
{
    static const struct { const char *spec, *part; } t[] = {
        { "", "no vdev" },
        { "/a", "no vdev" },
        { "/a,raw,", "no vdev" },
        { "vdev=xvda", "no target" },
        { ",,xvda", "no target" },
        { "/a,,xvda,x", "unknown value for access" },
        { "/a,tar,xvda", "unknown value for format" },
        { "/a,raw ,xvda", "near `raw '" },
        { "/a,,xvda,r,more", "too many positional parameters: near `more'" },
        { "/a=b,,xvda", "as target=" },
        { "/a,,xvda,colour=red", "unknown parameter: near `colour=red'" },
        { "/a,,xvda,=", "bad disk syntax" },
        { "format=raw,/a,xvda,format=vhd", "format respecified" },
        { "raw:vhd:/a,xvda", "format respecified" },
        { "/a,,xvda,vdev=xvdb", "vdev respecified" },
        { "/a,,xvda,target=/b", "target respecified" },
        { "/a,,xvda,r,access=w", "access respecified" },
        { "/a,,xvda,discard,no-discard", "discard respecified" },
        { "/a,,xvda,persistent-grants,no-persistent-grants", "persistent-grants respecified" },
        { "/a,,xvda,script=a,script=b", "script respecified" },
        { "nbd:iscsi:x,xvda,w", "script respecified" },
        { "/a,,xvda,size=1G,size=2G,driver=null", "size respecified" },
        { "/a,,xvda,driver=null,driver=file", "driver respecified" },
        { "driver=tmem,size=1G,vdev=xvda,quota=1M,quota=2M", "quota respecified" },
        { "driver=tmem,size=1G,vdev=xvda,pool=1M,pool=2M", "pool respecified" },
        { "driver=tmem,size=1G,vdev=xvda,quota=0", "not a size" },
        { "driver=tmem,size=1G,vdev=xvda,pool=much", "near `much'" },
        { "foo:/a,xvda,w", "unknown deprecated disk prefix: near `foo'" },
        { "foo:,xvda,w", "unknown deprecated disk prefix" },
        { "/a,,xvda:tape", "unknown value for type" },
        { "phy:/a,xvda:tape", "unknown value for type" },
        { "/a,,xvda,devtype=tape", "unknown value for type" },
        { "/a,,xvda,backendtype=nfs", "unknown value for backendtype" },
        { "/a,,xvda,specification=ide", "unknown value for specification" },
        { "/a,,xvda,grant_usage=2", "unknown value for grant_usage" },
        { "/a,,xvda,size=0,driver=null", "not a size" },
        { "/a,,xvda,size=1000,driver=null", "not a size" },
        { "/a,,xvda,size=ten,driver=null", "not a size" },
        { "/a,,xvda,size=99999999T,driver=null", "not a size" },
        { "/a,,xvda,reconnect=1,reconnect=2", "reconnect respecified" },
        { "/a,,xvda,reconnect=-1", "not a number of seconds" },
        { "/a,,xvda,reconnect=86401", "not a number of seconds" },
        { "/a,,xvda,driver=", "not the name of a driver" },
        { "/a,,xvda,filter=", "not a filter" },
        { "/a,,xvda,filter=:iops=1", "not a filter" },
        { "/a,,xvda,filter=Qos:iops=1", "not a filter" },
        { "/a,,xvda,driver=../x", "not the name of a driver" },
        { "/a,empty,xvda", "an empty drive can have no target" },
        { "/a,,vda", "not a virtual device" },
    };

    for (unsigned i = 0; i < array_size(t); i++) {
        struct vm_disk d;
        struct err e = { .code = 0 };
        int rc = vm_disk_spec_parse(t[i].spec, NULL, &d, &e);

        if (rc != -EINVAL || !strstr(e.text, t[i].part))
            print_error("%s: got `%s', wanted `%s'\n", t[i].spec, e.text, t[i].part);
        assert_int_equal(rc, -EINVAL);
        assert_non_null(strstr(e.text, t[i].part));
    }
}

/* The numbers are those of xen-vbd-interface(7) and what libxl computes. */
static void vdevs_have_xens_numbers(void **state)
{
    static const struct { const char *vdev; unsigned number; } t[] = {
        { "xvda", 51712 }, { "xvda1", 51713 }, { "xvda15", 51727 }, { "xvdb", 51728 },
        { "xvdp15", 51967 },
        { "xvda16", 1u << 28 | 16 }, { "xvdq", 1u << 28 | 16 << 8 },
        { "xvdz", 1u << 28 | 25 << 8 }, { "xvdaa", 1u << 28 | 26 << 8 },
        { "xvdtq37", 1u << 28 | 536 << 8 | 37 }, { "d536p37", 1u << 28 | 536 << 8 | 37 },
        { "d0", 51712 }, { "d0p0", 51712 }, { "d1p2", 51730 }, { "d15p15", 51967 },
        { "d1048575p255", 1u << 28 | 1048575u << 8 | 255 },
        { "hda", 768 }, { "hda1", 769 }, { "hda63", 831 }, { "hdb", 832 }, { "hdc", 5632 },
        { "hdd5", 5701 }, { "sda", 2048 }, { "sdb3", 2067 }, { "sdp15", 2303 },
        { "51712", 51712 }, { "0xca00", 51712 }, { "0145000", 51712 }, { "1", 1 },
        { "536870911", 536870911 },
    };

    for (unsigned i = 0; i < array_size(t); i++) {
        unsigned number = 0;

        assert_int_equal(vm_disk_vdev_number(t[i].vdev, &number), 0);
        if (number != t[i].number)
            print_error("%s: %u, not %u\n", t[i].vdev, number, t[i].number);
        assert_int_equal(number, t[i].number);
    }
}

static void what_is_no_vdev_has_no_number(void **state)
{
    static const char *const t[] = {
        "", "x", "xvd", "xvd1", "xvda0", "xvda01", "xvda256", "xvdA", "xvda1x", "xvdzzzzz",
        "xvdaaaaaaaaaaaaaaaaaaaaaa", "d", "d0p", "d0p256", "d1048576", "d01", "d0p01", "dp1",
        "hde", "hda64", "hd", "sdq", "sda16", "vda", "/dev/xvda", "0", "536870912", "-1", " 1",
        "4294967297", "99999999999999999999", "xvda99999999999999999999",
    };

    for (unsigned i = 0; i < array_size(t); i++) {
        unsigned number;

        if (!vm_disk_vdev_number(t[i], &number))
            print_error("%s: accepted\n", t[i]);
        assert_int_equal(vm_disk_vdev_number(t[i], &number), -EINVAL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(positional_and_named_parameters_agree),
        cmocka_unit_test(formats_are_all_known),
        cmocka_unit_test(deprecated_prefixes_are_stripped_or_name_a_script),
        cmocka_unit_test(target_takes_the_rest_of_the_line),
        cmocka_unit_test(access_words_have_their_aliases),
        cmocka_unit_test(flags_and_keys_are_kept),
        cmocka_unit_test(empty_drives_have_no_target),
        cmocka_unit_test(a_driver_may_be_named),
        cmocka_unit_test(bad_lines_say_what_is_wrong),
        cmocka_unit_test(vdevs_have_xens_numbers),
        cmocka_unit_test(what_is_no_vdev_has_no_number),
    };

    return cmocka_run_group_tests_name("disk_spec", tests, NULL, NULL);
}
