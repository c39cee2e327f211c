/* SPDX-License-Identifier: MIT */
/* First everything gets its frames (pv_layout, arithmetic only), then it is seen
 * whether they exist, then memory is written.
 *
 *   frame 0                                                    4 MiB boundary
 *   | kernel | ramdisk | p2m | start_info store console | tables | stack | padding |
 *            (a)       (b)                                           >= 512 KiB
 *   | ramdisk | p2m | p2m tables |
 *   (a)       (b)
 *
 * The first line is mapped at VIRT_BASE, frame by frame.  (a) The ramdisk moves
 * to the second, unmapped part if the kernel says MOD_START_PFN, (b) the p2m if
 * it says where it wants it mapped (INIT_P2M); the tables which that mapping
 * needs beyond the initial ones follow it and are mapped nowhere.  How many
 * tables the initial mapping needs depends on its end, which depends on the
 * number of tables: the number is raised until it suffices. */
#include "x86/pv_build.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include <xen/elfnote.h>
#include <xen/features.h>
#include <xen/xen.h>

#include "base/num.h"

#define PTE_PRESENT  (1ull << 0)
#define PTE_RW       (1ull << 1)
#define PTE_USER     (1ull << 2)
#define PTE_ACCESSED (1ull << 5)
#define PTE_DIRTY    (1ull << 6)
#define PTE_ADDRESS  0x000ffffffffff000ull

#define PTES_PER_TABLE 512
#define PV_ALIGN_BYTES (4 * MIB)
#define PV_PAD_BYTES   (512 * KIB)

/* More pages than any machine has: beyond it sums could wrap. */
#define PV_PAGES_MAX   ((uint64_t)1 << 40)

struct pv_layout {
    bool p2m_apart;
    uint64_t p2m_va;
    uint64_t virt_base, virt_end;       /* virt_end > virt_base */
    struct pv_frames kernel, ramdisk, p2m, start_info, store, console, tables, stack, p2m_tables;
    uint64_t nr_pages;
};

static uint64_t pages_of(uint64_t bytes)
{
    return bytes / PAGE_SIZE + !!(bytes & PAGE_MASK);
}

static struct pv_frames frames_take(uint64_t *next, uint64_t nr)
{
    struct pv_frames f = { *next, nr };

    *next += nr;
    return f;
}

/* log2 of the bytes that one table of a level (1 to 4) maps */
static unsigned table_shift(unsigned level)
{
    return PAGE_SHIFT + 9 * level;
}

/* Tables of one level needed to map first_va to last_va */
static uint64_t tables_at_level(uint64_t first_va, uint64_t last_va, unsigned level)
{
    return (last_va >> table_shift(level)) - (first_va >> table_shift(level)) + 1;
}

static bool in_one_half(uint64_t first_va, uint64_t last_va)
{
    int64_t a = (int64_t)first_va >> 47, b = (int64_t)last_va >> 47;

    return first_va <= last_va && a == b && (a == 0 || a == -1);
}

static bool meets_hole(uint64_t first_va, uint64_t last_va)
{
    return first_va <= HYPERVISOR_VIRT_END - 1 && last_va >= HYPERVISOR_VIRT_START;
}

static int range_check(const char *what, uint64_t first_va, uint64_t last_va, struct err *e)
{
    if (!in_one_half(first_va, last_va) || meets_hole(first_va, last_va))
        return err_set(e, ENOEXEC, "%s would be mapped at %#" PRIx64 " to %#" PRIx64 ", expected "
                       "canonical addresses outside Xen's %#llx to %#llx", what, first_va, last_va,
                       (unsigned long long)HYPERVISOR_VIRT_START,
                       (unsigned long long)HYPERVISOR_VIRT_END);
    return 0;
}

