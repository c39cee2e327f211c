/* SPDX-License-Identifier: MIT */
#include "blk/disk.h"

#include <errno.h>
#include <stdlib.h>

#include "blk/driver.h"

int blk_disk_open(const struct blk_spec *spec, struct blk_disk **out, struct err *e)
{
    const struct blk_driver *driver = blk_driver_find(spec->driver);
    struct blk_disk *d;
    int rc;

    if (!driver) {
        err_at(e, NULL, 0, "driver");
        return err_set(e, EINVAL, "no block driver is called '%s'", spec->driver);
    }
    d = calloc(1, sizeof(*d));
    if (!d)
        return err_set(e, ENOMEM, "out of memory");
    d->driver = driver;
    rc = driver->open(spec, &d->props, &d->state, e);
    if (rc) {
        free(d);
        return rc;
    }
    *out = d;
    return 0;
}

void blk_disk_close(struct blk_disk *d)
{
    if (!d)
        return;
    d->driver->close(d->state);
    free(d);
}

int blk_disk_resize(struct blk_disk *d, uint64_t size_bytes, struct err *e)
{
    if (!d->driver->resize)
        return err_set(e, EOPNOTSUPP, "a disk of driver '%s' keeps its size", d->driver->name);
    return d->driver->resize(d->state, size_bytes, &d->props, e);
}

const struct blk_props *blk_disk_props(const struct blk_disk *d)
{
    return &d->props;
}

const char *blk_disk_driver_name(const struct blk_disk *d)
{
    return d->driver->name;
}
