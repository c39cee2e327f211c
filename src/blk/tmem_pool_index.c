/* SPDX-License-Identifier: MIT */
/* Where pages may be found by what they hold: a table of hints.
 *
 * An entry is one word, put in and taken out by compare-and-swap, in either of the two buckets
 * that the hash names; the emptier is taken, so that both being full hardly happens.  Nothing
 * depends on an entry: whoever finds one holds the object and compares, so an entry that a killed
 * process has left, or one that is not there, costs some memory at worst. */
#include "blk/tmem_pool_priv.h"

static uint64_t entry_of(uint64_t hash, uint32_t object)
{
    return (hash >> 32 << 32) | (object + 1);
}

static void buckets_of(const struct tmem_map *m, uint64_t hash, uint64_t number[2])
{
    number[0] = hash & (m->nr_buckets - 1);
    number[1] = number[0] ^ (((hash >> 32) | 1) & (m->nr_buckets - 1));
}

static bool is_backed(const struct tmem_map *m, uint64_t bucket)
{
    uint64_t page = bucket / TMEM_BUCKETS_PER_PAGE;

    return load_acquire(&m->header->index_backed[page / 64]) & (uint64_t)1 << page % 64;
}

/* One system call in the life of each page of the index. */
static bool back(const struct tmem_map *m, uint64_t bucket)
{
    uint64_t page = bucket / TMEM_BUCKETS_PER_PAGE;
    off_t at = (off_t)((uint8_t *)m->index - (uint8_t *)m->header) + (off_t)(page * PAGE_SIZE);

    if (is_backed(m, bucket))
        return true;
    if (!tmem_back(m, at, PAGE_SIZE))
        return false;
    fetch_or(&m->header->index_backed[page / 64], (uint64_t)1 << page % 64);
    return true;
}

bool tmem_index_find(const struct tmem_map *m, uint64_t hash,
                     bool (*seen)(void *arg, uint32_t object), void *arg)
{
    uint64_t number[2];

    buckets_of(m, hash, number);
    for (unsigned k = 0; k < 2; k++) {
        const struct tmem_bucket *b = &m->index[number[k]];

        if (!is_backed(m, number[k]))
            continue;
        for (unsigned i = 0; i < TMEM_BUCKET_ENTRIES; i++) {
            uint64_t entry = load_acquire(&b->entry[i]);
            uint32_t object = (uint32_t)entry - 1;

            if ((uint32_t)entry && entry >> 32 == hash >> 32 && tmem_object_is_there(m, object) &&
                seen(arg, object))
                return true;
        }
    }
    return false;
}

static unsigned nr_free(const struct tmem_bucket *b)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < TMEM_BUCKET_ENTRIES; i++)
        nr += !load_relaxed(&b->entry[i]);
    return nr;
}

void tmem_index_add(const struct tmem_map *m, uint64_t hash, uint32_t object)
{
    struct tmem_bucket *b;
    uint64_t number[2];

    buckets_of(m, hash, number);
    if (!back(m, number[0]) || !back(m, number[1]))
        return;
    b = &m->index[number[nr_free(&m->index[number[0]]) < nr_free(&m->index[number[1]])]];
    for (unsigned i = 0; i < TMEM_BUCKET_ENTRIES; i++)
        if (!load_relaxed(&b->entry[i]) &&
            tmem_swap_u64(&b->entry[i], 0, entry_of(hash, object)))
            return;
}

void tmem_index_remove(const struct tmem_map *m, uint64_t hash, uint32_t object)
{
    uint64_t number[2];

    buckets_of(m, hash, number);
    for (unsigned k = 0; k < 2; k++) {
        struct tmem_bucket *b = &m->index[number[k]];

        for (unsigned i = 0; is_backed(m, number[k]) && i < TMEM_BUCKET_ENTRIES; i++)
            if (load_relaxed(&b->entry[i]) == entry_of(hash, object))
                tmem_swap_u64(&b->entry[i], entry_of(hash, object), 0);
    }
}
