/* SPDX-License-Identifier: MIT */
/* What the files pv_peer*.c share.  Not for others; pv_peers.c's opening note explains.
 *
 * Locks, outermost first: grants.lock, peer.lock, peers.connect_lock, peers.lock, ports.lock.
 * The first three belong to vCPU threads, which wait for other processes under them; the
 * peers' thread takes the others only, and these are held for moments. */
#ifndef XENOLITH_VM_PV_PEERS_PRIV_H
#define XENOLITH_VM_PV_PEERS_PRIV_H

#include <pthread.h>
#include <sys/types.h>

#include "vm/pv_peer_wire.h"
#include "vm/pv_peers.h"
#include "xen/evtchn.h"
#include "xen/gnttab_host.h"

#define PEER_CONNS_MAX  256         /* that others make to this guest */
#define PEER_CONNS_EACH 8           /* that one process makes, of these; a guest needs one */
#define PEER_COPIES_MAX 256         /* grants held for copies at a time */

/* What the thread waits for: a kind in the upper half of the event's data, a number below. */
enum peer_wait { PEER_WAIT_END, PEER_WAIT_LISTEN, PEER_WAIT_CONN, PEER_WAIT_PEER, PEER_WAIT_KICK };

/* A connection of ours to another guest's process. */
struct peer {
    struct peer *next;          /* while it is open */
    domid_t domid;
    int fd;
    int ram_fd;                 /* that guest's RAM; -1: not asked for yet */
    uint64_t ram_pages;
    unsigned refs;              /* under peers.lock, as is `gone` */
    bool gone;
    pthread_mutex_t lock;       /* one request at a time */
};

/* A port of the guest's for another guest.  Under ports.lock. */
struct channel {
    uint32_t port, id;
    uint32_t peer_port;         /* 0: not connected */
    domid_t peer;
    bool binding;               /* the guest connects it just now */
    int peer_fd;                /* the other guest's sends; -1: none yet */
    struct xen_hostport *end;   /* our guest's end; NULL until somebody connects */
};

struct peer_ports {
    pthread_mutex_t lock;
    struct channel **at;        /* [EVTCHN_PORTS_MAX] */
    uint32_t nr;                /* ports below this have been in use */
};

/* A page of a window. */
struct peer_page {
    struct peer *peer;
    uint32_t ref, hold;
    uint32_t refs;              /* times it is mapped; 0: free */
};

struct peer_copy {
    struct peer *peer;          /* NULL: free */
    uint32_t hold, offset, length;
    bool write;
    uint64_t frame;
};

struct peer_grants {
    pthread_mutex_t lock;
    struct peer_page *page[PV_NR_PEER_WINDOWS];     /* PEER_PAGES each */
    struct peer_copy copy[PEER_COPIES_MAX];
};

/* A connection of another guest's to this one; the thread's alone. */
struct peer_conn {
    int fd;                     /* -1: free */
    pid_t pid;                  /* whose */
    domid_t domid;              /* 0: has not said yet */
    uint32_t nr_holds;          /* room for so many */
    struct peer_held { uint32_t ref; bool used, write; } *held;
};

struct pv_peers {
    struct pv_peers_params p;
    pthread_mutex_t lock, connect_lock;
    struct peer *open;
    bool cut;                   /* nothing new, nobody waits */
    int epoll_fd, end_fd, spare_fd;
    pthread_t thread;
    bool thread_runs;
    struct gnttab_host table;   /* the guest's own grants, as others hold them */
    struct peer_conn conn[PEER_CONNS_MAX];
    struct peer_ports ports;
    struct peer_grants grants;
};

/* pv_peers.c.  The guest's process: NULL: there is no such guest (or it does not answer).
 * Each is undone by peer_put(). */
struct peer *peer_get(struct pv_peers *p, uint32_t domid);
void peer_put(struct pv_peers *p, struct peer *peer);
struct peer *peer_hold(struct pv_peers *p, struct peer *peer);
bool peer_is_gone(struct pv_peers *p, struct peer *peer);
/* Sends m with send_fd (-1: none) and waits for the reply, which replaces it, with *got_fd (NULL:
 * none is wanted).  0 or -errno: the connection is gone.  PEER_HOLD and PEER_DROP are for who
 * has grants.lock, the others for who has not. */
int peer_ask(struct pv_peers *p, struct peer *peer, struct peer_msg *m, int send_fd, int *got_fd);
int peers_watch(struct pv_peers *p, int fd, enum peer_wait kind, uint32_t number, uint32_t events);
void peers_unwatch(struct pv_peers *p, int fd);

/* pv_peer_packet.c.  0 or -errno; pass_fd: -1: none.  *got_fd: what came along, or -1. */
int peer_packet_send(int fd, const struct peer_msg *m, int pass_fd, int flags);
int peer_packet_receive(int fd, struct peer_msg *m, int *got_fd, int flags);

/* pv_peer_conns.c: the thread, or nobody else any more */
/* False: nobody can be accepted now, though somebody comes. */
bool peer_conn_accept(struct pv_peers *p);
void peer_conn_ready(struct pv_peers *p, struct peer_conn *c);
void peer_conn_end(struct pv_peers *p, struct peer_conn *c);

/* pv_peer_ports.c */
int peer_ports_init(struct pv_peers *p);
void peer_ports_free(struct pv_peers *p);
int peer_ports_wait(struct pv_peers *p, uint32_t port, uint32_t domid, uint32_t id);
int peer_ports_bind(struct pv_peers *p, uint32_t port, uint32_t domid, uint32_t peer_port,
                    uint32_t *link);
void peer_ports_close(struct pv_peers *p, uint32_t port);
/* The thread: what another guest asks, or sent.  fd is the callee's; *reply_fd the caller's. */
int peer_ports_serve_bind(struct pv_peers *p, domid_t by, const struct peer_msg *m, int fd,
                          int *reply_fd);
void peer_ports_serve_close(struct pv_peers *p, domid_t by, const struct peer_msg *m);
void peer_ports_kicked(struct pv_peers *p, uint32_t port);
/* All channels with it end, as if it had closed them. */
void peer_ports_gone(struct pv_peers *p, domid_t peer);

/* pv_peer_grants.c */
int peer_grants_init(struct pv_peers *p);
void peer_grants_free(struct pv_peers *p);
int16_t peer_grants_map(struct pv_peers *p, const struct shim_peer_call *c, uint64_t *mfn);
void peer_grants_unmap(struct pv_peers *p, uint64_t mfn);
int16_t peer_grants_hold(struct pv_peers *p, struct shim_peer_call *c);
void peer_grants_drop(struct pv_peers *p, uint32_t hold);
int16_t peer_grants_copy(struct pv_peers *p, const struct shim_peer_call *c);
/* It lives, but has not answered, and will take its pages back when its connection is closed:
 * the guest keeps blank ones.  locked: grants.lock is held. */
void peer_grants_revoke(struct pv_peers *p, const struct peer *peer, bool locked);

/* pv_peer_held.c: the thread; what another guest holds of this one's grants */
void peer_held_hold(struct pv_peers *p, struct peer_conn *c, struct peer_msg *m);
void peer_held_drop(struct pv_peers *p, struct peer_conn *c, uint32_t hold);
void peer_held_end(struct pv_peers *p, struct peer_conn *c);

#endif
