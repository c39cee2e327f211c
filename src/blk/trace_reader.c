/* SPDX-License-Identifier: MIT */
#include "blk/trace_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "blk/queue.h"

#define NS_PER_S 1000000000u

/* n bytes, or how many there are before the end of the file; -errno. */
static ssize_t read_at(int fd, void *buf, size_t n, uint64_t at)
{
    size_t done = 0;

    while (done < n) {
        ssize_t got = pread(fd, (char *)buf + done, n - done, (off_t)(at + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (!got)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static uint64_t ring_bytes(const struct blk_trace_header *h)
{
    return align_up(h->ring_records * sizeof(struct blk_trace_record), PAGE_SIZE);
}

static int header_read(int fd, const char *path, struct blk_trace_header *h, struct err *e)
{
    struct stat st;
    uint64_t wanted;
    ssize_t n;

    if (fstat(fd, &st))
        return err_set(e, errno, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(e, EINVAL, "%s: is no file", path);
    n = read_at(fd, h, sizeof(*h), 0);
    if (n < 0)
        return err_set(e, (int)-n, "%s: %s", path, strerror((int)-n));
    if (n < (ssize_t)sizeof(h->magic) || h->magic != BLK_TRACE_MAGIC)
        return err_set(e, EINVAL, "%s: is no trace of a disk", path);
    if (n >= (ssize_t)offsetof(struct blk_trace_header, header_bytes) &&
        h->version != BLK_TRACE_VERSION)
        return err_set(e, EINVAL, "%s: is a trace of version %u, expected %u", path, h->version,
                       BLK_TRACE_VERSION);
    if (n < (ssize_t)sizeof(*h))
        return err_set(e, EINVAL, "%s: ends in its header, after %zd bytes", path, n);
    if (h->header_bytes != BLK_TRACE_HEADER_BYTES ||
        h->record_bytes != sizeof(struct blk_trace_record) || h->nr_rings > BLK_TRACE_RINGS ||
        h->ring_records < BLK_TRACE_RECORDS_MIN || h->ring_records > BLK_TRACE_RECORDS_MAX)
        return err_set(e, EINVAL, "%s: has %u rings of %" PRIu64 " records of %u bytes behind a "
                       "header of %u, which cannot be", path, h->nr_rings, h->ring_records,
                       h->record_bytes, h->header_bytes);
    wanted = BLK_TRACE_HEADER_BYTES + h->nr_rings * ring_bytes(h);
    if ((uint64_t)st.st_size < wanted)
        return err_set(e, EINVAL, "%s: has been cut: %lld bytes, expected %" PRIu64, path,
                       (long long)st.st_size, wanted);
    return 0;
}

/* Whether it is the record that may lie there. */
static bool record_judge(const struct blk_trace_record *r, uint64_t at, uint64_t ring_records)
{
    return r->number && (r->number - 1) % ring_records == at && r->sum == blk_trace_sum(r) &&
           r->op < BLK_NR_OPS && r->result <= 0;
}

static bool record_empty(const struct blk_trace_record *r)
{
    static const struct blk_trace_record none;

    return !memcmp(r, &none, sizeof(none));
}

static int entries_grow(struct blk_trace *t, size_t *room, struct err *e)
{
    size_t more = *room ? *room * 2 : 1024;
    struct blk_trace_entry *grown = reallocarray(t->entries, more, sizeof(*grown));

    if (!grown)
        return err_set(e, ENOMEM, "out of memory");
    t->entries = grown;
    *room = more;
    return 0;
}

static int ring_read(int fd, const char *path, const struct blk_trace_header *h, unsigned ring,
                     struct blk_trace *t, size_t *room, struct err *e)
{
    struct blk_trace_record buf[512];
    uint64_t base = BLK_TRACE_HEADER_BYTES + ring * ring_bytes(h), last = 0;

    for (uint64_t at = 0; at < h->ring_records; at += array_size(buf)) {
        size_t n = (size_t)min_of(h->ring_records - at, (uint64_t)array_size(buf));
        ssize_t got = read_at(fd, buf, n * sizeof(buf[0]), base + at * sizeof(buf[0]));

        if (got < 0)
            return err_set(e, (int)-got, "%s: %s", path, strerror((int)-got));
        if ((size_t)got < n * sizeof(buf[0]))
            return err_set(e, EINVAL, "%s: was cut while it was read", path);
        for (size_t i = 0; i < n; i++) {
            if (record_empty(&buf[i]))
                continue;
            if (!record_judge(&buf[i], at + i, h->ring_records)) {
                t->nr_damaged++;
                continue;
            }
            if (t->nr_entries == *room && entries_grow(t, room, e))
                return -ENOMEM;
            t->entries[t->nr_entries++] = (struct blk_trace_entry){ buf[i], ring };
            last = max_of(last, buf[i].number);
        }
    }
    t->nr_overwritten += last > h->ring_records ? last - h->ring_records : 0;
    return 0;
}

static int by_time(const void *a, const void *b)
{
    const struct blk_trace_entry *x = a, *y = b;

    if (x->record.submitted_ns != y->record.submitted_ns)
        return x->record.submitted_ns < y->record.submitted_ns ? -1 : 1;
    if (x->ring != y->ring)
        return x->ring < y->ring ? -1 : 1;
    return (x->record.number > y->record.number) - (x->record.number < y->record.number);
}

int blk_trace_read(const char *path, struct blk_trace *out, struct err *e)
{
    struct blk_trace_header h = { .magic = 0 };
    struct blk_trace t = { .nr_rings = 0 };
    size_t room = 0;
    /* a FIFO would keep us waiting */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), rc;

    if (fd < 0)
        return err_set(e, errno, "%s: %s", path, strerror(errno));
    rc = header_read(fd, path, &h, e);
    for (unsigned ring = 0; ring < h.nr_rings && !rc; ring++)
        rc = ring_read(fd, path, &h, ring, &t, &room, e);
    close(fd);
    if (rc) {
        free(t.entries);
        return rc;
    }
    if (t.nr_entries)
        qsort(t.entries, t.nr_entries, sizeof(*t.entries), by_time);
    t.nr_rings = h.nr_rings;
    t.size_bytes = h.size_bytes;
    t.realtime_ns = h.realtime_ns;
    memcpy(t.label, h.label, sizeof(t.label));
    t.label[sizeof(t.label) - 1] = '\0';
    text_make_harmless(t.label);
    *out = t;
    return 0;
}

void blk_trace_free(struct blk_trace *t)
{
    free(t->entries);
    t->entries = NULL;
}

void blk_trace_print(const struct blk_trace *t, FILE *to)
{
    static const char *const ops[BLK_NR_OPS] = {
        [BLK_OP_READ] = "read", [BLK_OP_WRITE] = "write", [BLK_OP_FLUSH] = "flush",
        [BLK_OP_DISCARD] = "discard", [BLK_OP_WRITE_ZEROES] = "write-zeroes",
    };
    uint64_t first = t->nr_entries ? t->entries[0].record.submitted_ns : 0;
    time_t begun = (time_t)((t->realtime_ns + first) / NS_PER_S);
    char when[64] = "?";
    struct tm tm;

    if (gmtime_r(&begun, &tm))
        strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S UTC", &tm);
    fprintf(to, "# %s, %" PRIu64 " bytes, %u queues, from %s\n", t->label[0] ? t->label : "disk",
            t->size_bytes, t->nr_rings, when);
    fprintf(to, "# %zu requests; %" PRIu64 " older ones overwritten, %" PRIu64 " damaged\n",
            t->nr_entries, t->nr_overwritten, t->nr_damaged);
    fprintf(to, "# %14s %12s %5s %-12s %16s %12s result\n", "seconds", "latency_ns", "queue",
            "operation", "offset", "length");
    for (size_t i = 0; i < t->nr_entries; i++) {
        const struct blk_trace_record *r = &t->entries[i].record;
        uint64_t since = r->submitted_ns - first;

        fprintf(to, "%6" PRIu64 ".%09" PRIu64 " %12" PRIu64 " %5u %-12s %16" PRIu64 " %12" PRIu64
                " %s%s\n", since / NS_PER_S, since % NS_PER_S, r->latency_ns, t->entries[i].ring,
                ops[r->op], r->offset_bytes, r->length_bytes,
                r->result ? strerrorname_np(-r->result) ? : "error" : "ok",
                r->flags & BLK_TRACE_FUA ? " fua" : "");
    }
}

void blk_trace_print_iolog(const struct blk_trace *t, const char *name, FILE *to)
{
    static const char *const actions[BLK_NR_OPS] = {
        [BLK_OP_READ] = "read", [BLK_OP_WRITE] = "write", [BLK_OP_FLUSH] = "sync",
        [BLK_OP_DISCARD] = "trim", [BLK_OP_WRITE_ZEROES] = "write",
    };
    uint64_t first = t->nr_entries ? t->entries[0].record.submitted_ns : 0, us = 0;

    fprintf(to, "fio version 3 iolog\n0 %s add\n0 %s open\n", name, name);
    for (size_t i = 0; i < t->nr_entries; i++) {
        const struct blk_trace_record *r = &t->entries[i].record;

        us = (r->submitted_ns - first) / 1000;
        fprintf(to, "%" PRIu64 " %s %s %" PRIu64 " %" PRIu64 "\n", us, name, actions[r->op],
                r->op == BLK_OP_FLUSH ? 0 : r->offset_bytes,
                r->op == BLK_OP_FLUSH ? 0 : r->length_bytes);
    }
    fprintf(to, "%" PRIu64 " %s close\n", us, name);
}
