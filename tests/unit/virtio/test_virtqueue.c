/* SPDX-License-Identifier: MIT */
/* Virtqueues of both formats against a driver that keeps the rules, and against one that
 * breaks them. */
#include "vq_driver.h"

struct format { bool packed, event_idx; unsigned num; uint16_t start; };

static const struct format formats[] = {
    { false, false, 8, 0 }, { false, true, 8, 65530 }, { false, true, 256, 65300 },
    { true, false, 8, 0 }, { true, true, 8, 5 }, { true, true, 7, 6 }, { true, true, 256, 255 },
};

#define for_each_format(f) \
    for (const struct format *f = formats; f < formats + array_size(formats); f++)

struct pair { struct vq_ram ram; struct vq_driver driver; struct virtqueue vq; };

static struct pair *pair_open(const struct format *f)
{
    struct pair *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    ram_open(&p->ram);
    driver_open(&p->driver, &p->ram, f->packed, f->event_idx, f->num, f->start);
    virtqueue_init(&p->vq, &p->driver.p);
    return p;
}

static void pair_close(struct pair *p)
{
    ram_close(&p->ram);
    free(p);
}

/* ---- keeping the rules ---- */

/* Buffers of one to four pieces, some indirect, given back out of order, many times round. */
static void everything_comes_back_once(void **state)
{
    for_each_format(f) {
        struct pair *p = pair_open(f);
        struct { uint16_t id, nr; uint32_t tag; } held[RING_MAX];
        uint32_t tag_of[RING_MAX] = { 0 }, tag = 0, len;
        unsigned nr_held = 0, seed = 1, nr_done = 0;
        int id;

        while (nr_done < 20 * f->num) {
            struct virtqueue_chain c;

            for (unsigned i = 0; i < 5; i++) {
                unsigned nr = 1 + (seed = seed * 1103515245 + 12345) / 65536 % 4;
                struct vq_piece piece[4];

                for (unsigned k = 0; k < nr; k++)
                    piece[k] = (struct vq_piece){ RAM_BASE + 128 * KIB + 64 * k, 16 + k, k > 1 };
                id = driver_add(&p->driver, piece, nr, seed & 1 << 20);
                if (id < 0)
                    break;
                tag_of[id] = ++tag;
            }
            driver_show(&p->driver);
            while (virtqueue_take(&p->vq, &c)) {
                assert_true(c.nr_out >= 1 && c.nr_out <= 2 && c.nr_in <= 2);
                for (unsigned k = 0; k < c.nr_out + c.nr_in; k++) {
                    assert_int_equal(c.iov[k].iov_len, 16 + k);
                    assert_ptr_equal(c.iov[k].iov_base,
                                     ram_at(&p->ram, RAM_BASE + 128 * KIB + 64 * k));
                }
                held[nr_held].id = c.id;
                held[nr_held].nr = c.nr_descs;
                held[nr_held++].tag = tag_of[c.id];
            }
            assert_null(virtqueue_fault(&p->vq));
            for (unsigned n = 1 + seed % 7; n && nr_held; n--) {
                unsigned i = seed % nr_held;

                virtqueue_put(&p->vq, held[i].id, held[i].nr, 0, held[i].tag);
                held[i] = held[--nr_held];
            }
            virtqueue_publish(&p->vq);
            while ((id = driver_used(&p->driver, &len)) >= 0) {
                assert_int_equal(len, tag_of[id]);
                tag_of[id] = 0;
                nr_done++;
            }
        }
        pair_close(p);
    }
}

