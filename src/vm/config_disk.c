/* SPDX-License-Identifier: MIT */
/* Which of the disks that can be written down Xenolith can serve. */
#include "vm/config_disk.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blk/disk.h"
#include "blk/filter_options.h"
#include "vm/disk_spec.h"
#include "vm/xlcfg_get.h"

#define BACKEND_PROCESS "process"

static const char *format_name(enum vm_disk_format format)
{
    static const char *const names[] = {
        [VM_DISK_FORMAT_RAW] = "raw", [VM_DISK_FORMAT_QCOW] = "qcow",
        [VM_DISK_FORMAT_QCOW2] = "qcow2", [VM_DISK_FORMAT_VHD] = "vhd",
        [VM_DISK_FORMAT_QED] = "qed", [VM_DISK_FORMAT_VHDX] = "vhdx",
        [VM_DISK_FORMAT_VMDK] = "vmdk", [VM_DISK_FORMAT_VDI] = "vdi",
        [VM_DISK_FORMAT_EMPTY] = "empty",
    };

    return names[format];
}

const char *vm_config_disk_image_format(const struct vm_disk *d)
{
    if (d->format == VM_DISK_FORMAT_RAW || d->format == VM_DISK_FORMAT_EMPTY)
        return NULL;
    return d->format == VM_DISK_FORMAT_VHD ? "vpc" : format_name(d->format);
}

static int refuse_what_is_missing(const struct vm_disk *d, struct err *e)
{
    if (d->script)
        return err_set(e, EOPNOTSUPP, "%s: script=%.64s is not supported: block scripts are run by"
                       " Xen's dom0 only", d->vdev, d->script);
    if (d->backend && strcmp(d->backend, "0") && strcmp(d->backend, "Domain-0") &&
        strcmp(d->backend, BACKEND_PROCESS))
        return err_set(e, EOPNOTSUPP, "%s: backend=%.64s is not supported: Xenolith serves every"
                       " disk itself, or by backend=" BACKEND_PROCESS, d->vdev, d->backend);
    if (d->virtio)
        return err_set(e, EOPNOTSUPP, "%s: specification=virtio is not supported yet", d->vdev);
    if (d->colo)
        return err_set(e, EOPNOTSUPP, "%s: COLO is not supported", d->vdev);
    return 0;
}

/* xl-disk-configuration(5): a path that does not start with / is below /dev. */
static int make_absolute(struct vm_disk *d, struct err *e)
{
    char *path;

    if (strlen(d->target) + sizeof("/dev/") > PATH_MAX)
        return err_set(e, ENAMETOOLONG, "%s: the target is longer than %d bytes", d->vdev,
                       PATH_MAX - (int)sizeof("/dev/"));
    if (d->target[0] == '/')
        return 0;
    if (asprintf(&path, "/dev/%s", d->target) < 0)
        return err_set(e, ENOMEM, "out of memory");
    free(d->target);
    d->target = path;
    return 0;
}

static int driver_replace(struct vm_disk *d, const char *name, struct err *e)
{
    char *copy = strdup(name);

    if (!copy)
        return err_set(e, ENOMEM, "out of memory");
    free(d->driver);
    d->driver = copy;
    return 0;
}

static int refuse_size(const struct vm_disk *d, struct err *e)
{
    return d->size_bytes ? err_set(e, EINVAL, "%s: size= is for drivers without a size of their"
                                   " own, such as driver=null", d->vdev) : 0;
}

/* An image that another program opens for us, as an NBD export. */
static int judge_image(struct vm_disk *d, struct err *e)
{
    const char *format = format_name(d->format);
    int rc;

    if (strcmp(d->driver, "file") && strcmp(d->driver, "nbd"))
        return err_set(e, EINVAL, "%s: driver=%s and format=%s do not go together", d->vdev,
                       d->driver, format);
    if (d->shared_write)
        return err_set(e, EINVAL, "%s: access=w! is for format=raw: two writers would destroy the"
                       " %s image itself", d->vdev, format);
    rc = refuse_size(d, e);
    if (!rc)
        rc = make_absolute(d, e);
    return rc ? rc : driver_replace(d, "nbd", e);
}

static bool is_nbd_uri(const char *target)
{
    static const char *const schemes[] = { "nbd://", "nbds://", "nbd+unix://", "nbds+unix://" };

    for (unsigned i = 0; i < array_size(schemes); i++)
        if (!strncmp(target, schemes[i], strlen(schemes[i])))
            return true;
    return false;
}

static int judge_nbd(struct vm_disk *d, struct err *e)
{
    int rc = refuse_size(d, e);

    if (rc)
        return rc;
    if (!is_nbd_uri(d->target))
        return err_set(e, EINVAL, "%s: driver=nbd needs a URI, target=nbd://HOST:PORT/EXPORT or"
                       " target=nbd+unix:///EXPORT?socket=PATH", d->vdev);
    return driver_replace(d, "nbd", e);
}

static int refuse_pool(const struct vm_disk *d, struct err *e)
{
    if (!strcmp(d->driver, "tmem") || (!d->quota_bytes && !d->pool_bytes))
        return 0;
    return err_set(e, EINVAL, "%s: %s= is for driver=tmem", d->vdev,
                   d->quota_bytes ? "quota" : "pool");
}

