/* SPDX-License-Identifier: MIT */
/* A client of a vhost-user-blk server that does nothing but read, for bench/vhost_user.py:
 *
 *   vhost-user-client SOCKET DEPTH sleep|poll SECONDS WARMUP SERVER_PID
 *
 * Random reads of 4 KiB from the disk's first GiB, DEPTH at a time, on one split queue with
 * EVENT_IDX.  "sleep" waits for the server's notification, "poll" looks at the ring.  Prints
 * one line of JSON: I/Os and CPU time of the server per I/O after the warm-up, and latencies
 * from the moment a request was shown to the one in which its answer was found. */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "virtio/vhost_user_wire.h"

#define RING_ENTRIES 512u
#define DEPTH_MAX    128u           /* each takes three descriptors */
#define BLOCK_BYTES  4096u
#define DISK_BLOCKS  (GIB / BLOCK_BYTES)
#define GUEST_BASE   GIB
#define SILENCE_MS   10000
#define WANTED       (1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX | \
                      1ull << VHOST_USER_F_PROTOCOL_FEATURES)

/* The memory that is shared with the server. */
struct shared {
    struct vring_desc desc[RING_ENTRIES];
    _Alignas(64) uint16_t avail[2 + RING_ENTRIES + 1];
    _Alignas(64) struct { uint16_t flags, idx; struct vring_used_elem ring[RING_ENTRIES];
                          uint16_t avail_event; } used;
    struct virtio_blk_outhdr header[DEPTH_MAX];
    uint8_t status[DEPTH_MAX];
    _Alignas(BLOCK_BYTES) uint8_t data[DEPTH_MAX][BLOCK_BYTES];
};

/* Latencies by steps: step_of(). */
#define STEP_BITS 5
#define NR_STEPS  (65u << STEP_BITS)

struct client {
    int socket, kick_fd, call_fd;
    bool poll;
    unsigned depth;
    struct shared *shared;
    uint16_t avail_idx, used_idx;
    uint64_t began_ns[DEPTH_MAX];
    uint64_t nr_done, histogram[NR_STEPS];
    uint64_t random;
};

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("vhost-user-client: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- the session ---- */

static void send_message(const struct client *c, uint32_t request, const void *payload,
                         uint32_t size, int fd)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct vhost_user_msg msg = { .request = request, .flags = VHOST_USER_VERSION, .size = size };
    struct iovec iov = { &msg, VHOST_USER_HEADER_BYTES + size };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (size)
        memcpy(&msg.payload, payload, size);
    if (fd >= 0) {
        struct cmsghdr *h = (struct cmsghdr *)(void *)control;

        mh.msg_control = control;
        mh.msg_controllen = sizeof(control);
        *h = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
                               .cmsg_type = SCM_RIGHTS };
        memcpy(CMSG_DATA(h), &fd, sizeof(fd));
    }
    if (sendmsg(c->socket, &mh, MSG_NOSIGNAL) != (ssize_t)iov.iov_len)
        die("request %u: %s", request, strerror(errno));
}

static void send_u64(const struct client *c, uint32_t request, uint64_t u64, int fd)
{
    send_message(c, request, &u64, sizeof(u64), fd);
}

static uint64_t ask_u64(const struct client *c, uint32_t request)
{
    struct vhost_user_msg msg;
    size_t bytes = VHOST_USER_HEADER_BYTES + sizeof(uint64_t);

    send_message(c, request, NULL, 0, -1);
    if (recv(c->socket, &msg, bytes, MSG_WAITALL) != (ssize_t)bytes || msg.request != request)
        die("request %u has no answer", request);
    return msg.payload.u64;
}

static void server_connect(struct client *c, const char *path)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    if (strlen(path) >= sizeof(a.sun_path))
        die("%s: too long", path);
    strcpy(a.sun_path, path);
    c->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->socket < 0 || connect(c->socket, (struct sockaddr *)&a, sizeof(a)))
        die("%s: %s", path, strerror(errno));
}

