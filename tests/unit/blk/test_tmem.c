/* SPDX-License-Identifier: MIT */
/* The tmem driver: what is stored once, what it costs, and who gives it back. */
#include "blk_test.h"

#include <signal.h>
#include <pthread.h>
#include <sys/wait.h>

#include "blk/tmem_pool.h"

#define POOL_BYTES (64 * MIB)
#define POOL_CELLS (POOL_BYTES / TMEM_EXTENT_BYTES * TMEM_EXTENT_CELLS)
#define DISK_BYTES (16 * MIB)

static struct run_dir run_dir;

struct tmem_disk {
    struct blk_disk *disk;
    struct sync_queue q;
};

static struct blk_spec tmem_spec(uint64_t size, uint64_t quota, uint64_t pool)
{
    return (struct blk_spec){ .driver = "tmem", .size_bytes = size, .quota_bytes = quota,
                              .pool_bytes = pool, .run_dir = run_dir.path, .label = "xvdb" };
}

static void tmem_open(struct tmem_disk *t, uint64_t size, uint64_t quota, uint64_t pool)
{
    struct blk_spec spec = tmem_spec(size, quota, pool);

    t->disk = disk_open(&spec);
    sync_open(&t->q, t->disk);
}

static void tmem_close(struct tmem_disk *t)
{
    blk_queue_close(t->q.q);
    blk_disk_close(t->disk);
}

static struct tmem_stats stats(void)
{
    struct tmem_stats s = { .bound_bytes = 0 };
    struct err e = { 0 };
    int rc = tmem_pool_stats(run_dir.path, &s, &e);

    if (rc && rc != -ENOENT)
        fail_msg("%s", e.text);
    return s;
}

static bool there_is_no_pool(void)
{
    struct tmem_stats s;
    struct err e = { 0 };

    return tmem_pool_stats(run_dir.path, &s, &e) == -ENOENT && !e.code;
}

/* A page of noise that its number makes. */
static void noise(uint8_t *page, unsigned seed)
{
    for (unsigned i = 0; i < PAGE_SIZE; i++)
        page[i] = (uint8_t)rand_r(&seed);
}

/* Half noise, half a repeated word: compresses to some more than 2 KiB. */
static void half_noise(uint8_t *page, unsigned seed)
{
    noise(page, seed);
    memset(page + PAGE_SIZE / 2, (int)seed, PAGE_SIZE / 2);
}

static int page_put(struct tmem_disk *t, unsigned page, const uint8_t *data)
{
    return sync_io(&t->q, BLK_OP_WRITE, page * PAGE_SIZE, (void *)data, PAGE_SIZE, 1);
}

static void page_is(struct tmem_disk *t, unsigned page, const uint8_t *data)
{
    uint8_t back[PAGE_SIZE];

    memset(back, 0x77, sizeof(back));
    assert_int_equal(sync_io(&t->q, BLK_OP_READ, page * PAGE_SIZE, back, PAGE_SIZE, 1), 0);
    assert_memory_equal(back, data, PAGE_SIZE);
}

static void equal_pages_are_stored_once(void **state)
{
    struct tmem_disk t[3];
    uint8_t page[PAGE_SIZE];
    struct tmem_stats s;

    for (unsigned k = 0; k < 3; k++)
        tmem_open(&t[k], DISK_BYTES, 0, POOL_BYTES);
    for (unsigned i = 0; i < 100; i++) {
        half_noise(page, i % 50);
        for (unsigned k = 0; k < 3; k++)
            assert_int_equal(page_put(&t[k], i, page), 0);
    }
    s = stats();
    assert_int_equal(s.nr_users, 3);
    assert_int_equal(s.stored_pages, 300);
    assert_int_equal(s.unique_pages, 50);
    assert_int_equal(s.cell_bytes, 50 * 5 * 512);
    assert_in_range(s.compressed_bytes, 50 * 2048, 50 * 5 * 512);
    for (unsigned k = 0; k < 3; k++) {
        assert_int_equal(s.user[k].pages, 100);
        /* as if it were alone */
        assert_int_equal(s.user[k].charged_bytes, 50 * 5 * 512);
        assert_int_equal(s.user[k].shared_hits, k ? 100 : 50);
        assert_string_equal(s.user[k].label, "xvdb");
    }
    /* who goes takes away nothing that others have */
    tmem_close(&t[0]);
    tmem_close(&t[2]);
    s = stats();
    assert_int_equal(s.unique_pages, 50);
    for (unsigned i = 0; i < 100; i++) {
        half_noise(page, i % 50);
        page_is(&t[1], i, page);
    }
    tmem_close(&t[1]);
    assert_true(there_is_no_pool());
}

