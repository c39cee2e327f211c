/* SPDX-License-Identifier: MIT */
#include "blk/nbd_stream.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int nbd_stream_open(struct nbd_stream *s, struct blk_req *reqs, unsigned nr_reqs,
                    void (*done)(void *arg, struct blk_req *req, uint32_t nbd_error), void *arg)
{
    s->fd = -1;
    s->reqs = reqs;
    s->nr_slots = nr_reqs;
    s->done = done;
    s->arg = arg;
    s->send_tail = &s->send_head;
    s->slots = calloc(nr_reqs, sizeof(*s->slots));
    return s->slots ? 0 : -ENOMEM;
}

void nbd_stream_close(struct nbd_stream *s)
{
    free(s->slots);
}

static struct nbd_slot *slot_of(const struct nbd_stream *s, const struct blk_req *req)
{
    return &s->slots[req->index];
}

static void enqueue(struct nbd_stream *s, struct blk_req *req)
{
    slot_of(s, req)->state = NBD_SLOT_QUEUED;
    req->next = NULL;
    *s->send_tail = req;
    s->send_tail = &req->next;
}

void nbd_stream_add(struct nbd_stream *s, struct blk_req *req, uint16_t type, uint16_t flags,
                    uint64_t offset_bytes, uint32_t length_bytes)
{
    struct nbd_slot *slot = slot_of(s, req);

    slot->message = (struct nbd_request){
        .magic = htobe32(NBD_REQUEST_MAGIC), .flags = htobe16(flags), .type = htobe16(type),
        .cookie = htobe64((uint64_t)++s->nr_messages << 32 | req->index),
        .offset_bytes = htobe64(offset_bytes), .length_bytes = htobe32(length_bytes),
    };
    slot->payload_bytes = type == NBD_CMD_READ || type == NBD_CMD_WRITE ? length_bytes : 0;
    slot->is_write = type == NBD_CMD_WRITE;
    if (s->fd >= 0)
        enqueue(s, req);
    else
        slot->state = NBD_SLOT_QUEUED;
}

/* The pieces of req's vector from skip on, limit bytes of them or as many as max pieces
 * hold.  How many pieces. */
static unsigned gather(const struct blk_req *req, uint64_t skip, uint64_t limit,
                       struct iovec *out, unsigned max)
{
    unsigned nr = 0;

    for (const struct iovec *piece = req->iov; limit && nr < max; piece++) {
        size_t n;

        if (skip >= piece->iov_len) {
            skip -= piece->iov_len;
            continue;
        }
        n = (size_t)min_of((uint64_t)(piece->iov_len - skip), limit);
        out[nr++] = (struct iovec){ (char *)piece->iov_base + skip, n };
        limit -= n;
        skip = 0;
    }
    return nr;
}

static uint64_t iov_bytes(const struct iovec *iov, unsigned nr)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < nr; i++)
        bytes += iov[i].iov_len;
    return bytes;
}

/* Memory whose file somebody has cut is an EFAULT to the kernel, and a SIGBUS to us, whose
 * handler puts zeroes there (mem/lost_pages.h).  So it is enough to look at every page. */
static void pages_touch(const struct iovec *iov, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        const volatile uint8_t *base = iov[i].iov_base;

        for (size_t at = 0; at < iov[i].iov_len; at += PAGE_SIZE)
            (void)base[at];
        if (iov[i].iov_len)
            (void)base[iov[i].iov_len - 1];
    }
}