static void queue_set_up(struct client *c)
{
    struct { uint32_t nr, padding; struct vhost_user_region region; } table = { .nr = 1 };
    struct vhost_user_vring_addr addr = { 0 };
    size_t bytes = align_up(sizeof(*c->shared), PAGE_SIZE);
    int ram = memfd_create("ram", MFD_CLOEXEC);

    if (ram < 0 || ftruncate(ram, (off_t)bytes))
        die("memory: %s", strerror(errno));
    c->shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ram, 0);
    c->kick_fd = eventfd(0, EFD_CLOEXEC);
    c->call_fd = eventfd(0, EFD_CLOEXEC);
    if (c->shared == MAP_FAILED || c->kick_fd < 0 || c->call_fd < 0)
        die("memory: %s", strerror(errno));
    if ((ask_u64(c, VHOST_USER_GET_FEATURES) & WANTED) != WANTED)
        die("the server lacks features: 0x%llx are needed", (unsigned long long)WANTED);
    send_u64(c, VHOST_USER_SET_FEATURES, WANTED, -1);
    ask_u64(c, VHOST_USER_GET_PROTOCOL_FEATURES);
    send_u64(c, VHOST_USER_SET_PROTOCOL_FEATURES, 0, -1);
    send_message(c, VHOST_USER_SET_OWNER, NULL, 0, -1);
    table.region = (struct vhost_user_region){
        .guest_address = GUEST_BASE, .size_bytes = bytes,
        .user_address = (uintptr_t)c->shared };
    send_message(c, VHOST_USER_SET_MEM_TABLE, &table, sizeof(table), ram);
    send_message(c, VHOST_USER_SET_VRING_NUM,
                 &(struct vhost_user_vring_state){ .num = RING_ENTRIES }, 8, -1);
    send_message(c, VHOST_USER_SET_VRING_BASE, &(struct vhost_user_vring_state){ 0 }, 8, -1);
    addr.desc = (uintptr_t)c->shared->desc;
    addr.avail = (uintptr_t)c->shared->avail;
    addr.used = (uintptr_t)&c->shared->used;
    send_message(c, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1);
    send_u64(c, VHOST_USER_SET_VRING_CALL, 0, c->call_fd);
    send_u64(c, VHOST_USER_SET_VRING_KICK, 0, c->kick_fd);
    send_message(c, VHOST_USER_SET_VRING_ENABLE, &(struct vhost_user_vring_state){ .num = 1 }, 8,
                 -1);
    close(ram);
}

/* ---- the queue ---- */

static uint64_t guest_address(const struct client *c, const void *at)
{
    return GUEST_BASE + (uint64_t)((const char *)at - (const char *)c->shared);
}

/* Everything of a slot but the sector stays as it is. */
static void slots_make(struct client *c)
{
    struct shared *m = c->shared;

    for (unsigned i = 0; i < c->depth; i++) {
        struct vring_desc *d = &m->desc[3 * i];

        m->header[i].type = VIRTIO_BLK_T_IN;
        d[0] = (struct vring_desc){ guest_address(c, &m->header[i]), sizeof(m->header[i]),
                                    VRING_DESC_F_NEXT, (uint16_t)(3 * i + 1) };
        d[1] = (struct vring_desc){ guest_address(c, m->data[i]), BLOCK_BYTES,
                                    VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
                                    (uint16_t)(3 * i + 2) };
        d[2] = (struct vring_desc){ guest_address(c, &m->status[i]), 1, VRING_DESC_F_WRITE, 0 };
    }
}

static void request_put(struct client *c, unsigned slot, uint64_t at_ns)
{
    c->random ^= c->random << 13;
    c->random ^= c->random >> 7;
    c->random ^= c->random << 17;
    c->shared->header[slot].sector = c->random % DISK_BLOCKS * (BLOCK_BYTES / 512);
    c->shared->status[slot] = 0xff;
    c->began_ns[slot] = at_ns;
    c->shared->avail[2 + c->avail_idx++ % RING_ENTRIES] = (uint16_t)(3 * slot);
}

static void requests_show(struct client *c)
{
    uint16_t old = load_relaxed(&c->shared->avail[1]);

    store_release(&c->shared->avail[1], c->avail_idx);
    barrier_full();     /* pairs with the server's between avail_event and its last look */
    if (vring_need_event(load_relaxed(&c->shared->used.avail_event), c->avail_idx, old) &&
        eventfd_write(c->kick_fd, 1))
        die("kick: %s", strerror(errno));
}

static bool answers_there(const struct client *c)
{
    return load_acquire(&c->shared->used.idx) != c->used_idx;
}

static void answers_await(struct client *c)
{
    uint16_t *used_event = &c->shared->avail[2 + RING_ENTRIES];
    struct pollfd call = { .fd = c->call_fd, .events = POLLIN };
    eventfd_t n;

    while (!answers_there(c)) {
        if (c->poll) {
            cpu_relax();
            continue;
        }
        store_relaxed(used_event, c->used_idx);
        barrier_full();     /* pairs with the server's between used->idx and used_event */
        if (answers_there(c))
            break;
        /* a server may make the descriptor, which is its own as well, non-blocking */
        if (poll(&call, 1, SILENCE_MS) != 1)
            die("the server has fallen silent");
        if (eventfd_read(c->call_fd, &n) && errno != EAGAIN)
            die("call: %s", strerror(errno));
    }
}