static void a_queue_goes_on_from_its_base(void **state)
{
    for_each_format(f) {
        struct pair *p = pair_open(f);
        struct vq_piece piece = { RAM_BASE + 128 * KIB, 1, true };
        struct virtqueue_chain c;
        uint32_t len;

        for (unsigned round = 0; round < 3 * f->num; round++) {
            int id = driver_add(&p->driver, &piece, 1, false);

            driver_show(&p->driver);
            assert_int_equal(virtqueue_take(&p->vq, &c), 1);
            virtqueue_put(&p->vq, c.id, c.nr_descs, 0, round);
            virtqueue_publish(&p->vq);
            p->driver.p.base = virtqueue_base(&p->vq);
            virtqueue_init(&p->vq, &p->driver.p);
            assert_int_equal(driver_used(&p->driver, &len), id);
            assert_int_equal(len, round);
        }
        pair_close(p);
    }
}

/* A notification for each publish that the driver asked for, none that it did not. */
static void notifications_are_as_the_driver_wants(void **state)
{
    for_each_format(f) {
        struct pair *p = pair_open(f);
        struct vq_piece piece = { RAM_BASE + 128 * KIB, 1, true };
        struct virtqueue_chain c;
        uint32_t len;

        for (unsigned round = 0; round < 3 * f->num; round++) {
            bool armed = round % 3;

            if (armed)
                driver_arm(&p->driver);
            else
                driver_disarm(&p->driver);
            for (unsigned i = 0; i < 2; i++) {
                assert_true(driver_add(&p->driver, &piece, 1, false) >= 0);
                driver_show(&p->driver);
                assert_int_equal(virtqueue_take(&p->vq, &c), 1);
                virtqueue_put(&p->vq, c.id, c.nr_descs, 0, 1);
                /* with positions, the second is beyond what was asked for */
                assert_int_equal(virtqueue_publish(&p->vq), armed && !(i && f->event_idx));
            }
            assert_false(virtqueue_publish(&p->vq));
            while (driver_used(&p->driver, &len) >= 0)
                ;
        }
        pair_close(p);
    }
}

static void the_driver_notifies_as_the_device_wants(void **state)
{
    for_each_format(f) {
        struct pair *p = pair_open(f);
        struct vq_piece piece = { RAM_BASE + 128 * KIB, 1, true };
        struct virtqueue_chain c;

        assert_false(virtqueue_arm(&p->vq));
        driver_add(&p->driver, &piece, 1, false);
        assert_true(driver_show(&p->driver));
        assert_true(virtqueue_arm(&p->vq));     /* there is one */
        assert_int_equal(virtqueue_take(&p->vq, &c), 1);
        virtqueue_disarm(&p->vq);
        driver_add(&p->driver, &piece, 1, false);
        if (!f->packed || !f->event_idx)        /* this driver reads no positions */
            assert_false(driver_show(&p->driver));
        else
            driver_show(&p->driver);
        assert_int_equal(virtqueue_take(&p->vq, &c), 1);
        assert_int_equal(virtqueue_take(&p->vq, &c), 0);
        pair_close(p);
    }
}

static void pieces_and_tables_may_lie_across_regions(void **state)
{
    for_each_format(f) {
        struct pair *p = pair_open(f);
        uint64_t border = RAM_BASE + RAM_BYTES;
        struct vq_piece piece = { border - 10, 30, true };
        struct virtqueue_chain c;
        /* flags are where the other format has next or id */
        struct vring_desc desc = { border - 100, 200, f->packed ? 0 : VRING_DESC_F_WRITE,
                                   f->packed ? VRING_DESC_F_WRITE : 0 };

        driver_add(&p->driver, &piece, 1, false);
        driver_show(&p->driver);
        assert_int_equal(virtqueue_take(&p->vq, &c), 1);
        assert_int_equal(c.nr_in, 2);
        assert_int_equal(c.iov[0].iov_len, 10);
        assert_int_equal(c.iov[1].iov_len, 20);
        assert_ptr_equal(c.iov[1].iov_base, ram_at(&p->ram, border));

        /* a table of one descriptor, half of which is in either region */
        memcpy(ram_at(&p->ram, border - 8), &desc, 8);
        memcpy(ram_at(&p->ram, border), (char *)&desc + 8, 8);
        driver_add(&p->driver, &piece, 1, true);
        if (f->packed)
            packed_desc(&p->driver)[(f->start + 1) % f->num].addr = border - 8;
        else
            split_desc(&p->driver)[1].addr = border - 8;
        driver_show(&p->driver);
        assert_int_equal(virtqueue_take(&p->vq, &c), 1);
        assert_int_equal(c.nr_in, 2);
        assert_int_equal(c.iov[0].iov_len, 100);
        pair_close(p);
    }
}

