/* SPDX-License-Identifier: MIT */
/* A client of a vhost-user-blk server that does nothing but read, for bench/vhost_user.py and
 * bench/qos.py:
 *
 *   vhost-user-client SOCKET DEPTH sleep|poll SECONDS WARMUP SERVER_PID [QUEUES]
 *
 * Random reads of 4 KiB from the disk's first GiB, DEPTH at a time, on one split queue with
 * EVENT_IDX, or on QUEUES of them, each with a thread.  "sleep" waits for the server's
 * notification, "poll" looks at the ring.  Prints one line of JSON: I/Os, of all and of each
 * queue, and CPU time of the server per I/O after the warm-up; latencies from the moment
 * a request was shown to the one in which its answer was found; and the least and the most
 * answers in any second that begins on a tick (0 in a run of less than a second). */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
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
#define QUEUES_MAX   16u
#define SILENCE_MS   30000
#define TICK_NS      10000000u
#define TICKS_MAX    6000u          /* longer runs are not judged by the second behind them */
#define SECOND_TICKS (1000000000u / TICK_NS)
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

/* One queue of the device. */
struct client {
    int socket, kick_fd, call_fd;
    bool poll;
    unsigned queue, depth;
    uint64_t start_ns, warmup_ns, length_ns;
    pthread_t thread;
    char *memory;               /* all queues' */
    struct shared *shared;
    uint16_t avail_idx, used_idx;
    uint64_t began_ns[DEPTH_MAX];
    uint64_t nr_done, histogram[NR_STEPS];
    uint64_t random;
    uint32_t tick[TICKS_MAX];   /* answers in each, after the warm-up */
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

/* Memory for all queues, and what is agreed on before there is any. */
static void session_set_up(struct client *c, unsigned nr_queues)
{
    struct { uint32_t nr, padding; struct vhost_user_region region; } table = { .nr = 1 };
    size_t bytes = align_up(sizeof(*c->shared), PAGE_SIZE) * nr_queues;
    uint64_t wanted = WANTED | (nr_queues > 1 ? 1ull << VIRTIO_BLK_F_MQ : 0);
    uint64_t protocol = nr_queues > 1 ? 1ull << VHOST_USER_PROTOCOL_F_MQ : 0;
    int ram = memfd_create("ram", MFD_CLOEXEC);

    if (ram < 0 || ftruncate(ram, (off_t)bytes))
        die("memory: %s", strerror(errno));
    c->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ram, 0);
    if (c->memory == MAP_FAILED)
        die("memory: %s", strerror(errno));
    if ((ask_u64(c, VHOST_USER_GET_FEATURES) & wanted) != wanted)
        die("the server lacks features: 0x%llx are needed", (unsigned long long)wanted);
    send_u64(c, VHOST_USER_SET_FEATURES, wanted, -1);
    if ((ask_u64(c, VHOST_USER_GET_PROTOCOL_FEATURES) & protocol) != protocol)
        die("the server has one queue only");
    send_u64(c, VHOST_USER_SET_PROTOCOL_FEATURES, protocol, -1);
    send_message(c, VHOST_USER_SET_OWNER, NULL, 0, -1);
    table.region = (struct vhost_user_region){
        .guest_address = GUEST_BASE, .size_bytes = bytes,
        .user_address = (uintptr_t)c->memory };
    send_message(c, VHOST_USER_SET_MEM_TABLE, &table, sizeof(table), ram);
    close(ram);
}

static void queue_set_up(struct client *c)
{
    struct vhost_user_vring_addr addr = { .index = c->queue };
    struct vhost_user_vring_state state = { .index = c->queue, .num = RING_ENTRIES };

    c->shared = (struct shared *)(void *)(c->memory +
                                          c->queue * align_up(sizeof(*c->shared), PAGE_SIZE));
    c->kick_fd = eventfd(0, EFD_CLOEXEC);
    c->call_fd = eventfd(0, EFD_CLOEXEC);
    if (c->kick_fd < 0 || c->call_fd < 0)
        die("events: %s", strerror(errno));
    send_message(c, VHOST_USER_SET_VRING_NUM, &state, 8, -1);
    state.num = 0;
    send_message(c, VHOST_USER_SET_VRING_BASE, &state, 8, -1);
    addr.desc = (uintptr_t)c->shared->desc;
    addr.avail = (uintptr_t)c->shared->avail;
    addr.used = (uintptr_t)&c->shared->used;
    send_message(c, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1);
    send_u64(c, VHOST_USER_SET_VRING_CALL, c->queue, c->call_fd);
    send_u64(c, VHOST_USER_SET_VRING_KICK, c->queue, c->kick_fd);
    state.num = 1;
    send_message(c, VHOST_USER_SET_VRING_ENABLE, &state, 8, -1);
}

/* ---- the queue ---- */

