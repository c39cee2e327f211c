/* SPDX-License-Identifier: MIT */
/* A domain's standard nodes, named, filled and permitted as libxl does it for a
 * PV guest (docs/misc/xenstore-paths.pandoc of Xen):
 *
 *   /local/domain/N             n0,rN   vm, name, domid, cpu/I/availability,
 *                                       memory/{static-max,target,videoram},
 *                                       store/{port,ring-ref}, device, control
 *     console/...               nN,r0   backend, backend-id, limit, type, output,
 *                                       tty, port, ring-ref
 *     control/{shutdown,feature-poweroff,feature-reboot,feature-suspend,sysrq},
 *     device/suspend/event-channel, data, drivers, feature, attr, error
 *                               nN      the guest's own
 *     control/platform-feature-*
 *   /local/domain/0/backend/console/N/0     n0,rN
 *   /vm/UUID                    n0,rN   uuid, name, start_time,
 *                                       image/{ostype,kernel,ramdisk,cmdline}
 *   /libxl/N                    n0      type, device/console/0/...
 */
#ifndef XENOLITH_XEN_XS_DOMAIN_H
#define XENOLITH_XEN_XS_DOMAIN_H

#include "xen/xs_client.h"

struct xs_domain_values {
    unsigned domid;
    const char *name;
    uint8_t uuid[16];
    uint64_t maxmem_bytes;          /* memory/static-max */
    uint64_t target_bytes;          /* memory/target */
    unsigned nr_vcpus;              /* online at boot, the first ones */
    unsigned nr_vcpus_max;
    const char *kernel, *ramdisk, *cmdline;     /* ramdisk, cmdline: NULL or "" for none */
    uint64_t store_gfn, console_gfn;
    uint32_t store_port, console_port;          /* the guest's */
    const char *console_tty;        /* NULL: none */
    uint64_t start_time_ns;         /* CLOCK_REALTIME */
};

/* Writes everything in one transaction, over whatever a dead domain with this
 * number left.  0 or -errno with e filled. */
int xs_domain_fill(struct xs_client *c, const struct xs_domain_values *v, struct err *e);

/* Removes all of the above, and what backends keep under
 * /local/domain/0/backend/KIND/N.  Goes on when a part cannot be removed; 0 or
 * the first -errno. */
int xs_domain_remove(struct xs_client *c, unsigned domid, const uint8_t uuid[16]);

#endif
