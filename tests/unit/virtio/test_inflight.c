/* SPDX-License-Identifier: MIT */
/* A device that is killed, again and again, at any moment, and one that goes on from the record
 * of what it had in flight: every buffer comes back once, and in the end all have. */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "vq_driver.h"
#include "virtio/inflight.h"

#define NR_BUFFERS 20000u
#define NR_KILLS   600u

struct format { bool packed; unsigned num; };

static const struct format formats[] = { { false, 64 }, { true, 64 }, { true, 61 } };

/* Serves until it is killed, some out of order, some in batches, forgetting all it knows. */
static void device_run(const struct virtqueue_params *params, void *region, unsigned seed)
{
    struct virtqueue_params p = *params;
    static const struct timespec pause = { .tv_nsec = 1000 };
    struct virtqueue *vq = malloc(sizeof(*vq));
    struct virtqueue_chain held[RING_MAX];
    unsigned nr = 0;

    /* what another process knew of the base is as old as the queue */
    p.inflight = virtqueue_inflight_create(region, p.packed, p.num);
    virtqueue_init(vq, &p);
    for (;;) {
        while (nr < p.num && virtqueue_take(vq, &held[nr])) {
            /* what the buffer says is what it is answered with */
            memcpy(&held[nr].nr_in, held[nr].iov[0].iov_base, sizeof(uint32_t));
            nr++;
        }
        if (virtqueue_fault(vq))
            _exit(1);
        for (unsigned n = (seed = seed * 1103515245 + 12345) / 65536 % 8; n && nr; n--) {
            unsigned i = seed % nr;

            virtqueue_put(vq, held[i].id, held[i].nr_descs, held[i].slot, held[i].nr_in);
            held[i] = held[--nr];
        }
        virtqueue_publish(vq);
        if (!nr)
            nanosleep(&pause, NULL);
    }
}

static pid_t device_start(const struct virtqueue_params *p, void *region, unsigned seed)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);   /* a test that fails leaves none behind */
        device_run(p, region, seed);
    }
    return pid;
}

static void device_kill(pid_t pid)
{
    int status;

    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    /* it had not ended by itself, which says that a queue was stopped */
    assert_true(WIFSIGNALED(status));
}

/* A buffer's number lies in its memory: by slot, so that what is in flight stays as it is. */
static uint64_t buffer_at(unsigned slot)
{
    return RAM_BASE + RAM_BYTES + slot * 64ull;
}

/* In the list in place of the next where that is so. */
static void __attribute__((unused))
a_thread_of_the_sanitizer_does_not_survive_every_fork(void **state)
{
    skip();
}

static void __attribute__((unused)) nothing_is_lost_and_nothing_done_twice(void **state)
{
    for (unsigned k = 0; k < array_size(formats); k++) {
        const struct format *f = &formats[k];
        size_t bytes = virtqueue_inflight_bytes(f->packed, f->num);
        void *region = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                            -1, 0);
        uint8_t *seen = calloc(NR_BUFFERS, 1);
        unsigned number = 0, nr_done = 0, nr_kills = 0, seed = 7;
        int slot_of[RING_MAX];
        bool slot_busy[RING_MAX] = { false };
        struct vq_driver d;
        struct vq_ram ram;
        pid_t pid;

        assert_true(region != MAP_FAILED && seen);
        ram_open(&ram);
        driver_open(&d, &ram, f->packed, false, f->num, 0);
        pid = device_start(&d.p, region, seed);
        while (nr_done < NR_BUFFERS || nr_kills < NR_KILLS) {
            uint32_t len;
            int id;

            /* of one to three descriptors */
            while (number < NR_BUFFERS) {
                unsigned slot = 0, nr = 1 + number % 3;
                struct vq_piece piece[3];

                while (slot_busy[slot])
                    slot++;
                for (unsigned i = 0; i < nr; i++)
                    piece[i] = (struct vq_piece){ buffer_at(slot) + 8 * i, 8, i > 0 };
                if (d.nr_free < nr)
                    break;
                memcpy(ram_at(&ram, buffer_at(slot)), &number, sizeof(number));
                barrier_full();
                id = driver_add(&d, piece, nr, nr == 3 && number % 2);
                slot_busy[slot] = true;
                slot_of[id] = (int)slot;
                number++;
                driver_show(&d);
            }
            while ((id = driver_used(&d, &len)) >= 0) {
                assert_true(len < NR_BUFFERS);
                assert_false(seen[len]);
                seen[len] = 1;
                slot_busy[slot_of[id]] = false;
                nr_done++;
            }
            /* more buffers for as long as it is to be killed */
            if (nr_done == NR_BUFFERS && nr_kills < NR_KILLS) {
                memset(seen, 0, NR_BUFFERS);
                number = nr_done = 0;
            }
            if (nr_kills < NR_KILLS && !((seed = seed * 69069 + 1) / 65536 % 64)) {
                device_kill(pid);
                nr_kills++;
                pid = device_start(&d.p, region, seed);
            }
        }
        device_kill(pid);
        for (unsigned i = 0; i < NR_BUFFERS; i++)
            assert_true(seen[i]);
        free(seen);
        munmap(region, bytes);
        ram_close(&ram);
    }
}