static void pages_of_one_word_take_nothing(void **state)
{
    static const uint32_t words[] = { 0, 1, 0x5a5a5a5a, 0xdeadbeef, UINT32_MAX };
    uint32_t page[PAGE_SIZE / sizeof(uint32_t)];
    struct tmem_stats s;
    struct tmem_disk t;

    tmem_open(&t, DISK_BYTES, 0, POOL_BYTES);
    for (unsigned i = 0; i < array_size(words); i++) {
        for (unsigned k = 0; k < array_size(page); k++)
            page[k] = words[i];
        assert_int_equal(page_put(&t, i, (uint8_t *)page), 0);
        page_is(&t, i, (uint8_t *)page);
    }
    s = stats();
    assert_int_equal(s.unique_pages, 0);
    assert_int_equal(s.stored_pages, 0);
    assert_int_equal(s.user[0].filled, array_size(words) - 1);
    /* the last word differs: no longer one word */
    page[array_size(page) - 1] = 7;
    assert_int_equal(page_put(&t, 0, (uint8_t *)page), 0);
    page_is(&t, 0, (uint8_t *)page);
    assert_int_equal(stats().unique_pages, 1);
    tmem_close(&t);
}

static void what_is_not_needed_is_given_back(void **state)
{
    uint8_t page[PAGE_SIZE];
    struct tmem_disk t;
    struct tmem_stats s;

    tmem_open(&t, DISK_BYTES, 0, POOL_BYTES);
    for (unsigned i = 0; i < 64; i++) {
        noise(page, i);
        assert_int_equal(page_put(&t, i, page), 0);
    }
    assert_int_equal(stats().cell_bytes, 64 * PAGE_SIZE);       /* noise stays as it is */
    assert_int_equal(sync_io(&t.q, BLK_OP_DISCARD, 0, NULL, 16 * PAGE_SIZE, 0), 0);
    assert_int_equal(stats().unique_pages, 48);
    assert_int_equal(sync_io(&t.q, BLK_OP_WRITE_ZEROES, 16 * PAGE_SIZE, NULL, 16 * PAGE_SIZE, 0),
                     0);
    memset(page, 0, sizeof(page));
    for (unsigned i = 32; i < 48; i++)
        assert_int_equal(page_put(&t, i, page), 0);
    noise(page, 1000);
    for (unsigned i = 48; i < 64; i++)
        assert_int_equal(page_put(&t, i, page), 0);
    s = stats();
    assert_int_equal(s.unique_pages, 1);
    assert_int_equal(s.user[0].pages, 16);
    assert_int_equal(s.user[0].charged_bytes, PAGE_SIZE);
    tmem_close(&t);
}

static void parts_of_pages_may_be_written(void **state)
{
    uint8_t *model = calloc(8, PAGE_SIZE), data[3 * PAGE_SIZE];
    struct tmem_disk t;
    unsigned seed = 5;

    tmem_open(&t, 8 * PAGE_SIZE - 512, 0, POOL_BYTES);
    for (unsigned round = 0; round < 3000; round++) {
        uint64_t at = (unsigned)rand_r(&seed) % 63 * 512;
        uint64_t len = min_of(1u + (unsigned)rand_r(&seed) % 20, 63 - at / 512) * 512;
        unsigned how = (unsigned)rand_r(&seed) % 8;

        for (unsigned i = 0; i < len; i++)
            data[i] = how < 3 ? (uint8_t)rand_r(&seed) : (uint8_t)(how - 3);
        memcpy(model + at, data, len);
        if (how == 3)
            assert_int_equal(sync_io(&t.q, BLK_OP_DISCARD, at, NULL, len, 0), 0);
        else
            assert_int_equal(sync_io(&t.q, BLK_OP_WRITE, at, data, len,
                                     1 + round % (unsigned)(len / 512)), 0);
        at = (unsigned)rand_r(&seed) % 60 * 512;
        assert_int_equal(sync_io(&t.q, BLK_OP_READ, at, data, 3 * 512, 1 + round % 3), 0);
        assert_memory_equal(data, model + at, 3 * 512);
    }
    tmem_close(&t);
    free(model);
}

