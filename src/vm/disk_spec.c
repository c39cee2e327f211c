/* SPDX-License-Identifier: MIT */
/* A disk line is parameters between commas.  Each is, in this order of trial,
 *   target=REST      the rest of the line, commas and all;
 *   KEY=VALUE, FLAG  from the tables below;
 *   [PREFIX:]...     deprecated prefixes, before the target only;
 *   anything else    the next of target, format, vdev, access not yet given.
 * Blanks before a parameter do not count, those after it do.  A parameter given
 * twice must say the same, but an empty target may be given again, and each filter=
 * is one more. */
#include "vm/disk_spec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

#define DRIVER_NAME_MAX 31
#define RECONNECT_DEFAULT_S 30u
#define RECONNECT_MAX_S     86400u
#define BLANKS VM_DISK_SPEC_BLANKS
#define LOWER_ALNUM "abcdefghijklmnopqrstuvwxyz0123456789"

struct spec {
    const char *whole;          /* for messages */
    const char *vdev;           /* for a line that gives none; NULL: it must */
    struct vm_disk d;
    bool prefixed;              /* a deprecated prefix took the place of the format */
    bool format_given, access_given, discard_given, persistent_given, reconnect_given;
    struct err *e;
};

static int fail(struct spec *s, const char *what, const char *near)
{
    return err_set(s->e, EINVAL, "config parsing error in disk specification: %s: near `%.80s'"
                   " in `%.200s'", what, near, s->whole);
}

static int out_of_memory(struct spec *s)
{
    return err_set(s->e, ENOMEM, "out of memory");
}

/* Keeps a copy of value, unless another is there already. */
static int save(struct spec *s, char **slot, const char *value, const char *respecified)
{
    char *copy;

    if (*slot && **slot)
        return strcmp(*slot, value) ? fail(s, respecified, value) : 0;
    copy = strdup(value);
    if (!copy)
        return out_of_memory(s);
    free(*slot);
    *slot = copy;
    return 0;
}

static int set_target(struct spec *s, const char *value)
{
    return save(s, &s->d.target, value, "target respecified");
}

static int set_format_to(struct spec *s, enum vm_disk_format format, const char *near)
{
    if (s->format_given && s->d.format != format)
        return fail(s, "format respecified", near);
    s->format_given = true;
    s->d.format = format;
    return 0;
}

static int set_format(struct spec *s, const char *value)
{
    static const struct {
        const char *name;
        enum vm_disk_format format;
    } formats[] = {
        { "", VM_DISK_FORMAT_RAW }, { "raw", VM_DISK_FORMAT_RAW },
        { "qcow", VM_DISK_FORMAT_QCOW }, { "qcow2", VM_DISK_FORMAT_QCOW2 },
        { "vhd", VM_DISK_FORMAT_VHD }, { "qed", VM_DISK_FORMAT_QED },
        { "vhdx", VM_DISK_FORMAT_VHDX }, { "vmdk", VM_DISK_FORMAT_VMDK },
        { "vdi", VM_DISK_FORMAT_VDI }, { "empty", VM_DISK_FORMAT_EMPTY },
    };

    for (unsigned i = 0; i < array_size(formats); i++)
        if (!strcmp(value, formats[i].name))
            return set_format_to(s, formats[i].format, value);
    return fail(s, "unknown value for format, expected raw, qcow, qcow2, vhd, qed, vhdx,"
                " vmdk, vdi or empty", value);
}

static int set_vdev(struct spec *s, const char *value)
{
    unsigned number;

    if (s->d.vdev[0])
        return strcmp(s->d.vdev, value) ? fail(s, "vdev respecified", value) : 0;
    if (strlen(value) >= sizeof(s->d.vdev) || vm_disk_vdev_number(value, &number))
        return fail(s, "not a virtual device, expected xvdX, dN, sdX, hdX or a number", value);
    memcpy(s->d.vdev, value, strlen(value) + 1);
    s->d.vdev_number = number;
    return 0;
}

static int set_access(struct spec *s, const char *value)
{
    bool readonly = !strcmp(value, "r") || !strcmp(value, "ro");
    bool shared = !strcmp(value, "w!") || !strcmp(value, "!");

    if (!readonly && !shared && strcmp(value, "w") && strcmp(value, "rw") && *value)
        return fail(s, "unknown value for access, expected r, w or w!", value);
    if (s->access_given && (s->d.readonly != readonly || s->d.shared_write != shared))
        return fail(s, "access respecified", value);
    s->access_given = true;
    s->d.readonly = readonly;
    s->d.shared_write = shared;
    return 0;
}

