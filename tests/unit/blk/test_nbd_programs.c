/* SPDX-License-Identifier: MIT */
/* The nbd driver and other people's servers: killed under load, started for us, missing. */
#include <dirent.h>
#include <sys/stat.h>
#include <time.h>

#include "nbd_test.h"

#define DISK_BYTES (8 * MIB)
#define BLOCK      4096u
#define NR_BLOCKS  (DISK_BYTES / BLOCK)

/* Writes and reads at random places, at most one at each, beside what they should find. */
struct load {
    struct blk_queue *q;
    uint8_t *shadow;
    uint8_t *buf;                   /* a slot for each request */
    struct { unsigned block, nr; bool write; } doing[32];
    bool busy[NR_BLOCKS];
    unsigned seed, nr_done, nr_errors;
    bool reads_only;
};

#define LOAD_BYTES_MAX (64 * KIB)

static unsigned load_random(struct load *l, unsigned below)
{
    l->seed = l->seed * 1103515245 + 12345;
    return (l->seed >> 8) % below;
}

static void load_complete(void *arg, struct blk_req *req)
{
    struct load *l = arg;
    unsigned at = l->doing[req->index].block, nr = l->doing[req->index].nr;

    l->nr_done++;
    l->nr_errors += req->result != 0;
    if (!l->doing[req->index].write && !req->result)
        assert_memory_equal(l->buf + req->index * LOAD_BYTES_MAX, l->shadow + at * BLOCK,
                            nr * BLOCK);
    memset(l->busy + at, 0, nr);
    blk_req_put(l->q, req);
}

static void load_start_one(struct load *l)
{
    unsigned nr = 1 + load_random(l, LOAD_BYTES_MAX / BLOCK), at = load_random(l, NR_BLOCKS - nr);
    unsigned nr_iov = 1 + load_random(l, nr);
    uint8_t *buf;
    struct blk_req *req;

    if (memchr(l->busy + at, 1, nr) || !(req = blk_req_get(l->q, nr_iov)))
        return;
    memset(l->busy + at, 1, nr);
    buf = l->buf + req->index * LOAD_BYTES_MAX;
    l->doing[req->index].block = at;
    l->doing[req->index].nr = nr;
    l->doing[req->index].write = load_random(l, 2) && !l->reads_only;
    req->op = l->doing[req->index].write ? BLK_OP_WRITE : BLK_OP_READ;
    req->offset_bytes = at * BLOCK;
    req->length_bytes = nr * BLOCK;
    for (unsigned i = 0; i < nr_iov; i++)
        req->iov[i] = (struct iovec){ buf + i * BLOCK,
                                      i + 1 < nr_iov ? BLOCK : (nr - i) * BLOCK };
    req->nr_iov = nr_iov;
    if (l->doing[req->index].write) {
        for (unsigned i = 0; i < nr * BLOCK; i += 8)
            *(uint64_t *)(buf + i) = (uint64_t)l->seed << 32 | (l->nr_done + i);
        memcpy(l->shadow + at * BLOCK, buf, nr * BLOCK);
    }
    blk_req_submit(l->q, req);
}

static void load_open(struct load *l, struct blk_disk *d, unsigned nr_reqs)
{
    struct err e = { 0 };

    memset(l, 0, sizeof(*l));
    l->seed = 4711;
    l->shadow = calloc(1, DISK_BYTES);
    l->buf = calloc(array_size(l->doing), LOAD_BYTES_MAX);
    assert_int_equal(blk_queue_open(d, &(struct blk_queue_params){
        .nr_reqs = nr_reqs, .max_iov = 64, .wake_fd = -1,
        .complete = load_complete, .arg = l,
    }, &l->q, &e), 0);
}

/* Until nr more are done, then until nothing is in flight. */
static void load_run(struct load *l, unsigned nr, void (*midway)(void *arg), void *arg)
{
    unsigned end = l->nr_done + nr, half = l->nr_done + nr / 2;

    while (l->nr_done < end || blk_queue_nr_inflight(l->q)) {
        for (unsigned i = 0; i < 8 && l->nr_done < end; i++)
            load_start_one(l);
        blk_queue_flush(l->q);
        if (midway && l->nr_done >= half && blk_queue_nr_inflight(l->q) > 8) {
            midway(arg);
            midway = NULL;
        }
        if (!blk_queue_reap(l->q) && blk_queue_nr_inflight(l->q))
            blk_queue_wait(l->q, -1);
    }
    assert_null(midway);
}

static void load_free(struct load *l)
{
    free(l->shadow);
    free(l->buf);
}

