/* SPDX-License-Identifier: MIT */
/* Disks served to virtual machines of other programs, without a guest of ours. */
#ifndef XENOLITH_VM_BLK_SERVER_H
#define XENOLITH_VM_BLK_SERVER_H

#include "base/err.h"
#include "base/types.h"

struct vm_blk_export {
    const char *socket;         /* path of a vhost-user socket */
    const char *disk;           /* xl-disk-configuration(5); the vdev may be left out */
};

struct vm_blk_server {
    const struct vm_blk_export *exports;
    unsigned nr_exports;
    const char *run_dir;        /* where disks of other processes are met; NULL: nowhere */
    unsigned max_queues;        /* of each disk; 1 .. VM_BLK_QUEUES_MAX */
    uint64_t poll_max_ns;       /* a queue polls this long before it sleeps; 0: never */
};

#define VM_BLK_EXPORTS_MAX 26u
#define VM_BLK_QUEUES_MAX  64u
#define VM_BLK_POLL_MAX_NS 100000u      /* a good poll_max_ns */

/* Serves until SIGTERM or SIGINT; SIGHUP makes it look at the sizes of the disks.  0 then; -errno
 * when it could not begin. */
int vm_blk_server_run(const struct vm_blk_server *s, struct err *e);

#endif
