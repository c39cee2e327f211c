/* SPDX-License-Identifier: MIT */
/* Grants as a backend takes them: what is refused, what the in-use bits say while a
 * page is held, and threads and a hostile guest on one entry. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/atomic.h"
#include "xen/gnttab_host.h"

#define BASE       (16 * MIB)
#define PAGES      64
#define FRAMES_MAX 4

struct world {
    struct guest_mem mem;
    struct gnttab_state state;
    struct gnttab_host h;
};

/* The table lies in the last FRAMES_MAX pages of guest memory, the status frame before. */
static int setup(void **state, unsigned version)
{
    struct world *w = test_calloc(1, sizeof(*w));
    struct err e = { 0 };

    guest_mem_init(&w->mem);
    if (guest_mem_add(&w->mem, gpa(BASE), PAGES * PAGE_SIZE, "test", false, &e))
        return -1;
    w->state = (struct gnttab_state){ .nr_frames = 2, .version = version };
    *state = w;
    return gnttab_host_init(&w->h, &w->mem, &(struct gnttab_table){
        .frames = guest_mem_ptr(&w->mem, gpa(BASE + (PAGES - FRAMES_MAX) * PAGE_SIZE),
                                FRAMES_MAX * PAGE_SIZE),
        .status = guest_mem_ptr(&w->mem, gpa(BASE + (PAGES - FRAMES_MAX - 1) * PAGE_SIZE),
                                PAGE_SIZE),
        .state = &w->state, .nr_frames_max = FRAMES_MAX,
    });
}

static int setup_v1(void **state)
{
    return setup(state, 1);
}

static int setup_v2(void **state)
{
    return setup(state, 2);
}

static int teardown(void **state)
{
    struct world *w = *state;

    gnttab_host_free(&w->h);
    guest_mem_free(&w->mem);
    test_free(w);
    return 0;
}

static unsigned version(const struct world *w)
{
    return gnttab_version(&w->h.table);
}

static uint32_t refs_per_frame(const struct world *w)
{
    return version(w) == 1 ? GNTTAB_REFS_PER_FRAME_V1 : GNTTAB_REFS_PER_FRAME_V2;
}

static void entry_write(struct world *w, uint32_t ref, uint16_t flags, domid_t to, uint64_t frame)
{
    union grant_entry_v2 *e = gnttab_v2(&w->h.table, ref);

    if (version(w) == 1) {
        *gnttab_v1(&w->h.table, ref) = (struct grant_entry_v1){ flags, to, (uint32_t)frame };
        return;
    }
    e->full_page.frame = frame;
    e->full_page.hdr = (struct grant_entry_header){ flags, to };
}

static void grant(struct world *w, uint32_t ref, uint16_t flags, domid_t to, unsigned page)
{
    entry_write(w, ref, flags, to, (BASE >> PAGE_SHIFT) + page);
}

/* Of the entry, without those that say it is in use. */
static uint16_t flags_of(const struct world *w, uint32_t ref)
{
    return (version(w) == 1 ? gnttab_v1(&w->h.table, ref)->flags :
            gnttab_v2(&w->h.table, ref)->hdr.flags) & (uint16_t)~GTF_IN_USE;
}

static uint16_t in_use(const struct world *w, uint32_t ref)
{
    return load_acquire(gnttab_in_use(&w->h.table, version(w), ref)) & GTF_IN_USE;
}

static void map_gives_the_granted_page(void **state)
{
    struct world *w = *state;
    uint32_t last = 2 * refs_per_frame(w) - 1;
    void *page;

    grant(w, 8, GTF_permit_access, 0, 3);
    grant(w, last, GTF_permit_access | GTF_PWT, 0, 4);
    assert_int_equal(gnttab_host_map(&w->h, 8, true, &page), 0);
    assert_ptr_equal(page, w->mem.region[0].host + 3 * PAGE_SIZE);
    gnttab_host_unmap(&w->h, 8, true);
    assert_int_equal(gnttab_host_map(&w->h, last, false, &page), 0);
    assert_ptr_equal(page, w->mem.region[0].host + 4 * PAGE_SIZE);
    gnttab_host_unmap(&w->h, last, false);
}

