/* SPDX-License-Identifier: MIT */
/* A host with KVM, for the program that runs fake guests. */
#include "ctl/host.h"

void ctl_host_probe(struct ctl_host *h)
{
    *h = (struct ctl_host){ .kvm = "hardware", .extension = "svm" };
}

int ctl_host_judge(struct ctl_host *h, struct err *e)
{
    ctl_host_probe(h);
    return 0;
}
