/* SPDX-License-Identifier: MIT */
#include "kvm/vcpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/atomic.h"
#include "kvm/internal.h"

/* A vCPU begins with the TSC rate that KVM found when it was loaded, or its VM was made.
 * Linux may have measured its TSC again since; where the processor cannot scale the TSC the
 * vCPU then has the host's all the same, but KVM reckons its timers with a multiplier that
 * was never set.  0 stands for the host's rate as it is known now.  A KVM that refuses has
 * no rate to choose. */
static void take_host_tsc_rate(const struct kvm_vcpu *v)
{
    (void)ioctl(v->fd, KVM_SET_TSC_KHZ, 0);
}

int kvm_vcpu_create(struct kvm_vm *vm, unsigned id, struct kvm_vcpu **out, struct err *e)
{
    struct kvm_vcpu *v;
    int ret;

    if (id >= vm->nr_vcpus)
        return err_set(e, EINVAL, "vCPU %u of a VM for %u", id, vm->nr_vcpus);
    v = aligned_alloc(CACHE_LINE_BYTES, sizeof(*v));
    if (!v)
        return err_set(e, ENOMEM, "out of memory");
    memset(v, 0, sizeof(*v));
    v->vm = vm;
    v->id = id;
    v->fd = ioctl(vm->fd, KVM_CREATE_VCPU, id);
    if (v->fd < 0) {
        ret = err_set(e, errno, "KVM_CREATE_VCPU %u: %s", id, strerror(errno));
        goto err_free;
    }
    v->run = mmap(NULL, vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (v->run == MAP_FAILED) {
        ret = err_set(e, errno, "mapping vCPU %u: %s", id, strerror(errno));
        goto err_close;
    }
    take_host_tsc_rate(v);
    *out = v;
    return 0;

err_close:
    close(v->fd);
err_free:
    free(v);
    return ret;
}

void kvm_vcpu_free(struct kvm_vcpu *v)
{
    if (!v)
        return;
    munmap(v->run, v->vm->run_bytes);
    close(v->fd);
    free(v);
}

unsigned kvm_vcpu_id(const struct kvm_vcpu *v)
{
    return v->id;
}

static int vcpu_ioctl(struct kvm_vcpu *v, unsigned long request, void *arg)
{
    return ioctl(v->fd, request, arg) < 0 ? -errno : 0;
}

int kvm_vcpu_set_cpuid(struct kvm_vcpu *v, const struct kvm_cpuid_leaf *leaves, unsigned nr_leaves)
{
    struct kvm_cpuid2 *table = calloc(1, sizeof(*table) + nr_leaves * sizeof(table->entries[0]));
    int ret;

    if (!table)
        return -ENOMEM;
    table->nent = nr_leaves;
    for (unsigned i = 0; i < nr_leaves; i++)
        table->entries[i] = (struct kvm_cpuid_entry2){
            .function = leaves[i].function, .index = leaves[i].index, .flags = leaves[i].flags,
            .eax = leaves[i].eax, .ebx = leaves[i].ebx, .ecx = leaves[i].ecx, .edx = leaves[i].edx,
        };
    ret = vcpu_ioctl(v, KVM_SET_CPUID2, table);
    free(table);
    return ret;
}

int kvm_vcpu_get_regs(struct kvm_vcpu *v, struct kvm_regs *regs)
{
    return vcpu_ioctl(v, KVM_GET_REGS, regs);
}

int kvm_vcpu_set_regs(struct kvm_vcpu *v, const struct kvm_regs *regs)
{
    return vcpu_ioctl(v, KVM_SET_REGS, (void *)regs);
}

int kvm_vcpu_get_sregs(struct kvm_vcpu *v, struct kvm_sregs *sregs)
{
    return vcpu_ioctl(v, KVM_GET_SREGS, sregs);
}

int kvm_vcpu_set_sregs(struct kvm_vcpu *v, const struct kvm_sregs *sregs)
{
    return vcpu_ioctl(v, KVM_SET_SREGS, (void *)sregs);
}

int kvm_vcpu_set_xcr0(struct kvm_vcpu *v, uint64_t xcr0)
{
    struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs = { { .xcr = 0, .value = xcr0 } } };

    return vcpu_ioctl(v, KVM_SET_XCRS, &xcrs);
}

/* KVM_GET_MSRS and KVM_SET_MSRS return how many registers they got through. */
static int msr_ioctl(struct kvm_vcpu *v, unsigned long request, uint32_t index, uint64_t *value)
{
    union {
        struct kvm_msrs list;
        uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } msrs = { .list.nmsrs = 1 };
    int nr;

    msrs.list.entries[0] = (struct kvm_msr_entry){ .index = index, .data = *value };
    nr = ioctl(v->fd, request, &msrs);
    if (nr < 0)
        return -errno;
    if (nr != 1)
        return -ENOENT;
    *value = msrs.list.entries[0].data;
    return 0;
}

int kvm_vcpu_get_msr(struct kvm_vcpu *v, uint32_t index, uint64_t *value)
{
    *value = 0;
    return msr_ioctl(v, KVM_GET_MSRS, index, value);
}

int kvm_vcpu_set_msr(struct kvm_vcpu *v, uint32_t index, uint64_t value)
{
    return msr_ioctl(v, KVM_SET_MSRS, index, &value);
}

int kvm_vcpu_set_runnable(struct kvm_vcpu *v)
{
    struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_RUNNABLE };

    return vcpu_ioctl(v, KVM_SET_MP_STATE, &state);
}

int kvm_vcpu_get_tsc_khz(struct kvm_vcpu *v, uint32_t *khz)
{
    int ret = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);

    if (ret < 0)
        return -errno;
    *khz = (uint32_t)ret;
    return 0;
}

void kvm_vcpu_exit_counts(const struct kvm_vcpu *v, struct kvm_exit_counts *out)
{
    out->io_out = load_relaxed(&v->counts.io_out);
    out->io_in = load_relaxed(&v->counts.io_in);
    out->mmio = load_relaxed(&v->counts.mmio);
    out->signal = load_relaxed(&v->counts.signal);
    out->other = load_relaxed(&v->counts.other);
}
