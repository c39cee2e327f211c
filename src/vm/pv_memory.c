/* SPDX-License-Identifier: MIT */
#include "vm/pv_memory.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define PTE_PRESENT  ((uint64_t)1 << 0)
#define PTE_WRITE    ((uint64_t)1 << 1)
#define PTE_USER     ((uint64_t)1 << 2)
#define PTE_HUGE     ((uint64_t)1 << 7)
#define PTE_NX       ((uint64_t)1 << 63)
#define PTE_LINK     (PTE_PRESENT | PTE_WRITE)
#define PTE_ENTRIES  512
#define LARGE_BYTES  (2 * MIB)

#define M2P_INVALID  (~(uint64_t)0)

extern const uint8_t shim_image_start[], shim_image_end[];

/* Page tables of the shim, made from pages at the start of the last region. */
struct tables {
    const struct guest_mem *mem;
    uint64_t next_gpa, end_gpa;
    uint64_t root_gpa;          /* the parking table: the hole and nothing else */
    uint64_t link_flags;        /* PTE_USER where ring 3 is to pass */
};

static uint64_t *table_ptr(const struct tables *t, uint64_t table_gpa)
{
    return guest_mem_ptr(t->mem, gpa(table_gpa), PAGE_SIZE);
}

static uint64_t table_new(struct tables *t)
{
    uint64_t at = t->next_gpa;

    t->next_gpa += PAGE_SIZE;
    return t->next_gpa <= t->end_gpa ? at : 0;
}

/* The entry for va in the table of level below the root; NULL: no page left. */
static uint64_t *table_entry(struct tables *t, uint64_t va, unsigned level)
{
    uint64_t table = t->root_gpa;

    for (unsigned l = 4; ; l--) {
        uint64_t *e = table_ptr(t, table) + (va >> (PAGE_SHIFT + 9 * (l - 1)) & (PTE_ENTRIES - 1));

        if (l == level)
            return e;
        if (!*e) {
            uint64_t below = table_new(t);

            if (!below)
                return NULL;
            *e = below | PTE_LINK | t->link_flags;
        }
        table = *e & ~PTE_NX & ~PAGE_MASK;
    }
}

/* Maps bytes from va to gpa_addr, with 2 MiB pages where both are so aligned and
 * that much is left. */
static int map(struct tables *t, uint64_t va, uint64_t gpa_addr, uint64_t bytes, uint64_t flags)
{
    while (bytes) {
        bool large = !((va | gpa_addr) & (LARGE_BYTES - 1)) && bytes >= LARGE_BYTES;
        uint64_t step = large ? LARGE_BYTES : PAGE_SIZE;
        uint64_t *e = table_entry(t, va, large ? 2 : 1);

        if (!e)
            return -ENOMEM;
        *e = gpa_addr | PTE_PRESENT | flags | (large ? PTE_HUGE : 0);
        va += step;
        gpa_addr += step;
        bytes -= min_of(step, bytes);
    }
    return 0;
}

/* All of guest-physical memory, writable, for the shim alone. */
static int map_direct(struct tables *t)
{
    int rc = 0;

    for (unsigned i = 0; i < t->mem->nr_regions && !rc; i++) {
        const struct guest_mem_region *r = &t->mem->region[i];

        rc = map(t, SHIM_DM_VA + r->base.v, r->base.v, align_up(r->size_bytes, LARGE_BYTES),
                 PTE_WRITE | PTE_NX);
    }
    return rc;
}

/* The shim's segments with their permissions, copied into its region. */
static int load_shim(struct tables *t, uint64_t *entry)
{
    const Elf64_Ehdr *eh = (const void *)shim_image_start;
    const Elf64_Phdr *ph = (const void *)(shim_image_start + eh->e_phoff);
    int rc = 0;

    *entry = eh->e_entry;
    for (unsigned i = 0; i < eh->e_phnum && !rc; i++) {
        uint64_t offset = ph[i].p_vaddr - SHIM_IMAGE_VA;
        uint64_t at = SHIM_GPA + SHIM_OFF_IMAGE + offset;
        uint64_t flags = (ph[i].p_flags & PF_W ? PTE_WRITE : 0) |
                         (ph[i].p_flags & PF_X ? 0 : PTE_NX);

        if (ph[i].p_type != PT_LOAD)
            continue;
        if (offset + ph[i].p_memsz > SHIM_OFF_HEAP - SHIM_OFF_IMAGE)
            return -E2BIG;
        if (ph[i].p_filesz)
            memcpy(guest_mem_ptr(t->mem, gpa(at), ph[i].p_filesz),
                   shim_image_start + ph[i].p_offset, ph[i].p_filesz);
        rc = map(t, ph[i].p_vaddr, at, align_up(ph[i].p_memsz, PAGE_SIZE), flags);
    }
    return rc;
}