static void entries_that_do_not_grant_are_refused(void **state)
{
    static const struct { uint16_t flags; domid_t to; bool write; int ret; } rows[] = {
        { GTF_invalid, 0, false, -EINVAL },
        { GTF_accept_transfer, 0, false, -EINVAL },
        { GTF_transitive, 0, false, -EINVAL },
        { GTF_permit_access | GTF_sub_page, 0, false, -EINVAL },
        { GTF_permit_access, 3, false, -EPERM },
        { GTF_permit_access, DOMID_SELF, true, -EPERM },
        { GTF_permit_access | GTF_readonly, 0, true, -EPERM },
        { GTF_permit_access | GTF_readonly, 0, false, 0 },
        { GTF_permit_access, 0, true, 0 },
    };
    struct world *w = *state;

    for (size_t i = 0; i < array_size(rows); i++) {
        void *page;

        grant(w, 8, rows[i].flags, rows[i].to, 0);
        assert_int_equal(gnttab_host_map(&w->h, 8, rows[i].write, &page), rows[i].ret);
        if (!rows[i].ret)
            gnttab_host_unmap(&w->h, 8, rows[i].write);
        assert_int_equal(flags_of(w, 8), rows[i].flags);
        assert_int_equal(in_use(w, 8), 0);
    }
}

static void refs_outside_the_frames_in_use_are_refused(void **state)
{
    struct world *w = *state;
    uint32_t per_frame = refs_per_frame(w);
    void *page;

    grant(w, 2 * per_frame, GTF_permit_access, 0, 0);
    assert_int_equal(gnttab_host_map(&w->h, 2 * per_frame, false, &page), -EINVAL);
    assert_int_equal(gnttab_host_map(&w->h, UINT32_MAX, false, &page), -EINVAL);
    w->state.nr_frames = 3;
    assert_int_equal(gnttab_host_map(&w->h, 2 * per_frame, false, &page), 0);
    gnttab_host_unmap(&w->h, 2 * per_frame, false);
    w->state.nr_frames = UINT32_MAX;      /* never more than there are */
    assert_int_equal(gnttab_host_map(&w->h, FRAMES_MAX * per_frame, false, &page), -EINVAL);
}

static void frames_that_are_not_guest_memory_are_refused(void **state)
{
    static const uint64_t frames[] = {
        0, (BASE >> PAGE_SHIFT) - 1, (BASE >> PAGE_SHIFT) + PAGES, UINT32_MAX,
        1ull << 32, 1ull << 52 | BASE >> PAGE_SHIFT, UINT64_MAX,
    };
    struct world *w = *state;

    for (size_t i = 0; i < array_size(frames); i++) {
        void *page;

        if (version(w) == 1 && frames[i] > UINT32_MAX)
            continue;           /* it has no such frames */
        entry_write(w, 8, GTF_permit_access, 0, frames[i]);
        assert_int_equal(gnttab_host_map(&w->h, 8, true, &page), -EFAULT);
        assert_int_equal(in_use(w, 8), 0);
    }
}

static void in_use_bits_last_as_long_as_the_last_holder(void **state)
{
    /* what is done, and the bits after it */
    static const struct { bool map, write; uint16_t bits; } rows[] = {
        { true, false, GTF_reading }, { true, false, GTF_reading },
        { true, true, GTF_reading | GTF_writing }, { true, true, GTF_reading | GTF_writing },
        { false, true, GTF_reading | GTF_writing }, { false, true, GTF_reading },
        { false, false, GTF_reading }, { false, false, 0 },
        { true, true, GTF_reading | GTF_writing }, { true, false, GTF_reading | GTF_writing },
        { false, false, GTF_reading | GTF_writing }, { false, true, 0 },
    };
    struct world *w = *state;

    grant(w, 8, GTF_permit_access, 0, 0);
    for (size_t i = 0; i < array_size(rows); i++) {
        void *page;

        if (rows[i].map)
            assert_int_equal(gnttab_host_map(&w->h, 8, rows[i].write, &page), 0);
        else
            gnttab_host_unmap(&w->h, 8, rows[i].write);
        assert_int_equal(in_use(w, 8), rows[i].bits);
    }
}

