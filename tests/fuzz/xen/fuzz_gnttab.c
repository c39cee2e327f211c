/* SPDX-License-Identifier: MIT */
/* A guest that writes anything into its grant table and calls anything about it,
 * while the host maps and unmaps: the host only ever gets whole pages of guest
 * memory, and the in-use bits are gone when nobody holds a page. */
#include <stdlib.h>
#include <string.h>

#include "xen/gnttab.h"
#include "xen/gnttab_host.h"

#define BASE       (16 * MIB)
#define PAGES      16
#define FRAMES_MAX 2
#define REFS       16       /* few, so that steps meet */
#define HELD_MAX   64

#define require(x) do { if (!(x)) abort(); } while (0)

struct step {
    uint8_t what, a;
    uint16_t b;
    uint32_t c;
};

static uint32_t ref_of(const struct step *s)
{
    return s->b & 0x8000 ? s->c : s->b % REFS;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct { uint32_t ref; bool write; } held[HELD_MAX];
    struct grant_entry_v1 *entries;
    uint32_t nr_frames, nr_held = 0;
    struct gnttab_host h;
    struct guest_mem mem;
    struct gnttab t;
    struct err e = { 0 };

    guest_mem_init(&mem);
    require(!guest_mem_add(&mem, gpa(BASE), PAGES * PAGE_SIZE, "fuzz", false, &e));
    entries = guest_mem_ptr(&mem, gpa(BASE), FRAMES_MAX * PAGE_SIZE);
    gnttab_init(&t, entries, BASE >> PAGE_SHIFT, FRAMES_MAX, &nr_frames, 7);
    require(!gnttab_host_init(&h, &mem, entries, &nr_frames, FRAMES_MAX));

    for (size_t at = 0; at + sizeof(struct step) <= size; at += sizeof(struct step)) {
        struct step s;
        uint32_t ref;

        memcpy(&s, data + at, sizeof(s));
        ref = ref_of(&s);
        switch (s.what % 5) {
        case 0:     /* a grant that is nearly right */
            if (ref < REFS)
                entries[ref] = (struct grant_entry_v1){
                    s.a, s.a & 0x80, (uint32_t)(BASE >> PAGE_SHIFT) + s.c % (PAGES + 1) };
            break;
        case 1:     /* anything, anywhere in the table */
            memcpy((uint8_t *)entries + s.b % (FRAMES_MAX * PAGE_SIZE - 3), &s.c, sizeof(s.c));
            break;
        case 2: {
            void *page;

            if (nr_held < HELD_MAX && !gnttab_host_map(&h, ref, s.a & 1, &page)) {
                uint64_t offset = (uint64_t)((uint8_t *)page - mem.region[0].host);

                require(offset < PAGES * PAGE_SIZE && !(offset & PAGE_MASK));
                held[nr_held].ref = ref;
                held[nr_held++].write = s.a & 1;
            }
            break;
        }
        case 3:
            if (nr_held) {
                uint32_t i = s.c % nr_held;

                gnttab_host_unmap(&h, held[i].ref, held[i].write);
                held[i] = held[--nr_held];
            }
            break;
        case 4: {
            uint64_t arg[GNTTAB_OP_ARG_BYTES_MAX / 8];

            for (unsigned i = 0; i < array_size(arg); i++)
                arg[i] = (uint64_t)s.c << 32 | (s.b * (i + 1) & 0xffff);
            gnttab_op_call(&t, s.a & 15, arg);
            require(nr_frames >= 1 && nr_frames <= FRAMES_MAX);
            break;
        }
        }
    }
    for (uint32_t i = 0; i < nr_held; i++)
        gnttab_host_unmap(&h, held[i].ref, held[i].write);
    for (uint32_t i = 0; i < nr_held; i++)
        require(!(entries[held[i].ref].flags & (GTF_reading | GTF_writing)));
    gnttab_host_free(&h);
    guest_mem_free(&mem);
    return 0;
}
