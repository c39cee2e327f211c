/* SPDX-License-Identifier: MIT */
/* The directory in which guests are found: who runs, under which number and
 * name, and where its control socket is.  No process has to run for it. */
#ifndef XENOLITH_CTL_REGISTRY_H
#define XENOLITH_CTL_REGISTRY_H

#include <sys/types.h>

#include "base/err.h"

/* Domain numbers end where Xen's reserved ones begin (DOMID_FIRST_RESERVED). */
#define REGISTRY_DOMID_MAX  0x7fefu
#define REGISTRY_NAME_BYTES 256

struct registry {
    int dir_fd;
    char path[4096];
};

/* What others see of a guest. */
struct registry_guest {
    unsigned domid;
    pid_t pid;
    char name[REGISTRY_NAME_BYTES];
    uint8_t uuid[16];
};

/* What the guest's own process holds. */
struct registry_entry {
    struct registry_guest guest;
    int dir_fd;             /* the entry's directory; the control socket goes there */
    int lock_fd;
};

/* run_dir must exist: ctl_run_dir(). */
int registry_open(struct registry *r, const char *run_dir, struct err *e);
void registry_close(struct registry *r);

/* Takes the next free number for a guest called name, run by this process.
 * -EEXIST: a guest of that name is there; -ENOSPC: no number is free.  The name
 * is refused (-EINVAL) when empty, all digits, too long or with a control
 * character. */
int registry_take(struct registry *r, const char *name, const uint8_t uuid[16],
                  struct registry_entry *out, struct err *e);
/* Gives the guest of entry a new number (a reboot): the old entry goes in the
 * same step, so that nobody can take the name in between.  On failure the entry
 * stays as it was. */
int registry_renew(struct registry *r, struct registry_entry *entry, struct err *e);
/* Another name and uuid for the same number.  -EEXIST as above. */
int registry_rename(struct registry *r, struct registry_entry *entry, const char *name,
                    const uint8_t uuid[16], struct err *e);
/* Removes the entry and everything in it. */
void registry_release(struct registry *r, struct registry_entry *entry);

/* All guests, by number; stale entries are removed on the way.  The caller
 * frees *out. */
int registry_list(struct registry *r, struct registry_guest **out, unsigned *nr, struct err *e);
/* By number (all digits) or name, as xl does: 0, or -ENOENT with e untouched. */
int registry_find(struct registry *r, const char *who, struct registry_guest *out,
                  struct err *e);
/* By name only, by number only. */
int registry_find_name(struct registry *r, const char *name, struct registry_guest *out,
                       struct err *e);
int registry_find_domid(struct registry *r, unsigned domid, struct registry_guest *out,
                        struct err *e);

/* Ends a process that does not answer, with SIGKILL, and removes its entry.  Sure
 * to hit no other process: the entry's lock shows that this one lives. */
int registry_kill(struct registry *r, unsigned domid, struct err *e);

/* A connection to the guest's control socket: descriptor, or -errno (-ENOENT,
 * -ECONNREFUSED: not there yet, or no longer). */
int registry_connect(struct registry *r, unsigned domid);
/* The listening control socket of an entry: descriptor, or -errno. */
int registry_listen(struct registry_entry *entry, struct err *e);
/* The same for the socket where guests' processes meet (SOCK_SEQPACKET).  Any thread; waits for
 * nobody (-EAGAIN), and the connection is non-blocking. */
int registry_connect_peer(const struct registry *r, unsigned domid);
int registry_listen_peer(struct registry_entry *entry, struct err *e);

#endif
