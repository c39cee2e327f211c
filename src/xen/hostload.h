/* SPDX-License-Identifier: MIT */
/* Whether the host has a processor for everyone who wants one: vCPUs that are not halted
 * and threads of devices that have work.  Where it has not, who polls keeps another from
 * the work that is polled for.  Only this guest's are counted, nobody knows of others on
 * the host.  Freestanding; the shim and the host ask alike, and no answer is more than a
 * hint, old when it is used. */
#ifndef XENOLITH_XEN_HOSTLOAD_H
#define XENOLITH_XEN_HOSTLOAD_H

#include "base/atomic.h"
#include "xen/hostlink.h"

/* Shared; the host writes. */
struct xen_hostload {
    uint32_t host_cpus;     /* processors the guest's process may use; 0: not known */
    uint32_t nr_links;      /* links from this one on have never been bound */
};

struct xen_hostload_view {
    const struct xen_hostload *load;
    const struct xen_hostwaker *wakers;
    const struct xen_hostlink *links;
    unsigned nr_wakers;
};

/* Counts whoever is marked, and `more` that are not. */
static inline bool xen_hostload_crowded(const struct xen_hostload_view *v, unsigned more)
{
    unsigned host_cpus = v->load ? load_relaxed(&v->load->host_cpus) : 0, n = more;
    unsigned nr_links;

    if (!host_cpus)
        return false;
    nr_links = min_of(load_relaxed(&v->load->nr_links), (uint32_t)XEN_HOSTLINK_MAX);
    for (unsigned i = 0; i < v->nr_wakers && n <= host_cpus; i++)
        n += load_relaxed(&v->wakers[i].state) != XEN_HOSTWAKER_HALTED;
    for (unsigned i = 0; i < nr_links && n <= host_cpus; i++)
        n += load_relaxed(&v->links[i].awake) != 0;
    return n > host_cpus;
}

#endif
