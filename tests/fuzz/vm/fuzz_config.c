/* SPDX-License-Identifier: MIT */
/* A configuration file, and after each NUL byte one word of the command line. */
#include <stdlib.h>
#include <string.h>

#include "vm/config.h"

#define WORDS_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* What every configuration promises, whatever its text was. */
static void check_config(const struct vm_config *c)
{
    check(c->type == VM_TYPE_PV && c->file && c->name && *c->name && c->kernel && *c->kernel);
    check(c->cmdline && strlen(c->cmdline) < 1024);
    check(c->memory_bytes >= VM_MEMORY_MIN_BYTES && c->memory_bytes <= c->maxmem_bytes);
    check(c->maxmem_bytes <= VM_MEMORY_MAX_BYTES);
    check(c->vcpus >= 1 && c->vcpus <= c->maxvcpus && c->maxvcpus <= VM_VCPUS_MAX);
    check(c->max_queues <= VM_VCPUS_MAX && c->nr_disks <= VM_DISKS_MAX);
    for (unsigned i = 0; i < c->nr_disks; i++) {
        const struct vm_disk *d = &c->disks[i];

        check(d->driver && d->target && d->vdev[0] && d->vdev_number);
        check(d->format != VM_DISK_FORMAT_EMPTY && !d->script && !d->virtio && !d->colo);
        check(strcmp(d->driver, "file") || d->target[0] == '/');
        check(d->format == VM_DISK_FORMAT_RAW ||
              (!strcmp(d->driver, "nbd") && d->target[0] == '/' && !d->shared_write));
        for (unsigned j = 0; j < i; j++)
            check(c->disks[j].vdev_number != d->vdev_number);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size + 1), *words[WORDS_MAX], *text_end;
    struct vm_config *c = NULL;
    struct err e = { .code = 0 };
    unsigned nr_words = 0;
    int rc;

    memcpy(copy, data, size);
    copy[size] = 0;
    text_end = copy + strlen(copy);
    for (char *w = text_end; w < copy + size && nr_words < WORDS_MAX; w += strlen(w))
        words[nr_words++] = ++w;
    rc = vm_config_parse(copy, (size_t)(text_end - copy), "fuzz.cfg", words, nr_words, &c, &e);
    if (rc) {
        check(!c && rc == -e.code && e.text[0]);
    } else {
        check(!e.code);
        check_config(c);
        vm_config_free(c);
    }
    free(copy);
    return 0;
}