static void refused_second_map_keeps_the_first_holders_bits(void **state)
{
    struct world *w = *state;
    void *page;

    grant(w, 8, GTF_permit_access | GTF_readonly, 0, 0);
    assert_int_equal(gnttab_host_map(&w->h, 8, false, &page), 0);
    assert_int_equal(gnttab_host_map(&w->h, 8, true, &page), -EPERM);
    assert_int_equal(in_use(w, 8), GTF_reading);
    gnttab_host_unmap(&w->h, 8, false);
    assert_int_equal(in_use(w, 8), 0);
}

static void entry_overwritten_while_held_is_released_all_the_same(void **state)
{
    struct world *w = *state;
    void *page;

    grant(w, 8, GTF_permit_access, 0, 0);
    assert_int_equal(gnttab_host_map(&w->h, 8, true, &page), 0);
    entry_write(w, 8, 0xffff, 0xffff, UINT64_MAX);
    *gnttab_in_use(&w->h.table, version(w), 8) = 0xffff;
    gnttab_host_unmap(&w->h, 8, true);
    assert_int_equal(*gnttab_in_use(&w->h.table, version(w), 8), 0xffff & ~GTF_IN_USE);
    grant(w, 8, GTF_permit_access, 0, 1);
    assert_int_equal(gnttab_host_map(&w->h, 8, true, &page), 0);
    gnttab_host_unmap(&w->h, 8, true);
    assert_int_equal(in_use(w, 8), 0);
}

#define ROUNDS 20000

/* Two queues and one reference: whoever holds it sees the bits that say so. */
static void *queue_run(void *arg)
{
    struct world *w = arg;
    intptr_t faults = 0;

    for (unsigned i = 0; i < ROUNDS; i++) {
        bool write = i & 1;
        uint16_t wanted = write ? GTF_reading | GTF_writing : GTF_reading;
        void *page;

        if (gnttab_host_map(&w->h, 8, write, &page)) {
            faults++;
            continue;
        }
        faults += (in_use(w, 8) & wanted) != wanted;
        gnttab_host_unmap(&w->h, 8, write);
    }
    return (void *)faults;
}

static void bits_are_true_while_queues_race_on_one_reference(void **state)
{
    struct world *w = *state;
    pthread_t threads[3];

    grant(w, 8, GTF_permit_access, 0, 0);
    for (size_t i = 0; i < array_size(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, queue_run, w), 0);
    for (size_t i = 0; i < array_size(threads); i++) {
        void *faults;

        pthread_join(threads[i], &faults);
        assert_int_equal((intptr_t)faults, 0);
    }
    assert_int_equal(flags_of(w, 8), GTF_permit_access);
    assert_int_equal(in_use(w, 8), 0);
}

struct hostile {
    struct world *w;
    uint32_t stop;
};

/* A guest that never leaves the entry alone. */
static void *guest_run(void *arg)
{
    struct hostile *g = arg;
    uint64_t *raw = (uint64_t *)(void *)gnttab_v1(&g->w->h.table, version(g->w) == 1 ? 8 : 16);
    uint64_t x = 88172645463325252ull;

    while (!load_relaxed(&g->stop)) {
        uint64_t frame;

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        /* often nearly right: permit_access to domain 0, some page of ours */
        frame = (BASE >> PAGE_SHIFT) + (x >> 32) % PAGES;
        if (version(g->w) == 2) {
            store_relaxed(&raw[1], x & 2 ? frame : x);
            store_relaxed(&g->w->h.table.status[8], (uint16_t)(x >> 40));
        }
        store_relaxed(&raw[0], x & 1 ? (x & 0x3c) | GTF_permit_access | frame << 32 : x);
    }
    return NULL;
}

