/* SPDX-License-Identifier: MIT */
/* A guest that writes anything into ring, descriptors and grant table, at any
 * time.  The input is a script: two bytes of set-up, then commands.  The driver
 * underneath checks that all memory it is given is the guest's, that vectors
 * have the lengths they claim, and nothing reaches it beyond the disk's end;
 * after the script every request taken must have been answered once, and no
 * grant may still be in use. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/xen_vbd_ring.h"
#include "mem/guest_mem.h"
#include "xen/gnttab_host.h"
#include "watched_disk.h"

#define NR_PAGES     64u
#define RAM_BASE     (1 * MIB)
#define NR_REFS      (PAGE_SIZE / sizeof(struct grant_entry_v1))

struct machine {
    struct guest_mem mem;
    struct gnttab_host grants;
    struct gnttab_state grant_state;
    struct grant_entry_v1 *entries;
    uint8_t *ram;
    struct watched_disk watched;
};

static void machine_init(struct machine *m)
{
    struct err e = { 0 };

    memset(m, 0, sizeof(*m));
    guest_mem_init(&m->mem);
    require(!guest_mem_add(&m->mem, gpa(RAM_BASE), (NR_PAGES + 1) * PAGE_SIZE, "ram", false, &e));
    m->ram = guest_mem_ptr(&m->mem, gpa(RAM_BASE), NR_PAGES * PAGE_SIZE);
    m->grant_state = (struct gnttab_state){ .nr_frames = 1, .version = 1 };
    m->entries = (void *)(m->ram + NR_PAGES * PAGE_SIZE);
    require(!gnttab_host_init(&m->grants, &m->mem, &(struct gnttab_table){
                .frames = m->entries, .state = &m->grant_state, .nr_frames_max = 1 }));
    /* to begin with, reference n grants page n */
    for (unsigned i = 0; i < NR_PAGES; i++)
        m->entries[i] = (struct grant_entry_v1){
            .flags = GTF_permit_access, .frame = (uint32_t)(RAM_BASE >> PAGE_SHIFT) + i,
        };
    watched_init(&m->watched, m->ram, NR_PAGES * PAGE_SIZE, VBD_SEGMENTS_MAX, false);
}

static void command(struct machine *m, struct vbd_ring *r, struct blk_queue *q, struct input *in)
{
    struct blkif_sring *shared = (struct blkif_sring *)(void *)r->page[0];
    uint32_t at, n;

    switch (take(in, 1) % 10) {
    case 0:     /* bytes anywhere in the guest's memory, the ring's included */
        at = take(in, 3) % (NR_PAGES * PAGE_SIZE);
        n = (uint32_t)min_of(take(in, 1), NR_PAGES * PAGE_SIZE - at);
        n = (uint32_t)min_of((size_t)n, in->left);
        memcpy(m->ram + at, in->at, n);
        in->at += n;
        in->left -= n;
        break;
    case 1:     /* a slot at the producer index */
        at = (uint32_t)(offsetof(struct blkif_sring, ring) +
                        (shared->req_prod & (r->nr_entries - 1)) * VBD_ENTRY_BYTES_MAX);
        n = (uint32_t)min_of((size_t)VBD_ENTRY_BYTES_MAX, in->left);
        for (uint32_t i = 0; i < n; i++)
            r->page[(at + i) / PAGE_SIZE][(at + i) % PAGE_SIZE] = in->at[i];
        in->at += n;
        in->left -= n;
        shared->req_prod++;
        break;
    case 2:
        shared->req_prod += (int8_t)take(in, 1);
        break;
    case 3:
        shared->rsp_event = take(in, 1) & 1 ? take(in, 4) : r->rsp_prod + 1;
        break;
    case 4:     /* a grant entry: revoked, someone else's, anywhere */
        at = take(in, 2) % NR_REFS;
        m->entries[at].flags = (uint16_t)((m->entries[at].flags &
                                                  (GTF_reading | GTF_writing)) |
                                                 (take(in, 2) & ~(GTF_reading | GTF_writing)));
        m->entries[at].domid = take(in, 1) & 1;
        m->entries[at].frame = (uint32_t)(RAM_BASE >> PAGE_SHIFT) + take(in, 1) % NR_PAGES;
        break;
    case 5:
        vbd_ring_take(r, 1 + take(in, 1) % 64);
        break;
    case 6:
        m->watched.later = take(in, 1) & 1;
        m->watched.result = take(in, 1) & 3 ? 0 : -EIO;
        break;
    case 7:
        watched_finish_held(&m->watched, q);
        break;
    case 8:
        blk_queue_reap(q);
        vbd_ring_publish(r);
        break;
    default:
        vbd_ring_arm(r);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    struct vbd_ring *r = malloc(sizeof(*r));
    struct blk_queue_params qp = {
        .max_iov = VBD_SEGMENTS_MAX, .wake_fd = -1, .complete = vbd_ring_complete, .arg = r,
    };
    unsigned how = take(&in, 1), nr_pages = 1u << how % (VBD_RING_ORDER_MAX + 1);
    void *pages[VBD_RING_PAGES_MAX];
    uint32_t start = take(&in, 1) * 0x01010101u, refused;
    struct blk_queue *q = NULL;
    struct err e = { 0 };
    struct machine m;

    machine_init(&m);
    for (unsigned i = 0; i < nr_pages; i++)
        pages[i] = m.ram + i * PAGE_SIZE;
    ((struct blkif_sring *)pages[0])->req_prod = start;
    ((struct blkif_sring *)pages[0])->rsp_prod = start;
    require(!vbd_ring_init(r, &(struct vbd_ring_params){
        .abi = vbd_abi_find(NULL), .pages = pages, .nr_pages = nr_pages, .grants = &m.grants,
        .persistent = how & 0x80,
    }));
    qp.nr_reqs = r->nr_entries;
    require(!blk_queue_open(&m.watched.disk, &qp, &q, &e));
    vbd_ring_set_queue(r, q);
    while (in.left)
        command(&m, r, q, &in);

    refused = r->req_cons;
    vbd_ring_close(r);
    refused = r->req_cons - refused;
    m.watched.later = false;
    do {
        vbd_ring_take(r, 1);
        watched_finish_held(&m.watched, q);
    } while (blk_queue_nr_inflight(q) || vbd_ring_has_taken(r));
    vbd_ring_publish(r);
    require(r->rsp_prod == r->req_cons);
    /* what was in the ring yet has been answered, but not taken */
    require((uint32_t)(r->req_cons - start) == (uint32_t)r->counters.requests + refused);
    require(m.watched.nr_submitted == m.watched.nr_done);
    vbd_ring_free(r);
    for (unsigned i = 0; i < NR_REFS; i++)
        require(!(m.entries[i].flags & (GTF_reading | GTF_writing)));
    blk_queue_close(q);
    gnttab_host_free(&m.grants);
    guest_mem_free(&m.mem);
    free(r);
    return 0;
}