/* What is in the image, as raw bytes. */
static void image_holds(const char *path, const char *format, const uint8_t *wanted)
{
    char command[512], raw[128];
    uint8_t *got = malloc(DISK_BYTES);
    int fd;

    snprintf(raw, sizeof(raw), "%s.raw", path);
    snprintf(command, sizeof(command), "qemu-img convert -f %s -O raw %s %s", format, path, raw);
    assert_int_equal(system(command), 0);
    fd = open(raw, O_RDONLY);
    assert_int_equal(read(fd, got, DISK_BYTES), DISK_BYTES);
    close(fd);
    unlink(raw);
    assert_memory_equal(got, wanted, DISK_BYTES);
    free(got);
}

static void image_create(struct image *img, const char *format)
{
    char command[512];

    image_make(img, "/tmp", 512);
    snprintf(command, sizeof(command), "qemu-img create -q -f %s %s %lu", format, img->path,
             DISK_BYTES);
    assert_int_equal(system(command), 0);
}

/* The qemu-nbd that this process has started, or 0. */
static pid_t own_qemu_nbd(void)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    pid_t found = 0;

    while (!found && (entry = readdir(proc))) {
        char path[300], comm[64] = "";
        int parent = 0;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
        f = fopen(path, "re");
        if (!f)
            continue;
        if (fscanf(f, "%*d (%63[^)]) %*c %d", comm, &parent) == 2 && parent == getpid() &&
            !strcmp(comm, "qemu-nbd"))
            found = atoi(entry->d_name);
        fclose(f);
    }
    closedir(proc);
    return found;
}

static void kill_now(void *arg)
{
    kill(*(pid_t *)arg, SIGKILL);
}

/* ---- somebody else's server ---- */

static void kill_and_restart(void *arg)
{
    nbd_program_end(arg);
    nbd_program_spawn(arg, 700000);
}

static void a_server_killed_under_load_is_waited_for(void **state)
{
    struct nbd_program program;
    struct blk_disk *d;
    struct image img;
    struct load l;

    image_create(&img, "raw");
    qemu_nbd_start(&program, "raw", img.path, NULL);
    d = disk_open(&(struct blk_spec){ .driver = "nbd", .path = program.uri, .reconnect_s = 20 });
    load_open(&l, d, array_size(l.doing));
    for (unsigned i = 0; i < 3; i++)
        load_run(&l, 4000, kill_and_restart, &program);
    assert_int_equal(l.nr_errors, 0);
    nbd_program_end(&program);
    image_holds(img.path, "raw", l.shadow);
    blk_queue_close(l.q);
    blk_disk_close(d);
    load_free(&l);
    unlink(img.path);
}

static void without_its_server_a_disk_gives_eio_and_recovers(void **state)
{
    struct nbd_program program;
    struct timespec t0, t1;
    struct sync_queue s;
    struct blk_disk *d;
    struct image img;
    char buf[512];

    image_create(&img, "raw");
    qemu_nbd_start(&program, "raw", img.path, NULL);
    d = disk_open(&(struct blk_spec){ .driver = "nbd", .path = program.uri, .reconnect_s = 2 });
    sync_open(&s, d);
    nbd_program_end(&program);
    clock_gettime(CLOCK_MONOTONIC, &t0);
    assert_int_equal(sync_io(&s, BLK_OP_READ, 0, buf, 512, 1), -EIO);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    assert_in_range(t1.tv_sec - t0.tv_sec, 1, 5);
    /* from then on at once */
    assert_int_equal(sync_io(&s, BLK_OP_WRITE, 0, buf, 512, 1), -EIO);
    clock_gettime(CLOCK_MONOTONIC, &t0);
    assert_in_range(t0.tv_sec - t1.tv_sec, 0, 1);
    nbd_program_run(&program);
    for (unsigned i = 0; i < 50 && sync_io(&s, BLK_OP_READ, 0, buf, 512, 1); i++)
        usleep(100000);
    assert_int_equal(sync_io(&s, BLK_OP_WRITE, 0, buf, 512, 1), 0);
    blk_queue_close(s.q);
    blk_disk_close(d);
    nbd_program_end(&program);
    unlink(img.path);
}