static void a_quota_is_kept(void **state)
{
    uint8_t page[PAGE_SIZE], first[PAGE_SIZE];
    struct tmem_disk t, other;
    unsigned nr = 0;

    tmem_open(&other, DISK_BYTES, 0, POOL_BYTES);
    tmem_open(&t, DISK_BYTES, 10 * PAGE_SIZE, 0);
    for (;; nr++) {
        noise(page, nr);
        /* that another has it already does not help */
        assert_int_equal(page_put(&other, nr, page), 0);
        if (page_put(&t, nr, page))
            break;
    }
    assert_int_equal(nr, 10);
    assert_int_equal(page_put(&t, nr, page), -ENOSPC);
    noise(page, 5000);
    assert_int_equal(page_put(&t, nr, page), -ENOSPC);
    assert_int_equal(stats().user[1].over_quota, 3);
    assert_int_equal(stats().user[1].charged_bytes, 10 * PAGE_SIZE);
    /* what takes the place of something costs the difference, in whole and in part */
    noise(first, 0);
    page_is(&t, 0, first);
    assert_int_equal(page_put(&t, 0, page), 0);
    page_is(&t, 0, page);
    memcpy(page, first, 512);
    assert_int_equal(sync_io(&t.q, BLK_OP_WRITE, 0, page, 512, 1), 0);
    page_is(&t, 0, page);
    /* unless it is two pages' */
    assert_int_equal(sync_io(&t.q, BLK_OP_DISCARD, 9 * PAGE_SIZE, NULL, PAGE_SIZE, 0), 0);
    assert_int_equal(page_put(&t, 20, page), 0);
    noise(first, 6000);
    assert_int_equal(page_put(&t, 21, first), 0);
    noise(first, 6001);
    assert_int_equal(page_put(&t, 20, first), -ENOSPC);
    page_is(&t, 20, page);
    assert_int_equal(stats().user[1].charged_bytes, 10 * PAGE_SIZE);
    tmem_close(&t);
    tmem_close(&other);
}

static void a_full_pool_refuses_and_loses_nothing(void **state)
{
    unsigned most = (unsigned)(MIB / PAGE_SIZE), nr = 0;
    struct tmem_disk t;
    uint8_t page[PAGE_SIZE];
    struct tmem_stats s;

    tmem_open(&t, DISK_BYTES, 0, MIB);
    for (;; nr++) {
        noise(page, nr);
        if (page_put(&t, nr, page))
            break;
        assert_true(nr < most);
    }
    /* what is not cells is little, and no cell is left that a page would fit in */
    assert_in_range(nr, most * 9 / 10, most);
    assert_int_equal(page_put(&t, nr, page), -ENOSPC);
    s = stats();
    assert_int_equal(s.unique_pages, nr);
    assert_int_equal(s.user[0].pool_full, 2);
    assert_int_equal(s.user[0].charged_bytes, nr * PAGE_SIZE);
    for (unsigned i = 0; i < nr; i++) {
        noise(page, i);
        page_is(&t, i, page);
    }
    /* but what takes the place of something is stored, again and again */
    for (unsigned i = 0; i < 1000; i++) {
        noise(page, 9000 + i);
        assert_int_equal(page_put(&t, i % nr, page), 0);
        page_is(&t, i % nr, page);
        noise(page, 8000);
        assert_int_equal(page_put(&t, nr, page), -ENOSPC);
    }
    memset(page, 3, 512);
    assert_int_equal(sync_io(&t.q, BLK_OP_WRITE, 5 * PAGE_SIZE, page, 512, 1), 0);
    assert_int_equal(stats().unique_pages, nr);
    assert_int_equal(stats().user[0].charged_bytes, nr * PAGE_SIZE);
    /* the room of any page serves another */
    assert_int_equal(sync_io(&t.q, BLK_OP_DISCARD, 17 * PAGE_SIZE, NULL, PAGE_SIZE, 0), 0);
    noise(page, 7000);
    assert_int_equal(page_put(&t, nr, page), 0);
    page_is(&t, nr, page);
    /* and so does that of a disk that was closed */
    tmem_close(&t);
    tmem_open(&t, DISK_BYTES, 0, MIB);
    for (unsigned i = 0; i < nr; i++) {
        noise(page, i);
        assert_int_equal(page_put(&t, i, page), 0);
    }
    tmem_close(&t);
}

