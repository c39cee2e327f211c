/* SPDX-License-Identifier: MIT */
/* Grants of a guest to domain 0 and to other guests, as a backend in the host takes and returns
 * them: a checked look-up in a table that the host can see, in the version that
 * the guest has chosen, no hypercall, no copy.  The in-use bits tell the guest
 * the truth while a page is held.  Lock-free; any thread may map and unmap any
 * reference.  Not for the shim. */
#ifndef XENOLITH_XEN_GNTTAB_HOST_H
#define XENOLITH_XEN_GNTTAB_HOST_H

#include "base/types.h"
#include "mem/guest_mem.h"
#include "xen/gnttab_entry.h"

/* Holders of one page of references, allocated when the first of them is mapped. */
struct gnttab_host_counts;

struct gnttab_host {
    const struct guest_mem *mem;
    struct gnttab_table table;              /* shared with the guest */
    struct gnttab_host_counts **counts;     /* [table.nr_frames_max] */
};

/* table is the guest's (struct gnttab), in guest memory.  mem and what table points to must
 * outlive h.  0 or -ENOMEM. */
int gnttab_host_init(struct gnttab_host *h, const struct guest_mem *mem,
                     const struct gnttab_table *table);
/* Every reference has been unmapped. */
void gnttab_host_free(struct gnttab_host *h);

/* Takes the page the guest grants to domain 0 under ref, for reading or also for
 * writing; *page is its host address.  Each success is undone by one
 * gnttab_host_unmap() with the same write.
 * -EINVAL: no such reference, or it does not grant access to a whole page;
 * -EPERM: granted to another domain, or write asked of a read-only grant;
 * -EFAULT: the frame is not guest memory; -EAGAIN: the guest kept changing the
 * entry; -ENOMEM. */
int gnttab_host_map(struct gnttab_host *h, uint32_t ref, bool write, void **page);
void gnttab_host_unmap(struct gnttab_host *h, uint32_t ref, bool write);

/* The same for what it grants to guest `by`, and with copy, what may be copied only: part of
 * a page, or what another domain grants.  *grant is what the entry says.  Undone by
 * gnttab_host_unmap() as well. */
int gnttab_host_hold(struct gnttab_host *h, domid_t by, uint32_t ref, bool write, bool copy,
                     struct gnttab_grant *grant);

/* Another process held ref, or was about to, and has died: the in-use bits become what the
 * holders in this one make of them.  Any ref, of the table or not. */
void gnttab_host_settle(struct gnttab_host *h, uint32_t ref);

#endif
