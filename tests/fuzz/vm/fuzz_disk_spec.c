/* SPDX-License-Identifier: MIT */
/* One line of disk=[...], and its filters. */
#include <stdlib.h>
#include <string.h>

#include "blk/filter_options.h"
#include "vm/disk_spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *spec = malloc(size + 1);
    struct vm_disk d;
    struct err e = { .code = 0 };
    unsigned number;
    int rc;

    memcpy(spec, data, size);
    spec[size] = 0;
    rc = vm_disk_spec_parse(spec, NULL, &d, &e);
    if (rc) {
        check(rc == -e.code && e.text[0] && !d.target && !d.driver);
    } else {
        check(!e.code && d.target && d.driver && *d.driver);
        check(!vm_disk_vdev_number(d.vdev, &number) && number == d.vdev_number);
        check(!d.cdrom || d.readonly);
        check(!d.shared_write || !d.readonly);
        check(!d.discard || !d.readonly);
        check(d.format != VM_DISK_FORMAT_EMPTY || !*d.target);
        if (d.filters) {
            rc = blk_filters_judge(d.filters, &e);
            check(rc == -e.code && !e.text[0] == !rc);
        }
        vm_disk_spec_free(&d);
    }
    free(spec);
    return 0;
}
