/* SPDX-License-Identifier: MIT */
/* The guest's page tables.
 *
 * KVM's own second translation keeps the guest in its VM, so an entry may say
 * what it likes: nothing here guards frames by type as Xen must.  Four things
 * are the shim's business all the same:
 *
 * - the hole (L4 slots 256 to 271) of every root holds the shim's entries;
 * - USER: with the kernel in ring 3 every present entry needs it (PTE_USER is
 *   set as entries are written or pinned, and by need where the guest built a
 *   table it never told about); with the kernel in ring 1 the kernel half of a
 *   root must not have it, whatever the guest wrote;
 * - a guest keeps its page tables read-only, as Xen demands, and still writes
 *   single entries of L1 tables in place, which Xen emulates; here the mapping
 *   it wrote through is made writable.  Only for frames known as page tables
 *   (frame_info), so that a stray write to read-only data stays a fault.
 *
 * - what Xen would refuse, and a guest may count on: a table that is pinned or
 *   loaded is not mapped writable, and what is mapped writable is not pinned.
 *   Only as far as is known for certain, since nothing depends on it here.
 *
 * frame_info learns of tables when they are pinned, loaded or linked below a
 * known table, and forgets a root's lower half when it is unpinned.  It is a
 * hint, never a guard: a guest that lies to it deceives itself. */
#include "shim/mmu.h"

#include "shim/cpu.h"
#include "shim/shim.h"

/* Entries copied from the guest at a time: bounded stack, few copies. */
#define UPDATE_BATCH 16

bool mmu_frame_ok(uint64_t mfn)
{
    const struct shim_boot *b = shim_domain.boot;

    return mfn - b->first_mfn < b->max_pages;
}

static uint8_t *frame_info(uint64_t mfn)
{
    return &shim_domain.frame_info[mfn - shim_domain.boot->first_mfn];
}

bool mmu_frame_held(uint64_t mfn)
{
    return mmu_frame_ok(mfn) && !(load_relaxed(frame_info(mfn)) & (FRAME_FREE | FRAME_LEAVING));
}

static uint64_t pte_frame(uint64_t pte)
{
    return (pte & PTE_FRAME) >> PAGE_SHIFT;
}

static unsigned va_index(uint64_t va, unsigned level)
{
    return (va >> (PAGE_SHIFT + 9 * (level - 1))) & (PTE_ENTRIES - 1);
}

/* A present entry that leads from a table of level to one below. */
static bool pte_is_link(uint64_t pte, unsigned level)
{
    return (pte & PTE_PRESENT) && level > 1 && !(level < 4 && (pte & PTE_HUGE)) &&
           mmu_frame_ok(pte_frame(pte));
}

static uint64_t pte_adjust(uint64_t pte, unsigned level, unsigned slot)
{
    if (!(pte & PTE_PRESENT))
        return pte;
    if (shim_flag(SHIM_FLAG_USER_BIT))
        return pte | PTE_USER;
    if (level == 4 && slot >= 256)
        return pte & ~PTE_USER;
    return pte;
}

/* The entry for va, at the level where the walk ends; NULL when a table above is
 * missing, or is not the guest's. */
uint64_t *mmu_walk(uint64_t cr3, uint64_t va, unsigned *level)
{
    uint64_t mfn = pte_frame(cr3);

    for (unsigned l = 4; mmu_frame_ok(mfn); l--) {
        uint64_t *e = (uint64_t *)shim_dm(mfn << PAGE_SHIFT) + va_index(va, l);

        *level = l;
        if (l == 1 || !pte_is_link(load_relaxed(e), l))
            return l == 1 || (load_relaxed(e) & PTE_PRESENT) ? e : NULL;
        mfn = pte_frame(load_relaxed(e));
    }
    return NULL;
}