static void exports_by_name_and_read_only_ones(void **state)
{
    static const char *const words[] = { "--export-name=disk", "--read-only", NULL };
    struct nbd_program program;
    struct blk_spec spec = { .driver = "nbd" };
    struct err e = { 0 };
    struct image img;
    char uri[200];
    struct blk_disk *d;

    image_create(&img, "raw");
    qemu_nbd_start(&program, "raw", img.path, words);
    spec.path = uri;
    snprintf(uri, sizeof(uri), "nbd+unix:///other?socket=%s", program.socket);
    assert_int_equal(blk_disk_open(&spec, &d, &e), -ENOENT);
    assert_non_null(strstr(e.text, "no export 'other'"));
    err_clear(&e);
    snprintf(uri, sizeof(uri), "nbd+unix:///disk?socket=%s", program.socket);
    assert_int_equal(blk_disk_open(&spec, &d, &e), -EROFS);
    spec.readonly = true;
    blk_disk_close(disk_open(&spec));
    nbd_program_end(&program);
    unlink(img.path);
}

/* ---- our own ---- */

static void images_of_every_format_hold_what_is_written(void **state)
{
    static const char *const formats[] = { "qcow", "qcow2", "vpc", "qed", "vhdx", "vmdk", "vdi" };

    for (unsigned i = 0; i < array_size(formats); i++) {
        struct blk_disk *d;
        struct image img;
        struct load l;

        image_create(&img, formats[i]);
        d = disk_open(&(struct blk_spec){ .driver = "nbd", .path = img.path,
                                          .format = formats[i] });
        /* QEMU 7.2 dies of QED writes at the same time: an assertion in block/qed.c */
        load_open(&l, d, strcmp(formats[i], "qed") ? array_size(l.doing) : 1);
        load_run(&l, 1000, NULL, NULL);
        assert_int_equal(l.nr_errors, 0);
        blk_queue_close(l.q);
        blk_disk_close(d);
        image_holds(img.path, formats[i], l.shadow);
        load_free(&l);
        unlink(img.path);
    }
}

static int flush(struct blk_disk *d)
{
    struct sync_queue s;
    int rc;

    sync_open(&s, d);
    rc = sync_io(&s, BLK_OP_FLUSH, 0, NULL, 0, 0);
    blk_queue_close(s.q);
    return rc;
}