/* Moves bytes between the socket and s->iov.  How many, 0 when none can be now, or -errno. */
static ssize_t transfer(struct nbd_stream *s, unsigned nr, bool out)
{
    struct msghdr msg = { .msg_iov = s->iov, .msg_iovlen = nr };
    bool touched = false;

    for (;;) {
        ssize_t n = out ? sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL)
                        : recvmsg(s->fd, &msg, MSG_DONTWAIT);

        if (n > 0)
            return n;
        if (!n)
            return out ? 0 : -ECONNRESET;   /* the end of the stream */
        if (errno == EAGAIN)
            return 0;
        if (errno == EFAULT && !touched) {
            pages_touch(s->iov, nr);
            touched = true;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
}

/* ---- out ---- */

static uint64_t message_bytes(const struct nbd_slot *slot)
{
    return sizeof(slot->message) + (slot->is_write ? slot->payload_bytes : 0);
}

/* What is to be sent next, as far as NBD_IOV_MAX pieces go. */
static unsigned messages_gather(struct nbd_stream *s)
{
    uint64_t skip = s->sent_bytes;
    unsigned nr = 0;

    for (struct blk_req *req = s->send_head; req && nr < NBD_IOV_MAX; req = req->next) {
        struct nbd_slot *slot = slot_of(s, req);
        size_t header = sizeof(slot->message);

        if (skip < header) {
            s->iov[nr++] = (struct iovec){ (char *)&slot->message + skip, header - skip };
            skip = header;
        }
        if (slot->is_write)
            nr += gather(req, skip - header, slot->payload_bytes - (skip - header), s->iov + nr,
                         NBD_IOV_MAX - nr);
        skip = 0;
    }
    return nr;
}

static void sent(struct nbd_stream *s, uint64_t bytes)
{
    s->sent_bytes += bytes;
    while (s->send_head) {
        struct nbd_slot *slot = slot_of(s, s->send_head);

        if (s->sent_bytes < message_bytes(slot))
            return;
        s->sent_bytes -= message_bytes(slot);
        slot->state = NBD_SLOT_SENT;
        s->nr_waiting++;
        s->send_head = s->send_head->next;
    }
    s->send_tail = &s->send_head;
}

int nbd_stream_send(struct nbd_stream *s)
{
    while (s->send_head) {
        unsigned nr = messages_gather(s);
        ssize_t n = transfer(s, nr, true);

        if (n < 0)
            return (int)n;
        sent(s, (uint64_t)n);
        if ((uint64_t)n < iov_bytes(s->iov, nr))
            return 0;
    }
    return 0;
}

/* ---- in ---- */

/* Copies to the vector of the read whose payload this is. */
static void payload_copy(struct nbd_stream *s, const uint8_t *from, uint32_t bytes)
{
    uint64_t at = s->read_bytes;

    s->read_bytes += bytes;
    for (const struct iovec *piece = s->reading->iov; bytes; piece++) {
        uint32_t n;

        if (at >= piece->iov_len) {
            at -= piece->iov_len;
            continue;
        }
        n = (uint32_t)min_of((uint64_t)(piece->iov_len - at), (uint64_t)bytes);
        memcpy((char *)piece->iov_base + at, from, n);
        from += n;
        bytes -= n;
        at = 0;
    }
}

static void message_over(struct nbd_stream *s, struct blk_req *req, uint32_t nbd_error)
{
    slot_of(s, req)->state = NBD_SLOT_IDLE;
    s->nr_waiting--;
    s->nr_replies++;
    s->done(s->arg, req, nbd_error);
}

/* One reply, without its payload. */
static int reply_take(struct nbd_stream *s)
{
    struct nbd_simple_reply r;
    struct nbd_slot *slot;
    struct blk_req *req;
    uint32_t index;

    memcpy(&r, s->rx + s->rx_head, sizeof(r));
    index = (uint32_t)be64toh(r.cookie);
    if (be32toh(r.magic) != NBD_SIMPLE_REPLY_MAGIC || index >= s->nr_slots)
        return -EPROTO;
    slot = &s->slots[index];
    req = &s->reqs[index];
    if (slot->state != NBD_SLOT_SENT || r.cookie != slot->message.cookie)
        return -EPROTO;
    if (be32toh(r.error) == NBD_ESHUTDOWN)
        return -ESHUTDOWN;      /* it has not been done: another connection may do it */
    s->rx_head += sizeof(r);
    if (r.error || be16toh(slot->message.type) != NBD_CMD_READ) {
        message_over(s, req, be32toh(r.error));
        return 0;
    }
    slot->state = NBD_SLOT_READING;
    s->reading = req;
    s->read_bytes = 0;
    return 0;
}

static uint32_t payload_left(const struct nbd_stream *s)
{
    return slot_of(s, s->reading)->payload_bytes - s->read_bytes;
}

/* All that is in the buffer, but for an incomplete reply. */
static int buffer_take(struct nbd_stream *s)
{
    int rc = 0;

    while (!rc) {
        unsigned there = s->rx_tail - s->rx_head;

        if (s->reading) {
            uint32_t n = min_of(there, payload_left(s));
            struct blk_req *req = s->reading;

            payload_copy(s, s->rx + s->rx_head, n);
            s->rx_head += n;
            if (payload_left(s))
                break;
            s->reading = NULL;
            message_over(s, req, 0);
        } else if (there >= sizeof(struct nbd_simple_reply)) {
            rc = reply_take(s);
        } else {
            break;
        }
    }
    memmove(s->rx, s->rx + s->rx_head, s->rx_tail - s->rx_head);
    s->rx_tail -= s->rx_head;
    s->rx_head = 0;
    return rc;
}

int nbd_stream_receive(struct nbd_stream *s)
{
    for (;;) {
        uint64_t payload = 0, wanted;
        unsigned nr = 0;
        ssize_t n;
        int rc;

        if (s->reading) {       /* then the buffer is empty */
            nr = gather(s->reading, s->read_bytes, payload_left(s), s->iov, NBD_IOV_MAX);
            payload = iov_bytes(s->iov, nr);
        }
        if (!s->reading || payload == payload_left(s))
            s->iov[nr++] = (struct iovec){ s->rx + s->rx_tail, sizeof(s->rx) - s->rx_tail };
        wanted = iov_bytes(s->iov, nr);
        n = transfer(s, nr, false);
        if (n <= 0)
            return (int)n;
        payload = min_of(payload, (uint64_t)n);
        s->read_bytes += (uint32_t)payload;
        s->rx_tail += (unsigned)((uint64_t)n - payload);
        rc = buffer_take(s);
        if (rc || (uint64_t)n < wanted)
            return rc;
    }
}

/* ---- the connection ---- */

static void forget(struct nbd_stream *s)
{
    s->nr_waiting = 0;
    s->send_head = NULL;
    s->send_tail = &s->send_head;
    s->sent_bytes = 0;
    s->reading = NULL;
    s->rx_head = s->rx_tail = 0;
}

void nbd_stream_lose(struct nbd_stream *s)
{
    close(s->fd);
    s->fd = -1;
    forget(s);
    for (unsigned i = 0; i < s->nr_slots; i++)
        if (s->slots[i].state != NBD_SLOT_IDLE)
            s->slots[i].state = NBD_SLOT_QUEUED;
}

void nbd_stream_restart(struct nbd_stream *s, int fd)
{
    s->fd = fd;
    forget(s);
    for (unsigned i = 0; i < s->nr_slots; i++)
        if (s->slots[i].state != NBD_SLOT_IDLE)
            enqueue(s, &s->reqs[i]);
}

bool nbd_stream_idle(const struct nbd_stream *s)
{
    return !s->nr_waiting && !s->send_head && !s->rx_tail;
}

void nbd_stream_fail(struct nbd_stream *s, struct blk_req *req, uint32_t nbd_error)
{
    slot_of(s, req)->state = NBD_SLOT_IDLE;
    s->done(s->arg, req, nbd_error);
}
