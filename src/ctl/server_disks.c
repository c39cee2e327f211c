/* SPDX-License-Identifier: MIT */
/* Disks of a guest that runs: they go to the guest, and what the guest then has goes to its
 * configuration, so that it has the same after a reboot. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "ctl/server_priv.h"

enum verdict ctl_disk_attach(struct conn *c, json_t *arguments, json_t **result, struct err *e)
{
    struct ctl_server *s = c->server;
    struct vm_disk d;
    int rc = ctl_server_alive(s, e);

    if (rc || vm_config_disk_parse(json_string_value(json_object_get(arguments, "disk")), &d, e))
        return VERDICT_REPLY;
    rc = vm_guest_disk_attach(s->p.guest, &d, e);
    if (!rc && vm_config_disk_add(s->p.config, &d)) {
        vm_guest_disk_detach(s->p.guest, d.vdev_number, true, e);
        rc = err_set(e, ENOMEM, "out of memory");
    }
    if (rc) {
        vm_config_disk_free(&d);
        return VERDICT_REPLY;
    }
    log_info("disk %s is attached: %s", d.vdev, d.target);
    *result = json_pack("{s:i}", "vdev_number", (int)d.vdev_number);
    return VERDICT_REPLY;
}

/* The number of the device the arguments name, which the guest has. */
static int device_find(struct ctl_server *s, json_t *arguments, unsigned *number, struct err *e)
{
    const char *device = json_string_value(json_object_get(arguments, "device"));

    if (vm_config_vdev_number(device, number) || !vm_config_disk_find(s->p.config, *number))
        return err_set(e, ENODEV, "Error: Device %.64s not connected.", device);
    return 0;
}

static void settled(void *arg)
{
    const struct err none = { 0 };

    ctl_conn_wake(arg, NULL, &none);
}

bool ctl_disk_settle(struct conn *c)
{
    loop_timer_remove(c->wait_timer);
    c->wait_timer = loop_timer_add(c->server->p.loop, settled, c);
    c->wait = CONN_WAIT_SETTLE;
    if (c->wait_timer)
        loop_timer_arm(c->wait_timer, CTL_DETACH_SETTLE_MS * 1000000ull);
    return c->wait_timer;
}

static void out_of_patience(void *arg)
{
    struct conn *c = arg;
    struct err e = { 0 };

    err_set(&e, ETIMEDOUT, "Domain %u: unable to remove disk %u: the guest has not let go of it "
            "within %u s; it may still, or --force takes it away", c->server->p.who->domid,
            c->wait_disk, CTL_DETACH_WAIT_MS / 1000);
    ctl_conn_wake(c, NULL, &e);
}

static void force_now(void *arg)
{
    struct conn *c = arg;
    struct ctl_server *s = c->server;
    unsigned number = c->wait_disk;
    struct err e = { 0 };

    if (vm_guest_disk_detach(s->p.guest, number, true, &e))
        ctl_conn_wake(c, NULL, &e);
    else
        ctl_server_disk_detached(s, number);
}

enum verdict ctl_disk_detach(struct conn *c, json_t *arguments, json_t **result, struct err *e)
{
    struct ctl_server *s = c->server;
    bool force = json_is_true(json_object_get(arguments, "force"));
    unsigned number;
    int rc;

    if (ctl_server_alive(s, e) || device_find(s, arguments, &number, e))
        return VERDICT_REPLY;
    c->wait_timer = loop_timer_add(s->p.loop, force ? force_now : out_of_patience, c);
    rc = c->wait_timer ? vm_guest_disk_detach(s->p.guest, number, false, e)
                       : err_set(e, ENOMEM, "out of memory");
    if (rc == -EINPROGRESS) {
        loop_timer_arm(c->wait_timer,
                       (force ? CTL_DETACH_FORCE_MS : CTL_DETACH_WAIT_MS) * 1000000ull);
        c->wait = CONN_WAIT_DISK;
        c->wait_disk = number;
        return VERDICT_WAIT;
    }
    loop_timer_remove(c->wait_timer);
    c->wait_timer = NULL;
    if (rc)
        return VERDICT_REPLY;
    ctl_server_disk_detached(s, number);
    return ctl_disk_settle(c) ? VERDICT_WAIT : VERDICT_REPLY;
}

enum verdict ctl_disk_list(struct conn *c, json_t *arguments, json_t **result, struct err *e)
{
    struct ctl_server *s = c->server;
    struct vm_guest_disk disk[VM_DISKS_MAX];
    unsigned nr = vm_guest_disk_list(s->p.guest, disk);
    json_t *all = json_array();

    for (unsigned i = 0; i < nr; i++)
        json_array_append_new(all, json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:s}",
            "vdev_number", (int)disk[i].vdev_number, "backend_id", 0,
            "frontend_id", (int)s->p.who->domid, "state", disk[i].state,
            "event_channel", disk[i].event_channel, "ring_ref", disk[i].ring_ref,
            "backend", disk[i].backend));
    *result = json_pack("{s:o}", "disks", all);
    return VERDICT_REPLY;
}

enum verdict ctl_disk_resize(struct conn *c, json_t *arguments, json_t **result, struct err *e)
{
    struct ctl_server *s = c->server;
    uint64_t size = (uint64_t)json_integer_value(json_object_get(arguments, "size_bytes"));
    unsigned number;

    if (ctl_server_alive(s, e) || device_find(s, arguments, &number, e) ||
        vm_guest_disk_resize(s->p.guest, number, &size, e))
        return VERDICT_REPLY;
    /* what has no medium would have its old size again after a reboot */
    if (vm_config_disk_resized(s->p.config, number, size))
        log_warning("disk %u of the guest that follows by reboot may have its old size: out of"
                    " memory", number);
    *result = json_pack("{s:I}", "size_bytes", (json_int_t)size);
    return VERDICT_REPLY;
}