static int set_devtype(struct spec *s, const char *value)
{
    if (strcmp(value, "cdrom") && strcmp(value, "disk"))
        return fail(s, "unknown value for type, expected cdrom or disk", value);
    s->d.cdrom = !strcmp(value, "cdrom");
    return 0;
}

static int set_script(struct spec *s, const char *value)
{
    return save(s, &s->d.script, value, "script respecified");
}

static int set_backend(struct spec *s, const char *value)
{
    return save(s, &s->d.backend, value, "backend respecified");
}

/* How xl would serve the disk: known words, but Xenolith has one backend. */
static int set_backendtype(struct spec *s, const char *value)
{
    static const char *const types[] = { "phy", "tap", "qdisk", "standalone" };

    for (unsigned i = 0; i < array_size(types); i++)
        if (!strcmp(value, types[i]))
            return 0;
    return fail(s, "unknown value for backendtype, expected phy, tap, qdisk or standalone",
                value);
}

static int set_specification(struct spec *s, const char *value)
{
    if (strcmp(value, "xen") && strcmp(value, "virtio"))
        return fail(s, "unknown value for specification, expected xen or virtio", value);
    s->d.virtio = !strcmp(value, "virtio");
    return 0;
}

static int set_grant_usage(struct spec *s, const char *value)
{
    if (strcmp(value, "0") && strcmp(value, "1"))
        return fail(s, "unknown value for grant_usage, expected 0 or 1", value);
    return 0;
}

static int set_driver(struct spec *s, const char *value)
{
    if (!*value || value[strspn(value, LOWER_ALNUM "_-")] || strlen(value) > DRIVER_NAME_MAX)
        return fail(s, "not the name of a driver", value);
    return save(s, &s->d.driver, value, "driver respecified");
}

static int set_size(struct spec *s, const char *value)
{
    uint64_t bytes;

    if (num_parse_bytes(value, &bytes) || !bytes || bytes % 512)
        return fail(s, "not a size, expected a multiple of 512 bytes such as 512M or 10G", value);
    if (s->d.size_bytes && s->d.size_bytes != bytes)
        return fail(s, "size respecified", value);
    s->d.size_bytes = bytes;
    return 0;
}

static int set_bytes(struct spec *s, const char *value, uint64_t *slot, const char *respecified)
{
    uint64_t bytes;

    if (num_parse_bytes(value, &bytes) || !bytes)
        return fail(s, "not a size, expected a number of bytes such as 512M or 10G", value);
    if (*slot && *slot != bytes)
        return fail(s, respecified, value);
    *slot = bytes;
    return 0;
}

static int set_quota(struct spec *s, const char *value)
{
    return set_bytes(s, value, &s->d.quota_bytes, "quota respecified");
}

static int set_pool(struct spec *s, const char *value)
{
    return set_bytes(s, value, &s->d.pool_bytes, "pool respecified");
}

static int set_reconnect(struct spec *s, const char *value)
{
    uint64_t seconds;

    if (num_parse_u64(value, 0, RECONNECT_MAX_S, &seconds))
        return fail(s, "not a number of seconds, expected 0 to 86400", value);
    if (s->reconnect_given && s->d.reconnect_s != seconds)
        return fail(s, "reconnect respecified", value);
    s->reconnect_given = true;
    s->d.reconnect_s = (unsigned)seconds;
    return 0;
}

static int add_filter(struct spec *s, const char *value)
{
    size_t name = strspn(value, LOWER_ALNUM "-");
    char *all = NULL;

    if (!name || (value[name] && value[name] != ':'))
        return fail(s, "not a filter, expected NAME or NAME:OPTION=VALUE:OPTION=VALUE...", value);
    if (asprintf(&all, "%s%s%s", s->d.filters ? s->d.filters : "", s->d.filters ? "," : "",
                 value) < 0)
        return out_of_memory(s);
    free(s->d.filters);
    s->d.filters = all;
    return 0;
}

static int set_colo(struct spec *s, const char *value)
{
    s->d.colo = true;
    return 0;
}

static int flag_cdrom(struct spec *s)
{
    s->d.cdrom = true;
    return 0;
}

/* A flag that comes as name or as no-name. */
static int set_switch(struct spec *s, bool *given, bool *slot, bool on, const char *respecified,
                      const char *near)
{
    if (*given && *slot != on)
        return fail(s, respecified, near);
    *given = true;
    *slot = on;
    return 0;
}

