/* SPDX-License-Identifier: MIT */
/* Any file as a trace.  What is read of it is in order and of known kinds, and can be printed;
 * what cannot be is an error with words. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blk/queue.h"
#include "blk/trace_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* The input is the header, then a byte that says how long the file is, then records: those whose
 * first byte is odd are given the right sum. */
static void file_write(int fd, const uint8_t *data, size_t size)
{
    size_t header = min_of(size, sizeof(struct blk_trace_header));
    uint64_t pages = 0, at = BLK_TRACE_HEADER_BYTES;

    check(pwrite(fd, data, header, 0) == (ssize_t)header);
    data += header;
    size -= header;
    if (size) {
        pages = *data++;
        size--;
    }
    for (; size; at += sizeof(struct blk_trace_record)) {
        struct blk_trace_record r = { .number = 0 };
        size_t n = min_of(size, sizeof(r));
        bool right = *data & 1;

        memcpy(&r, data, n);
        data += n;
        size -= n;
        if (right) {
            r.number = r.number >> 8 & 31;
            r.op %= 8;
            r.sum = blk_trace_sum(&r);
        }
        check(pwrite(fd, &r, sizeof(r), (off_t)at) == sizeof(r));
    }
    if (pages)
        check(!ftruncate(fd, (off_t)(pages * 512)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("trace", MFD_CLOEXEC);
    FILE *null = fopen("/dev/null", "we");
    struct blk_trace t;
    struct err e = { 0 };
    char path[32];

    check(fd >= 0 && null);
    file_write(fd, data, size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (blk_trace_read(path, &t, &e)) {
        check(e.code && strstr(e.text, path));
    } else {
        check(!e.code && t.nr_rings <= BLK_TRACE_RINGS && strlen(t.label) < sizeof(t.label));
        for (size_t i = 0; i < t.nr_entries; i++) {
            const struct blk_trace_entry *entry = &t.entries[i];

            check(entry->record.op < BLK_NR_OPS && entry->ring < t.nr_rings);
            check(!i || entry->record.submitted_ns >= entry[-1].record.submitted_ns);
        }
        blk_trace_print(&t, null);
        blk_trace_print_iolog(&t, "x", null);
        blk_trace_free(&t);
    }
    fclose(null);
    close(fd);
    return 0;
}