static void one_pool_has_one_bound(void **state)
{
    struct tmem_disk t;
    struct blk_spec spec = tmem_spec(DISK_BYTES, 0, 2 * POOL_BYTES);
    struct blk_disk *d = NULL;
    struct err e = { 0 };

    tmem_open(&t, DISK_BYTES, 0, POOL_BYTES);
    assert_int_equal(blk_disk_open(&spec, &d, &e), -EEXIST);
    assert_non_null(strstr(e.text, "64 MiB"));
    tmem_close(&t);
    spec.pool_bytes = UINT64_MAX - 7;
    err_clear(&e);
    assert_int_equal(blk_disk_open(&spec, &d, &e), -EINVAL);
    assert_non_null(strstr(e.text, "at most 1T"));
    spec.pool_bytes = POOL_BYTES;
    spec.run_dir = NULL;
    err_clear(&e);
    assert_int_equal(blk_disk_open(&spec, &d, &e), -EINVAL);
    assert_non_null(strstr(e.text, "run-time directory"));
    spec.run_dir = "/nowhere";
    err_clear(&e);
    assert_int_equal(blk_disk_open(&spec, &d, &e), -ENOENT);
    assert_null(d);
}

static void impossible_sizes_are_refused(void **state)
{
    static const uint64_t bad[] = { 0, 511, 513, UINT64_MAX - 511, 4096 * GIB + 512 };

    for (unsigned i = 0; i < array_size(bad); i++) {
        struct blk_spec spec = tmem_spec(bad[i], 0, 0);
        struct blk_disk *d = NULL;
        struct err e = { 0 };

        assert_int_equal(blk_disk_open(&spec, &d, &e), -EINVAL);
        assert_null(d);
        assert_non_null(strstr(e.text, "tmem disk"));
    }
    assert_true(there_is_no_pool());
}

/* ---- several processes ---- */

struct child {
    pid_t pid;
    int said, told;             /* pipes from it and to it */
};

/* A process with a disk of its own, which runs body and then waits for a word, or for its end. */
static struct child child_start(void (*body)(struct tmem_disk *t))
{
    int out[2], in[2];
    struct child c;
    char word = 'r';

    assert_int_equal(pipe(out) | pipe(in), 0);
    c.pid = fork();
    assert_true(c.pid >= 0);
    if (!c.pid) {
        struct tmem_disk t;

        close(in[1]);
        tmem_open(&t, DISK_BYTES, 0, POOL_BYTES);
        body(&t);
        if (write(out[1], &word, 1) != 1 || read(in[0], &word, 1) != 1)
            _exit(1);
        tmem_close(&t);
        _exit(0);
    }
    close(out[1]);
    close(in[0]);
    c.said = out[0];
    c.told = in[1];
    return c;
}

static void child_ready(const struct child *c)
{
    char word;

    assert_int_equal(read(c->said, &word, 1), 1);
}

static void child_end(const struct child *c, bool kill_it)
{
    int status;

    if (kill_it)
        kill(c->pid, SIGKILL);
    else
        assert_int_equal(write(c->told, "e", 1), 1);
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    if (kill_it)
        assert_true(WIFSIGNALED(status));
    else
        assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
    close(c->said);
    close(c->told);
}

