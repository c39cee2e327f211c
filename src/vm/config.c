/* SPDX-License-Identifier: MIT */
/* From settings to a guest's description: each function below reads the keys
 * of one subject, fills in xl's defaults and refuses what makes no sense. */
#include "vm/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xen/xen.h>

#include "base/log.h"
#include "base/text.h"
#include "vm/config_disk.h"
#include "vm/config_keys.h"
#include "vm/config_uuid.h"
#include "vm/disk_spec.h"
#include "vm/xlcfg_get.h"

#define WORDS_SOURCE "command line"
#define MEMORY_DEFAULT_BYTES (32 * MIB)     /* libxl's, when neither memory nor maxmem is given */

struct reading {
    const struct xlcfg *x;
    struct vm_config *c;
    struct err *e;
};

/* A fault of the setting called name, which exists. */
#define fail(r, name, code, ...) \
    xlcfg_value_fail(&xlcfg_find((r)->x, name)->value, name, (r)->e, code, __VA_ARGS__)

/* A setting that had to be there is not. */
static int fail_missing(struct reading *r, const char *name, const char *text)
{
    err_at(r->e, r->c->file, 0, name);
    return err_set(r->e, EINVAL, "%s", text);
}

/* Copies the text of the setting called name, if there is one, to *out. */
static int read_text(struct reading *r, const char *name, char **out)
{
    const char *text;
    int rc = xlcfg_get_text(r->x, name, &text, r->e);

    if (rc || !text)
        return rc;
    *out = strdup(text);
    return *out ? 0 : err_set(r->e, ENOMEM, "out of memory");
}

