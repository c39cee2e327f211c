/* SPDX-License-Identifier: MIT */
/* What kind of KVM this host has, and what a person can do about it. */
#ifndef XENOLITH_KVM_PROBE_H
#define XENOLITH_KVM_PROBE_H

#include "base/types.h"

enum kvm_kind {
    KVM_KIND_NONE,          /* guests cannot run */
    KVM_KIND_SOFTWARE,      /* /dev/kvm works without VMX or SVM: runs, slowly */
    KVM_KIND_HARDWARE,
};

/* What /proc/cpuinfo says of its first processor. */
struct kvm_cpuinfo {
    char vendor[16];        /* "GenuineIntel"; "" when the file does not say */
    bool vmx, svm;
    bool hypervisor;        /* this machine is itself a guest */
};

#define KVM_PROBE_MISSING_MAX 16

struct kvm_probe {
    enum kvm_kind kind;
    int open_errno;         /* why /dev/kvm cannot be opened; 0: it can */
    int api_version;        /* of /dev/kvm, 12 since 2007; 0 when not opened */
    unsigned nr_missing;    /* capabilities required here and absent there */
    const char *missing[KVM_PROBE_MISSING_MAX];
    struct kvm_cpuinfo cpu;
};

/* Opens /dev/kvm for as long as it takes to ask; creates no VM. */
void kvm_probe(struct kvm_probe *out);

/* One sentence for the operator: what is wrong and what to do.  "" with hardware
 * KVM.  Returns buf. */
const char *kvm_probe_advice(const struct kvm_probe *p, char *buf, size_t size);

/* "hardware", "software" or "none" */
const char *kvm_kind_name(enum kvm_kind kind);

/* Reads the text of /proc/cpuinfo, which may have been cut off anywhere. */
void kvm_cpuinfo_parse(const char *text, size_t len, struct kvm_cpuinfo *out);

#endif