static uint64_t guest_address(const struct client *c, const void *at)
{
    return GUEST_BASE + (uint64_t)((const char *)at - c->memory);
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

/* Of all queues. */
static double percentile_us(const struct client *c, unsigned nr_queues, double percent)
{
    uint64_t left = 0;

    for (unsigned k = 0; k < nr_queues; k++)
        left += c[k].nr_done;
    left = (uint64_t)((double)left * percent / 100);
    for (unsigned i = 0; i < NR_STEPS; i++) {
        uint64_t here = 0;

        for (unsigned k = 0; k < nr_queues; k++)
            here += c[k].histogram[i];
        if (left < here)
            return (double)step_ns(i) / 1000;
        left -= here;
    }
    return 0;
}

/* The least and the most answers of all queues in a second, of those that begin on ticks. */
static void seconds_compare(const struct client *c, unsigned nr_queues, uint64_t *least,
                            uint64_t *most)
{
    uint64_t nr_ticks = min_of(c->length_ns / TICK_NS, (uint64_t)TICKS_MAX), sum = 0;

    *least = UINT64_MAX;
    *most = 0;
    for (uint64_t i = 0; i < nr_ticks; i++) {
        for (unsigned k = 0; k < nr_queues; k++) {
            sum += c[k].tick[i];
            sum -= i >= SECOND_TICKS ? c[k].tick[i - SECOND_TICKS] : 0;
        }
        if (i + 1 < SECOND_TICKS)
            continue;
        *least = min_of(*least, sum);
        *most = max_of(*most, sum);
    }
    if (nr_ticks < SECOND_TICKS)
        *least = 0;
}

/* Takes the answers there are, and asks for as much again. */
static void answers_take(struct client *c)
{
    uint16_t until = load_acquire(&c->shared->used.idx);
    uint64_t at_ns = now_ns(), begin_ns = c->start_ns + c->warmup_ns;

    if ((uint16_t)(until - c->used_idx) > c->depth)
        die("the server answered what was not asked");
    for (; c->used_idx != until; c->used_idx++) {
        unsigned slot = load_relaxed(&c->shared->used.ring[c->used_idx % RING_ENTRIES].id) / 3;

        if (slot >= c->depth || c->shared->status[slot] != VIRTIO_BLK_S_OK)
            die("a read failed");
        c->histogram[step_of(at_ns - c->began_ns[slot])]++;
        c->nr_done++;
        if (at_ns >= begin_ns && (at_ns - begin_ns) / TICK_NS < TICKS_MAX)
            c->tick[(at_ns - begin_ns) / TICK_NS]++;
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

static void *queue_main(void *arg)
{
    struct client *c = arg;

    for (unsigned i = 0; i < c->depth; i++)
        request_put(c, i, now_ns());
    requests_show(c);
    run_until(c, c->start_ns + c->warmup_ns);
    c->nr_done = 0;
    memset(c->histogram, 0, sizeof(c->histogram));
    run_until(c, c->start_ns + c->warmup_ns + c->length_ns);
    return NULL;
}

static void sleep_until(uint64_t ns)
{
    struct timespec t = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static void report(const struct client *c, unsigned nr_queues, double cpu)
{
    double seconds = (double)c->length_ns / 1e9;
    uint64_t all = 0, least, most;

    for (unsigned k = 0; k < nr_queues; k++)
        all += c[k].nr_done;
    if (!all)
        die("nothing was answered");
    seconds_compare(c, nr_queues, &least, &most);
    printf("{\"iops\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"server_cpu_us\": %.4f, "
           "\"second_least\": %llu, \"second_most\": %llu, \"queue_iops\": [",
           (double)all / seconds, percentile_us(c, nr_queues, 50),
           percentile_us(c, nr_queues, 99), cpu / (double)all, (unsigned long long)least,
           (unsigned long long)most);
    for (unsigned k = 0; k < nr_queues; k++)
        printf("%s%.1f", k ? ", " : "", (double)c[k].nr_done / seconds);
    puts("]}");
}

int main(int argc, char **argv)
{
    static struct client c[QUEUES_MAX];
    unsigned nr_queues = 1;
    uint64_t start_ns;
    double cpu;

    if ((argc != 7 && argc != 8) || (strcmp(argv[3], "sleep") && strcmp(argv[3], "poll")))
        die("usage: vhost-user-client SOCKET DEPTH sleep|poll SECONDS WARMUP SERVER_PID [QUEUES]");
    c[0].depth = (unsigned)number(argv[2], 1, DEPTH_MAX);
    c[0].poll = !strcmp(argv[3], "poll");
    c[0].length_ns = (uint64_t)(number(argv[4], 0.01, 3600) * 1e9);
    c[0].warmup_ns = (uint64_t)(number(argv[5], 0, 3600) * 1e9);
    if (argc == 8)
        nr_queues = (unsigned)number(argv[7], 1, QUEUES_MAX);
    server_connect(&c[0], argv[1]);
    session_set_up(&c[0], nr_queues);
    for (unsigned k = 0; k < nr_queues; k++) {
        c[k] = c[0];
        c[k].queue = k;
        c[k].random = 88172645463325252u + k;
        queue_set_up(&c[k]);
        slots_make(&c[k]);
    }
    start_ns = now_ns();
    for (unsigned k = 0; k < nr_queues; k++)
        c[k].start_ns = start_ns;
    for (unsigned k = 0; k < nr_queues; k++)
        if (pthread_create(&c[k].thread, NULL, queue_main, &c[k]))
            die("no thread");
    sleep_until(start_ns + c->warmup_ns);
    cpu = cpu_us(argv[6]);
    sleep_until(start_ns + c->warmup_ns + c->length_ns);
    cpu = cpu_us(argv[6]) - cpu;
    for (unsigned k = 0; k < nr_queues; k++)
        pthread_join(c[k].thread, NULL);
    report(c, nr_queues, cpu);
    return 0;
}