static void write_500(struct tmem_disk *t)
{
    uint8_t page[PAGE_SIZE];

    for (unsigned i = 0; i < 500; i++) {
        half_noise(page, i);
        if (page_put(t, i, page))
            _exit(2);
    }
}

static void processes_share(void **state)
{
    struct child a = child_start(write_500), b;
    struct tmem_disk t;
    uint8_t page[PAGE_SIZE];

    child_ready(&a);
    b = child_start(write_500);
    child_ready(&b);
    assert_int_equal(stats().stored_pages, 1000);
    assert_int_equal(stats().unique_pages, 500);
    /* the pool was a's; b's and ours is the same, whoever goes first */
    child_end(&a, true);
    tmem_open(&t, DISK_BYTES, 0, 0);
    assert_int_equal(stats().unique_pages, 500);
    assert_int_equal(stats().nr_users, 2);
    half_noise(page, 3);
    assert_int_equal(page_put(&t, 0, page), 0);
    child_end(&b, false);
    assert_int_equal(stats().unique_pages, 1);
    page_is(&t, 0, page);
    tmem_close(&t);
    assert_true(there_is_no_pool());
}

static void what_a_killed_process_had_is_given_back(void **state)
{
    struct child a = child_start(write_500);
    struct tmem_disk t, u;
    uint8_t page[PAGE_SIZE];

    child_ready(&a);
    tmem_open(&t, DISK_BYTES, 0, POOL_BYTES);
    for (unsigned i = 0; i < 100; i++) {
        half_noise(page, i);
        assert_int_equal(page_put(&t, i, page), 0);
    }
    child_end(&a, true);
    assert_int_equal(stats().nr_users, 1);
    assert_int_equal(stats().unique_pages, 500);
    /* by the next to come */
    tmem_open(&u, DISK_BYTES, 0, POOL_BYTES);
    assert_int_equal(stats().unique_pages, 100);
    for (unsigned i = 0; i < 100; i++) {
        half_noise(page, i);
        page_is(&t, i, page);
    }
    tmem_close(&u);
    tmem_close(&t);
    /* and all of it by the kernel, when there is nobody */
    a = child_start(write_500);
    child_ready(&a);
    child_end(&a, true);
    assert_true(there_is_no_pool());
}

static void fill_all(struct tmem_disk *t)
{
    uint8_t page[PAGE_SIZE];

    for (unsigned i = 0; i < DISK_BYTES / PAGE_SIZE; i++) {
        noise(page, 100000 + i);
        if (page_put(t, i, page))
            _exit(2);
    }
}

/* By who needs it, too. */
static void a_full_pool_is_swept(void **state)
{
    struct child a[3];
    struct tmem_disk t;
    uint8_t page[PAGE_SIZE];
    unsigned nr = 0;

    tmem_open(&t, POOL_BYTES, 0, POOL_BYTES);
    for (unsigned i = 0; i < 3; i++)
        a[i] = child_start(fill_all);
    for (unsigned i = 0; i < 3; i++)
        child_ready(&a[i]);
    for (;; nr++) {
        noise(page, nr);
        if (page_put(&t, nr, page))
            break;
    }
    for (unsigned i = 0; i < 3; i++)
        child_end(&a[i], true);
    /* looked at afresh ten times a second */
    for (unsigned tries = 0; page_put(&t, nr, page); tries++) {
        assert_true(tries < 100);
        usleep(10000);
    }
    for (unsigned i = nr + 1; i < nr + DISK_BYTES / PAGE_SIZE - 1; i++) {
        noise(page, i);
        assert_int_equal(page_put(&t, i, page), 0);
    }
    assert_int_equal(stats().unique_pages, nr + DISK_BYTES / PAGE_SIZE - 1);
    tmem_close(&t);
}