static void writes_are_logged(void **state)
{
    for_each_format(f) {
        struct pair *p = pair_open(f);
        uint8_t bits[(RAM_BASE + 2 * RAM_BYTES) / PAGE_SIZE / 8 + 1] = { 0 };
        struct dirty_log log = { .bits = bits, .size_bytes = sizeof(bits) };
        struct vq_piece piece = { RAM_BASE + RAM_BYTES + 5 * PAGE_SIZE - 4, 8, true };
        struct virtqueue_chain c;
        unsigned used_page = f->packed ? RAM_BASE / PAGE_SIZE : AT_DEVICE / PAGE_SIZE;
        unsigned page = (RAM_BASE + RAM_BYTES) / PAGE_SIZE + 4;

        p->driver.p.log = &log;
        p->driver.p.log_device = true;
        p->driver.p.log_device_at = gpa(AT_DEVICE);
        virtqueue_init(&p->vq, &p->driver.p);
        driver_add(&p->driver, &piece, 1, false);
        driver_show(&p->driver);
        assert_int_equal(virtqueue_take(&p->vq, &c), 1);
        assert_int_equal(bits[page / 8], 0);
        virtqueue_log(&p->vq, c.iov[0].iov_base, c.iov[0].iov_len);
        assert_int_equal(bits[page / 8] >> page % 8 & 3, 3);
        virtqueue_put(&p->vq, c.id, c.nr_descs, 0, 8);
        virtqueue_publish(&p->vq);
        assert_true(bits[used_page / 8] & 1 << used_page % 8);
        pair_close(p);
    }
}

/* ---- breaking them ---- */

/* The first descriptor that the driver wrote. */
static void desc_change(struct pair *p, const struct format *f, uint64_t addr, uint32_t len,
                        unsigned set, unsigned clear)
{
    if (f->packed) {
        struct vring_packed_desc *d = &packed_desc(&p->driver)[f->start % f->num];

        d->addr = addr ? addr : d->addr;
        d->len = len ? len : d->len;
        d->flags = (uint16_t)((d->flags | set) & ~clear);
    } else {
        struct vring_desc *d = &split_desc(&p->driver)[0];

        d->addr = addr ? addr : d->addr;
        d->len = len ? len : d->len;
        d->flags = (uint16_t)((d->flags | set) & ~clear);
    }
}

static void stops(struct pair *p)
{
    struct virtqueue_chain c;

    driver_show(&p->driver);
    assert_int_equal(virtqueue_take(&p->vq, &c), 0);
    assert_non_null(virtqueue_fault(&p->vq));
    /* for good */
    assert_int_equal(virtqueue_take(&p->vq, &c), 0);
    assert_false(virtqueue_arm(&p->vq));
}