static int flag_discard(struct spec *s)
{
    return set_switch(s, &s->discard_given, &s->d.discard, true, "discard respecified", "discard");
}

static int flag_no_discard(struct spec *s)
{
    return set_switch(s, &s->discard_given, &s->d.discard, false, "discard respecified",
                      "no-discard");
}

static int flag_persistent(struct spec *s)
{
    return set_switch(s, &s->persistent_given, &s->d.persistent_grants, true,
                      "persistent-grants respecified", "persistent-grants");
}

static int flag_no_persistent(struct spec *s)
{
    return set_switch(s, &s->persistent_given, &s->d.persistent_grants, false,
                      "persistent-grants respecified", "no-persistent-grants");
}

static int flag_direct_io_safe(struct spec *s)
{
    s->d.direct_io_safe = true;
    return 0;
}

static int flag_colo(struct spec *s)
{
    return set_colo(s, "");
}

static int flag_ignored(struct spec *s)
{
    return 0;
}

static int flag_untrusted(struct spec *s)
{
    s->d.untrusted = true;
    return 0;
}

static const struct {
    const char *name;
    int (*set)(struct spec *s, const char *value);
} keys[] = {
    { "format", set_format }, { "vdev", set_vdev }, { "access", set_access },
    { "devtype", set_devtype }, { "script", set_script }, { "backend", set_backend },
    { "backendtype", set_backendtype }, { "specification", set_specification },
    { "grant_usage", set_grant_usage }, { "driver", set_driver }, { "size", set_size },
    { "quota", set_quota }, { "pool", set_pool }, { "reconnect", set_reconnect },
    { "filter", add_filter },
    { "colo-host", set_colo }, { "colo-port", set_colo }, { "colo-export", set_colo },
    { "active-disk", set_colo }, { "hidden-disk", set_colo },
};

static const struct {
    const char *name;
    int (*set)(struct spec *s);
} flags[] = {
    { "cdrom", flag_cdrom }, { "discard", flag_discard }, { "no-discard", flag_no_discard },
    { "direct-io-safe", flag_direct_io_safe }, { "colo", flag_colo }, { "no-colo", flag_ignored },
    { "trusted", flag_ignored }, { "untrusted", flag_untrusted },
    { "persistent-grants", flag_persistent }, { "no-persistent-grants", flag_no_persistent },
};

/* A positional "vdev:devtype" of old; *took says whether it was one. */
static int take_vdev_and_devtype(struct spec *s, char *param, bool *took)
{
    char *colon = strrchr(param, ':');
    int rc;

    *took = colon != NULL;
    if (!colon)
        return 0;
    *colon = 0;
    rc = set_vdev(s, param);
    return rc ? rc : set_devtype(s, colon + 1);
}

static int take_positional(struct spec *s, char *param)
{
    bool took = false;
    int rc;

    if (!s->d.target)
        return set_target(s, param);
    if (!s->prefixed && !s->format_given) {
        if (!*s->d.target) {    /* ",hdc:cdrom,r": an empty drive in xend's syntax */
            rc = take_vdev_and_devtype(s, param, &took);
            if (rc || took)
                return rc ? rc : set_format_to(s, VM_DISK_FORMAT_EMPTY, param);
        }
        return set_format(s, param);
    }
    if (!s->d.vdev[0]) {
        rc = take_vdev_and_devtype(s, param, &took);
        return rc || took ? rc : set_vdev(s, param);
    }
    if (!s->access_given)
        return set_access(s, param);
    return fail(s, "too many positional parameters", param);
}

/* Takes the deprecated prefixes off *param, as xl maps them. */
static int take_prefixes(struct spec *s, char **param)
{
    static const char *const ignored[] = {
        "tapdisk", "tap2", "tap", "aio", "ioemu", "file", "phy",
    };
    static const char *const formats[] = { "raw", "qcow", "qcow2", "vhd" };
    static const char *const scripts[] = { "iscsi", "enbd", "nbd", "drbd" };

    for (;;) {
        size_t len = strspn(*param, LOWER_ALNUM);
        char *p = *param, script[16];
        bool known = false;
        int rc = 0;

        if (!len || p[len] != ':' || (*p >= '0' && *p <= '9') || !strncmp(p, "nbd://", 6))
            return 0;
        p[len] = 0;
        for (unsigned i = 0; !known && i < array_size(ignored); i++)
            known = !strcmp(p, ignored[i]);
        for (unsigned i = 0; !known && i < array_size(formats); i++)
            if ((known = !strcmp(p, formats[i])))
                rc = set_format(s, p);
        for (unsigned i = 0; !known && i < array_size(scripts); i++) {
            if ((known = !strcmp(p, scripts[i]))) {
                memcpy(script, "block-", 6);
                memcpy(script + 6, p, len + 1);
                rc = set_script(s, script);
            }
        }
        if (rc)
            return rc;
        if (!known) {
            /* Not ours: a target such as server:path, unless it looks like one. */
            if (!strspn(p + len + 1, LOWER_ALNUM))
                return fail(s, "unknown deprecated disk prefix", p);
            p[len] = ':';
            return 0;
        }
        s->prefixed = true;
        *param = p + len + 1;
        *param += strspn(*param, BLANKS);
    }
}

