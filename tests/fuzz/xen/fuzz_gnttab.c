/* SPDX-License-Identifier: MIT */
/* A guest that writes anything into its grant table, in either version, and calls anything
 * about it, while the host maps and unmaps: the host only ever gets whole pages of guest
 * memory, what is copied lies in the frames named, and the in-use bits are gone when nobody
 * holds a page. */
#include <stdlib.h>
#include <string.h>

#include "xen/gnttab.h"
#include "xen/gnttab_host.h"

#define BASE       (16 * MIB)
#define PAGES      16
#define FRAMES_MAX 2        /* and a status frame behind them, all in guest memory */
#define REFS       16       /* few, so that steps meet */
#define HELD_MAX   64
#define SELF       7

#define require(x) do { if (!(x)) abort(); } while (0)

struct machine {
    struct guest_mem mem;
    struct gnttab_state state;
    struct gnttab t;
    struct gnttab_host h;
    struct { uint32_t ref; bool write; } held[HELD_MAX];
    uint32_t nr_held;
};

struct step {
    uint8_t what, a;
    uint16_t b;
    uint32_t c;
};

static uint32_t ref_of(const struct step *s)
{
    return s->b & 0x8000 ? s->c : s->b % REFS;
}

/* ---- the guest's memory and page tables ---- */

static bool frame_ok(void *ctx, uint64_t mfn)
{
    return mfn - (BASE >> PAGE_SHIFT) < PAGES;
}

static void copy(void *ctx, uint64_t to, uint64_t from, uint64_t bytes)
{
    const struct machine *m = ctx;

    require((to & PAGE_MASK) + bytes <= PAGE_SIZE && (from & PAGE_MASK) + bytes <= PAGE_SIZE);
    memmove(guest_mem_ptr(&m->mem, gpa(to), bytes), guest_mem_ptr(&m->mem, gpa(from), bytes),
            bytes);
}

static bool frames_mapped(void *ctx, uint64_t first_mfn, uint64_t nr)
{
    return false;
}

static int16_t map(void *ctx, uint64_t host_addr, uint32_t flags, uint64_t mfn)
{
    require(frame_ok(ctx, mfn));
    return host_addr & 1 ? GNTST_general_error : GNTST_okay;
}

static int16_t unmap(void *ctx, uint64_t host_addr, uint64_t new_addr, uint32_t flags,
                     uint64_t mfn)
{
    return host_addr & 1 ? GNTST_general_error : GNTST_okay;
}

static void machine_init(struct machine *m)
{
    static const struct gnttab_mapper mapper = {
        .frame_ok = frame_ok, .frame_writable = frame_ok, .copy = copy,
        .frames_mapped = frames_mapped, .map = map, .unmap = unmap,
    };
    struct gnttab_params p = {
        .table = { .state = &m->state, .nr_frames_max = FRAMES_MAX },
        .first_mfn = BASE >> PAGE_SHIFT, .status_mfn = (BASE >> PAGE_SHIFT) + FRAMES_MAX,
        .version_max = 2, .self = SELF,
    };
    struct err e = { 0 };

    memset(m, 0, sizeof(*m));
    guest_mem_init(&m->mem);
    require(!guest_mem_add(&m->mem, gpa(BASE), PAGES * PAGE_SIZE, "fuzz", false, &e));
    p.table.frames = guest_mem_ptr(&m->mem, gpa(BASE), FRAMES_MAX * PAGE_SIZE);
    p.table.status = guest_mem_ptr(&m->mem, gpa(BASE + FRAMES_MAX * PAGE_SIZE), PAGE_SIZE);
    gnttab_init(&m->t, &p);
    gnttab_mapper_set(&m->t, &mapper, m);
    require(!gnttab_host_init(&m->h, &m->mem, &p.table));
}

/* ---- steps ---- */

/* A grant that is nearly right. */
static void grant(struct machine *m, uint32_t ref, const struct step *s)
{
    const struct gnttab_table *table = &m->t.p.table;
    uint64_t frame = (BASE >> PAGE_SHIFT) + s->c % (PAGES + 1);
    domid_t to = s->a & 0x80 ? SELF : 0;
    uint16_t flags = s->a & 0x7f;

    if (ref >= REFS)
        return;
    if (gnttab_version(table) == 1) {
        *gnttab_v1(table, ref) = (struct grant_entry_v1){ flags, to, (uint32_t)frame };
        return;
    }
    if (s->b & 0x1000)
        flags |= GTF_sub_page;
    gnttab_v2(table, ref)->sub_page.page_off = (uint16_t)(s->c >> 8);
    gnttab_v2(table, ref)->sub_page.length = (uint16_t)(s->c >> 16);
    gnttab_v2(table, ref)->full_page.frame = frame;
    gnttab_v2(table, ref)->hdr = (struct grant_entry_header){ flags, to };
}