/* Exact below 2^(STEP_BITS + 1) ns, then as many steps for each power of two. */
static unsigned step_of(uint64_t ns)
{
    unsigned top = 63 - (unsigned)__builtin_clzll(ns | 1);
    unsigned shift = top > STEP_BITS ? top - STEP_BITS : 0;

    return (shift << STEP_BITS) + (unsigned)(ns >> shift);
}

static uint64_t step_ns(unsigned step)
{
    unsigned shift = step >> STEP_BITS ? (step >> STEP_BITS) - 1 : 0;

    return (uint64_t)(step - (shift << STEP_BITS)) << shift;
}

static double percentile_us(const struct client *c, double percent)
{
    uint64_t left = (uint64_t)((double)c->nr_done * percent / 100);

    for (unsigned i = 0; i < NR_STEPS; i++) {
        if (left < c->histogram[i])
            return (double)step_ns(i) / 1000;
        left -= c->histogram[i];
    }
    return 0;
}

/* Takes the answers there are, and asks for as much again. */
static void answers_take(struct client *c)
{
    uint16_t until = load_acquire(&c->shared->used.idx);
    uint64_t at_ns = now_ns();

    if ((uint16_t)(until - c->used_idx) > c->depth)
        die("the server answered what was not asked");
    for (; c->used_idx != until; c->used_idx++) {
        unsigned slot = load_relaxed(&c->shared->used.ring[c->used_idx % RING_ENTRIES].id) / 3;

        if (slot >= c->depth || c->shared->status[slot] != VIRTIO_BLK_S_OK)
            die("a read failed");
        c->histogram[step_of(at_ns - c->began_ns[slot])]++;
        c->nr_done++;
        request_put(c, slot, at_ns);
    }
    requests_show(c);
}

static void run_until(struct client *c, uint64_t end_ns)
{
    while (now_ns() < end_ns) {
        answers_await(c);
        answers_take(c);
    }
}

/* User and system time of a process, us. */
static double cpu_us(const char *pid)
{
    unsigned long user, system;
    char path[64], text[1024], *at;
    FILE *f;
    size_t n;

    snprintf(path, sizeof(path), "/proc/%s/stat", pid);
    f = fopen(path, "re");
    if (!f)
        die("%s: %s", path, strerror(errno));
    n = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    text[n] = 0;
    /* behind the name, which may hold anything */
    at = strrchr(text, ')');
    if (!at || sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                      &system) != 2)
        die("%s: not as expected", path);
    return (double)(user + system) * 1e6 / (double)sysconf(_SC_CLK_TCK);
}

static double number(const char *text, double min, double max)
{
    char *end;
    double value = strtod(text, &end);

    if (!*text || *end || !(value >= min && value <= max))
        die("'%s': expected a number from %g to %g", text, min, max);
    return value;
}

int main(int argc, char **argv)
{
    static struct client c;
    double cpu, warmup_s, seconds;
    uint64_t began_ns, ended_ns;

    if (argc != 7 || (strcmp(argv[3], "sleep") && strcmp(argv[3], "poll")))
        die("usage: vhost-user-client SOCKET DEPTH sleep|poll SECONDS WARMUP SERVER_PID");
    c.depth = (unsigned)number(argv[2], 1, DEPTH_MAX);
    c.poll = !strcmp(argv[3], "poll");
    seconds = number(argv[4], 0.01, 3600);
    warmup_s = number(argv[5], 0, 3600);
    c.random = 88172645463325252u;
    server_connect(&c, argv[1]);
    queue_set_up(&c);
    slots_make(&c);

    began_ns = now_ns();
    for (unsigned i = 0; i < c.depth; i++)
        request_put(&c, i, began_ns);
    requests_show(&c);
    run_until(&c, began_ns + (uint64_t)(warmup_s * 1e9));
    c.nr_done = 0;
    memset(c.histogram, 0, sizeof(c.histogram));
    cpu = cpu_us(argv[6]);
    began_ns = now_ns();
    run_until(&c, began_ns + (uint64_t)(seconds * 1e9));
    ended_ns = now_ns();
    cpu = cpu_us(argv[6]) - cpu;
    if (!c.nr_done)
        die("nothing was answered");
    printf("{\"iops\": %.0f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"server_cpu_us\": %.4f}\n",
           (double)c.nr_done * 1e9 / (double)(ended_ns - began_ns), percentile_us(&c, 50),
           percentile_us(&c, 99), cpu / (double)c.nr_done);
    return 0;
}
