/* SPDX-License-Identifier: MIT */
/* Any bytes as a kernel file; what is accepted is also built into a small
 * domain; half of the compressed ones are expanded there.  Seeds: seeds/kernel_image/. */
#include <stdlib.h>
#include <string.h>

#include "mem/guest_mem.h"
#include "x86/kernel_image.h"
#include "x86/pv_build.h"

#define FIRST_MFN 0x100000ull
#define RAM_BYTES (32 * MIB)
#define INPUT_BYTES_MAX (16 * KIB)      /* more only expands to more of the same */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void build(const struct guest_mem *mem, const struct kernel_image *k)
{
    const struct pv_build_params p = {
        .mem = mem, .first_mfn = FIRST_MFN, .nr_pages = RAM_BYTES >> PAGE_SHIFT, .kernel = k,
        .ramdisk_fd = -1, .cmdline = "",
    };
    struct pv_build_result r;
    struct err e = { 0 };

    if (!pv_build(&p, &r, &e) && r.entry != k->entry)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kernel_room room = { .bytes = RAM_BYTES };
    static struct guest_mem mem;
    struct kernel_image k;
    struct err e = { 0 };

    if (!mem.nr_regions) {
        guest_mem_init(&mem);
        if (guest_mem_add(&mem, gpa(FIRST_MFN << PAGE_SHIFT), RAM_BYTES, "ram", false, &e))
            abort();
    }
    if (bytes > INPUT_BYTES_MAX)
        return -1;
    room.ram = guest_mem_ptr(&mem, gpa(FIRST_MFN << PAGE_SHIFT), RAM_BYTES);
    if (kernel_image_parse(data, bytes, "input", bytes & 1 ? &room : NULL, &k, &e)) {
        if (!e.code || !e.text[0] || k.map)
            abort();
        return 0;
    }
    build(&mem, &k);
    kernel_image_free(&k);
    return 0;
}