/* Places tables and stack after *next; *next becomes the end of the mapping. */
static int initial_mapping_place(struct pv_layout *l, uint64_t *next, struct err *e)
{
    uint64_t nr = 0, need = 1, end, last;
    int rc;

    while (need != nr) {
        nr = need;
        if (num_add_overflows(l->virt_base, (*next + nr + 1) * PAGE_SIZE + PV_PAD_BYTES +
                              PV_ALIGN_BYTES - 1, &end))
            return err_set(e, ENOEXEC, "kernel and boot data of %" PRIu64 " MiB do not fit above "
                           "its VIRT_BASE %#" PRIx64, *next * PAGE_SIZE / MIB, l->virt_base);
        end = align_down(end, PV_ALIGN_BYTES);
        last = end - 1;
        need = 1;
        for (unsigned level = 1; level < 4; level++)
            need += tables_at_level(l->virt_base, last, level);
    }
    rc = range_check("kernel", l->virt_base, last, e);
    if (rc)
        return rc;
    l->virt_end = end;
    l->tables = frames_take(next, nr);
    l->stack = frames_take(next, 1);
    *next = (end - l->virt_base) >> PAGE_SHIFT;
    return 0;
}

/* Places a p2m that is mapped at an address of its own, and its tables. */
static int p2m_apart_place(struct pv_layout *l, uint64_t nr_p2m, uint64_t *next, struct err *e)
{
    uint64_t last = l->p2m_va + nr_p2m * PAGE_SIZE - 1, nr_tables = 0;
    int rc = range_check("p2m list", l->p2m_va, last, e);

    if (rc)
        return rc;
    if (last >= l->virt_base)
        return err_set(e, ENOEXEC, "p2m list of %" PRIu64 " MiB at INIT_P2M %#" PRIx64 " would "
                       "reach VIRT_BASE %#" PRIx64, nr_p2m * PAGE_SIZE / MIB,
                       l->p2m_va, l->virt_base);
    for (unsigned level = 1; level < 4; level++) {
        nr_tables += tables_at_level(l->p2m_va, last, level);
        /* the first table of the initial mapping may serve both */
        if (last >> table_shift(level) == l->virt_base >> table_shift(level))
            nr_tables--;
    }
    l->p2m = frames_take(next, nr_p2m);
    l->p2m_tables = frames_take(next, nr_tables);
    return 0;
}

static int pv_layout(const struct pv_build_params *p, struct pv_layout *l, struct err *e)
{
    const struct kernel_image *k = p->kernel;
    const struct xen_notes *n = &k->notes;
    uint64_t nr_p2m = pages_of(p->nr_pages * sizeof(uint64_t));
    uint64_t nr_ramdisk = p->ramdisk_fd < 0 ? 0 : pages_of(p->ramdisk_bytes);
    bool ramdisk_mapped = !xen_notes_have(n, XEN_ELFNOTE_MOD_START_PFN) || !n->mod_start_pfn;
    uint64_t next = 0;
    int rc;

    *l = (struct pv_layout){
        .virt_base = n->virt_base,
        .p2m_va = n->init_p2m,
        /* As Xen does, an unusable address counts as none. */
        .p2m_apart = xen_notes_have(n, XEN_ELFNOTE_INIT_P2M) && n->init_p2m < n->virt_base &&
                     !(n->init_p2m & PAGE_MASK),
    };
    if (l->virt_base & PAGE_MASK)
        return err_set(e, ENOEXEC, "VIRT_BASE %#" PRIx64 " is not the address of a page",
                       l->virt_base);
    if (pages_of(k->virt_end - l->virt_base) > PV_PAGES_MAX)
        return err_set(e, ENOEXEC, "kernel runs %#" PRIx64 " bytes above its VIRT_BASE",
                       k->virt_end - l->virt_base);

    l->kernel = frames_take(&next, pages_of(k->virt_end - l->virt_base));
    if (ramdisk_mapped)
        l->ramdisk = frames_take(&next, nr_ramdisk);
    if (!l->p2m_apart)
        l->p2m = frames_take(&next, nr_p2m);
    l->start_info = frames_take(&next, 1);
    l->store = frames_take(&next, 1);
    l->console = frames_take(&next, 1);
    rc = initial_mapping_place(l, &next, e);
    if (rc)
        return rc;
    if (!ramdisk_mapped)
        l->ramdisk = frames_take(&next, nr_ramdisk);
    if (l->p2m_apart)
        rc = p2m_apart_place(l, nr_p2m, &next, e);
    l->nr_pages = next;
    return rc;
}

