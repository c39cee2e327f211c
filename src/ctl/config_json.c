/* SPDX-License-Identifier: MIT */
#include "ctl/config_json.h"

#include <string.h>

#include "ctl/uuid.h"

/* A configuration file may hold any bytes; JSON holds UTF-8. */
static json_t *text(const char *s)
{
    json_t *j = json_string(s ? s : "");

    return j ? j : json_string("(not UTF-8)");
}

static json_t *action(enum vm_action a)
{
    static const char *const names[] = {
        [VM_ACTION_DESTROY] = "destroy", [VM_ACTION_RESTART] = "restart",
        [VM_ACTION_RENAME_RESTART] = "restart_rename", [VM_ACTION_PRESERVE] = "preserve",
        [VM_ACTION_COREDUMP_DESTROY] = "coredump_destroy",
        [VM_ACTION_COREDUMP_RESTART] = "coredump_restart",
        [VM_ACTION_SOFT_RESET] = "soft_reset",
    };

    return json_string(names[a]);
}

/* NULL, which leaves it out, for one that was not said. */
static json_t *bytes(uint64_t n)
{
    return n ? json_integer((json_int_t)n) : NULL;
}

json_t *ctl_config_json_disk(const struct vm_disk *d)
{
    static const char *const formats[] = {
        [VM_DISK_FORMAT_RAW] = "raw", [VM_DISK_FORMAT_QCOW] = "qcow",
        [VM_DISK_FORMAT_QCOW2] = "qcow2", [VM_DISK_FORMAT_VHD] = "vhd",
        [VM_DISK_FORMAT_QED] = "qed", [VM_DISK_FORMAT_VHDX] = "vhdx",
        [VM_DISK_FORMAT_VMDK] = "vmdk", [VM_DISK_FORMAT_VDI] = "vdi",
        [VM_DISK_FORMAT_EMPTY] = "empty",
    };

    return json_pack("{s:o*, s:o, s:s, s:s, s:o, s:o*, s:o*, s:o*, s:o*, s:o*, s:i, s:i, s:i, "
                     "s:b, s:b, s:b, s:b}",
                     "backend_domname", d->backend ? text(d->backend) : NULL,
                     "pdev_path", text(d->target), "vdev", d->vdev,
                     "format", formats[d->format], "driver", text(d->driver),
                     "filters", d->filters ? text(d->filters) : NULL,
                     "size", bytes(d->size_bytes), "quota", bytes(d->quota_bytes),
                     "pool", bytes(d->pool_bytes),
                     "reconnect", strcmp(d->driver, "nbd") ? NULL : json_integer(d->reconnect_s),
                     "removable", d->cdrom, "readwrite", !d->readonly, "is_cdrom", d->cdrom,
                     "shared_write", d->shared_write, "discard_enable", d->discard,
                     "direct_io_safe", d->direct_io_safe,
                     "persistent_grants", d->persistent_grants);
}

json_t *ctl_config_json(const struct vm_config *c)
{
    static const char *const types[] = {
        [VM_TYPE_PV] = "pv", [VM_TYPE_PVH] = "pvh", [VM_TYPE_HVM] = "hvm",
    };
    static const char *const rings[] = {
        [VM_RING_AUTO] = "auto", [VM_RING_1] = "1", [VM_RING_3] = "3",
    };
    json_t *vcpus = json_array(), *disks = json_array(), *build;
    char uuid[UUID_TEXT_BYTES];

    uuid_format(c->uuid, uuid);
    for (unsigned i = 0; i < c->vcpus; i++)
        json_array_append_new(vcpus, json_integer(i));
    for (unsigned i = 0; i < c->nr_disks; i++)
        json_array_append_new(disks, ctl_config_json_disk(&c->disks[i]));
    build = json_pack("{s:i, s:o, s:I, s:I, s:i, s:i, s:i, s:o, s:o}",
                      "max_vcpus", (int)c->maxvcpus, "avail_vcpus", vcpus,
                      "max_memkb", (json_int_t)(c->maxmem_bytes / KIB),
                      "target_memkb", (json_int_t)(c->memory_bytes / KIB),
                      "event_channels", (int)c->max_event_channels,
                      "max_grant_frames", (int)c->max_grant_frames,
                      "max_grant_version", (int)c->max_grant_version,
                      "kernel", text(c->kernel), "cmdline", text(c->cmdline));
    if (build && c->ramdisk)
        json_object_set_new(build, "ramdisk", text(c->ramdisk));
    return json_pack("{s:{s:s, s:o, s:s}, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:{s:s, s:i, s:s}}",
                     "c_info", "type", types[c->type], "name", text(c->name), "uuid", uuid,
                     "b_info", build, "disks", disks,
                     "on_poweroff", action(c->on_poweroff), "on_reboot", action(c->on_reboot),
                     "on_watchdog", action(c->on_watchdog), "on_crash", action(c->on_crash),
                     "on_soft_reset", action(c->on_soft_reset),
                     "xenolith", "ring", rings[c->ring], "max_queues", (int)c->max_queues,
                     "disk_backend", c->disks_apart ? "process" : "Domain-0");
}