/* Writes, rewrites and discards the same few pages until it is killed, on two threads. */
static void *churn(void *arg)
{
    struct tmem_disk *t = arg;
    unsigned seed = (unsigned)getpid() ^ (unsigned)(uintptr_t)&seed;
    struct sync_queue s;
    uint8_t page[PAGE_SIZE];

    sync_open(&s, t->disk);
    for (;;) {
        unsigned i = (unsigned)rand_r(&seed) % 64;

        half_noise(page, (unsigned)rand_r(&seed) % 40);
        if (rand_r(&seed) % 4 == 0)
            sync_io(&s, BLK_OP_DISCARD, i * PAGE_SIZE, NULL, PAGE_SIZE, 0);
        else
            sync_io(&s, BLK_OP_WRITE, i * PAGE_SIZE, page, PAGE_SIZE, 1);
    }
    return NULL;
}

static void churn_twice(struct tmem_disk *t)
{
    pthread_t thread;

    for (unsigned i = 0; i < 2; i++)
        if (pthread_create(&thread, NULL, churn, t))
            _exit(3);
}

/* Killed at any instant, again and again, next to one who goes on: nothing is lost of his, and
 * when all others have gone, nothing is left of theirs. */
static void processes_may_be_killed_at_any_instant(void **state)
{
    struct tmem_disk t, u;
    uint8_t page[PAGE_SIZE];
    unsigned seed = 9;

    tmem_open(&t, POOL_BYTES, 0, POOL_BYTES);
    for (unsigned round = 0; round < 60; round++) {
        struct child a = child_start(churn_twice), b = child_start(churn_twice);

        child_ready(&a);
        child_ready(&b);
        for (unsigned i = 0; i < 40; i++) {
            half_noise(page, i);
            assert_int_equal(page_put(&t, i, page), 0);
        }
        usleep((unsigned)rand_r(&seed) % 3000);
        child_end(&a, true);
        for (unsigned i = 0; i < 40; i++) {
            half_noise(page, i);
            page_is(&t, i, page);
        }
        child_end(&b, true);
        assert_int_equal(sync_io(&t.q, BLK_OP_DISCARD, 0, NULL, (round % 41) * PAGE_SIZE + 512, 0),
                         0);
    }
    for (unsigned i = 0; i < 40; i++) {
        half_noise(page, i);
        assert_int_equal(page_put(&t, i, page), 0);
    }
    tmem_open(&u, DISK_BYTES, 0, POOL_BYTES);
    assert_int_equal(stats().unique_pages, 40);
    assert_int_equal(stats().nr_users, 2);
    tmem_close(&u);
    /* no room has been lost either: all of it but the spare of one thread can be had */
    assert_int_equal(sync_io(&t.q, BLK_OP_DISCARD, 0, NULL, POOL_BYTES, 0), 0);
    for (unsigned i = 0; i < POOL_CELLS / TMEM_OBJECT_CELLS - 1; i++) {
        noise(page, i);
        assert_int_equal(page_put(&t, i, page), 0);
    }
    noise(page, UINT32_MAX);
    assert_int_equal(page_put(&t, POOL_CELLS / TMEM_OBJECT_CELLS, page), -ENOSPC);
    tmem_close(&t);
    assert_true(there_is_no_pool());
}

/* ---- several threads ---- */

#define NR_THREADS 4
#define NR_CHANGES 20000u

struct worker {
    struct tmem_disk *t;
    unsigned index;
    pthread_t thread;
};

/* Each sector of a page belongs to one thread, all pages to all of them, and what they write is
 * often the same. */
static void *sectors_write(void *arg)
{
    struct worker *w = arg;
    unsigned seed = w->index + 1;
    uint8_t sector[512], model[16] = { 0 };
    struct sync_queue s;

    sync_open(&s, w->t->disk);
    for (unsigned n = 0; n < NR_CHANGES; n++) {
        unsigned page = (unsigned)rand_r(&seed) % 16;
        uint64_t at = page * PAGE_SIZE + w->index * 512;

        if (rand_r(&seed) % 3) {
            model[page] = (uint8_t)(rand_r(&seed) % 3);
            memset(sector, model[page], sizeof(sector));
            sector[9] = (uint8_t)(model[page] * 2);
            if (sync_io(&s, BLK_OP_WRITE, at, sector, 512, 1))
                abort();
        }
        if (sync_io(&s, BLK_OP_READ, at, sector, 512, 1) || sector[0] != model[page] ||
            sector[9] != model[page] * 2 || sector[511] != model[page])
            abort();
    }
    blk_queue_close(s.q);
    return NULL;
}