struct pv_builder {
    const struct pv_build_params *p;
    uint8_t *ram;
    struct pv_layout l;
    uint64_t next_table;        /* frame of the next table to make */
};

static void *frame(const struct pv_builder *b, uint64_t pfn)
{
    return b->ram + (pfn << PAGE_SHIFT);
}

static uint64_t pte_make(const struct pv_builder *b, uint64_t pfn, uint64_t flags)
{
    return (b->p->first_mfn + pfn) << PAGE_SHIFT | flags | (b->p->user_bit ? PTE_USER : 0);
}

/* RAM is zero already, says the contract; but entries of tables are followed, so
 * nothing that was there before may be taken for one. */
static void table_clear(const struct pv_builder *b, uint64_t pfn)
{
    memset(frame(b, pfn), 0, PAGE_SIZE);
}

/* The table of a level (1 to 3) that maps va; made if it is not there. */
static uint64_t *table_get(struct pv_builder *b, uint64_t va, unsigned level)
{
    uint64_t *table = frame(b, b->l.tables.first_pfn);

    for (unsigned at = 4; at > level; at--) {
        uint64_t *entry = &table[va >> table_shift(at - 1) & (PTES_PER_TABLE - 1)];

        if (!*entry) {
            table_clear(b, b->next_table);
            *entry = pte_make(b, b->next_table++,
                              PTE_PRESENT | PTE_RW | PTE_ACCESSED | PTE_DIRTY);
        }
        table = frame(b, ((*entry & PTE_ADDRESS) >> PAGE_SHIFT) - b->p->first_mfn);
    }
    return table;
}

/* Maps nr frames from pfn on at va; tables are made level by level, top first. */
static void frames_map(struct pv_builder *b, uint64_t va, uint64_t pfn, uint64_t nr)
{
    const struct pv_frames *ro = &b->l.tables;
    uint64_t last = va + nr * PAGE_SIZE - 1;

    for (unsigned level = 3; level > 0; level--) {
        for (uint64_t i = 0; i < tables_at_level(va, last, level); i++)
            table_get(b, va + (i << table_shift(level)), level);
    }
    for (uint64_t i = 0; i < nr;) {
        uint64_t *l1 = table_get(b, va + i * PAGE_SIZE, 1);
        uint64_t slot = ((va >> PAGE_SHIFT) + i) & (PTES_PER_TABLE - 1);

        for (; slot < PTES_PER_TABLE && i < nr; slot++, i++) {
            bool is_table = pfn + i - ro->first_pfn < ro->nr;

            l1[slot] = pte_make(b, pfn + i, PTE_PRESENT | PTE_ACCESSED | (is_table ? 0 : PTE_RW));
        }
    }
}

static void tables_write(struct pv_builder *b)
{
    const struct pv_layout *l = &b->l;
    uint64_t *l4 = frame(b, l->tables.first_pfn);

    table_clear(b, l->tables.first_pfn);
    memcpy(l4 + PV_HOLE_L4_FIRST, b->p->hole_l4, sizeof(b->p->hole_l4));
    b->next_table = l->tables.first_pfn + 1;
    frames_map(b, l->virt_base, 0, (l->virt_end - l->virt_base) >> PAGE_SHIFT);
    assert(b->next_table == l->tables.first_pfn + l->tables.nr);
    if (l->p2m_apart) {
        b->next_table = l->p2m_tables.first_pfn;
        frames_map(b, l->p2m_va, l->p2m.first_pfn, l->p2m.nr);
        assert(b->next_table == l->p2m_tables.first_pfn + l->p2m_tables.nr);
    }
}

