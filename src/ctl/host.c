/* SPDX-License-Identifier: MIT */
#include "ctl/host.h"

#include <errno.h>

#include "kvm/probe.h"

static int probe(struct ctl_host *h)
{
    struct kvm_probe p;

    kvm_probe(&p);
    h->kvm = kvm_kind_name(p.kind);
    h->extension = p.cpu.vmx ? "vmx" : p.cpu.svm ? "svm" : "";
    h->nested = p.cpu.hypervisor;
    kvm_probe_advice(&p, h->advice, sizeof(h->advice));
    if (p.kind != KVM_KIND_NONE)
        return 0;
    return p.open_errno ? p.open_errno : ENODEV;
}

void ctl_host_probe(struct ctl_host *h)
{
    probe(h);
}

int ctl_host_judge(struct ctl_host *h, struct err *e)
{
    int code = probe(h);

    return code ? err_set(e, code, "%s", h->advice) : 0;
}