static void bad_descriptors_stop_the_queue(void **state)
{
    static const struct {
        uint64_t addr;
        uint32_t len;
        unsigned set, clear;
        bool indirect;
    } bad[] = {
        { .addr = RAM_BASE - 1 },
        { .addr = RAM_BASE + 2 * RAM_BYTES - 1, .len = 2 },
        { .addr = UINT64_MAX, .len = 16 },
        { .addr = RAM_BASE, .len = UINT32_MAX },
        { .addr = 8 },
        { .set = VRING_DESC_F_WRITE },                  /* then the next is one to read */
        { .indirect = true, .len = 15 },
        { .indirect = true, .len = 17 },
        { .indirect = true, .addr = RAM_BASE + 2 * RAM_BYTES - 16, .len = 32 },
        { .indirect = true, .addr = UINT64_MAX - 7 },
        { .indirect = true, .set = VRING_DESC_F_NEXT },
    };

    for_each_format(f)
        for (unsigned i = 0; i < array_size(bad); i++) {
            struct pair *p = pair_open(f);
            struct vq_piece piece[2] = { { RAM_BASE + 128 * KIB, 16, false },
                                         { RAM_BASE + 129 * KIB, 16, false } };

            if (bad[i].indirect && bad[i].addr == RAM_BASE + 2 * RAM_BYTES - 16 && !f->packed) {
                /* a split table goes on where its entries say */
                struct vring_desc *d = ram_at(&p->ram, bad[i].addr);

                *d = (struct vring_desc){ RAM_BASE, 16, VRING_DESC_F_NEXT, 1 };
            }
            driver_add(&p->driver, piece, 2, bad[i].indirect);
            desc_change(p, f, bad[i].addr, bad[i].len, bad[i].set, bad[i].clear);
            stops(p);
            pair_close(p);
        }
}

static void indirect_descriptors_have_to_be_negotiated(void **state)
{
    for_each_format(f) {
        struct pair *p = pair_open(f);
        struct vq_piece piece = { RAM_BASE + 128 * KIB, 16, false };

        p->driver.p.indirect = false;
        virtqueue_init(&p->vq, &p->driver.p);
        driver_add(&p->driver, &piece, 1, true);
        stops(p);
        pair_close(p);
    }
}

static void bad_tables_stop_the_queue(void **state)
{
    for_each_format(f)
        for (unsigned i = 0; i < 3; i++) {
            struct pair *p = pair_open(f);
            struct vq_piece piece[4];
            struct vring_desc *table;
            int id;

            for (unsigned k = 0; k < 4; k++)
                piece[k] = (struct vq_piece){ RAM_BASE + 128 * KIB, 16, false };
            id = driver_add(&p->driver, piece, 4, true);
            table = ram_at(&p->ram, AT_TABLES + (unsigned)id * 512ull);
            if (i == 0)         /* in another; at the same place in both layouts, almost */
                table[1] = (struct vring_desc){ table[1].addr, 16,
                    (uint16_t)(f->packed ? 0 : VRING_DESC_F_INDIRECT),
                    (uint16_t)(f->packed ? VRING_DESC_F_INDIRECT : 0) };
            else if (f->packed)
                ((struct vring_packed_desc *)table)[1].addr = 3;
            else if (i == 1)    /* a loop */
                table[3] = (struct vring_desc){ table[3].addr, 16, VRING_DESC_F_NEXT, 1 };
            else                /* beyond the end */
                table[1].next = 4;
            stops(p);
            pair_close(p);
        }
}

static void a_chain_that_is_too_long_stops_the_queue(void **state)
{
    for_each_format(f) {
        struct pair *p = pair_open(f);
        unsigned nr = VIRTQUEUE_IOV_MAX + 1;
        struct vring_desc *table = ram_at(&p->ram, RAM_BASE + RAM_BYTES);
        struct vq_piece piece = { RAM_BASE + 128 * KIB, 16, false };

        for (unsigned i = 0; i < nr; i++)
            table[i] = (struct vring_desc){
                RAM_BASE, 1, (uint16_t)(f->packed || i + 1 == nr ? 0 : VRING_DESC_F_NEXT),
                (uint16_t)(f->packed ? 0 : i + 1) };
        driver_add(&p->driver, &piece, 1, true);
        desc_change(p, f, RAM_BASE + RAM_BYTES, nr * 16, 0, 0);
        stops(p);
        pair_close(p);
    }
}

