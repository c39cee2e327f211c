/* SPDX-License-Identifier: MIT */
#include "vm/guest_disks.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "vm/config_disk.h"
#include "vm/disk_process.h"

static struct xen_vbd **find(struct guest_disks *g, unsigned vdev_number)
{
    for (unsigned i = 0; i < g->nr; i++)
        if (xen_vbd_number(g->vbd[i]) == vdev_number)
            return &g->vbd[i];
    return NULL;
}

static struct xen_vbd **find_or_say(struct guest_disks *g, unsigned vdev_number, struct err *e)
{
    struct xen_vbd **at = find(g, vdev_number);

    if (!at)
        err_set(e, ENODEV, "the guest has no disk %u", vdev_number);
    return at;
}

/* The order of the others is that of block-list: it stays. */
static void remove_at(struct guest_disks *g, struct xen_vbd **at)
{
    struct xen_vbd *gone = *at;

    g->nr--;
    for (; at < g->vbd + g->nr; at++)
        at[0] = at[1];
    xen_vbd_destroy(gone);
}

static void disk_closed(void *arg, struct xen_vbd *v)
{
    struct guest_disks *g = arg;
    unsigned vdev_number = xen_vbd_number(v);

    remove_at(g, find(g, vdev_number));
    g->detached(g->arg, vdev_number);
}

/* Of some block device; disks whose size is as it was do nothing, nor do those that keep theirs. */
static void sizes_changed(void *arg)
{
    struct guest_disks *g = arg;

    for (unsigned i = 0; i < g->nr; i++) {
        struct err e = { 0 };

        if (xen_vbd_disk_props(g->vbd[i])->block_device &&
            xen_vbd_resize(g->vbd[i], 0, &e) && e.code != EOPNOTSUPP)
            log_warning("%s: %s", xen_vbd_name(g->vbd[i]), e.text);
    }
}

static void sizes_watch(struct guest_disks *g)
{
    g->sizes = blk_size_watch_create(g->common.loop, sizes_changed, g);
    if (!g->sizes)
        log_info("the kernel does not tell of block devices that change their size: %s",
                 strerror(errno));
}

int guest_disks_add(struct guest_disks *g, const struct vm_disk *d, bool bootable,
                    struct err *e)
{
    struct xen_vbd_params p = g->common;
    struct err why = { 0 };
    int rc;

    if (find(g, d->vdev_number))
        return err_set(e, EEXIST, "%s: the guest has a disk %u already", d->vdev,
                       d->vdev_number);
    if (g->nr == VM_DISKS_MAX)
        return err_set(e, E2BIG, "%s: a guest has %d disks at most", d->vdev, VM_DISKS_MAX);
    p.vdev_number = d->vdev_number;
    p.vdev = d->vdev;
    p.disk = (struct blk_spec){
        .driver = d->driver, .path = d->target, .size_bytes = d->size_bytes,
        .readonly = d->readonly, .shared_write = d->shared_write, .no_discard = !d->discard,
        .reconnect_s = d->reconnect_s, .format = vm_config_disk_image_format(d),
        .filters = d->filters, .qos_groups = g->common.disk.qos_groups,
        .quota_bytes = d->quota_bytes, .pool_bytes = d->pool_bytes,
        .run_dir = g->common.disk.run_dir, .label = d->vdev,
    };
    p.cdrom = d->cdrom;
    p.bootable = bootable;
    p.persistent = d->persistent_grants;
    if (vm_config_disk_apart(g->config, d))
        p.apart.spawn = vm_disk_process_spawn;
    p.closed = disk_closed;
    p.arg = g;
    rc = xen_vbd_create(&p, &g->vbd[g->nr], &why);
    if (rc)
        return err_set(e, -rc, "%s: %s", d->target[0] ? d->target : d->vdev, why.text);
    if (xen_vbd_disk_props(g->vbd[g->nr++])->block_device && !g->sizes)
        sizes_watch(g);
    return 0;
}

int guest_disks_detach(struct guest_disks *g, unsigned vdev_number, bool force, struct err *e)
{
    struct xen_vbd **at = find_or_say(g, vdev_number, e);

    if (!at)
        return -e->code;
    if (!force && !xen_vbd_close(*at))
        return -EINPROGRESS;
    remove_at(g, at);
    return 0;
}

int guest_disks_resize(struct guest_disks *g, unsigned vdev_number, uint64_t *size_bytes,
                       struct err *e)
{
    struct xen_vbd **at = find_or_say(g, vdev_number, e);
    struct err why = { 0 };
    int rc;

    if (!at)
        return -e->code;
    rc = xen_vbd_resize(*at, *size_bytes, &why);
    if (rc)
        return err_set(e, -rc, "%s: %s", xen_vbd_name(*at), why.text);
    *size_bytes = blk_props_size(xen_vbd_disk_props(*at));
    return 0;
}

unsigned guest_disks_list(const struct guest_disks *g, struct vm_guest_disk *out)
{
    for (unsigned i = 0; i < g->nr; i++) {
        struct xen_vbd_front f;

        xen_vbd_front(g->vbd[i], &f);
        out[i] = (struct vm_guest_disk){
            .vdev_number = xen_vbd_number(g->vbd[i]), .state = f.state,
            .event_channel = f.event_channel, .ring_ref = f.ring_ref,
        };
        snprintf(out[i].backend, sizeof(out[i].backend), "%s", f.backend);
    }
    return g->nr;
}

void guest_disks_remove_all(struct guest_disks *g)
{
    while (g->nr)
        xen_vbd_destroy(g->vbd[--g->nr]);
    blk_size_watch_free(g->sizes);
    g->sizes = NULL;
}