static void host_map(struct machine *m, uint32_t ref, bool write)
{
    uint64_t offset;
    void *page;

    if (m->nr_held == HELD_MAX || gnttab_host_map(&m->h, ref, write, &page))
        return;
    offset = (uint64_t)((uint8_t *)page - m->mem.region[0].host);
    require(offset < PAGES * PAGE_SIZE && !(offset & PAGE_MASK));
    m->held[m->nr_held].ref = ref;
    m->held[m->nr_held++].write = write;
}

static void host_unmap(struct machine *m, uint32_t i)
{
    if (i >= m->nr_held)
        return;
    gnttab_host_unmap(&m->h, m->held[i].ref, m->held[i].write);
    m->held[i] = m->held[--m->nr_held];
}

static void call(struct machine *m, const struct step *s)
{
    uint64_t arg[GNTTAB_OP_ARG_BYTES_MAX / 8];

    for (unsigned i = 0; i < array_size(arg); i++)
        arg[i] = (uint64_t)s->c << 32 | (s->b * (i + 1) & 0xffff);
    gnttab_op_call(&m->t, s->a & 15, arg);
}

/* Maps, and copies to or from a reference. */
static void use(struct machine *m, uint32_t ref, const struct step *s)
{
    struct gnttab_map_grant_ref op = { .host_addr = s->b >> 8, .flags = s->a, .ref = ref,
                                       .dom = SELF };
    struct gnttab_copy_ptr by_ref = { .u.ref = ref, .domid = SELF,
                                      .offset = (uint16_t)(s->c >> 8) };
    struct gnttab_copy_ptr by_frame = { .domid = DOMID_SELF, .offset = s->b };
    struct gnttab_copy c = { .len = (uint16_t)(s->c >> 16) };

    by_frame.u.gmfn = (BASE >> PAGE_SHIFT) + s->b % (PAGES + 1);
    c.flags = s->a & 1 ? GNTCOPY_source_gref : GNTCOPY_dest_gref;
    c.source = s->a & 1 ? by_ref : by_frame;
    c.dest = s->a & 1 ? by_frame : by_ref;
    if (s->a & 0x80)
        gnttab_map_grant_ref(&m->t, &op);
    else
        gnttab_copy(&m->t, &c);
}

static void step(struct machine *m, const struct step *s)
{
    struct gnttab_set_version version = { .version = s->a & 3 };
    uint32_t ref = ref_of(s);

    switch (s->what % 7) {
    case 0:
        grant(m, ref, s);
        break;
    case 1:     /* anything, anywhere in the table and its status */
        memcpy((uint8_t *)m->t.p.table.frames + s->b % ((FRAMES_MAX + 1) * PAGE_SIZE - 3), &s->c,
               sizeof(s->c));
        break;
    case 2:
        host_map(m, ref, s->a & 1);
        break;
    case 3:
        host_unmap(m, m->nr_held ? s->c % m->nr_held : 0);
        break;
    case 4:
        call(m, s);
        break;
    case 5:
        use(m, ref, s);
        break;
    case 6:
        gnttab_set_version(&m->t, &version);
        require(version.version == gnttab_version(&m->t.p.table));
        break;
    }
    require(m->state.nr_frames >= 1 && m->state.nr_frames <= FRAMES_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t held[HELD_MAX], nr_held;
    struct machine m;
    unsigned version;

    machine_init(&m);
    for (size_t at = 0; at + sizeof(struct step) <= size; at += sizeof(struct step)) {
        struct step s;

        memcpy(&s, data + at, sizeof(s));
        step(&m, &s);
    }
    nr_held = m.nr_held;
    for (uint32_t i = 0; i < nr_held; i++)
        held[i] = m.held[i].ref;
    while (m.nr_held)
        host_unmap(&m, 0);
    version = gnttab_version(&m.t.p.table);
    for (uint32_t i = 0; i < nr_held; i++)
        if (held[i] < gnttab_nr_refs(&m.t.p.table, version))
            require(!(*gnttab_in_use(&m.t.p.table, version, held[i]) & GTF_IN_USE));
    gnttab_host_free(&m.h);
    guest_mem_free(&m.mem);
    return 0;
}