/* The M2P at va, in the hole: what lies below RAM's first frame all shows
 * one page of invalid entries, so that a guest may look up any frame number. */
static int map_m2p(struct tables *t, uint64_t va, uint64_t first_mfn, uint64_t m2p_gpa,
                   uint64_t m2p_bytes, bool user)
{
    uint64_t flags = PTE_NX | (user ? PTE_USER : 0);
    uint64_t below_bytes = first_mfn * sizeof(uint64_t);
    uint64_t blank = table_new(t), l1 = table_new(t);
    int rc = 0;

    if (!blank || !l1 || below_bytes % LARGE_BYTES)
        return -ENOMEM;
    memset(table_ptr(t, blank), 0xff, PAGE_SIZE);
    for (unsigned i = 0; i < PTE_ENTRIES; i++)
        table_ptr(t, l1)[i] = blank | PTE_PRESENT | flags;
    t->link_flags = user ? PTE_USER : 0;
    for (uint64_t at = 0; at < below_bytes && !rc; at += LARGE_BYTES) {
        uint64_t *e = table_entry(t, va + at, 2);

        if (e)
            *e = l1 | PTE_LINK | t->link_flags;
        else
            rc = -ENOMEM;
    }
    if (!rc)
        rc = map(t, va + below_bytes, m2p_gpa, m2p_bytes, flags);
    t->link_flags = 0;
    return rc;
}

static void fill_m2p(const struct guest_mem *mem, const struct shim_boot *b, uint64_t m2p_bytes)
{
    uint64_t *m2p = guest_mem_ptr(mem, gpa(b->m2p_gpa), m2p_bytes);

    for (uint64_t i = 0; i < b->nr_pages; i++)
        m2p[i] = i;
    for (uint64_t i = b->nr_pages; i < m2p_bytes / sizeof(*m2p); i++)
        m2p[i] = M2P_INVALID;
}

static uint64_t tables_bytes(uint64_t ram_bytes, uint64_t m2p_bytes)
{
    /* a page a GiB for the direct map and one a 2 MiB of M2P that is no large
     * page, each with its share of levels above, and a few that are fixed */
    return align_up((40 + ram_bytes / GIB + 2 * (m2p_bytes / LARGE_BYTES) +
                     ram_bytes / (512 * GIB)) * PAGE_SIZE, LARGE_BYTES);
}

int pv_memory_create(struct guest_mem *mem, uint64_t nr_pages, uint64_t max_pages,
                     struct pv_memory *out, struct err *e)
{
    uint64_t ram_bytes = max_pages << PAGE_SHIFT;
    uint64_t m2p_bytes = align_up(max_pages * sizeof(uint64_t), PAGE_SIZE);
    uint64_t tail_gpa = align_up(RAM_GPA + ram_bytes, LARGE_BYTES);
    uint64_t m2p_gpa = tail_gpa + tables_bytes(ram_bytes, m2p_bytes);
    uint64_t info_gpa = m2p_gpa + align_up(m2p_bytes, LARGE_BYTES);
    uint64_t tail_end = align_up(info_gpa + max_pages, LARGE_BYTES);
    int rc;

    if (tail_end > SHIM_DM_SLOTS * (512 * GIB))
        return err_set(e, E2BIG, "more memory than a guest can have here (%llu GiB)",
                       (unsigned long long)(SHIM_DM_SLOTS * 512 - 8));
    rc = guest_mem_add(mem, gpa(SHIM_GPA), SHIM_REGION_BYTES, "xenolith-shim", false, e);
    if (!rc)
        rc = guest_mem_add(mem, gpa(RAM_GPA), ram_bytes, "xenolith-ram", true, e);
    if (!rc)
        rc = guest_mem_add(mem, gpa(tail_gpa), tail_end - tail_gpa, "xenolith-tables", false, e);
    if (rc)
        return rc;

