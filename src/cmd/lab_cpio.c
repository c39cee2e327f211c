/* SPDX-License-Identifier: MIT */
#include "cmd/lab_cpio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/num.h"

/* Headers and contents start at multiples of 4 from the start of the archive. */
#define CPIO_ALIGN_BYTES 4u
#define CPIO_HEADER_BYTES 110u

void lab_cpio_init(struct lab_cpio *c)
{
    memset(c, 0, sizeof(*c));
}

void lab_cpio_free(struct lab_cpio *c)
{
    free(c->data);
    memset(c, 0, sizeof(*c));
}

static void cpio_append(struct lab_cpio *c, const void *bytes, size_t n)
{
    uint64_t need;

    if (c->error)
        return;
    if (num_add_overflows(c->size_bytes, n, &need)) {
        c->error = -ENOMEM;
        return;
    }
    if (need > c->room_bytes) {
        uint64_t room = max_of(need, (uint64_t)c->room_bytes * 2);
        uint8_t *data = realloc(c->data, room);

        if (!data) {
            c->error = -ENOMEM;
            return;
        }
        c->data = data;
        c->room_bytes = room;
    }
    if (n)
        memcpy(c->data + c->size_bytes, bytes, n);
    c->size_bytes = need;
}

static void cpio_pad(struct lab_cpio *c)
{
    static const uint8_t zeros[CPIO_ALIGN_BYTES];

    cpio_append(c, zeros, -c->size_bytes % CPIO_ALIGN_BYTES);
}

static void cpio_add(struct lab_cpio *c, const char *path, uint32_t mode,
                     uint32_t nr_links, uint32_t major, uint32_t minor,
                     const void *data, size_t size_bytes)
{
    char header[CPIO_HEADER_BYTES + 1];
    size_t name_bytes = strlen(path) + 1;

    if (size_bytes > UINT32_MAX || name_bytes > UINT32_MAX) {
        if (!c->error)
            c->error = -EFBIG;
        return;
    }
    /* magic, then ino mode uid gid nlink mtime filesize devmajor devminor
     * rdevmajor rdevminor namesize check, eight hexadecimal digits each */
    snprintf(header, sizeof(header),
             "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
             c->nr_entries, mode, 0u, 0u, nr_links, 0u, (uint32_t)size_bytes, 0u, 0u,
             major, minor, (uint32_t)name_bytes, 0u);
    c->nr_entries++;
    cpio_append(c, header, CPIO_HEADER_BYTES);
    cpio_append(c, path, name_bytes);
    cpio_pad(c);
    cpio_append(c, data, size_bytes);
    cpio_pad(c);
}

void lab_cpio_add_dir(struct lab_cpio *c, const char *path, uint32_t mode)
{
    cpio_add(c, path, S_IFDIR | mode, 2, 0, 0, NULL, 0);
}

void lab_cpio_add_file(struct lab_cpio *c, const char *path, uint32_t mode,
                       const void *data, size_t size_bytes)
{
    cpio_add(c, path, S_IFREG | mode, 1, 0, 0, data, size_bytes);
}

void lab_cpio_add_char_device(struct lab_cpio *c, const char *path, uint32_t mode,
                              uint32_t major, uint32_t minor)
{
    cpio_add(c, path, S_IFCHR | mode, 1, major, minor, NULL, 0);
}

int lab_cpio_finish(struct lab_cpio *c)
{
    cpio_add(c, "TRAILER!!!", 0, 1, 0, 0, NULL, 0);
    return c->error;
}