static int take_parameter(struct spec *s, char *param)
{
    char *value;
    int rc;

    for (unsigned i = 0; i < array_size(flags); i++)
        if (!strcmp(param, flags[i].name))
            return flags[i].set(s);
    if (!s->d.target) {
        rc = take_prefixes(s, &param);
        if (rc)
            return rc;
    }
    value = strchr(param, '=');
    if (!value)
        return take_positional(s, param);
    for (unsigned i = 0; i < array_size(keys); i++) {
        size_t len = strlen(keys[i].name);

        if (!strncmp(param, keys[i].name, len) && param[len] == '=')
            return keys[i].set(s, param + len + 1);
    }
    if (value != param && strspn(param, LOWER_ALNUM "_-") == (size_t)(value - param))
        return fail(s, "unknown parameter", param);
    return fail(s, "bad disk syntax, a path with `=' or `,' in it must come last, as target=",
                param);
}

static int take_parameters(struct spec *s, char *text)
{
    char *at = text;

    for (;;) {
        char *end;
        int rc;

        at += strspn(at, BLANKS);
        if (!*at)
            return 0;
        if (!strncmp(at, "target=", 7)) {
            size_t len = strlen(at);

            if (at[len - 1] == ',')     /* as xl does */
                at[len - 1] = 0;
            return set_target(s, at + 7);
        }
        end = strchrnul(at, ',');
        if (!*end)
            return take_parameter(s, at);
        *end = 0;
        rc = take_parameter(s, at);
        if (rc)
            return rc;
        at = end + 1;
    }
}

/* What the parameters together must be. */
static int finish(struct spec *s)
{
    struct vm_disk *d = &s->d;
    bool own_driver;

    if (!d->target && set_target(s, ""))
        return -ENOMEM;
    if (!d->driver && set_driver(s, "file"))
        return -ENOMEM;
    if (!s->reconnect_given)
        d->reconnect_s = RECONNECT_DEFAULT_S;
    own_driver = strcmp(d->driver, "file");
    if (d->cdrom) {
        d->readonly = true;
        d->shared_write = false;
        if (!*d->target && !own_driver)
            d->format = VM_DISK_FORMAT_EMPTY;
    }
    d->discard = !d->readonly && (d->discard || !s->discard_given);
    if (!d->vdev[0] && s->vdev && set_vdev(s, s->vdev))
        return -EINVAL;
    if (!d->vdev[0])
        return fail(s, "no vdev specified", s->whole);
    if (!*d->target && !d->cdrom && !own_driver)
        return fail(s, "no target specified (and device not removable)", s->whole);
    if (*d->target && d->format == VM_DISK_FORMAT_EMPTY)
        return fail(s, "an empty drive can have no target", d->target);
    return 0;
}

int vm_disk_spec_parse(const char *spec, const char *vdev, struct vm_disk *out, struct err *e)
{
    struct spec s = { .whole = spec, .vdev = vdev, .e = e };
    char *text = strdup(spec);
    int rc;

    if (!text)
        return out_of_memory(&s);
    rc = take_parameters(&s, text);
    if (!rc)
        rc = finish(&s);
    if (!rc && !(s.d.spec = strdup(spec)))
        rc = out_of_memory(&s);
    free(text);
    if (rc) {
        vm_disk_spec_free(&s.d);
        *out = (struct vm_disk){ .line = 0 };
        return rc;
    }
    *out = s.d;
    return 0;
}

void vm_disk_spec_free(struct vm_disk *d)
{
    free(d->spec);
    free(d->target);
    free(d->driver);
    free(d->filters);
    free(d->script);
    free(d->backend);
}