static void our_qemu_nbd_is_started_again_when_it_dies(void **state)
{
    struct sync_queue other;
    struct image img;
    struct blk_disk *d;
    struct load l;
    pid_t pid;

    image_create(&img, "qcow2");
    d = disk_open(&(struct blk_spec){ .driver = "nbd", .path = img.path, .format = "qcow2",
                                      .reconnect_s = 20 });
    pid = own_qemu_nbd();
    assert_int_not_equal(pid, 0);
    load_open(&l, d, array_size(l.doing));
    sync_open(&other, d);
    load_run(&l, 2000, NULL, NULL);
    assert_int_equal(flush(d), 0);
    l.reads_only = true;
    load_run(&l, 4000, kill_now, &pid);
    assert_int_equal(l.nr_errors, 0);
    assert_int_not_equal(own_qemu_nbd(), pid);
    /* had there been writes, some would be lost: the next flush of each queue says so, once */
    assert_int_equal(sync_io(&other, BLK_OP_FLUSH, 0, NULL, 0, 0), -EIO);
    assert_int_equal(sync_io(&other, BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
    l.reads_only = false;
    load_run(&l, 2000, NULL, NULL);
    assert_int_equal(l.nr_errors, 0);
    blk_queue_close(other.q);
    blk_queue_close(l.q);
    blk_disk_close(d);
    image_holds(img.path, "qcow2", l.shadow);
    load_free(&l);
    assert_int_equal(own_qemu_nbd(), 0);
    unlink(img.path);
}

static void several_queues_share_one_image(void **state)
{
    struct sync_queue s[4];
    struct blk_disk *d;
    struct image img;
    char buf[512], back[512];

    image_create(&img, "qcow2");
    d = disk_open(&(struct blk_spec){ .driver = "nbd", .path = img.path, .format = "qcow2" });
    assert_int_equal(blk_disk_props(d)->max_queues, 0);
    for (unsigned i = 0; i < array_size(s); i++)
        sync_open(&s[i], d);
    for (unsigned i = 0; i < array_size(s); i++) {
        memset(buf, 'a' + (int)i, sizeof(buf));
        assert_int_equal(sync_io(&s[i], BLK_OP_WRITE, i * 512, buf, 512, 1), 0);
        assert_int_equal(sync_io(&s[(i + 1) % 4], BLK_OP_FLUSH, 0, NULL, 0, 0), 0);
        assert_int_equal(sync_io(&s[(i + 2) % 4], BLK_OP_READ, i * 512, back, 512, 1), 0);
        assert_memory_equal(buf, back, 512);
    }
    for (unsigned i = 0; i < array_size(s); i++)
        blk_queue_close(s[i].q);
    blk_disk_close(d);
    unlink(img.path);
}

static void one_image_has_one_writer(void **state)
{
    struct blk_spec spec = { .driver = "nbd", .format = "qcow2" };
    struct blk_disk *d, *other;
    struct err e = { 0 };
    struct image img;

    image_create(&img, "qcow2");
    spec.path = img.path;
    d = disk_open(&spec);
    assert_int_equal(blk_disk_open(&spec, &other, &e), -EBUSY);
    err_clear(&e);
    spec.readonly = true;
    assert_int_equal(blk_disk_open(&spec, &other, &e), -EBUSY);
    blk_disk_close(d);
    d = disk_open(&spec);
    blk_disk_close(disk_open(&spec));       /* readers share */
    blk_disk_close(d);
    unlink(img.path);
}

static void what_keeps_an_image_from_being_served_is_said(void **state)
{
    char *path = strdup(getenv("PATH"));
    struct blk_spec spec = { .driver = "nbd", .format = "qcow2" };
    struct err e = { 0 };
    struct blk_disk *d;
    struct image img;

    image_make(&img, "/tmp", 65536);
    spec.path = img.path;
    assert_int_equal(blk_disk_open(&spec, &d, &e), -EINVAL);
    assert_non_null(strstr(e.text, "not in qcow2 format"));
    err_clear(&e);
    setenv("PATH", "/nonexistent", 1);
    assert_int_equal(blk_disk_open(&spec, &d, &e), -ENOENT);
    assert_non_null(strstr(e.text, "qemu-utils"));
    setenv("PATH", path, 1);
    err_clear(&e);
    unlink(img.path);
    assert_int_equal(blk_disk_open(&spec, &d, &e), -ENOENT);
    assert_non_null(strstr(e.text, "cannot be opened"));
    err_clear(&e);
    spec.path = "/tmp";
    assert_int_equal(blk_disk_open(&spec, &d, &e), -EINVAL);
    err_clear(&e);
    unlink("json:{}");
    assert_int_equal(symlink("/dev/zero", "json:{}"), 0);
    spec.path = "json:{}";      /* a name here, something else there */
    assert_int_equal(blk_disk_open(&spec, &d, &e), -EINVAL);
    assert_non_null(strstr(e.text, "absolute"));
    assert_int_equal(unlink("json:{}"), 0);
    assert_int_equal(own_qemu_nbd(), 0);
    free(path);
}

static bool runs(pid_t pid)
{
    char path[64], state = 'X';
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    f = fopen(path, "re");
    if (!f)
        return false;
    if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
        state = 'X';
    fclose(f);
    return state != 'Z' && state != 'X';
}

static void a_killed_process_leaves_nothing(void **state)
{
    char tmp[] = "/tmp/xenolith-nbd-tmp-XXXXXX";
    struct image img;
    int said[2];
    pid_t pid, server = 0;

    assert_non_null(mkdtemp(tmp));
    image_create(&img, "qcow2");
    assert_int_equal(pipe(said), 0);
    pid = fork();
    if (!pid) {
        setenv("TMPDIR", tmp, 1);
        disk_open(&(struct blk_spec){ .driver = "nbd", .path = img.path, .format = "qcow2" });
        server = own_qemu_nbd();
        if (write(said[1], &server, sizeof(server)) != sizeof(server))
            _exit(1);
        pause();
    }
    assert_int_equal(read(said[0], &server, sizeof(server)), sizeof(server));
    assert_true(runs(server));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    for (unsigned i = 0; i < 100 && runs(server); i++)
        usleep(50000);
    assert_false(runs(server));
    assert_int_equal(rmdir(tmp), 0);        /* it is empty */
    close(said[0]);
    close(said[1]);
    unlink(img.path);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_killed_under_load_is_waited_for),
        cmocka_unit_test(without_its_server_a_disk_gives_eio_and_recovers),
        cmocka_unit_test(exports_by_name_and_read_only_ones),
        cmocka_unit_test(images_of_every_format_hold_what_is_written),
        cmocka_unit_test(our_qemu_nbd_is_started_again_when_it_dies),
        cmocka_unit_test(several_queues_share_one_image),
        cmocka_unit_test(one_image_has_one_writer),
        cmocka_unit_test(what_keeps_an_image_from_being_served_is_said),
        cmocka_unit_test(a_killed_process_leaves_nothing),
    };

    if (!program_there("qemu-nbd") || !program_there("qemu-img"))
        return TEST_SKIPPED;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