/* The record is as little to be trusted as the queue: any content is survived. */
static void any_record_is_survived(void **state)
{
    for (unsigned k = 0; k < array_size(formats); k++)
        for (unsigned round = 0; round < 400; round++) {
            const struct format *f = &formats[k];
            size_t bytes = virtqueue_inflight_bytes(f->packed, f->num);
            uint8_t *region = calloc(1, bytes);
            struct virtqueue *vq = malloc(sizeof(*vq));
            struct vq_driver d;
            struct vq_ram ram;
            struct virtqueue_chain c;

            assert_true(region && vq);
            ram_open(&ram);
            driver_open(&d, &ram, f->packed, false, f->num, 0);
            srand(round);
            for (size_t i = 0; i < bytes; i++)
                region[i] = (uint8_t)(rand() % (round % 3 ? 256 : 4) ? 0 : rand());
            /* what makes it one that is read at all */
            region[8] = 1;
            region[9] = 0;
            region[10] = (uint8_t)f->num;
            region[11] = 0;
            if (round % 2) {
                memset(region + 12, 0, 20);
                for (unsigned i = 0; i < f->num && f->packed; i++)
                    region[32 + i * 32 + 2] = (uint8_t)(rand() % (int)f->num);
            }
            d.p.inflight = virtqueue_inflight_create(region, f->packed, f->num);
            assert_non_null(d.p.inflight);
            virtqueue_init(vq, &d.p);
            for (unsigned n = 0; n < 4 * f->num; n++) {
                struct vq_piece piece = { buffer_at(0), 8, true };

                if (driver_add(&d, &piece, 1, false) >= 0)
                    driver_show(&d);
                if (virtqueue_take(vq, &c))
                    virtqueue_put(vq, c.id, c.nr_descs, c.slot, 1);
                virtqueue_publish(vq);
            }
            virtqueue_inflight_free(d.p.inflight);
            free(vq);
            free(region);
            ram_close(&ram);
        }
}

/* After a stop nothing is in flight, and the queue goes on as without a record. */
static void a_record_at_rest_changes_nothing(void **state)
{
    for (unsigned k = 0; k < array_size(formats); k++) {
        const struct format *f = &formats[k];
        void *region = calloc(1, virtqueue_inflight_bytes(f->packed, f->num));
        struct virtqueue *vq = malloc(sizeof(*vq));
        struct vq_driver d;
        struct vq_ram ram;

        assert_true(region && vq);
        ram_open(&ram);
        driver_open(&d, &ram, f->packed, true, f->num, 0);
        for (unsigned round = 0; round < 3 * f->num; round++) {
            struct vq_piece piece[2] = { { buffer_at(0), 8, false }, { buffer_at(1), 8, true } };
            struct virtqueue_chain c;
            uint32_t len;
            int id = driver_add(&d, piece, 2, false);

            driver_show(&d);
            d.p.inflight = virtqueue_inflight_create(region, f->packed, f->num);
            virtqueue_init(vq, &d.p);
            assert_int_equal(virtqueue_take(vq, &c), 1);
            assert_int_equal(c.id, id);
            virtqueue_put(vq, c.id, c.nr_descs, c.slot, 5);
            virtqueue_publish(vq);
            assert_int_equal(driver_used(&d, &len), id);
            d.p.base = virtqueue_base(vq);
            virtqueue_inflight_free(d.p.inflight);
        }
        free(vq);
        free(region);
        ram_close(&ram);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef __SANITIZE_THREAD__
        cmocka_unit_test(a_thread_of_the_sanitizer_does_not_survive_every_fork),
#else
        cmocka_unit_test(nothing_is_lost_and_nothing_done_twice),
#endif
        cmocka_unit_test(any_record_is_survived),
        cmocka_unit_test(a_record_at_rest_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
