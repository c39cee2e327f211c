/* SPDX-License-Identifier: MIT */
/* Random steps of a guest, its hypercalls and the host, in both versions of the grant
 * table, each answered and left as the model says.  The guest follows the ABI in one
 * thing: an entry that is in use is not written to, but for its read-only flag. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "gnttab_model.h"
#include "xen/gnttab_host.h"

#define SEEDS 40u
#define STEPS 50000u
#define HELD_MAX 200

struct trial {
    struct guest *g;
    struct guest_mem mem;       /* addresses of RAM, for the host's look-ups */
    struct gnttab_host host;
    struct { grant_ref_t ref; bool write; } held[HELD_MAX];
    unsigned nr_held;
    struct model m;
    uint64_t random;
    uint32_t seed, step;
};

static uint32_t pick(struct trial *t, uint32_t n)
{
    t->random ^= t->random << 13;
    t->random ^= t->random >> 7;
    t->random ^= t->random << 17;
    return (uint32_t)(t->random >> 20) % n;
}

#define require(cond) \
    do { \
        if (!(cond)) \
            fail_msg("seed %u, step %u: %s", t->seed, t->step, #cond); \
    } while (0)

/* Few, so that steps meet; at the ends of frames, and beyond the table. */
static const grant_ref_t refs[] = {
    0, 1, 5, 7, 8, 9, 10, 11, 12, 13, 255, 256, 257, 511, 512, 767, 768, 1023, 1024, 2047,
};

static grant_ref_t any_ref(struct trial *t)
{
    if (pick(t, 4))
        return refs[pick(t, 10)];
    return pick(t, 50) ? refs[pick(t, array_size(refs))] : MODEL_REFS + pick(t, 1u << 31);
}

static uint64_t any_frame(struct trial *t)
{
    if (pick(t, 8))
        return RAM_MFN + pick(t, RAM_PAGES);
    return pick(t, 2) ? pick(t, 1u << 31) : (uint64_t)pick(t, 1u << 31) << pick(t, 32);
}

static void write_entry(struct trial *t, grant_ref_t ref)
{
    const uint32_t *w = t->m.e[ref].word;
    uint16_t use = model_use(&t->m.e[ref]);

    if (t->m.version == 1)
        *guest_v1(t->g, ref) = (struct grant_entry_v1){ (uint16_t)(w[0] | use),
                                                        (domid_t)(w[0] >> 16), w[1] };
    else
        memcpy(guest_v2(t->g, ref), w, sizeof(t->m.e[ref].word));
}

static void entry_check(struct trial *t, grant_ref_t ref)
{
    const struct model_entry *e = &t->m.e[ref];
    const struct grant_entry_v1 *e1 = guest_v1(t->g, ref);

    if (ref >= FRAMES_MAX * (t->m.version == 1 ? 512 : 256))
        return;
    if (t->m.version == 1) {
        require(e1->flags == (model_flags(e) | model_use(e)));
        require(e1->domid == model_domid(e) && e1->frame == e->word[1]);
    } else {
        require(!memcmp(guest_v2(t->g, ref), e->word, sizeof(e->word)));
        require(t->g->t.p.table.status[ref] == model_use(e));
    }
}

/* ---- steps ---- */

static void give_step(struct trial *t)
{
    static const uint16_t types[] = {
        GTF_permit_access, GTF_permit_access, GTF_permit_access, GTF_permit_access,
        GTF_permit_access | GTF_readonly, GTF_permit_access | GTF_sub_page,
        GTF_permit_access | GTF_sub_page | GTF_readonly, GTF_transitive, GTF_accept_transfer,
        GTF_invalid,
    };
    static const domid_t domids[] = { SELF, SELF, SELF, 0, 0, 0, OTHER, DOMID_SELF };
    grant_ref_t ref = any_ref(t);
    struct model_entry *e = &t->m.e[ref % MODEL_REFS];
    uint64_t frame = any_frame(t);

    if (ref >= model_nr_refs(&t->m) || model_use(e))
        return;
    e->word[0] = types[pick(t, array_size(types))] |
                 (uint32_t)domids[pick(t, array_size(domids))] << 16;
    e->word[1] = e->word[2] = e->word[3] = 0;
    if (t->m.version == 1) {
        e->word[1] = (uint32_t)frame;
    } else if ((e->word[0] & GTF_type_mask) == GTF_transitive) {
        e->word[1] = domids[pick(t, array_size(domids))];
        e->word[2] = pick(t, 1024);
    } else {
        if (e->word[0] & GTF_sub_page)
            e->word[1] = pick(t, 8) ? pick(t, 64) | pick(t, 64) << 16 : pick(t, 1u << 31);
        e->word[2] = (uint32_t)frame;
        e->word[3] = (uint32_t)(frame >> 32);
    }
    write_entry(t, ref);
}

static void readonly_step(struct trial *t)
{
    grant_ref_t ref = any_ref(t);
    struct model_entry *e = &t->m.e[ref % MODEL_REFS];

    if (ref >= model_nr_refs(&t->m) || (model_use(e) & GTF_writing))
        return;
    e->word[0] ^= GTF_readonly;
    write_entry(t, ref);
}

static void map_step(struct trial *t)
{
    struct gnttab_map_grant_ref op = {
        .flags = (pick(t, 16) ? 1 + pick(t, 3) : 0) | (pick(t, 2) ? GNTMAP_readonly : 0),
        .ref = any_ref(t), .dom = pick(t, 16) ? SELF : pick(t, 2) ? 0 : OTHER,
    };
    unsigned handle;
    int16_t status;

    t->g->answer = pick(t, 10) ? GNTST_okay : GNTST_general_error;
    status = model_map(&t->m, &op, t->g->answer, &handle);
    require(!gnttab_map_grant_ref(&t->g->t, &op));
    require(op.status == status);
    if (status == GNTST_okay)
        require(op.handle == handle && op.dev_bus_addr == t->m.e[op.ref].own_mfn << PAGE_SHIFT);
}

static void unmap_step(struct trial *t)
{
    struct gnttab_unmap_grant_ref op = {
        .host_addr = pick(t, 4), .handle = pick(t, pick(t, 16) ? 32 : GNTTAB_HANDLES_MAX + 1),
    };
    int16_t status;

    if (pick(t, 2))
        op.dev_bus_addr = (RAM_MFN + pick(t, RAM_PAGES)) << PAGE_SHIFT;
    if (pick(t, 2) && op.handle < GNTTAB_HANDLES_MAX)
        op.dev_bus_addr = t->m.e[t->m.handle[op.handle].ref].own_mfn << PAGE_SHIFT;
    t->g->answer = pick(t, 10) ? GNTST_okay : GNTST_general_error;
    if (pick(t, 3)) {
        status = model_unmap(&t->m, op.handle, op.host_addr, op.dev_bus_addr, t->g->answer);
        require(!gnttab_unmap_grant_ref(&t->g->t, &op));
        require(op.status == status);
    } else {
        struct gnttab_unmap_and_replace replace = { op.host_addr, 0x1000, op.handle, 0 };

        status = model_unmap(&t->m, op.handle, op.host_addr, 0, t->g->answer);
        require(!gnttab_unmap_and_replace(&t->g->t, &replace));
        require(replace.status == status);
    }
}

static void host_step(struct trial *t)
{
    void *page;

    if (t->nr_held && (t->nr_held == HELD_MAX || pick(t, 2))) {
        unsigned i = pick(t, t->nr_held);
        struct model_entry *e = &t->m.e[t->held[i].ref];

        gnttab_host_unmap(&t->host, t->held[i].ref, t->held[i].write);
        *(t->held[i].write ? &e->host_writers : &e->host_readers) -= 1;
        t->held[i] = t->held[--t->nr_held];
    } else {
        grant_ref_t ref = any_ref(t);
        bool write = pick(t, 2);
        int rc = model_host_map(&t->m, ref, write);

        require(gnttab_host_map(&t->host, ref, write, &page) == rc);
        if (rc)
            return;
        require(page == t->mem.region[0].host +
                        (model_frame(&t->m, &t->m.e[ref]) - RAM_MFN) * PAGE_SIZE);
        t->held[t->nr_held].ref = ref;
        t->held[t->nr_held++].write = write;
    }
}

static struct gnttab_copy_ptr any_end(struct trial *t, bool by_ref)
{
    static const domid_t domids[] = { DOMID_SELF, SELF, 0, OTHER };
    struct gnttab_copy_ptr p = {
        .offset = (uint16_t)pick(t, pick(t, 4) ? 100 : pick(t, 8) ? 4096 : 65536),
    };

    p.domid = domids[pick(t, 8) ? (by_ref ? pick(t, 2) : 0) : pick(t, 4)];
    if (by_ref)
        p.u.ref = any_ref(t);
    else
        p.u.gmfn = any_frame(t);
    return p;
}

static void copy_step(struct trial *t)
{
    struct gnttab_copy op = { .flags = (uint16_t)pick(t, 4),
                              .len = (uint16_t)pick(t, pick(t, 8) ? 64 : 5000) };
    int16_t status;

    op.source = any_end(t, op.flags & GNTCOPY_source_gref);
    op.dest = any_end(t, op.flags & GNTCOPY_dest_gref);
    status = model_copy(&t->m, &op);
    require(!gnttab_copy(&t->g->t, &op));
    require(op.status == status);
    if (status == GNTST_okay)
        require(!memcmp(t->g->ram, t->m.ram, sizeof(t->m.ram)));
}

static void table_step(struct trial *t)
{
    struct gnttab_setup_table grow = { .dom = SELF, .nr_frames = pick(t, FRAMES_MAX + 2) };
    struct gnttab_get_status_frames status = { .dom = SELF, .nr_frames = pick(t, 3) };
    struct gnttab_query_size size = { .dom = DOMID_SELF };
    int16_t answer;

    if (!pick(t, 20)) {
        answer = model_grow(&t->m, grow.nr_frames);
        require(!gnttab_setup_table(&t->g->t, &grow) && grow.status == answer);
    }
    require(!gnttab_query_size(&t->g->t, &size) && size.status == GNTST_okay);
    require(size.nr_frames == t->m.nr_frames && size.max_nr_frames == FRAMES_MAX);
    require(!gnttab_get_status_frames(&t->g->t, &status));
    require(status.status == (status.nr_frames > (t->m.version == 2) ? GNTST_general_error :
                                                                       GNTST_okay));
}

static void version_step(struct trial *t)
{
    struct gnttab_set_version op = { .version = pick(t, 10) ? 1 + pick(t, 2) : pick(t, 5) };
    struct gnttab_get_version get = { .dom = DOMID_SELF };
    int rc;

    t->m.status_mapped = t->g->status_mapped = t->m.version == 2 && !pick(t, 4);
    /* often enough there is nothing in the way */
    if (pick(t, 2)) {
        t->g->answer = GNTST_okay;
        for (unsigned i = 0; i < GNTTAB_HANDLES_MAX; i++) {
            struct gnttab_unmap_grant_ref all = {
                1, t->m.e[t->m.handle[i].ref].own_mfn << PAGE_SHIFT, i, 0 };

            rc = model_unmap(&t->m, i, true, all.dev_bus_addr, GNTST_okay);
            require(!gnttab_unmap_grant_ref(&t->g->t, &all) && all.status == rc);
        }
        while (t->nr_held) {
            struct model_entry *e = &t->m.e[t->held[--t->nr_held].ref];

            gnttab_host_unmap(&t->host, t->held[t->nr_held].ref, t->held[t->nr_held].write);
            *(t->held[t->nr_held].write ? &e->host_writers : &e->host_readers) -= 1;
        }
    }
    rc = model_set_version(&t->m, op.version);
    require(gnttab_set_version(&t->g->t, &op) == rc);
    require(op.version == t->m.version);
    require(!gnttab_get_version(&t->g->t, &get) && get.version == t->m.version);
}

static void swap_step(struct trial *t)
{
    struct gnttab_swap_grant_ref op = { .ref_a = any_ref(t), .ref_b = any_ref(t) };
    int16_t status = model_swap(&t->m, op.ref_a, op.ref_b);

    require(!gnttab_swap_grant_ref(&t->g->t, &op));
    require(op.status == status);
}

static void step(struct trial *t)
{
    switch (pick(t, 20)) {
    case 0: case 1: case 2: case 3: give_step(t); break;
    case 4: readonly_step(t); break;
    case 5: case 6: case 7: map_step(t); break;
    case 8: case 9: case 10: unmap_step(t); break;
    case 11: case 12: case 13: case 14: host_step(t); break;
    case 15: case 16: copy_step(t); break;
    case 17: swap_step(t); break;
    case 18: table_step(t); break;
    default:
        if (!pick(t, 20))
            version_step(t);
    }
    for (size_t i = 0; i < array_size(refs); i++)
        entry_check(t, refs[i]);
}

static void trial_begin(struct trial *t, uint32_t seed)
{
    struct err e = { 0 };
    void *g;

    memset(t, 0, sizeof(*t));
    t->seed = seed;
    t->random = seed * 0x9e3779b97f4a7c15u;
    t->m.version = t->m.nr_frames = 1;
    guest_setup(&g);
    t->g = g;
    for (unsigned i = 0; i < sizeof(t->m.ram); i++)
        t->m.ram[i] = t->g->ram[i] = (uint8_t)pick(t, 256);
    guest_mem_init(&t->mem);
    assert_int_equal(guest_mem_add(&t->mem, gpa((uint64_t)RAM_MFN << PAGE_SHIFT),
                                   RAM_PAGES * PAGE_SIZE, "ram", false, &e), 0);
    assert_int_equal(gnttab_host_init(&t->host, &t->mem, &t->g->t.p.table), 0);
}

static void trial_end(struct trial *t)
{
    void *g = t->g;

    for (grant_ref_t ref = 0; ref < MODEL_REFS; ref++)
        entry_check(t, ref);
    while (t->nr_held) {
        t->nr_held--;
        gnttab_host_unmap(&t->host, t->held[t->nr_held].ref, t->held[t->nr_held].write);
    }
    gnttab_host_free(&t->host);
    guest_mem_free(&t->mem);
    guest_teardown(&g);
}

static void random_steps_are_as_the_model_says(void **state)
{
    struct trial *t = calloc(1, sizeof(*t));
    uint32_t version_2_steps = 0;

    assert_non_null(t);
    for (uint32_t seed = 1; seed <= SEEDS; seed++) {
        trial_begin(t, seed);
        for (t->step = 0; t->step < STEPS; t->step++) {
            step(t);
            version_2_steps += t->m.version == 2;
        }
        trial_end(t);
    }
    free(t);
    /* both had their turn */
    assert_in_range(version_2_steps, SEEDS * STEPS / 10, SEEDS * STEPS / 10 * 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_steps_are_as_the_model_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
