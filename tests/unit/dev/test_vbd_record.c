/* SPDX-License-Identifier: MIT */
/* A record of requests under every kill: a backend runs in a child instruction by instruction
 * (ptrace), and after each that has changed what outlives it, it counts as killed: what it has
 * left is adopted here, by another life, while the guest goes on.  Each request must be
 * answered once, nothing of what was answered be done again, and no page stay in use. */
#include "vbd_ring_fixture.h"

#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#define SECTORS     64u         /* of the disk, in use */
#define PAGES       40u         /* of the guest's, with data, in use */
#define LIST_PAGE   (DATA_PAGE + 39)
#define OTHER_PAGE  (DATA_PAGE + 36)
#define NR_SCRIPT   12u         /* requests of the guest's, ids from 0 on */
#define NR_IDS      (2 * NR_SCRIPT)
#define START       (UINT32_MAX - 5)    /* indices wrap on the way */
#define SLOTS       32u

/* All that a killed backend leaves, and what the guest knows, which is restored with it. */
struct world {
    struct guest guest;
    struct front front;
    struct vbd_record record;
    void *record_base;
    uint8_t *disk;              /* shared */
    bool persistent;
    unsigned nr_answers[NR_IDS];
    uint64_t nr_states;
};

static struct world *world_new(bool persistent)
{
    size_t bytes = vbd_record_bytes(SLOTS);
    struct world *w = calloc(1, sizeof(*w));