/* Whole pages of all disks, the same few contents in all of them, whose first bytes say which they
 * are and of which page: a read sees one of that page's, whole. */
static void *pages_write(void *arg)
{
    struct worker *w = arg;
    unsigned seed = w->index + 77;
    uint8_t page[PAGE_SIZE], expected[PAGE_SIZE];
    struct sync_queue s;

    sync_open(&s, w->t->disk);
    for (unsigned n = 0; n < NR_CHANGES / 8; n++) {
        unsigned index = (unsigned)rand_r(&seed) % 4, number = (unsigned)rand_r(&seed) % 3;
        uint64_t at = index * PAGE_SIZE;
        enum blk_op op = rand_r(&seed) % 5 ? BLK_OP_WRITE : BLK_OP_DISCARD;

        number += 1 + index * 3;
        half_noise(page, number);
        memcpy(page, &number, sizeof(number));
        if (sync_io(&s, op, at, op == BLK_OP_WRITE ? page : NULL, PAGE_SIZE, op == BLK_OP_WRITE))
            abort();
        if (sync_io(&s, BLK_OP_READ, at, page, PAGE_SIZE, 1))
            abort();
        memset(expected, 0, sizeof(expected));
        memcpy(&number, page, sizeof(number));
        if (number && (number - 1) / 3 == index) {
            half_noise(expected, number);
            memcpy(expected, &number, sizeof(number));
        }
        if (memcmp(page, expected, sizeof(page)))
            abort();
    }
    blk_queue_close(s.q);
    return NULL;
}

static void workers_run(void *(*body)(void *), unsigned nr_disks)
{
    struct tmem_disk t[2];
    struct worker w[NR_THREADS];

    for (unsigned i = 0; i < nr_disks; i++)
        tmem_open(&t[i], DISK_BYTES, 0, POOL_BYTES);
    for (unsigned i = 0; i < NR_THREADS; i++) {
        w[i] = (struct worker){ .t = &t[i % nr_disks], .index = i };
        assert_int_equal(pthread_create(&w[i].thread, NULL, body, &w[i]), 0);
    }
    for (unsigned i = 0; i < NR_THREADS; i++)
        pthread_join(w[i].thread, NULL);
    for (unsigned i = 0; i < nr_disks; i++)
        assert_int_equal(sync_io(&t[i].q, BLK_OP_DISCARD, 0, NULL, DISK_BYTES, 0), 0);
    /* every hold was dropped, every charge taken back */
    assert_int_equal(stats().unique_pages, 0);
    assert_int_equal(stats().stored_pages, 0);
    for (unsigned i = 0; i < nr_disks; i++)
        assert_int_equal(stats().user[i].charged_bytes, 0);
    for (unsigned i = 0; i < nr_disks; i++)
        tmem_close(&t[i]);
}

static void queues_change_parts_of_the_same_pages(void **state)
{
    workers_run(sectors_write, 1);
}

static void disks_and_queues_change_the_same_contents(void **state)
{
    workers_run(pages_write, 2);
    workers_run(pages_write, 1);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_pages_are_stored_once),
        cmocka_unit_test(pages_of_one_word_take_nothing),
        cmocka_unit_test(what_is_not_needed_is_given_back),
        cmocka_unit_test(parts_of_pages_may_be_written),
        cmocka_unit_test(a_quota_is_kept),
        cmocka_unit_test(a_full_pool_refuses_and_loses_nothing),
        cmocka_unit_test(one_pool_has_one_bound),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(processes_share),
        cmocka_unit_test(what_a_killed_process_had_is_given_back),
        cmocka_unit_test(a_full_pool_is_swept),
        cmocka_unit_test(processes_may_be_killed_at_any_instant),
        cmocka_unit_test(queues_change_parts_of_the_same_pages),
        cmocka_unit_test(disks_and_queues_change_the_same_contents),
    };
    int failed;

    run_dir_make(&run_dir);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    run_dir_remove(&run_dir);
    return failed;
}