static void bad_split_rings_stop_the_queue(void **state)
{
    for_each_format(f)
        for (unsigned i = 0; i < 5 && !f->packed; i++) {
            struct pair *p = pair_open(f);
            struct vq_piece piece[2] = { { RAM_BASE + 128 * KIB, 16, false },
                                         { RAM_BASE + 129 * KIB, 16, false } };
            struct vq_driver *d = &p->driver;

            driver_add(d, piece, 2, false);
            switch (i) {
            case 0:     /* a loop */
                split_desc(d)[1].flags |= VRING_DESC_F_NEXT;
                split_desc(d)[1].next = 0;
                break;
            case 1:     /* a next one beyond the queue */
                split_desc(d)[0].next = (uint16_t)f->num;
                break;
            case 2:     /* a head beyond the queue */
                split_avail(d)->ring[f->start & (f->num - 1)] = 0xffff;
                break;
            case 3:     /* more than there can be */
                d->avail_idx = (uint16_t)(f->start + f->num + 1);
                break;
            default:    /* back */
                d->avail_idx = (uint16_t)(f->start - 1);
                break;
            }
            stops(p);
            pair_close(p);
        }
}

/* All descriptors become available again and again, though none has been used. */
static void a_packed_ring_cannot_give_more_than_it_has(void **state)
{
    for_each_format(f) {
        struct pair *p = pair_open(f);
        struct virtqueue_chain c;
        unsigned taken = 0;

        if (f->packed) {
            for (unsigned lap = 0; lap < 2; lap++) {
                for (unsigned i = 0; i < f->num; i++) {
                    bool wrap = !lap ^ (i < f->start % f->num);

                    packed_desc(&p->driver)[i] = (struct vring_packed_desc){
                        RAM_BASE, 1, (uint16_t)i, (uint16_t)(wrap ? 1u << 7 : 1u << 15) };
                }
                while (virtqueue_take(&p->vq, &c))
                    taken++;
            }
            assert_int_equal(taken, f->num);
            assert_non_null(virtqueue_fault(&p->vq));
        }
        pair_close(p);
    }
}

static void a_packed_chain_has_an_end(void **state)
{
    for_each_format(f) {
        struct pair *p = pair_open(f);

        for (unsigned i = 0; i < f->num && f->packed; i++)
            packed_desc(&p->driver)[i] = (struct vring_packed_desc){
                RAM_BASE, 1, 0, (uint16_t)(VRING_DESC_F_NEXT | 1u << 7) };
        if (f->packed)
            stops(p);
        pair_close(p);
    }
}

/* A base from the other side is judged too. */
static void any_base_is_survived(void **state)
{
    for_each_format(f)
        for (unsigned i = 0; i < 64; i++) {
            struct pair *p = pair_open(f);
            struct virtqueue_chain c;

            p->driver.p.base = 0x9e3779b9u * i;
            memset(ram_at(&p->ram, AT_DESC), 0xa5 + (int)i, 16 * KIB);
            virtqueue_init(&p->vq, &p->driver.p);
            while (virtqueue_take(&p->vq, &c)) {
                virtqueue_put(&p->vq, c.id, c.nr_descs, 0, 1);
                virtqueue_publish(&p->vq);
                virtqueue_arm(&p->vq);
            }
            pair_close(p);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_comes_back_once),
        cmocka_unit_test(a_queue_goes_on_from_its_base),
        cmocka_unit_test(notifications_are_as_the_driver_wants),
        cmocka_unit_test(the_driver_notifies_as_the_device_wants),
        cmocka_unit_test(pieces_and_tables_may_lie_across_regions),
        cmocka_unit_test(writes_are_logged),
        cmocka_unit_test(bad_descriptors_stop_the_queue),
        cmocka_unit_test(indirect_descriptors_have_to_be_negotiated),
        cmocka_unit_test(bad_tables_stop_the_queue),
        cmocka_unit_test(a_chain_that_is_too_long_stops_the_queue),
        cmocka_unit_test(bad_split_rings_stop_the_queue),
        cmocka_unit_test(a_packed_ring_cannot_give_more_than_it_has),
        cmocka_unit_test(a_packed_chain_has_an_end),
        cmocka_unit_test(any_base_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