static bool is_made_of_nothing(const struct vm_disk *d)
{
    static const char *const drivers[] = { "null", "ram", "tmem" };

    for (unsigned i = 0; i < array_size(drivers); i++)
        if (!strcmp(d->driver, drivers[i]))
            return true;
    return false;
}

static int judge_driver(struct vm_disk *d, struct err *e)
{
    int rc = refuse_pool(d, e);

    if (rc)
        return rc;
    if (vm_config_disk_image_format(d))
        return judge_image(d, e);
    if (!strcmp(d->driver, "nbd") || (!strcmp(d->driver, "file") && is_nbd_uri(d->target)))
        return judge_nbd(d, e);
    if (!strcmp(d->driver, "file")) {
        rc = refuse_size(d, e);
        return rc ? rc : make_absolute(d, e);
    }
    if (is_made_of_nothing(d)) {
        if (!d->size_bytes)
            return err_set(e, EINVAL, "%s: driver=%s needs a size, such as size=10G", d->vdev,
                           d->driver);
        if (*d->target)
            return err_set(e, EINVAL, "%s: driver=%s takes no target", d->vdev, d->driver);
    }
    return 0;
}

static int judge_filters(const struct vm_disk *d, struct err *e)
{
    struct err why = { .code = 0 };

    if (!d->filters || !blk_filters_judge(d->filters, &why))
        return 0;
    return err_set(e, why.code, "%s: %s", d->vdev, why.text);
}

int vm_config_disk_judge(struct vm_disk *d, struct err *e)
{
    int rc = refuse_what_is_missing(d, e);

    if (!rc)
        rc = judge_filters(d, e);
    return rc || d->format == VM_DISK_FORMAT_EMPTY ? rc : judge_driver(d, e);
}

bool vm_config_disk_apart(const struct vm_config *c, const struct vm_disk *d)
{
    return d->backend ? !strcmp(d->backend, BACKEND_PROCESS) : c->disks_apart;
}

/* What a process of its own cannot serve. */
static int judge_apart(const struct vm_config *c, const struct vm_disk *d, struct err *e)
{
    const struct blk_spec spec = { .driver = d->driver, .filters = d->filters };
    struct err why = { .code = 0 };

    if (!vm_config_disk_apart(c, d) || !blk_disk_judge_apart(&spec, &why))
        return 0;
    return err_set(e, why.code, "%s: %s: %s", d->vdev, d->backend
                   ? "backend=" BACKEND_PROCESS : "disk_backend=\"" BACKEND_PROCESS "\"", why.text);
}

static int refuse_twice(const struct vm_config *c, const struct vm_disk *d, struct err *e)
{
    for (unsigned i = 0; i < c->nr_disks; i++) {
        const struct vm_disk *other = &c->disks[i];

        if (other->vdev_number == d->vdev_number && other->line && other->line != d->line)
            return err_set(e, EINVAL, "duplicate vdev %s, which line %u gives to another disk",
                           d->vdev, other->line);
        if (other->vdev_number == d->vdev_number)
            return err_set(e, EINVAL, "duplicate vdev %s, which another disk has", d->vdev);
    }
    return 0;
}

static int read_disk(struct vm_config *c, const struct xlcfg_value *item, struct err *e)
{
    struct vm_disk d;
    int rc;

    if (item->kind != XLCFG_ATOM)
        return err_set(e, EINVAL, "expected a string for each disk, not a list");
    rc = vm_disk_spec_parse(item->text, NULL, &d, e);
    if (rc)
        return rc;
    d.line = item->line;
    rc = vm_config_disk_judge(&d, e);
    if (!rc)
        rc = refuse_twice(c, &d, e);
    if (!rc && d.format == VM_DISK_FORMAT_EMPTY) {
        xlcfg_value_warn(item, "disk", "%s: an empty drive is not supported yet, left out",
                         d.vdev);
        vm_disk_spec_free(&d);
        return 0;
    }
    if (!rc)
        rc = judge_apart(c, &d, e);
    if (rc) {
        vm_disk_spec_free(&d);
        return rc;
    }
    if (d.untrusted)
        xlcfg_value_warn(item, "disk", "%s: untrusted is not honoured yet, ignored", d.vdev);
    c->disks[c->nr_disks++] = d;
    return 0;
}

int vm_config_disks_read(struct vm_config *c, const struct xlcfg_setting *disk, struct err *e)
{
    const struct xlcfg_value *v = &disk->value;

    if (v->kind != XLCFG_LIST)
        return xlcfg_value_fail(v, disk->name, e, EINVAL,
                                "parameter `disk' is a single value but should be a list");
    if (v->nr_items > VM_DISKS_MAX)
        return xlcfg_value_fail(v, disk->name, e, E2BIG, "%u disks, at most %u are supported",
                                v->nr_items, VM_DISKS_MAX);
    if (!v->nr_items)
        return 0;
    c->disks = calloc(v->nr_items, sizeof(*c->disks));
    if (!c->disks)
        return err_set(e, ENOMEM, "out of memory");
    for (unsigned i = 0; i < v->nr_items; i++) {
        int rc = read_disk(c, &v->items[i], e);

        if (rc) {
            err_at(e, v->items[i].source, v->items[i].line, disk->name);
            return rc;
        }
    }
    return 0;
}
