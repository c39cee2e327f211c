/* SPDX-License-Identifier: MIT */
/* HYPERVISOR_event_channel_op: which command takes what, and who answers it. */
#include <errno.h>

#include "xen/evtchn.h"

#define SHAPE(op, back) [EVTCHNOP_##op] = { sizeof(struct evtchn_##op), back }

static const struct evtchn_op_shape shapes[] = {
    SHAPE(bind_interdomain, true),
    SHAPE(bind_virq, true),
    SHAPE(bind_pirq, true),
    SHAPE(close, false),
    SHAPE(send, false),
    SHAPE(status, true),
    SHAPE(alloc_unbound, true),
    SHAPE(bind_ipi, true),
    SHAPE(bind_vcpu, false),
    SHAPE(unmask, false),
    SHAPE(reset, false),
    SHAPE(init_control, true),
    SHAPE(expand_array, false),
    SHAPE(set_priority, false),
    [EVTCHNOP_RESET_CONT] = { sizeof(struct evtchn_reset), false },
};

_Static_assert(sizeof(struct evtchn_status) <= EVTCHN_OP_ARG_BYTES_MAX &&
               sizeof(struct evtchn_init_control) <= EVTCHN_OP_ARG_BYTES_MAX,
               "the largest arguments fit");

const struct evtchn_op_shape *evtchn_op_shape(unsigned cmd)
{
    return cmd < array_size(shapes) ? &shapes[cmd] : NULL;
}

int evtchn_op_call(struct evtchn_domain *d, unsigned cmd, void *arg)
{
    switch (cmd) {
    case EVTCHNOP_bind_interdomain: return evtchn_bind_interdomain(d, arg);
    case EVTCHNOP_bind_virq:        return evtchn_bind_virq(d, arg);
    case EVTCHNOP_bind_pirq:        return evtchn_bind_pirq(d, arg);
    case EVTCHNOP_close:            return evtchn_close(d, arg);
    case EVTCHNOP_send:             return evtchn_send(d, arg);
    case EVTCHNOP_status:           return evtchn_status(d, arg);
    case EVTCHNOP_alloc_unbound:    return evtchn_alloc_unbound(d, arg);
    case EVTCHNOP_bind_ipi:         return evtchn_bind_ipi(d, arg);
    case EVTCHNOP_bind_vcpu:        return evtchn_bind_vcpu(d, arg);
    case EVTCHNOP_unmask:           return evtchn_unmask(d, arg);
    case EVTCHNOP_reset:            return evtchn_reset(d, arg, false);
    case EVTCHNOP_RESET_CONT:       return evtchn_reset(d, arg, true);
    case EVTCHNOP_init_control:     return evtchn_init_control(d, arg);
    case EVTCHNOP_expand_array:     return evtchn_expand_array(d, arg);
    case EVTCHNOP_set_priority:     return evtchn_set_priority(d, arg);
    default:                        return -ENOSYS;
    }
}
