/* SPDX-License-Identifier: MIT */
/* Commands out and replies in, on one connection at a time.  All that there is to send is one
 * sendmsg() from the requests' own vectors.  Replies are received into a buffer, many at a time;
 * what is still to come of a read's payload then goes straight to its vector, with the replies
 * that follow it into the buffer by the same call.
 *
 * A request is a message here: one command for a part of it, or for all of it.
 *
 *     IDLE -- nbd_stream_add --> QUEUED -- all sent --> SENT -- reply --> done()
 *                                  ^                     | a read's      ^
 *                                  |                     v               |
 *                                  |                   READING ----------+
 *                                  +---- nbd_stream_restart, from any ---+
 *
 * Everything the server says is judged; what makes no sense ends the connection.  A reply
 * that was meant for an earlier life of a request's slot cannot be taken for this one's: the
 * cookie has the number of the message. */
#ifndef XENOLITH_BLK_NBD_STREAM_H
#define XENOLITH_BLK_NBD_STREAM_H

#include "blk/nbd_wire.h"
#include "blk/queue.h"

#define NBD_IOV_MAX  256u
#define NBD_RX_BYTES (64 * KIB)

enum nbd_slot_state { NBD_SLOT_IDLE, NBD_SLOT_QUEUED, NBD_SLOT_SENT, NBD_SLOT_READING };

/* One for each request of the queue. */
struct nbd_slot {
    struct nbd_request message;     /* as it goes over the wire */
    enum nbd_slot_state state;
    uint32_t payload_bytes;         /* of a read's reply or a write */
    bool is_write;
    uint64_t lost_since_ns;         /* the driver's: without a server; 0: not */
};

struct nbd_stream {
    int fd;                         /* -1: none */
    struct blk_req *reqs;           /* as many as slots */
    struct nbd_slot *slots;
    unsigned nr_slots;
    void (*done)(void *arg, struct blk_req *req, uint32_t nbd_error);
    void *arg;

    uint32_t nr_messages;
    unsigned nr_waiting;            /* SENT or READING */
    struct blk_req *send_head, **send_tail;     /* QUEUED, by req->next */
    uint64_t sent_bytes;            /* of the first one's message */
    struct blk_req *reading;        /* its payload comes next */
    uint32_t read_bytes;            /* ... and so much of it has come */
    unsigned rx_head, rx_tail;      /* received and not yet taken */
    uint64_t nr_replies;
    struct iovec iov[NBD_IOV_MAX + 1];
    uint8_t rx[NBD_RX_BYTES];
};

/* arg goes to done(), which may call nbd_stream_add().  -ENOMEM. */
int nbd_stream_open(struct nbd_stream *s, struct blk_req *reqs, unsigned nr_reqs,
                    void (*done)(void *arg, struct blk_req *req, uint32_t nbd_error), void *arg);
void nbd_stream_close(struct nbd_stream *s);

/* A message for req, to be sent by the next nbd_stream_send(), or after nbd_stream_restart()
 * where there is no connection.  type and flags are NBD_CMD_...; payload of READ and WRITE is
 * what req's vector begins with. */
void nbd_stream_add(struct nbd_stream *s, struct blk_req *req, uint16_t type, uint16_t flags,
                    uint64_t offset_bytes, uint32_t length_bytes);

/* As much as the socket takes.  0; -errno: the connection is lost. */
int nbd_stream_send(struct nbd_stream *s);
/* Takes what has come.  0; -errno: the connection is lost; -EPROTO: it has to be. */
int nbd_stream_receive(struct nbd_stream *s);

/* Gives up the connection; what was on its way is kept. */
void nbd_stream_lose(struct nbd_stream *s);
/* Goes on over another one, with everything that was kept. */
void nbd_stream_restart(struct nbd_stream *s, int fd);
/* Nothing is on its way, in either direction. */
bool nbd_stream_idle(const struct nbd_stream *s);
/* Gives up a message of a stream without connection: done() is called for it. */
void nbd_stream_fail(struct nbd_stream *s, struct blk_req *req, uint32_t nbd_error);

#endif
