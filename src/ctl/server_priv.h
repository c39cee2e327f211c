/* SPDX-License-Identifier: MIT */
/* What the files of the control socket's server share. */
#ifndef XENOLITH_CTL_SERVER_PRIV_H
#define XENOLITH_CTL_SERVER_PRIV_H

#include <jansson.h>

#include "ctl/protocol.h"
#include "ctl/server.h"

enum conn_state { CONN_READING, CONN_WRITING, CONN_WAITING };

/* What a connection that waits waits for. */
enum conn_wait { CONN_WAIT_STOP, CONN_WAIT_DISK, CONN_WAIT_SETTLE };

struct conn {
    struct conn *next;
    struct ctl_server *server;
    int fd;
    struct loop_fd *watch;
    enum conn_state state;
    enum conn_wait wait;
    unsigned wait_disk;         /* vdev number */
    struct loop_timer *wait_timer;      /* NULL: without a limit */
    bool close_after;           /* once the reply is out */
    uint64_t active_ns;
    char *reply;
    size_t reply_bytes, reply_done;
    size_t line_bytes;
    char line[CTL_REQUEST_BYTES_MAX];
};

struct ctl_server {
    struct ctl_server_params p;
    struct loop_fd *listen_watch;
    struct loop_timer *destroy_timer;
    bool destroying;
    bool stopped;
    enum vm_stop why;
    char why_text[512];
    struct conn *conns;
    unsigned nr_conns;
};

/* What a handler wants done with the connection. */
enum verdict {
    VERDICT_REPLY,      /* *result, or e */
    VERDICT_WAIT,       /* the reply comes later: c->wait says when */
    VERDICT_CONSOLE,    /* reply, then hand the descriptor over */
};

/* Its arguments are of the kinds that the table of commands says. */
typedef enum verdict ctl_handler(struct conn *c, json_t *arguments, json_t **result,
                                 struct err *e);

ctl_handler ctl_disk_attach, ctl_disk_detach, ctl_disk_list, ctl_disk_resize;

/* The disk that c asked about is gone: it waits until the guest has seen that, too.  False: it
 * need not. */
bool ctl_disk_settle(struct conn *c);

/* -ESRCH, unless the guest lives. */
int ctl_server_alive(const struct ctl_server *s, struct err *e);
/* How it stopped, as "wait" answers. */
json_t *ctl_server_stop_json(const struct ctl_server *s);

/* Judges a request and serves it. */
enum verdict ctl_command_run(struct conn *c, const char *name, json_t *arguments,
                             json_t **result, struct err *e);

/* Answers a connection that has waited and serves what it has asked meanwhile.  Takes result;
 * with an error in e, that is the answer. */
void ctl_conn_wake(struct conn *c, json_t *result, const struct err *e);

#endif
