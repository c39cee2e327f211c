/* SPDX-License-Identifier: MIT */
#include "mem/dirty_log.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/atomic.h"
#include "base/num.h"

int dirty_log_open(struct dirty_log *log, int fd, uint64_t offset_bytes, uint64_t size_bytes,
                   struct err *e)
{
    uint64_t lead = offset_bytes & PAGE_MASK, end;
    struct stat st;
    void *map;

    if (!size_bytes || num_add_overflows(offset_bytes, size_bytes, &end) || end > INT64_MAX)
        return err_set(e, EINVAL, "a log of dirty pages of 0x%llx bytes",
                       (unsigned long long)size_bytes);
    if (fstat(fd, &st))
        return err_set(e, errno, "the log of dirty pages: %s", strerror(errno));
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < end)
        return err_set(e, EINVAL, "the log of dirty pages is shorter than 0x%llx bytes",
                       (unsigned long long)end);
    map = mmap(NULL, lead + size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
               (off_t)(offset_bytes - lead));
    if (map == MAP_FAILED)
        return err_set(e, errno, "the log of dirty pages cannot be mapped: %s", strerror(errno));
    *log = (struct dirty_log){
        .bits = (uint8_t *)map + lead, .size_bytes = size_bytes,
        .map = map, .map_bytes = lead + size_bytes,
    };
    return 0;
}

void dirty_log_close(struct dirty_log *log)
{
    if (log->map)
        munmap(log->map, log->map_bytes);
    memset(log, 0, sizeof(*log));
}

void dirty_log_mark(const struct dirty_log *log, gpa_t a, uint64_t len)
{
    uint64_t page, last;

    if (!log->bits || !len)
        return;
    page = a.v >> PAGE_SHIFT;
    last = (a.v + len - 1) >> PAGE_SHIFT;
    for (; page <= last && page / 8 < log->size_bytes; page++)
        /* with the barrier: whoever sees the bit sees what was written before */
        fetch_or(&log->bits[page / 8], (uint8_t)(1u << page % 8));
}
