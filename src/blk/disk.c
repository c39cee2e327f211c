/* SPDX-License-Identifier: MIT */
#include "blk/disk.h"

#include <errno.h>
#include <stdlib.h>

#include "blk/driver.h"

static int disk_open(const struct blk_driver *driver, const struct blk_spec *spec,
                     struct blk_disk **out, struct err *e)
{
    struct blk_disk *d = calloc(1, sizeof(*d));
    int rc;

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

/* The disk below a filter is opened by the filter, from the same spec with one filter less. */
static int filtered_open(const struct blk_spec *spec, struct blk_disk **out, struct err *e)
{
    struct blk_spec below = *spec;
    struct blk_filter_line line;
    int rc = blk_filters_judge(spec->filters, e);

    if (!rc)
        rc = blk_filter_line_read(spec->filters, &line, e);
    if (rc)
        return rc;
    below.filters = line.rest;
    below.options = line.options;
    rc = disk_open(line.filter, &below, out, e);
    blk_filter_line_free(&line);
    return rc;
}

int blk_disk_open(const struct blk_spec *spec, struct blk_disk **out, struct err *e)
{
    const struct blk_driver *driver = blk_driver_find(spec->driver);

    if (!driver) {
        err_at(e, NULL, 0, "driver");
        return err_set(e, EINVAL, "no block driver is called '%s'", spec->driver);
    }
    return spec->filters && *spec->filters ? filtered_open(spec, out, e)
                                           : disk_open(driver, spec, out, e);
}

static int apart_refuse(const char *kind, const char *name, struct err *e)
{
    return err_set(e, EOPNOTSUPP, "%s=%s does not go with a process of its own, which has neither "
                   "files nor a network, and may be killed and begun anew", kind, name);
}

int blk_disk_judge_apart(const struct blk_spec *spec, struct err *e)
{
    const struct blk_driver *driver = blk_driver_find(spec->driver);
    const char *filters = spec->filters ? spec->filters : "";
    int rc = 0;

    if (driver && !driver->share)
        return apart_refuse("driver", driver->name, e);
    while (*filters && !rc) {
        struct blk_filter_line line;

        rc = blk_filter_line_read(filters, &line, e);
        if (rc)
            return rc;
        filters = line.rest;
        rc = line.filter->judge_apart ? line.filter->judge_apart(line.options, e)
                                      : apart_refuse("filter", line.filter->name, e);
        blk_filter_line_free(&line);
    }
    return rc;
}

int blk_disk_share(const struct blk_disk *d)
{
    return d->driver->share(d->state);
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
    if (!d->driver->resize && blk_filter_find(d->driver->name) == d->driver)
        return err_set(e, EOPNOTSUPP, "a disk with filter=%s keeps its size", d->driver->name);
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
