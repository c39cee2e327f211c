/* SPDX-License-Identifier: MIT */
/* The FIFO ABI is not offered to the guest: it goes on with the 2-level one. */
#include <errno.h>

#include "xen/evtchn_port.h"

int evtchn_init_control(struct evtchn_domain *d, struct evtchn_init_control *op)
{
    return -ENOSYS;
}

int evtchn_expand_array(struct evtchn_domain *d, const struct evtchn_expand_array *op)
{
    return -EOPNOTSUPP;     /* as in Xen before the first control block */
}
