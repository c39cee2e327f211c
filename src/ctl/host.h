/* SPDX-License-Identifier: MIT */
/* What this machine offers to guests, for commands that must say so. */
#ifndef XENOLITH_CTL_HOST_H
#define XENOLITH_CTL_HOST_H

#include "base/err.h"

struct ctl_host {
    const char *kvm;        /* "hardware", "software" or "none" */
    const char *extension;  /* "vmx", "svm" or "" */
    bool nested;            /* the machine is itself a guest */
    char advice[512];       /* what is wrong and what to do; "": nothing */
};

void ctl_host_probe(struct ctl_host *h);

/* 0, with h->advice perhaps a warning; -ENODEV or why /dev/kvm cannot be used. */
int ctl_host_judge(struct ctl_host *h, struct err *e);

#endif
