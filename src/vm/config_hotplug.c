/* SPDX-License-Identifier: MIT */
/* Disks that a guest gets and loses while it runs, in its configuration, so that a guest that
 * follows it by reboot has the same ones. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vm/config.h"
#include "vm/config_disk.h"
#include "vm/disk_spec.h"

int vm_config_disk_parse(const char *spec, struct vm_disk *out, struct err *e)
{
    int rc = vm_disk_spec_parse(spec, NULL, out, e);

    if (rc)
        return rc;
    rc = vm_config_disk_judge(out, e);
    if (!rc && out->format == VM_DISK_FORMAT_EMPTY)
        rc = err_set(e, EOPNOTSUPP, "%s: an empty drive is not supported yet", out->vdev);
    if (rc)
        vm_disk_spec_free(out);
    else if (out->untrusted)
        log_warning("%s: untrusted is not honoured yet, ignored", out->vdev);
    return rc;
}

void vm_config_disk_free(struct vm_disk *d)
{
    vm_disk_spec_free(d);
}

int vm_config_disk_add(struct vm_config *c, struct vm_disk *d)
{
    struct vm_disk *disks = realloc(c->disks, (c->nr_disks + 1) * sizeof(*disks));

    if (!disks)
        return -ENOMEM;
    c->disks = disks;
    c->disks[c->nr_disks++] = *d;
    c->disks_changed = true;
    return 0;
}

struct vm_disk *vm_config_disk_find(struct vm_config *c, unsigned vdev_number)
{
    for (unsigned i = 0; i < c->nr_disks; i++)
        if (c->disks[i].vdev_number == vdev_number)
            return &c->disks[i];
    return NULL;
}

void vm_config_disk_remove(struct vm_config *c, unsigned vdev_number)
{
    struct vm_disk *d = vm_config_disk_find(c, vdev_number);

    if (!d)
        return;
    vm_disk_spec_free(d);
    c->nr_disks--;
    memmove(d, d + 1, (size_t)(c->disks + c->nr_disks - d) * sizeof(*d));
    c->disks_changed = true;
}

/* The line with another size=, to be freed.  NULL: out of memory. */
static char *spec_with_size(const char *spec, uint64_t size_bytes)
{
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);

    if (!to)
        return NULL;
    while (*spec) {
        size_t blanks = strspn(spec, VM_DISK_SPEC_BLANKS);
        const char *parameter = spec + blanks, *end = strchrnul(parameter, ',');

        if (!strncmp(parameter, "target=", 7))      /* the rest of the line */
            end = parameter + strlen(parameter);
        if (!strncmp(parameter, "size=", 5))
            fprintf(to, "size=%llu", (unsigned long long)size_bytes);
        else
            fwrite(spec, 1, (size_t)(end - spec), to);
        if (*end)
            fputc(*end++, to);
        spec = end;
    }
    if (!fclose(to))
        return text;
    free(text);
    return NULL;
}

int vm_config_disk_resized(struct vm_config *c, unsigned vdev_number, uint64_t size_bytes)
{
    struct vm_disk *d = vm_config_disk_find(c, vdev_number);
    char *spec;

    if (!d || !d->size_bytes || d->size_bytes == size_bytes)
        return 0;
    spec = spec_with_size(d->spec, size_bytes);
    if (!spec)
        return -ENOMEM;
    free(d->spec);
    d->spec = spec;
    d->size_bytes = size_bytes;
    c->disks_changed = true;
    return 0;
}

/* As a string of xl.cfg(5), which has C's escapes. */
static void quote(FILE *to, const char *text)
{
    fputc('"', to);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c < ' ' || c == 0x7f)
            fprintf(to, "\\x%02x", c);
        else
            fputc(c, to);
    }
    fputc('"', to);
}

char *vm_config_disks_format(const struct vm_config *c)
{
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);

    if (!to)
        return NULL;
    fputs("disk=[", to);
    for (unsigned i = 0; i < c->nr_disks; i++) {
        quote(to, c->disks[i].spec);
        fputc(',', to);
    }
    fputc(']', to);
    if (!fclose(to))
        return text;
    free(text);
    return NULL;
}

int vm_config_vdev_number(const char *vdev, unsigned *number)
{
    return vm_disk_vdev_number(vdev, number);
}