static void warn_of_keys(const struct xlcfg *x)
{
    for (unsigned i = 0; i < x->nr_settings; i++) {
        const struct xlcfg_setting *s = &x->settings[i];
        enum vm_config_key key = vm_config_key_find(s->name);

        if (key == VM_CONFIG_KEY_IGNORED)
            xlcfg_value_warn(&s->value, s->name, "not honoured yet, ignored");
        else if (key == VM_CONFIG_KEY_UNKNOWN)
            xlcfg_value_warn(&s->value, s->name, "unknown setting, ignored");
    }
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* A name is a word of commands, where only digits mean a domain id, and of
 * paths below the run-time directory. */
static const char *wrong_with_name(const char *name)
{
    bool digits = true;

    if (!*name || strlen(name) > VM_NAME_MAX_BYTES)
        return "must have 1 to 64 characters";
    if (!is_alnum(*name) && *name != '_')
        return "must start with a letter, a digit or `_'";
    for (const char *p = name; *p; p++) {
        digits = digits && *p >= '0' && *p <= '9';
        if (!is_alnum(*p) && !strchr("_-.:+@", *p))
            return "may hold letters, digits and _-.:+@ only";
    }
    return digits ? "may not be a number, which means a domain id" : NULL;
}

static int read_name(struct reading *r)
{
    const char *wrong;
    int rc = read_text(r, "name", &r->c->name);

    if (rc)
        return rc;
    if (!r->c->name)
        return fail_missing(r, "name", "Domain name must be specified.");
    wrong = wrong_with_name(r->c->name);
    if (wrong)
        return fail(r, "name", EINVAL, "the domain name %s: `%.80s'", wrong, r->c->name);
    return 0;
}

static int read_uuid(struct reading *r)
{
    const char *text;
    int rc = xlcfg_get_text(r->x, "uuid", &text, r->e);

    if (rc)
        return rc;
    if (text) {
        if (vm_uuid_parse(text, r->c->uuid))
            return fail(r, "uuid", EINVAL, "Failed to parse UUID: %.80s", text);
        return 0;
    }
    rc = vm_uuid_generate(r->c->uuid);
    return rc ? err_set(r->e, -rc, "no random bytes for a uuid: %s", strerror(-rc)) : 0;
}

/* One of the two names of a guest's type; *given says whether it was there. */
static int read_type_from(struct reading *r, const char *name, const char *const names[3],
                          enum vm_type *type, bool *given)
{
    const char *text;
    int rc = xlcfg_get_text(r->x, name, &text, r->e);

    *given = text != NULL;
    if (rc || !text)
        return rc;
    for (unsigned i = 0; i < 3; i++) {
        if (names[i] && !strcmp(text, names[i])) {
            *type = (enum vm_type)i;
            return 0;
        }
    }
    return fail(r, name, EINVAL, "Invalid domain type %.80s.", text);
}

static int read_type(struct reading *r)
{
    static const char *const types[] = {
        [VM_TYPE_PV] = "pv", [VM_TYPE_PVH] = "pvh", [VM_TYPE_HVM] = "hvm",
    };
    static const char *const builders[] = {
        [VM_TYPE_PV] = "generic", [VM_TYPE_PVH] = NULL, [VM_TYPE_HVM] = "hvm",
    };
    enum vm_type type = VM_TYPE_PV, builder = VM_TYPE_PV;
    bool type_given, builder_given;
    int rc = read_type_from(r, "type", types, &type, &type_given);

    if (!rc)
        rc = read_type_from(r, "builder", builders, &builder, &builder_given);
    if (rc)
        return rc;
    if (type_given && builder_given && type != builder)
        return fail(r, "builder", EINVAL,
                    "Contradicting \"builder\" and \"type\" options specified.");
    r->c->type = type_given ? type : builder;
    if (r->c->type == VM_TYPE_PV)
        return 0;
    if (!type_given)
        return fail(r, "builder", EOPNOTSUPP, "not supported yet: builder=\"hvm\"; expected"
                    " type=\"pv\"");
    return fail(r, "type", EOPNOTSUPP, "not supported yet: type=\"%s\"; expected type=\"pv\"",
                types[r->c->type]);
}

static int read_cmdline(struct reading *r)
{
    const char *root, *extra;
    int rc = read_text(r, "cmdline", &r->c->cmdline);

    if (!rc)
        rc = xlcfg_get_text(r->x, "root", &root, r->e);
    if (!rc)
        rc = xlcfg_get_text(r->x, "extra", &extra, r->e);
    if (rc)
        return rc;
    if (r->c->cmdline) {
        if (root || extra)
            xlcfg_value_warn(&xlcfg_find(r->x, root ? "root" : "extra")->value,
                             root ? "root" : "extra",
                             "ignoring root= and extra= in favour of cmdline=");
    } else if (asprintf(&r->c->cmdline, "%s%s%s%s", root ? "root=" : "", root ? root : "",
                        root && extra ? " " : "", extra ? extra : "") < 0) {
        r->c->cmdline = NULL;
        return err_set(r->e, ENOMEM, "out of memory");
    }
    if (strlen(r->c->cmdline) >= MAX_GUEST_CMDLINE) {
        const char *name = xlcfg_find(r->x, "cmdline") ? "cmdline" : extra ? "extra" : "root";

        return fail(r, name, E2BIG, "the kernel's command line has %zu bytes, at most %d fit",
                    strlen(r->c->cmdline), MAX_GUEST_CMDLINE - 1);
    }
    return 0;
}

static int read_kernel(struct reading *r)
{
    int rc = read_text(r, "kernel", &r->c->kernel);

    if (!rc)
        rc = read_text(r, "ramdisk", &r->c->ramdisk);
    if (rc)
        return rc;
    if (!r->c->kernel) {
        static const char *const others[] = { "bootloader", "firmware" };

        for (unsigned i = 0; i < array_size(others); i++)
            if (xlcfg_find(r->x, others[i]))
                return fail(r, others[i], EOPNOTSUPP, "not supported yet, expected kernel= with"
                            " the path of a kernel");
        return fail_missing(r, "kernel", "Neither kernel nor bootloader specified");
    }
    if (!*r->c->kernel)
        return fail(r, "kernel", EINVAL, "expected the path of a kernel");
    if (r->c->ramdisk && !*r->c->ramdisk) {     /* a word that takes the file's back */
        free(r->c->ramdisk);
        r->c->ramdisk = NULL;
    }
    return read_cmdline(r);
}

/* A setting in MiB, as bytes; *out is left alone when it is not there. */
static int read_mib(struct reading *r, const char *name, uint64_t *out)
{
    const int64_t min = (int64_t)(VM_MEMORY_MIN_BYTES / MIB);
    const int64_t max = (int64_t)(VM_MEMORY_MAX_BYTES / MIB);
    int64_t mib = 0;
    int rc = xlcfg_get_number(r->x, name, INT64_MIN, INT64_MAX, &mib, r->e);

    if (rc || !xlcfg_find(r->x, name))
        return rc;
    if (mib < min || mib > max)
        return fail(r, name, ERANGE, "expected %lld to %lld MiB, not %lld", (long long)min,
                    (long long)max, (long long)mib);
    *out = (uint64_t)mib * MIB;
    return 0;
}

static int read_memory(struct reading *r)
{
    struct vm_config *c = r->c;
    int rc = read_mib(r, "memory", &c->memory_bytes);

    if (!rc)
        rc = read_mib(r, "maxmem", &c->maxmem_bytes);
    if (rc)
        return rc;
    if (!c->memory_bytes && !c->maxmem_bytes)
        log_warning("%s: memory: not given, %llu MiB as with xl", c->file,
                    (unsigned long long)(MEMORY_DEFAULT_BYTES / MIB));
    if (!c->memory_bytes)
        c->memory_bytes = c->maxmem_bytes ? c->maxmem_bytes : MEMORY_DEFAULT_BYTES;
    if (!c->maxmem_bytes)
        c->maxmem_bytes = c->memory_bytes;
    if (c->maxmem_bytes < c->memory_bytes)
        return fail(r, "maxmem", EINVAL, "maxmem is %llu MiB, less than memory with %llu MiB",
                    (unsigned long long)(c->maxmem_bytes / MIB),
                    (unsigned long long)(c->memory_bytes / MIB));
    return 0;
}

static int read_vcpus(struct reading *r)
{
    int64_t vcpus = 1, maxvcpus = 0, max_queues = 0;
    int rc = xlcfg_get_number(r->x, "vcpus", 1, VM_VCPUS_MAX, &vcpus, r->e);

    if (!rc)
        rc = xlcfg_get_number(r->x, "maxvcpus", 1, VM_VCPUS_MAX, &maxvcpus, r->e);
    if (!rc)
        rc = xlcfg_get_number(r->x, "max_queues", 0, VM_VCPUS_MAX, &max_queues, r->e);
    if (rc)
        return rc;
    if (maxvcpus && maxvcpus < vcpus)
        return fail(r, "maxvcpus", EINVAL, "maxvcpus < vcpus: %d is less than %d", (int)maxvcpus,
                    (int)vcpus);
    r->c->vcpus = (unsigned)vcpus;
    r->c->maxvcpus = (unsigned)(maxvcpus ? maxvcpus : vcpus);
    r->c->max_queues = (unsigned)max_queues;
    return 0;
}

static int read_event_channels(struct reading *r)
{
    int64_t max = VM_EVENT_CHANNELS_MAX;
    int rc = xlcfg_get_number(r->x, "max_event_channels", VM_EVENT_CHANNELS_MIN,
                              VM_EVENT_CHANNELS_MAX, &max, r->e);

    r->c->max_event_channels = (unsigned)max;
    return rc;
}

static int read_grants(struct reading *r)
{
    int64_t frames = VM_GRANT_FRAMES_MAX, version = VM_GRANT_VERSION_MAX;
    int rc = xlcfg_get_number(r->x, "max_grant_frames", 1, VM_GRANT_FRAMES_MAX, &frames, r->e);

    if (!rc)
        rc = xlcfg_get_number(r->x, "max_grant_version", 1, VM_GRANT_VERSION_MAX, &version, r->e);
    r->c->max_grant_frames = (unsigned)frames;
    r->c->max_grant_version = (unsigned)version;
    return rc;
}

static int read_disk_backend(struct reading *r)
{
    const char *text;
    int rc = xlcfg_get_text(r->x, "disk_backend", &text, r->e);

    if (rc || !text)
        return rc;
    r->c->disks_apart = !strcmp(text, "process");
    if (r->c->disks_apart || !strcmp(text, "Domain-0"))
        return 0;
    return fail(r, "disk_backend", EINVAL, "expected \"process\" or \"Domain-0\", not `%.40s'",
                text);
}

static int read_ring(struct reading *r)
{
    const char *text;
    int rc = xlcfg_get_text(r->x, "ring", &text, r->e);

    if (rc)
        return rc;
    if (!text || !strcmp(text, "auto"))
        r->c->ring = VM_RING_AUTO;
    else if (!strcmp(text, "1"))
        r->c->ring = VM_RING_1;
    else if (!strcmp(text, "3"))
        r->c->ring = VM_RING_3;
    else
        return fail(r, "ring", EINVAL, "expected \"auto\", 1 or 3, not `%.40s'", text);
    return 0;
}

static int read_action(struct reading *r, const char *name, enum vm_action otherwise,
                       enum vm_action *out)
{
    static const char *const names[] = {
        [VM_ACTION_DESTROY] = "destroy", [VM_ACTION_RESTART] = "restart",
        [VM_ACTION_RENAME_RESTART] = "rename-restart", [VM_ACTION_PRESERVE] = "preserve",
        [VM_ACTION_COREDUMP_DESTROY] = "coredump-destroy",
        [VM_ACTION_COREDUMP_RESTART] = "coredump-restart",
        [VM_ACTION_SOFT_RESET] = "soft-reset",
    };
    const char *text;
    int rc = xlcfg_get_text(r->x, name, &text, r->e);

    *out = otherwise;
    if (rc || !text)
        return rc;
    for (unsigned i = 0; i < array_size(names); i++) {
        if (!strcmp(text, names[i])) {
            *out = (enum vm_action)i;
            return 0;
        }
    }
    return fail(r, name, EINVAL, "Unknown %s action \"%.40s\" specified, expected destroy, restart,"
                " rename-restart, preserve, coredump-destroy, coredump-restart or soft-reset",
                name, text);
}

static int read_actions(struct reading *r)
{
    struct vm_config *c = r->c;
    int rc = read_action(r, "on_poweroff", VM_ACTION_DESTROY, &c->on_poweroff);

    if (!rc)
        rc = read_action(r, "on_reboot", VM_ACTION_RESTART, &c->on_reboot);
    if (!rc)
        rc = read_action(r, "on_watchdog", VM_ACTION_DESTROY, &c->on_watchdog);
    if (!rc)
        rc = read_action(r, "on_crash", VM_ACTION_DESTROY, &c->on_crash);
    if (!rc)
        rc = read_action(r, "on_soft_reset", VM_ACTION_SOFT_RESET, &c->on_soft_reset);
    return rc;
}

static int read_disks(struct reading *r)
{
    const struct xlcfg_setting *disk = xlcfg_find(r->x, "disk");

    return disk ? vm_config_disks_read(r->c, disk, r->e) : 0;
}

static int read_all(struct reading *r)
{
    static int (*const subjects[])(struct reading *) = {
        read_type, read_name, read_uuid, read_kernel, read_memory, read_vcpus,
        read_event_channels, read_grants, read_ring, read_actions, read_disk_backend,
        read_disks,
    };

    warn_of_keys(r->x);
    for (unsigned i = 0; i < array_size(subjects); i++) {
        int rc = subjects[i](r);

        if (rc)
            return rc;
    }
    return 0;
}

static int parse_sources(struct xlcfg *x, const char *text, size_t len, const char *name,
                         char *const words[], unsigned nr_words, struct err *e)
{
    int rc = text ? xlcfg_parse(x, text, len, name, true, e) : 0;

    for (unsigned i = 0; !rc && i < nr_words; i++)
        rc = xlcfg_parse(x, words[i], strlen(words[i]), WORDS_SOURCE, false, e);
    return rc;
}

int vm_config_parse(const char *text, size_t len, const char *name,
                    char *const words[], unsigned nr_words,
                    struct vm_config **out, struct err *e)
{
    struct xlcfg x = { .nr_settings = 0 };
    struct reading r = { .x = &x, .e = e, .c = calloc(1, sizeof(*r.c)) };
    int rc;

    if (!r.c || !(r.c->file = strdup(text ? name : WORDS_SOURCE)))
        rc = err_set(e, ENOMEM, "out of memory");
    else
        rc = parse_sources(&x, text, len, name, words, nr_words, e);
    if (!rc)
        rc = read_all(&r);
    xlcfg_free(&x);
    if (rc) {
        text_make_harmless(e->text);    /* it repeats parts of the file */
        vm_config_free(r.c);
        return rc;
    }
    *out = r.c;
    return 0;
}

/* All of fd, or as much as buf holds. */
static int read_fd(int fd, char *buf, size_t size, size_t *len)
{
    *len = 0;
    while (*len < size) {
        ssize_t n = read(fd, buf + *len, size - *len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        *len += (size_t)n;
    }
    return 0;
}

static int read_file(const char *file, char *buf, size_t size, size_t *len, struct err *e)
{
    int fd = open(strcmp(file, "-") ? file : "/dev/stdin", O_RDONLY | O_CLOEXEC);
    const char *verb = fd < 0 ? "open" : "read";
    int rc = fd < 0 ? -errno : read_fd(fd, buf, size, len);

    if (fd >= 0)
        close(fd);
    if (!rc)
        return 0;
    err_at(e, file, 0, NULL);
    return err_set(e, -rc, "unable to %s configuration file: %s", verb, strerror(-rc));
}

int vm_config_read(const char *file, char *const words[], unsigned nr_words,
                   struct vm_config **out, struct err *e)
{
    size_t size = XLCFG_TEXT_MAX_BYTES + 1, len = 0;
    char *text;
    int rc;

    if (!file)
        return vm_config_parse(NULL, 0, WORDS_SOURCE, words, nr_words, out, e);
    text = malloc(size);
    if (!text)
        return err_set(e, ENOMEM, "out of memory");
    rc = read_file(file, text, size, &len, e);
    if (!rc)
        rc = vm_config_parse(text, len, file, words, nr_words, out, e);
    free(text);
    return rc;
}

void vm_config_free(struct vm_config *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < c->nr_disks; i++)
        vm_disk_spec_free(&c->disks[i]);
    free(c->disks);
    free(c->file);
    free(c->name);
    free(c->kernel);
    free(c->ramdisk);
    free(c->cmdline);
    free(c);
}