static void kernel_write(struct pv_builder *b)
{
    const struct kernel_image *k = b->p->kernel;

    kernel_image_place(k, b->ram);
    if (xen_notes_have(&k->notes, XEN_ELFNOTE_HYPERCALL_PAGE) && b->p->fill_hypercall_page)
        b->p->fill_hypercall_page(b->ram + (k->notes.hypercall_page - b->l.virt_base));
}

static int ramdisk_read(struct pv_builder *b, struct err *e)
{
    uint8_t *dst = frame(b, b->l.ramdisk.first_pfn);
    uint64_t done = 0, bytes = b->p->ramdisk_fd < 0 ? 0 : b->p->ramdisk_bytes;

    while (done < bytes) {
        ssize_t n = pread(b->p->ramdisk_fd, dst + done, bytes - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int code = n < 0 ? errno : EIO;

            err_at(e, b->p->ramdisk_name, 0, NULL);
            return n < 0 ? err_set(e, code, "cannot read the ramdisk: %s", strerror(code))
                         : err_set(e, code, "ramdisk ended after %" PRIu64 " bytes, expected %"
                                   PRIu64, done, bytes);
        }
        done += (uint64_t)n;
    }
    return 0;
}

static uint64_t va_of(const struct pv_layout *l, uint64_t pfn)
{
    return l->virt_base + (pfn << PAGE_SHIFT);
}

static void start_info_write(struct pv_builder *b)
{
    const struct pv_build_params *p = b->p;
    const struct pv_layout *l = &b->l;
    struct start_info *si = frame(b, l->start_info.first_pfn);
    bool ramdisk_mapped = l->ramdisk.first_pfn < l->start_info.first_pfn;

    strcpy(si->magic, "xen-3.0-x86_64");
    si->nr_pages = p->nr_pages;
    si->shared_info = p->shared_info_mfn << PAGE_SHIFT;
    /* Whoever looks into the guest from outside reads its p2m by virtual
     * address: it need not keep the three-level tree up to date. */
    si->flags = SIF_VIRT_P2M_4TOOLS;
    si->store_mfn = p->first_mfn + l->store.first_pfn;
    si->store_evtchn = p->store_port;
    si->console.domU.mfn = p->first_mfn + l->console.first_pfn;
    si->console.domU.evtchn = p->console_port;
    si->pt_base = va_of(l, l->tables.first_pfn);
    si->nr_pt_frames = l->tables.nr;
    si->mfn_list = l->p2m_apart ? l->p2m_va : va_of(l, l->p2m.first_pfn);
    if (l->p2m_apart) {
        si->first_p2m_pfn = l->p2m.first_pfn;
        si->nr_p2m_frames = l->p2m.nr + l->p2m_tables.nr;
    }
    if (l->ramdisk.nr) {
        si->mod_start = ramdisk_mapped ? va_of(l, l->ramdisk.first_pfn) : l->ramdisk.first_pfn;
        si->mod_len = p->ramdisk_bytes;
        si->flags |= ramdisk_mapped ? 0 : SIF_MOD_START_PFN;
    }
    memcpy(si->cmd_line, p->cmdline, strlen(p->cmdline));
}

