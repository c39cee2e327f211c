/* SPDX-License-Identifier: MIT */
/* Memory above 4 GiB holds what is written to it: takes half a GiB, counts how
 * many of its pages are up there (pagemap tells), and reads it all back. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "program.h"

#define BYTES (UINT64_C(512) << 20)
#define PAGE_BYTES UINT64_C(4096)
#define FIRST_HIGH_FRAME ((UINT64_C(4) << 30) / PAGE_BYTES)

int main(void)
{
    const uint64_t nr_pages = BYTES / PAGE_BYTES;
    uint64_t *words = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                           -1, 0);
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    uint64_t i, entry, nr_high = 0;

    check(words != MAP_FAILED && pagemap >= 0);
    for (i = 0; i < nr_pages; i++)
        words[i * (PAGE_BYTES / 8)] = i * UINT64_C(0x9e3779b97f4a7c15);
    for (i = 0; i < nr_pages; i++) {
        uint64_t page = ((uintptr_t)words + i * PAGE_BYTES) / PAGE_BYTES;

        check(words[i * (PAGE_BYTES / 8)] == i * UINT64_C(0x9e3779b97f4a7c15));
        check(pread(pagemap, &entry, sizeof(entry), (off_t)(page * 8)) == sizeof(entry));
        nr_high += (entry & ((UINT64_C(1) << 55) - 1)) >= FIRST_HIGH_FRAME;
    }
    check_said(nr_high > nr_pages / 2, "only %lu of %lu pages are above 4 GiB\n", nr_high,
               nr_pages);
    return 0;
}
