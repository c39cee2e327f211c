/* SPDX-License-Identifier: MIT */
/* block-attach, block-detach, block-list, block-resize: disks of running guests.  What they
 * print, and the statuses they end with, are xl's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "cmd/cmd.h"
#include "ctl/guest_config.h"

/* Opens the registry and finds the guest called who.  -1, or the status to end with. */
static int guest_open(const char *who, struct registry *r, struct registry_guest *g)
{
    if (cmd_registry_open(r))
        return CMD_FAILURE;
    if (cmd_guest_find(r, who, g)) {
        registry_close(r);
        return CMD_FAILURE;
    }
    return -1;
}

/* One request to the guest called who; what failed is told, and then in xl's words. */
static int request(const char *who, const char *command, json_t *arguments, unsigned timeout_ms,
                   json_t **result, const char *failed)
{
    struct registry_guest g;
    struct registry r;
    struct err e = { 0 };
    int status = guest_open(who, &r, &g);

    if (status >= 0) {
        json_decref(arguments);
        return status;
    }
    status = CMD_OK;
    if (ctl_call(&r, g.domid, command, arguments, timeout_ms, result, &e)) {
        cmd_error(&e);
        if (failed && e.code != ENODEV)
            fprintf(stderr, "%s failed.\n", failed);
        status = CMD_FAILURE;
    }
    registry_close(&r);
    return status;
}

/* ---- block-attach ---- */

static int attach_dryrun(const char *spec)
{
    struct err e = { 0 };
    char *text = guest_config_disk_dump(spec, &e);

    if (!text) {
        cmd_error(&e);
        return CMD_FAILURE;
    }
    printf("disk: %s\n", text);
    free(text);
    return CMD_OK;
}

int cmd_block_attach(int argc, char **argv)
{
    struct cmd_options o = { "block-attach", "hn", NULL, 2 };
    bool dryrun = false;
    struct err e = { 0 };
    char *spec;
    int c, status;

    while ((c = cmd_option_next(&o, argc, argv)) >= 0)
        dryrun |= c == 'n';
    if (o.status >= 0)
        return o.status;
    spec = guest_config_disk_spec(argv + optind + 1, (unsigned)(argc - optind - 1), &e);
    if (!spec) {
        cmd_error(&e);
        return CMD_FAILURE;
    }
    if (dryrun) {
        struct registry_guest g;
        struct registry r;

        status = guest_open(argv[optind], &r, &g);
        if (status < 0) {
            registry_close(&r);
            status = attach_dryrun(spec);
        }
    } else {
        status = request(argv[optind], "disk-attach", json_pack("{s:s}", "disk", spec),
                         CTL_TIMEOUT_MS, NULL, "libxl_device_disk_add");
    }
    free(spec);
    return status;
}

/* ---- block-detach ---- */

int cmd_block_detach(int argc, char **argv)
{
    static const struct option longs[] = {
        { "force", 0, NULL, 'f' }, { "help", 0, NULL, 'h' }, { NULL },
    };
    struct cmd_options o = { "block-detach", "hf", longs, 2 };
    bool force = false;
    int c;

    while ((c = cmd_option_next(&o, argc, argv)) >= 0)
        force |= c == 'f';
    if (o.status >= 0)
        return o.status;
    return request(argv[optind], "disk-detach",
                   json_pack("{s:s, s:b}", "device", argv[optind + 1], "force", force),
                   CTL_DETACH_TIMEOUT_MS, NULL,
                   force ? "libxl_device_disk_destroy" : "libxl_device_disk_safe_remove");
}

/* ---- block-list ---- */

static void list_one(struct registry *r, const struct registry_guest *g)
{
    json_t *result = NULL, *d;
    struct err e = { 0 };
    size_t i;

    if (ctl_call(r, g->domid, "disk-list", NULL, CTL_TIMEOUT_MS, &result, &e)) {
        cmd_error(&e);
        return;
    }
    json_array_foreach(json_object_get(result, "disks"), i, d) {
        int vdev, backend_id, frontend_id, state, port, ref;
        const char *backend;

        if (!json_unpack(d, "{s:i, s:i, s:i, s:i, s:i, s:i, s:s}", "vdev_number", &vdev,
                         "backend_id", &backend_id, "frontend_id", &frontend_id, "state", &state,
                         "event_channel", &port, "ring_ref", &ref, "backend", &backend))
            printf("%-5d %-3d %-6d %-5d %-6d %-8d %-30s\n", vdev, backend_id, frontend_id, state,
                   port, ref, backend);
    }
    json_decref(result);
}

/* Succeeds whatever it is asked for, as xl's does. */
int cmd_block_list(int argc, char **argv)
{
    struct cmd_options o = { "block-list", "h", NULL, 1 };
    struct registry r;

    while (cmd_option_next(&o, argc, argv) >= 0)
        ;
    if (o.status >= 0)
        return o.status;
    if (cmd_registry_open(&r))
        return CMD_FAILURE;
    printf("%-5s %-3s %-6s %-5s %-6s %-8s %-30s\n", "Vdev", "BE", "handle", "state", "evt-ch",
           "ring-ref", "BE-path");
    for (int i = optind; i < argc; i++) {
        struct registry_guest g;
        struct err e = { 0 };

        if (!registry_find(&r, argv[i], &g, &e))
            list_one(&r, &g);
        else if (e.code)
            cmd_error(&e);
        else
            fprintf(stderr, "%s is an invalid domain identifier\n", argv[i]);
    }
    registry_close(&r);
    return CMD_OK;
}

/* ---- block-resize, which xl has not ---- */

int cmd_block_resize(int argc, char **argv)
{
    struct cmd_options o = { "block-resize", "h", NULL, 2 };
    json_t *arguments, *result = NULL;
    uint64_t size = 0;
    int status;

    while (cmd_option_next(&o, argc, argv) >= 0)
        ;
    if (o.status >= 0)
        return o.status;
    if (argc - optind > 3) {
        cmd_help_one(stderr, cmd_find(o.name));
        return CMD_USAGE;
    }
    if (argc - optind == 3 && (num_parse_bytes(argv[optind + 2], &size) || !size ||
                               size > INT64_MAX || size % 512)) {
        fprintf(stderr, "block-resize: %s: expected a multiple of 512 bytes such as 512M or 10G\n",
                argv[optind + 2]);
        return CMD_FAILURE;
    }
    arguments = json_pack("{s:s}", "device", argv[optind + 1]);
    if (size)
        json_object_set_new(arguments, "size_bytes", json_integer((json_int_t)size));
    status = request(argv[optind], "disk-resize", arguments, CTL_TIMEOUT_MS, &result, NULL);
    if (!status)
        printf("%s: %lld bytes\n", argv[optind + 1],
               (long long)json_integer_value(json_object_get(result, "size_bytes")));
    json_decref(result);
    return status;
}