static int params_check(const struct pv_build_params *p, struct err *e)
{
    const struct xen_notes *n = &p->kernel->notes;
    static const struct {
        unsigned nr;
        const char *name;
    } refused[] = {
        { XENFEAT_auto_translated_physmap, "auto_translated_physmap" },
        { XENFEAT_supervisor_mode_kernel, "supervisor_mode_kernel" },
        { XENFEAT_hvm_callback_vector, "hvm_callback_vector" },
        { XENFEAT_dom0, "dom0" },
    };

    if (strlen(p->cmdline) >= MAX_GUEST_CMDLINE) {
        err_at(e, NULL, 0, "cmdline");
        return err_set(e, E2BIG, "kernel command line of %zu bytes, expected at most %u",
                       strlen(p->cmdline), MAX_GUEST_CMDLINE - 1);
    }
    if (p->ramdisk_fd >= 0 && pages_of(p->ramdisk_bytes) > PV_PAGES_MAX) {
        err_at(e, p->ramdisk_name, 0, NULL);
        return err_set(e, EFBIG, "ramdisk of %" PRIu64 " bytes does not fit any guest",
                       p->ramdisk_bytes);
    }
    err_at(e, p->kernel->name, 0, NULL);
    if (p->nr_pages > PV_PAGES_MAX)
        return err_set(e, EINVAL, "%" PRIu64 " pages of memory, expected at most %" PRIu64,
                       p->nr_pages, PV_PAGES_MAX);
    if (xen_notes_have(n, XEN_ELFNOTE_PHYS32_ENTRY) && !xen_notes_have(n, XEN_ELFNOTE_ENTRY))
        return err_set(e, ENOTSUP, "kernel has a PVH entry point only, expected one for PV guests "
                       "(Linux: CONFIG_XEN_PV)");
    for (unsigned i = 0; i < array_size(refused); i++) {
        if (n->features_required >> refused[i].nr & 1)
            return err_set(e, ENOTSUP, "kernel requires the Xen feature \"%s\", which a PV guest "
                           "never has", refused[i].name);
    }
    return 0;
}

int pv_build(const struct pv_build_params *p, struct pv_build_result *out, struct err *e)
{
    struct pv_builder b = { .p = p };
    const struct pv_layout *l = &b.l;
    uint64_t *p2m;
    int rc = params_check(p, e);

    if (!rc)
        rc = pv_layout(p, &b.l, e);
    if (rc)
        return rc;
    if (l->nr_pages > p->nr_pages)
        return err_set(e, ENOMEM, "kernel, ramdisk and boot data need %" PRIu64 " MiB of memory, "
                       "the guest has %" PRIu64, div_round_up(l->nr_pages * PAGE_SIZE, MIB),
                       p->nr_pages * PAGE_SIZE / MIB);
    b.ram = guest_mem_ptr(p->mem, gpa(p->first_mfn << PAGE_SHIFT), p->nr_pages << PAGE_SHIFT);
    if (!b.ram)
        return err_set(e, EFAULT, "no guest memory at machine frames %#" PRIx64 " to %#" PRIx64,
                       p->first_mfn, p->first_mfn + p->nr_pages);

    kernel_write(&b);
    rc = ramdisk_read(&b, e);
    if (rc)
        return rc;
    p2m = frame(&b, l->p2m.first_pfn);
    for (uint64_t pfn = 0; pfn < p->nr_pages; pfn++)
        p2m[pfn] = p->first_mfn + pfn;
    tables_write(&b);
    start_info_write(&b);

    *out = (struct pv_build_result){
        .entry = p->kernel->entry,
        .stack_ptr = va_of(l, l->stack.first_pfn + 1),
        .start_info_va = va_of(l, l->start_info.first_pfn),
        .l4_gpa = gpa((p->first_mfn + l->tables.first_pfn) << PAGE_SHIFT),
        .start_info_mfn = p->first_mfn + l->start_info.first_pfn,
        .store_mfn = p->first_mfn + l->store.first_pfn,
        .console_mfn = p->first_mfn + l->console.first_pfn,
        .virt_base = l->virt_base,
        .virt_end = l->virt_end,
        .tables = l->tables,
        .p2m = l->p2m,
        .p2m_tables = l->p2m_tables,
        .ramdisk = l->ramdisk,
        .nr_pages_used = l->nr_pages,
    };
    return 0;
}