static void hostile_guest_gets_only_its_own_pages_mapped(void **state)
{
    struct hostile g = { .w = *state };
    struct world *w = g.w;
    uint8_t *first = w->mem.region[0].host;
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, guest_run, &g), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        void *page = NULL;
        int ret = gnttab_host_map(&w->h, 8, i & 1, &page);

        if (!ret) {
            assert_true((uint8_t *)page >= first && (uint8_t *)page < first + PAGES * PAGE_SIZE);
            assert_int_equal(((uintptr_t)page - (uintptr_t)first) & PAGE_MASK, 0);
            gnttab_host_unmap(&w->h, 8, i & 1);
        } else {
            assert_true(ret == -EINVAL || ret == -EPERM || ret == -EFAULT || ret == -EAGAIN);
        }
    }
    store_relaxed(&g.stop, 1);
    pthread_join(thread, NULL);
    grant(w, 8, GTF_permit_access, 0, 0);       /* and nobody is left holding it */
    *gnttab_in_use(&w->h.table, version(w), 8) &= (uint16_t)~GTF_IN_USE;
    assert_int_equal(queue_run(w) == NULL, true);
    assert_int_equal(flags_of(w, 8), GTF_permit_access);
    assert_int_equal(in_use(w, 8), 0);
}

/* The guest has changed the version under a page that is held: nothing is harmed, and the
 * count of holders is right. */
static void version_changed_while_held_is_released_all_the_same(void **state)
{
    struct world *w = *state;
    void *page;

    w->state.version = 1;
    grant(w, 8, GTF_permit_access, 0, 0);
    grant(w, 1023, GTF_permit_access, 0, 0);    /* version 2 has it not */
    assert_int_equal(gnttab_host_map(&w->h, 8, true, &page), 0);
    assert_int_equal(gnttab_host_map(&w->h, 1023, true, &page), 0);
    w->state.version = 2;
    w->h.table.status[8] = 0xffff;
    w->h.table.status[1023] = 0xffff;
    gnttab_host_unmap(&w->h, 8, true);
    gnttab_host_unmap(&w->h, 1023, true);
    assert_int_equal(w->h.table.status[8], 0xffff & ~GTF_IN_USE);
    assert_int_equal(w->h.table.status[1023], 0xffff);
    grant(w, 8, GTF_permit_access, 0, 1);
    assert_int_equal(gnttab_host_map(&w->h, 8, false, &page), 0);
    assert_int_equal(in_use(w, 8), GTF_reading);
    w->state.version = 3;                       /* as good as 1 */
    gnttab_host_unmap(&w->h, 8, false);
}

#define TEST_V1(name) { #name ", version 1", name, setup_v1, teardown, NULL }
#define TEST_V2(name) { #name ", version 2", name, setup_v2, teardown, NULL }
#define TEST(name) TEST_V1(name), TEST_V2(name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(map_gives_the_granted_page),
        TEST(entries_that_do_not_grant_are_refused),
        TEST(refs_outside_the_frames_in_use_are_refused),
        TEST(frames_that_are_not_guest_memory_are_refused),
        TEST(in_use_bits_last_as_long_as_the_last_holder),
        TEST(refused_second_map_keeps_the_first_holders_bits),
        TEST(entry_overwritten_while_held_is_released_all_the_same),
        TEST(bits_are_true_while_queues_race_on_one_reference),
        TEST(hostile_guest_gets_only_its_own_pages_mapped),
        TEST_V1(version_changed_while_held_is_released_all_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