    *out = (struct pv_memory){
        .mem = mem,
        .ram = guest_mem_ptr(mem, gpa(RAM_GPA), ram_bytes),
        .ram_fd = mem->region[mem->nr_regions - 2].memfd,
        .ram_bytes = ram_bytes,
        .tail_gpa = tail_gpa,
        .boot = guest_mem_ptr(mem, gpa(SHIM_GPA + SHIM_OFF_BOOT), sizeof(struct shim_boot)),
        .status = guest_mem_ptr(mem, gpa(SHIM_GPA + SHIM_OFF_STATUS), sizeof(struct shim_status)),
        .shared = {
            .requests = guest_mem_ptr(mem, gpa(SHIM_GPA + SHIM_OFF_REQUESTS),
                                      sizeof(struct shim_requests)),
            .wakers = guest_mem_ptr(mem, gpa(SHIM_GPA + SHIM_OFF_WAKERS),
                                    SHIM_VCPUS_MAX * sizeof(struct xen_hostwaker)),
            .links = guest_mem_ptr(mem, gpa(SHIM_GPA + SHIM_OFF_LINKS),
                                   XEN_HOSTLINK_MAX * sizeof(struct xen_hostlink)),
        },
        .grants = {
            .frames = guest_mem_ptr(mem, gpa(SHIM_GPA + SHIM_OFF_GRANTS),
                                    GNTTAB_FRAMES_MAX * PAGE_SIZE),
            .status = guest_mem_ptr(mem, gpa(SHIM_GPA + SHIM_OFF_GRANT_USE),
                                    GNTTAB_STATUS_FRAMES(GNTTAB_FRAMES_MAX) * PAGE_SIZE),
        },
    };
    out->grants.state = &out->status->grants;
    out->boot->version = SHIM_ABI_VERSION;
    out->boot->first_mfn = RAM_GPA >> PAGE_SHIFT;
    out->boot->nr_pages = nr_pages;
    out->boot->max_pages = max_pages;
    out->boot->m2p_gpa = m2p_gpa;
    out->boot->frame_info_gpa = info_gpa;
    out->boot->heap_bytes = SHIM_REGION_BYTES - SHIM_OFF_HEAP;
    return 0;
}

int pv_memory_fill(struct pv_memory *m, enum pv_memory_m2p m2p, struct err *e)
{
    struct shim_boot *b = m->boot;
    struct tables t = { .mem = m->mem, .next_gpa = m->tail_gpa, .end_gpa = b->m2p_gpa };
    uint64_t m2p_bytes = align_up(b->max_pages * sizeof(uint64_t), PAGE_SIZE);
    bool m2p_user = m2p != PV_M2P_KERNEL_RING1;
    uint64_t *root;
    int rc;

    b->m2p_va = m2p == PV_M2P_SOFTWARE_KVM ? SHIM_M2P_ALIAS_VA : SHIM_M2P_VA;
    t.root_gpa = table_new(&t);
    rc = load_shim(&t, &m->entry);
    if (!rc)
        rc = map_direct(&t);
    if (!rc)
        rc = map_m2p(&t, SHIM_M2P_VA, b->first_mfn, b->m2p_gpa, m2p_bytes, m2p_user);
    if (!rc && m2p == PV_M2P_SOFTWARE_KVM)
        rc = map_m2p(&t, SHIM_M2P_ALIAS_VA, b->first_mfn, b->m2p_gpa, m2p_bytes, m2p_user);
    if (rc)
        return err_set(e, -rc, "the shim does not fit its region");
    fill_m2p(m->mem, b, m2p_bytes);
    root = table_ptr(&t, t.root_gpa);
    memcpy(b->hole_l4, &root[SHIM_HOLE_SLOT_FIRST], sizeof(b->hole_l4));
    b->parking_cr3 = t.root_gpa;
    return 0;
}

struct shim_vcpu_status *pv_memory_vcpu_status(const struct pv_memory *m, unsigned i)
{
    return guest_mem_ptr(m->mem, gpa(SHIM_GPA + SHIM_OFF_VCPU_STATUS + i * PAGE_SIZE), PAGE_SIZE);
}

void pv_memory_release_frame(const struct pv_memory *m, uint64_t frame)
{
    if (frame < m->ram_bytes >> PAGE_SHIFT)
        fallocate(m->ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(frame << PAGE_SHIFT), PAGE_SIZE);
}