    guest_init(&w->guest);
    for (uint32_t i = DATA_PAGE; i < DATA_PAGE + PAGES; i++)
        guest_grant(&w->guest, i, false);
    front_init(&w->front, &w->guest, RING_PAGE, 1, START);
    w->persistent = persistent;
    w->record_base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    w->disk = mmap(NULL, DISK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(w->record_base != MAP_FAILED && w->disk != MAP_FAILED);
    vbd_record_lay(&w->record, w->record_base, SLOTS);
    return w;
}

static void world_free(struct world *w)
{
    munmap(w->record_base, vbd_record_bytes(SLOTS));
    munmap(w->disk, DISK_BYTES);
    front_free(&w->front);
    guest_free(&w->guest);
    free(w);
}

/* ---- what outlives ---- */

struct piece {
    void *at;
    size_t bytes;
    bool watched;       /* a change of it is a state of its own; what data is in between is not,
                         * since the request is then in flight for all to see */
};

#define PIECES_MAX 80u

static unsigned pieces(struct world *w, struct piece *p)
{
    unsigned nr = 0;

    p[nr++] = (struct piece){ w->front.page[0], PAGE_SIZE, true };
    p[nr++] = (struct piece){ w->record.head, sizeof(*w->record.head), true };
    p[nr++] = (struct piece){ w->record.slot, SLOTS * sizeof(*w->record.slot), true };
    p[nr++] = (struct piece){ w->guest.entries, 128 * sizeof(*w->guest.entries), true };
    /* sets that the references here fall into */
    p[nr++] = (struct piece){ w->record.kept + DATA_PAGE * VBD_GRANTS_WAYS,
                              PAGES * VBD_GRANTS_WAYS * sizeof(uint64_t), true };
    for (unsigned i = 0; i < SLOTS; i++)
        p[nr++] = (struct piece){ w->record.hold + (size_t)i * VBD_SEGMENTS_MAX,
                                  16 * sizeof(*w->record.hold), true };
    p[nr++] = (struct piece){ w->disk, SECTORS * BLK_SECTOR_BYTES, false };
    p[nr++] = (struct piece){ guest_page(&w->guest, DATA_PAGE), PAGES * PAGE_SIZE, false };
    p[nr++] = (struct piece){ w->nr_answers, sizeof(w->nr_answers), false };
    p[nr++] = (struct piece){ &w->front.req_prod, sizeof(w->front.req_prod), false };
    p[nr++] = (struct piece){ &w->front.rsp_cons, sizeof(w->front.rsp_cons), false };
    assert_true(nr <= PIECES_MAX);
    return nr;
}

struct saved {
    struct piece piece[PIECES_MAX];
    unsigned nr;
    uint8_t *copy;
};

static void saved_make(struct saved *s, struct world *w)
{
    size_t bytes = 0;

    s->nr = pieces(w, s->piece);
    for (unsigned i = 0; i < s->nr; i++)
        bytes += s->piece[i].bytes;
    s->copy = malloc(bytes);
}

/* True when something watched was another. */
static bool saved_differs(const struct saved *s)
{
    const uint8_t *at = s->copy;

    for (unsigned i = 0; i < s->nr; at += s->piece[i++].bytes)
        if (s->piece[i].watched && memcmp(at, s->piece[i].at, s->piece[i].bytes))
            return true;
    return false;
}

static void saved_copy(const struct saved *s, bool restore)
{
    uint8_t *at = s->copy;

    for (unsigned i = 0; i < s->nr; at += s->piece[i++].bytes) {
        if (restore)
            memcpy(s->piece[i].at, at, s->piece[i].bytes);
        else
            memcpy(at, s->piece[i].at, s->piece[i].bytes);
    }
}

/* ---- a life of the backend ---- */

struct life {
    struct held_disk held;
    struct blk_disk disk;
    struct blk_queue *queue;
    struct vbd_ring ring;
};

static int life_begin(struct life *l, struct world *w)
{
    struct blk_queue_params qp = {
        .nr_reqs = SLOTS, .max_iov = VBD_SEGMENTS_MAX, .wake_fd = -1,
        .complete = vbd_ring_complete, .arg = &l->ring,
    };
    struct err e = { 0 };

    memset(l, 0, sizeof(*l));
    l->held.data = w->disk;
    l->disk = (struct blk_disk){
        .driver = &held_driver, .state = &l->held,
        .props = { .size_bytes = DISK_BYTES, .can_flush = true, .can_discard = true },
    };
    if (vbd_ring_init(&l->ring, &(struct vbd_ring_params){
            .abi = vbd_abi_find(NULL), .pages = w->front.page, .nr_pages = 1,
            .grants = &w->guest.grants, .persistent = w->persistent, .record = &w->record,
        }) || blk_queue_open(&l->disk, &qp, &l->queue, &e))
        return -1;
    vbd_ring_set_queue(&l->ring, l->queue);
    return 0;
}

/* What was taken is finished the other way round, and shown in parts. */
static void life_work(struct life *l)
{
    unsigned taken;

    do {
        taken = vbd_ring_take(&l->ring, 4);
        while (l->held.nr) {
            held_finish(l->queue, &l->held, l->held.req[--l->held.nr]);
            if (l->held.nr % 2 == 0) {
                blk_queue_reap(l->queue);
                vbd_ring_publish(&l->ring);
            }
        }
        blk_queue_reap(l->queue);
        vbd_ring_publish(&l->ring);
    } while (taken || vbd_ring_has_taken(&l->ring) || l->held.nr || vbd_ring_arm(&l->ring));
}

static void life_end(struct life *l)
{
    vbd_ring_close(&l->ring);
    vbd_ring_publish(&l->ring);
    vbd_ring_free(&l->ring);
    blk_queue_close(l->queue);
}

/* ---- the guest ---- */

/* Sector s gets bytes of value v, from page p. */
static void put_write(struct world *w, uint64_t id, uint8_t op, unsigned s, unsigned p, uint8_t v)
{
    struct blkif_request r = front_request(&w->front, op, id, s, DATA_PAGE + p, 1);

    r.seg[0].last_sect = 0;
    memset(guest_page(&w->guest, DATA_PAGE + p), v, BLK_SECTOR_BYTES);
    front_put(&w->front, &r);
}

/* The sector that the guest writes again when the request is answered, which was the last to
 * write it; 0: none. */
static const uint8_t written[NR_SCRIPT] = { [1] = 2, [6] = 4, [9] = 5, [10] = 3 };

/* And from which pages. */
static const struct { uint8_t first, nr; } pages[NR_SCRIPT] = {
    [0] = { 0, 1 }, [1] = { 1, 1 }, [2] = { 2, 1 }, [3] = { 3, 1 }, [6] = { 5, 2 }, [9] = { 7, 1 },
    [10] = { 8, 1 },
};

static void script_put(struct world *w)
{
    struct blkif_request_segment *list = (void *)guest_page(&w->guest, LIST_PAGE);
    struct blkif_request_indirect in = {
        .operation = BLKIF_OP_INDIRECT, .indirect_op = BLKIF_OP_WRITE, .nr_segments = 2,
        .id = 6, .sector_number = 4, .indirect_grefs = { LIST_PAGE },
    };
    struct blkif_request_discard discard = {
        .operation = BLKIF_OP_DISCARD, .id = 5, .sector_number = 40, .nr_sectors = 2,
    };
    struct blkif_request r;

    put_write(w, 0, BLKIF_OP_WRITE, 1, 0, 0x11);
    put_write(w, 1, BLKIF_OP_WRITE, 2, 1, 0x12);
    /* after the first in any case, though nothing of either may be answered yet */
    put_write(w, 2, BLKIF_OP_WRITE_BARRIER, 1, 2, 0x21);
    put_write(w, 3, BLKIF_OP_WRITE, 3, 3, 0x13);
    r = front_request(&w->front, BLKIF_OP_READ, 4, 1, DATA_PAGE + 4, 1);
    r.seg[0].last_sect = 0;
    front_put(&w->front, &r);
    front_put(&w->front, &discard);
    for (unsigned i = 0; i < 2; i++) {
        list[i] = (struct blkif_request_segment){ DATA_PAGE + 5 + i, 0, 0 };
        memset(guest_page(&w->guest, DATA_PAGE + 5 + i), 0x14, BLK_SECTOR_BYTES);
        memset(guest_page(&w->guest, OTHER_PAGE + i), 0x14, BLK_SECTOR_BYTES);
    }
    front_put(&w->front, &in);                  /* sectors 4 and 5 */
    r = front_request(&w->front, BLKIF_OP_FLUSH_DISKCACHE, 7, 0, 0, 0);
    front_put(&w->front, &r);
    r = front_request(&w->front, BLKIF_OP_WRITE, 8, 7, 2, 1);      /* grants nothing */
    front_put(&w->front, &r);
    put_write(w, 9, BLKIF_OP_WRITE_BARRIER, 5, 7, 0x15);
    put_write(w, 10, BLKIF_OP_WRITE, 3, 8, 0x33);
    r = front_request(&w->front, 77, 11, 0, 0, 0);                 /* no operation */
    front_put(&w->front, &r);
    front_publish(&w->front);
}

/* What the guest does when it sees an answer: it has other uses for the page; and writes to the
 * sector again, something else, by the request of id NR_SCRIPT more. */
static void answered(struct world *w, const struct blkif_response *rsp)
{
    unsigned id = (unsigned)rsp->id;

    assert_in_range(id, 0, NR_IDS - 1);
    assert_int_equal(w->nr_answers[id]++, 0);
    assert_int_equal(rsp->status, id == 8 ? BLKIF_RSP_ERROR : id == 11 ? BLKIF_RSP_EOPNOTSUPP
                                                                       : BLKIF_RSP_OKAY);
    if (id == 4)
        assert_int_equal(guest_page(&w->guest, DATA_PAGE + 4)[511], 0x21);
    if (id >= NR_SCRIPT)
        return;
    for (unsigned i = 0; i < pages[id].nr; i++)
        memset(guest_page(&w->guest, DATA_PAGE + pages[id].first + i), 0xee, BLK_SECTOR_BYTES);
    if (written[id])
        put_write(w, id + NR_SCRIPT, BLKIF_OP_WRITE, written[id], 20 + id, (uint8_t)(0x80 + id));
}

static void answers_take(struct world *w)
{
    struct blkif_response rsp;

    while (front_get(&w->front, &rsp))
        answered(w, &rsp);
    front_publish(&w->front);
}

static void sector_is(struct world *w, unsigned sector, uint8_t value)
{
    for (unsigned i = 0; i < BLK_SECTOR_BYTES; i++)
        if (w->disk[sector * BLK_SECTOR_BYTES + i] != value)
            fail_msg("sector %u has 0x%02x at %u, not 0x%02x", sector,
                     w->disk[sector * BLK_SECTOR_BYTES + i], i, value);
}

/* All that was asked for has been done, and in an order that the guest can believe in. */
static void all_done(struct world *w)
{
    for (unsigned id = 0; id < NR_SCRIPT; id++) {
        assert_int_equal(w->nr_answers[id], 1);
        assert_int_equal(w->nr_answers[id + NR_SCRIPT], written[id] != 0);
        if (written[id])
            sector_is(w, written[id], (uint8_t)(0x80 + id));
    }
    sector_is(w, 1, 0x21);      /* the barrier's, which was behind another request */
    assert_int_equal(guest_grants_in_use(&w->guest), 0);
    for (unsigned i = 0; i < SLOTS; i++)
        assert_int_equal(w->record.slot[i].state, VBD_RECORD_FREE);
}

/* The one that killed it left the world like this: the guest looks first, then another life
 * goes on, to the end. */
static void goes_on(struct world *w)
{
    struct life *l = malloc(sizeof(*l));

    /* a list that names other pages now: the first ones must be given back all the same */
    for (unsigned i = 0; i < 2; i++)
        ((struct blkif_request_segment *)(void *)guest_page(&w->guest, LIST_PAGE))[i].gref =
            OTHER_PAGE + i;
    answers_take(w);
    assert_int_equal(life_begin(l, w), 0);
    assert_null(vbd_ring_fault(&l->ring));
    /* what was to be shown is, though nothing may come after it */
    assert_int_equal(front_sring(&w->front)->rsp_prod, w->record.head->rsp_published);
    for (unsigned i = 0; i < 4; i++) {
        life_work(l);
        answers_take(w);
    }
    assert_null(vbd_ring_fault(&l->ring));
    life_end(l);
    all_done(w);
    free(l);
}

/* ---- killing ---- */

/* A life that ends with so many requests in flight. */
static void dies_with(struct world *w, unsigned nr)
{
    pid_t pid = fork();
    int status;

    if (!pid) {
        struct life *l = malloc(sizeof(*l));

        _exit(life_begin(l, w) || vbd_ring_take(&l->ring, nr) != nr);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static pid_t child_begin(struct world *w)
{
    pid_t pid = fork();

    if (!pid) {
        struct life *l = malloc(sizeof(*l));

        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        if (life_begin(l, w))
            _exit(1);
        life_work(l);
        vbd_ring_free(&l->ring);
        _exit(0);
    }
    return pid;
}

/* Runs a life in steps; each state that it leads to is one to go on from, and every stride-th
 * one in which yet another life is killed so. */
static void killed_everywhere(struct world *w, unsigned stride)
{
    struct saved s;
    pid_t pid = child_begin(w);
    uint64_t nr = 0;
    int status;

    saved_make(&s, w);
    saved_copy(&s, false);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSTOPPED(status));
    for (;;) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFSTOPPED(status))
            break;
        assert_int_equal(WSTOPSIG(status), SIGTRAP);
        if (!saved_differs(&s))
            continue;
        saved_copy(&s, false);
        nr++;
        if (stride && nr % stride == 0)
            killed_everywhere(w, 0);
        else
            goes_on(w);
        saved_copy(&s, true);
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    w->nr_states += nr;
    /* one more: it has done its work, and says so no more */
    goes_on(w);
    saved_copy(&s, true);
    free(s.copy);
}

static void every_kill_is_survived(bool persistent, unsigned stride)
{
    struct world *w = world_new(persistent);

    script_put(w);
    killed_everywhere(w, stride);

    /* each request is taken, held, answered and shown: if there were few, nothing was tested */
    assert_true(w->nr_states > NR_SCRIPT * 12);
    world_free(w);
}

static void a_kill_at_any_instruction_is_survived(void **state)
{
    every_kill_is_survived(false, 0);
}

static void so_it_is_with_grants_that_stay(void **state)
{
    every_kill_is_survived(true, 0);
}

static void and_a_second_kill_while_it_goes_on(void **state)
{
    every_kill_is_survived(true, 59);
}

/* ---- what else a record is for ---- */

static void an_end_in_its_place_answers_with_errors(void **state)
{
    struct world *w = world_new(true);
    struct life *l = malloc(sizeof(*l));
    struct blkif_response rsp;
    unsigned nr = 0;

    script_put(w);
    dies_with(w, 2);
    assert_int_equal(life_begin(l, w), 0);
    l->held.result = -EIO;
    vbd_ring_close(&l->ring);
    life_work(l);
    life_end(l);
    while (front_get(&w->front, &rsp)) {
        assert_int_not_equal(rsp.status, BLKIF_RSP_OKAY);
        w->nr_answers[rsp.id]++;
        nr++;
    }
    assert_int_equal(nr, NR_SCRIPT);
    for (unsigned i = 0; i < NR_SCRIPT; i++)
        assert_int_equal(w->nr_answers[i], 1);
    assert_int_equal(guest_grants_in_use(&w->guest), 0);
    free(l);
    world_free(w);
}

/* Whatever it says: no more than its ring is stopped. */
static void a_damaged_record_stops_its_ring(void **state)
{
    for (unsigned seed = 1; seed <= 300; seed++) {
        struct world *w = world_new(seed % 2);
        struct life *l = malloc(sizeof(*l));
        uint8_t *at = w->record_base;
        size_t bytes = (size_t)((uint8_t *)w->record.hold - at) + 4 * PAGE_SIZE;

        script_put(w);
        dies_with(w, 2);
        srand(seed);
        for (unsigned i = 0; i < seed; i++)
            at[(size_t)rand() % bytes] = (uint8_t)(rand() % 4 ? rand() % 8 : rand());
        assert_int_equal(life_begin(l, w), 0);
        for (unsigned i = 0; i < 20; i++)
            life_work(l);
        life_end(l);
        free(l);
        world_free(w);
    }
}

/* With an argument the longest of them alone, which then runs beside the others. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_at_any_instruction_is_survived),
        cmocka_unit_test(so_it_is_with_grants_that_stay),
        cmocka_unit_test(an_end_in_its_place_answers_with_errors),
        cmocka_unit_test(a_damaged_record_stops_its_ring),
    };
    const struct CMUnitTest twice[] = {
        cmocka_unit_test(and_a_second_kill_while_it_goes_on),
    };

    /* what is large comes zeroed from the kernel, not by as many steps as it has bytes */
    mallopt(M_MMAP_THRESHOLD, 4096);
    return argc > 1 ? cmocka_run_group_tests(twice, NULL, NULL)
                    : cmocka_run_group_tests(tests, NULL, NULL);
}
