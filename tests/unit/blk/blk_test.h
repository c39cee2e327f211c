/* SPDX-License-Identifier: MIT */
/* What the tests of the block engine share: temporary images, and a queue that
 * is driven synchronously. */
#ifndef BLK_TEST_H
#define BLK_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blk/driver.h"

struct image { char path[64]; };

/* An image of size bytes in dir, filled with a pattern that tells offsets apart. */
static inline uint8_t pattern_byte(uint64_t at)
{
    return (uint8_t)(at * 31 + (at >> 9) * 7 + (at >> 17));
}

static inline void image_make(struct image *img, const char *dir, uint64_t size)
{
    uint8_t *data = malloc(size);
    int fd;

    assert_non_null(data);
    for (uint64_t i = 0; i < size; i++)
        data[i] = pattern_byte(i);
    snprintf(img->path, sizeof(img->path), "%s/xenolith-blk-XXXXXX", dir);
    fd = mkstemp(img->path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    close(fd);
    free(data);
}

/* A run-time directory for the drivers whose processes meet in one. */
struct run_dir { char path[64]; };

static inline void run_dir_make(struct run_dir *r)
{
    snprintf(r->path, sizeof(r->path), "/tmp/xenolith-run-XXXXXX");
    if (!mkdtemp(r->path)) {
        perror(r->path);
        exit(1);
    }
}

static inline void run_dir_remove(const struct run_dir *r)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/tmem/lock", r->path);
    unlink(path);
    snprintf(path, sizeof(path), "%s/tmem", r->path);
    rmdir(path);
    /* fails, and so does the test, when somebody has left something there */
    if (rmdir(r->path)) {
        perror(r->path);
        exit(1);
    }
}

/* The status of a test program that has found nothing to do (meson's and automake's). */
#define TEST_SKIPPED 77

/* Whether the shell finds it; says which is missing. */
static inline bool program_there(const char *name)
{
    char command[128];

    snprintf(command, sizeof(command), "command -v %s >/dev/null", name);
    if (!system(command))
        return true;
    printf("[  SKIPPED ] %s is not installed (tests/need test)\n", name);
    return false;
}

/* What a driver of the table serves an image as when it has no way of its own to do it; false
 * where it cannot be tested here. */
static inline bool driver_format(const char *driver, const char **format)
{
    *format = NULL;
    if (strcmp(driver, "nbd"))
        return true;
    *format = "raw";
    return program_there("qemu-nbd");
}

static inline struct blk_disk *disk_open(const struct blk_spec *spec)
{
    struct blk_disk *d = NULL;
    struct err e = { 0 };
    char buf[1024];

    if (blk_disk_open(spec, &d, &e))
        fail_msg("%s", err_str(&e, buf, sizeof(buf)));
    return d;
}

struct sync_queue {
    struct blk_queue *q;
    unsigned completions[64];
    int result[64];
};

static inline void sync_complete(void *arg, struct blk_req *req)
{
    struct sync_queue *s = arg;

    s->completions[req->index]++;
    s->result[req->index] = req->result;
    blk_req_put(s->q, req);
}

static inline void sync_open_fd(struct sync_queue *s, struct blk_disk *d, int wake_fd)
{
    struct blk_queue_params p = {
        .nr_reqs = 64, .max_iov = 256, .wake_fd = wake_fd,
        .complete = sync_complete, .arg = s,
    };
    struct err e = { 0 };

    memset(s, 0, sizeof(*s));
    assert_int_equal(blk_queue_open(d, &p, &s->q, &e), 0);
}

static inline void sync_open(struct sync_queue *s, struct blk_disk *d)
{
    sync_open_fd(s, d, -1);
}

static inline void sync_wait_all(struct sync_queue *s)
{
    blk_queue_flush(s->q);
    while (blk_queue_nr_inflight(s->q)) {
        if (!blk_queue_reap(s->q))
            blk_queue_wait(s->q, -1);
    }
}

/* A request over one buffer cut into nr_iov pieces; returns its index. */
static inline unsigned sync_start(struct sync_queue *s, enum blk_op op, uint64_t offset,
                                  void *buf, uint64_t len, unsigned nr_iov)
{
    struct blk_req *req = blk_req_get(s->q, nr_iov);
    uint64_t piece = nr_iov ? align_down(len / nr_iov, 512ul) : 0, at = 0;
    unsigned index;

    assert_non_null(req);
    req->op = op;
    req->offset_bytes = offset;
    req->length_bytes = len;
    for (unsigned i = 0; i < nr_iov; i++) {
        uint64_t n = i + 1 == nr_iov ? len - at : piece;

        req->iov[i] = (struct iovec){ (char *)buf + at, n };
        at += n;
    }
    req->nr_iov = nr_iov;
    index = req->index;
    s->completions[index] = 0;
    blk_req_submit(s->q, req);
    return index;
}

static inline int sync_io(struct sync_queue *s, enum blk_op op, uint64_t offset, void *buf,
                          uint64_t len, unsigned nr_iov)
{
    unsigned index = sync_start(s, op, offset, buf, len, nr_iov);

    sync_wait_all(s);
    assert_int_equal(s->completions[index], 1);
    return s->result[index];
}

#endif