/* vCPUs may have news of the same frame at once. */
static void frame_info_change(uint64_t mfn, unsigned clear, unsigned set)
{
    uint8_t *info = frame_info(mfn), old = load_relaxed(info);

    while (!__atomic_compare_exchange_n(info, &old, (uint8_t)((old & ~clear) | set), false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

/* The level of a frame that is a page table for certain, not only by hearsay; or 0. */
static unsigned table_level(uint64_t mfn)
{
    uint8_t info = load_relaxed(frame_info(mfn));

    if (!(info & FRAME_LEVEL_MASK))
        return 0;
    if (info & FRAME_PINNED)
        return info & FRAME_LEVEL_MASK;
    return mmu_root_in_use(mfn) ? 4 : 0;
}

/* An entry of the table in frame mfn that leads to one of the same level, perhaps to
 * itself: a map of the tables, not a branch of them. */
static bool pte_is_linear(uint64_t mfn, uint64_t pte, unsigned level)
{
    return pte_frame(pte) == mfn || table_level(pte_frame(pte)) == level;
}

/* Learns that mfn is a table of level, and of all below it that are not known
 * yet: subtrees that roots share are walked once. */
void mmu_table_mark(uint64_t mfn, unsigned level)
{
    uint64_t *table = shim_dm(mfn << PAGE_SHIFT);

    if ((load_relaxed(frame_info(mfn)) & FRAME_LEVEL_MASK) == level)
        return;
    frame_info_change(mfn, FRAME_LEVEL_MASK, level);
    if (level == 1)
        return;
    for (unsigned i = 0; i < PTE_ENTRIES; i++)
        if (!(level == 4 && hole_slot(i)) && pte_is_link(table[i], level) &&
            !pte_is_linear(mfn, table[i], level))
            mmu_table_mark(pte_frame(table[i]), level - 1);
}

/* Forgets a table, and below a root the lower half, which no other root shares. */
void mmu_table_unmark(uint64_t mfn)
{
    uint64_t *table = shim_dm(mfn << PAGE_SHIFT);
    unsigned level = *frame_info(mfn) & FRAME_LEVEL_MASK;

    frame_info_change(mfn, FRAME_LEVEL_MASK | FRAME_PINNED, 0);
    if (level < 2)
        return;
    for (unsigned i = 0; i < (level == 4 ? 256 : PTE_ENTRIES); i++)
        if (pte_is_link(table[i], level)) {
            uint64_t below = pte_frame(table[i]);

            if ((*frame_info(below) & FRAME_LEVEL_MASK) == level - 1 &&
                !(*frame_info(below) & FRAME_PINNED))
                mmu_table_unmark(below);
        }
}

static bool hole_is_m2p(unsigned i)
{
    return i == 0 || i == va_index(SHIM_M2P_ALIAS_VA, 4) - SHIM_HOLE_SLOT_FIRST;
}

/* Makes a root fit to be loaded: the shim's slots, USER as the mode wants it.  In
 * ring 3 the M2P may be read by whatever shares the root's ring, so a user root
 * goes without. */
void mmu_root_prepare(uint64_t mfn, bool user)
{
    const struct shim_boot *b = shim_domain.boot;
    uint64_t *table = shim_dm(mfn << PAGE_SHIFT);

    mmu_table_mark(mfn, 4);
    for (unsigned i = 0; i < SHIM_HOLE_SLOTS; i++) {
        uint64_t want = user && hole_is_m2p(i) ? 0 : b->hole_l4[i];
        uint64_t *e = &table[SHIM_HOLE_SLOT_FIRST + i];

        if ((load_relaxed(e) & ~(PTE_ACCESSED | PTE_DIRTY)) !=
            (want & ~(PTE_ACCESSED | PTE_DIRTY)))
            store_relaxed(e, want);
    }
    for (unsigned i = 256 + SHIM_HOLE_SLOTS; i < PTE_ENTRIES; i++)
        if (pte_adjust(table[i], 4, i) != table[i])
            table[i] = pte_adjust(table[i], 4, i);
}

void mmu_load_root(struct shim_vcpu *v)
{
    write_cr3(v->kernel_mode || !shim_flag(SHIM_FLAG_TWO_ROOTS) ? v->kernel_cr3 : v->user_cr3);
}

/* Some vCPU's tables begin there now, whatever the guest has told of the frame since. */
bool mmu_root_in_use(uint64_t mfn)
{
    for (unsigned i = 0; i < shim_domain.boot->nr_vcpus; i++)
        if (shim_vcpu(i)->kernel_cr3 >> PAGE_SHIFT == mfn ||
            shim_vcpu(i)->user_cr3 >> PAGE_SHIFT == mfn)
            return true;
    return false;
}

/* The entry would give the guest a table to write: by mapping it, or by making its
 * tables' map of themselves writable. */
static bool entry_opens_table(uint64_t pte, unsigned level)
{
    unsigned below;

    if ((pte & (PTE_PRESENT | PTE_WRITE)) != (PTE_PRESENT | PTE_WRITE) || !level ||
        !mmu_frame_ok(pte_frame(pte)))
        return false;
    below = table_level(pte_frame(pte));
    return below && (level == 1 || (pte_is_link(pte, level) && below == level));
}

/* The entry would show a page of another guest's, which only a grant may do.  One that does
 * may be changed, but for what is mapped and whether it may be written to. */
static bool entry_shows_peer(uint64_t pte, uint64_t old)
{
    const uint64_t fixed = PTE_FRAME | PTE_PRESENT | PTE_WRITE;

    return (pte & PTE_PRESENT) && pte_frame(pte) - (PEER_GPA >> PAGE_SHIFT) < 2 * PEER_PAGES &&
           (pte & fixed) != (old & fixed);
}

/* Writes one entry of the table in frame mfn, with Xen's answer. */
static int64_t entry_write(uint64_t maddr, uint64_t pte, bool preserve_ad)
{
    uint64_t mfn = maddr >> PAGE_SHIFT, *e, old;
    unsigned slot = (maddr & PAGE_MASK) / sizeof(*e);
    unsigned level;

    if (!mmu_frame_ok(mfn))
        return -XEN_EINVAL;
    level = *frame_info(mfn) & FRAME_LEVEL_MASK;
    if (hole_slot(slot) && (level == 4 || mmu_root_in_use(mfn)))
        return -XEN_EINVAL;
    pte = pte_adjust(pte, level, slot);
    e = (uint64_t *)shim_dm(mfn << PAGE_SHIFT) + slot;
    if (entry_opens_table(pte, level) || entry_shows_peer(pte, load_relaxed(e)))
        return -XEN_EINVAL;
    if (pte_is_link(pte, level) && !pte_is_linear(mfn, pte, level))
        mmu_table_mark(pte_frame(pte), level - 1);
    if (!preserve_ad) {
        store_relaxed(e, pte);
        return 0;
    }
    old = load_relaxed(e);
    do {
        pte = (pte & ~(PTE_ACCESSED | PTE_DIRTY)) | (old & (PTE_ACCESSED | PTE_DIRTY));
    } while (!__atomic_compare_exchange_n(e, &old, pte, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
    return 0;
}

uint64_t *mmu_entry_at(const struct shim_vcpu *v, uint64_t addr, bool machine)
{
    unsigned level;
    uint64_t *e;

    if (machine) {
        if ((addr & 7) || !mmu_frame_ok(addr >> PAGE_SHIFT) ||
            (load_relaxed(frame_info(addr >> PAGE_SHIFT)) & FRAME_LEVEL_MASK) != 1)
            return NULL;
        return shim_dm(addr);
    }
    if (!guest_range_ok(addr, 1))
        return NULL;
    e = mmu_walk(v->kernel_cr3, addr, &level);
    return e && level == 1 ? e : NULL;
}

bool mmu_entry_set(uint64_t *e, uint64_t pte)
{
    if (entry_opens_table(pte, 1))
        return false;
    store_relaxed(e, pte_adjust(pte, 1, 0));
    return true;
}

static int64_t update_one(const struct mmu_update *u)
{
    uint64_t maddr = u->ptr & ~(uint64_t)3;

    switch (u->ptr & 3) {
    case MMU_NORMAL_PT_UPDATE:
    case MMU_PT_UPDATE_NO_TRANSLATE:
        return entry_write(maddr & ~(uint64_t)7, u->val, false);
    case MMU_PT_UPDATE_PRESERVE_AD:
        return entry_write(maddr & ~(uint64_t)7, u->val, true);
    case MMU_MACHPHYS_UPDATE:
        if (!mmu_frame_ok(maddr >> PAGE_SHIFT))
            return -XEN_EINVAL;
        store_relaxed(&shim_domain.m2p[(maddr >> PAGE_SHIFT) - shim_domain.boot->first_mfn],
                      u->val);
        return 0;
    }
    return -XEN_ENOSYS;
}

int64_t mmu_foreign(domid_t domid)
{
    switch (domid) {
    case DOMID_SELF:
        return 0;
    case 0:
    case DOMID_IO:
    case DOMID_XEN:
        return -XEN_EPERM;
    default:                /* its own number is not foreign: no such domain */
        return domid != shim_domain.boot->domid && peer_exists(domid) ? -XEN_EPERM : -XEN_ESRCH;
    }
}

/* The same for an update, which may do without frames of DOMID_IO's. */
static int64_t update_foreign(const struct mmu_update *u, domid_t pages)
{
    if (pages == DOMID_IO)
        return u->val & PTE_PRESENT ? -XEN_EINVAL : 0;
    return mmu_foreign(pages);
}

/* HYPERVISOR_mmu_update (public/xen.h).  domid's lower half says whose frames are mapped,
 * the upper, if not 0, by a number that is one more, whose tables they are mapped in. */
int64_t mmu_update(struct shim_vcpu *v, uint64_t req_va, uint64_t count, uint64_t done_va,
                   uint64_t domid)
{
    struct mmu_update batch[UPDATE_BATCH];
    struct shim_batch time = { 0 };
    uint64_t n = count & ~MMU_UPDATE_PREEMPTED, i;
    uint32_t done = 0, tables = (uint32_t)domid >> 16;
    domid_t pages = (domid_t)domid;
    int64_t rc = 0;

    if (tables > 1 && tables - 1 != shim_domain.boot->domid)
        return -XEN_ESRCH;
    if (mmu_foreign(pages) == -XEN_ESRCH)
        return -XEN_ESRCH;
    if (tables == 1)
        pages = 0;
    if ((count & MMU_UPDATE_PREEMPTED) && done_va && guest_read(&done, done_va, sizeof(done)))
        return -XEN_EFAULT;
    for (i = 0; i < n && !rc && !(i && batch_over(&time, UPDATE_BATCH)); ) {
        unsigned k = (unsigned)min_of(n - i, (uint64_t)UPDATE_BATCH);

        rc = guest_read(batch, req_va + i * sizeof(batch[0]), k * sizeof(batch[0]));
        for (unsigned j = 0; j < k && !rc; j++) {
            rc = update_foreign(&batch[j], pages);
            if (!rc)
                rc = update_one(&batch[j]);
            if (!rc) {
                i++;
                done++;
            }
        }
    }
    if (done_va && guest_write(done_va, &done, sizeof(done)))
        return -XEN_EFAULT;
    if (time.over)
        return hypercall_again(v, __HYPERVISOR_mmu_update, req_va + i * sizeof(batch[0]),
                               (n - i) | MMU_UPDATE_PREEMPTED, done_va, domid);
    return rc;
}

static int64_t flush_by_flags(struct shim_vcpu *v, uint64_t va, uint64_t flags)
{
    uint64_t mask = 0, mask_va = flags & ~(uint64_t)UVMF_FLUSHTYPE_MASK;

    switch (flags & UVMF_FLUSHTYPE_MASK) {
    case UVMF_TLB_FLUSH:
    case UVMF_INVLPG:
        break;
    default:
        return 0;
    }
    if (mask_va == UVMF_ALL)
        mask = ~(uint64_t)0;
    else if (mask_va && guest_read(&mask, mask_va, sizeof(mask)))
        return -XEN_EFAULT;
    if ((flags & UVMF_FLUSHTYPE_MASK) == UVMF_TLB_FLUSH) {
        if (!mask_va || (mask >> v->id & 1))
            tlb_flush_local();
    } else if (!mask_va || (mask >> v->id & 1)) {
        tlb_flush_page_local(va);
    }
    if (mask_va)
        tlb_flush_vcpus(v, mask);
    return 0;
}

/* HYPERVISOR_update_va_mapping (public/xen.h) */
int64_t mmu_update_va_mapping(struct shim_vcpu *v, uint64_t va, uint64_t val, uint64_t flags)
{
    uint64_t *e = mmu_entry_at(v, va, false);

    if (!e || entry_shows_peer(val, load_relaxed(e)) || !mmu_entry_set(e, val))
        return -XEN_EINVAL;
    return flush_by_flags(v, va, flags);
}

/* The flags of the frame's entry where the domain builder mapped it, if it is still
 * mapped there, else 0. */
static uint64_t builder_mapping(const struct shim_vcpu *v, uint64_t mfn)
{
    const struct shim_boot *b = shim_domain.boot;
    uint64_t pfn = mfn - b->first_mfn, pte;
    unsigned level;
    uint64_t *e;

    if (pfn >= b->initial_pages)
        return 0;
    e = mmu_walk(v->kernel_cr3, b->virt_base + (pfn << PAGE_SHIFT), &level);
    pte = e && level == 1 ? load_relaxed(e) : 0;
    return (pte & PTE_PRESENT) && pte_frame(pte) == mfn ? pte & ~PTE_FRAME : 0;
}

/* The guest can write to the frame, and not because the shim let it: where the domain
 * builder mapped it, or by a grant of its own. */
bool mmu_frame_mapped_writable(const struct shim_vcpu *v, uint64_t mfn)
{
    if (gnttab_maps_writable(&shim_domain.gnttab, mfn))
        return true;
    return !(load_relaxed(frame_info(mfn)) & FRAME_OPENED) &&
           (builder_mapping(v, mfn) & PTE_WRITE);
}

bool mmu_frame_used(const struct shim_vcpu *v, uint64_t mfn)
{
    return table_level(mfn) || mmu_root_in_use(mfn) || builder_mapping(v, mfn) ||
           gnttab_maps_writable(&shim_domain.gnttab, mfn);
}

bool mmu_frame_writable(uint64_t mfn)
{
    return mmu_frame_held(mfn) && !table_level(mfn);
}

/* nr_tables bounds the walk: a guest can make more paths to its tables than it has
 * tables. */
static bool table_maps(uint64_t mfn, unsigned level, uint64_t first_mfn, uint64_t nr,
                       uint64_t *nr_tables)
{
    const uint64_t *table = shim_dm(mfn << PAGE_SHIFT);

    if (!*nr_tables)
        return false;
    --*nr_tables;
    for (unsigned i = 0; i < PTE_ENTRIES; i++) {
        uint64_t pte = load_relaxed(&table[i]);

        if (!(pte & PTE_PRESENT) || (level == 4 && hole_slot(i)))
            continue;
        if (level == 1 ? pte_frame(pte) - first_mfn < nr :
            pte_is_link(pte, level) && !pte_is_linear(mfn, pte, level) &&
            table_maps(pte_frame(pte), level - 1, first_mfn, nr, nr_tables))
            return true;
    }
    return false;
}

bool mmu_frames_mapped(const struct shim_vcpu *v, uint64_t first_mfn, uint64_t nr)
{
    uint64_t nr_tables = shim_domain.boot->max_pages / 64 + PTE_ENTRIES;

    return table_maps(v->kernel_cr3 >> PAGE_SHIFT, 4, first_mfn, nr, &nr_tables);
}

/* Sets USER on the way to va where it is missing; true when something changed. */
static bool user_bit_restored(uint64_t cr3, uint64_t va)
{
    uint64_t mfn = pte_frame(cr3);
    bool changed = false;

    for (unsigned l = 4; mmu_frame_ok(mfn); l--) {
        uint64_t *e = (uint64_t *)shim_dm(mfn << PAGE_SHIFT) + va_index(va, l);
        uint64_t pte = load_relaxed(e);

        if (!(pte & PTE_PRESENT))
            return false;
        if (!(pte & PTE_USER)) {
            fetch_or(e, PTE_USER);
            changed = true;
        }
        if (!pte_is_link(pte, l))
            return changed;
        mfn = pte_frame(pte);
    }
    return changed;
}

/* No table above the last entry for va keeps writes away. */
static bool writable_above(uint64_t cr3, uint64_t va)
{
    uint64_t mfn = pte_frame(cr3);

    for (unsigned l = 4; l > 1 && mmu_frame_ok(mfn); l--) {
        uint64_t pte = load_relaxed((uint64_t *)shim_dm(mfn << PAGE_SHIFT) + va_index(va, l));

        if (!(pte & PTE_WRITE))
            return false;
        mfn = pte_frame(pte);
    }
    return true;
}

/* Whoever says "try again" must have changed something, or be sure that the next try
 * gets past: else the guest would fault for ever, and never hear of it. */
bool mmu_fault_fixed(struct shim_vcpu *v, uint64_t va, uint64_t error)
{
    uint64_t root = v->kernel_mode ? v->kernel_cr3 : v->user_cr3;
    unsigned level;
    uint64_t *e, pte;

    if (!(error & PF_PRESENT) || (error & PF_RESERVED) || !guest_range_ok(va, 1))
        return false;
    if (shim_flag(SHIM_FLAG_USER_BIT) && user_bit_restored(root, va)) {
        v->status->traps[SHIM_TRAP_PTE_USER]++;
        invlpg(va);
        return true;
    }
    /* in the kernel's half only: a read-only page of user space is copied on write */
    if (!v->kernel_mode || !(error & PF_WRITE) || va < HYPERVISOR_VIRT_END)
        return false;
    e = mmu_walk(v->kernel_cr3, va, &level);
    if (!e || level != 1 || !writable_above(v->kernel_cr3, va))
        return false;
    pte = load_relaxed(e);
    if (!(pte & PTE_PRESENT) || !mmu_frame_ok(pte_frame(pte)))
        return false;
    if (pte & PTE_WRITE) {
        invlpg(va);     /* a stale entry of the TLB: Xen forgives that too */
        return true;
    }
    if (!(*frame_info(pte_frame(pte)) & FRAME_LEVEL_MASK))
        return false;
    frame_info_change(pte_frame(pte), 0, FRAME_OPENED);
    fetch_or(e, PTE_WRITE);
    v->status->traps[SHIM_TRAP_PTE_WRITE]++;
    invlpg(va);
    return true;
}
