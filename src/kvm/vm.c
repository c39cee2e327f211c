/* SPDX-License-Identifier: MIT */
#include "kvm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kvm/internal.h"

/* Entries asked for at first; the largest table KVM has known holds 256. */
#define CPUID_LEAVES_FIRST 128
#define CPUID_LEAVES_MAX   4096

/* Without KVM_CAP_X2APIC_API a destination has 8 bits and 255 means all. */
#define XAPIC_ID_MAX 254

static int open_kvm(struct kvm_vm *vm, struct err *e)
{
    const char *missing[1];

    vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (vm->kvm_fd < 0)
        return err_set(e, errno, "cannot open /dev/kvm: %s", strerror(errno));
    if (ioctl(vm->kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return err_set(e, ENOTSUP, "/dev/kvm does not speak version %d of its interface",
                       KVM_API_VERSION);
    if (kvm_capabilities_missing(vm->kvm_fd, missing, 1))
        return err_set(e, ENOTSUP, "this host's KVM lacks %s", missing[0]);
    return 0;
}

static int create_vm(struct kvm_vm *vm, struct err *e)
{
    int max;

    max = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if (max > 0 && vm->nr_vcpus > (unsigned)max)
        return err_set(e, EINVAL, "%u vCPUs: this host's KVM allows %d", vm->nr_vcpus, max);
    vm->nr_gsis = (uint32_t)ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_IRQ_ROUTING);
    vm->run_bytes = (size_t)ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

    do
        vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
    while (vm->fd < 0 && errno == EINTR);
    if (vm->fd < 0)
        return err_set(e, errno, "KVM_CREATE_VM: %s%s", strerror(errno),
                       errno == EBUSY ? " (another hypervisor holds the processor)" : "");
    return 0;
}

/* Four pages for Intel processors without unrestricted guest mode, which need a
 * page table and a TSS in guest memory to run real mode: the first page holds
 * the one, three hold the other. */
static int set_own_pages(struct kvm_vm *vm, gpa_t own, struct err *e)
{
    uint64_t identity_map = own.v;

    if ((own.v & PAGE_MASK) || own.v > 4 * GIB - KVM_VM_OWN_BYTES)
        return err_set(e, EINVAL, "KVM's own pages at 0x%llx: not below 4 GiB",
                       (unsigned long long)own.v);
    for (unsigned i = 0; i < vm->mem->nr_regions; i++) {
        const struct guest_mem_region *r = &vm->mem->region[i];

        if (own.v < r->base.v + r->size_bytes && r->base.v < own.v + KVM_VM_OWN_BYTES)
            return err_set(e, EINVAL, "KVM's own pages at 0x%llx overlap guest memory",
                           (unsigned long long)own.v);
    }
    if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
        return err_set(e, errno, "KVM_SET_IDENTITY_MAP_ADDR: %s", strerror(errno));
    if (ioctl(vm->fd, KVM_SET_TSS_ADDR, own.v + PAGE_SIZE) < 0)
        return err_set(e, errno, "KVM_SET_TSS_ADDR: %s", strerror(errno));
    return 0;
}

int kvm_vm_show(struct kvm_vm *vm, gpa_t base, void *host, uint64_t bytes, bool readonly,
                struct err *e)
{
    struct kvm_userspace_memory_region slot = {
        .slot = vm->nr_slots, .flags = readonly ? KVM_MEM_READONLY : 0,
        .guest_phys_addr = base.v, .memory_size = bytes, .userspace_addr = (uintptr_t)host,
    };

    if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
        return err_set(e, errno, "KVM refuses guest memory at 0x%llx, 0x%llx bytes: %s",
                       (unsigned long long)base.v, (unsigned long long)bytes, strerror(errno));
    vm->nr_slots++;
    return 0;
}

static int set_memory(struct kvm_vm *vm, struct err *e)
{
    int rc = 0;

    for (unsigned i = 0; i < vm->mem->nr_regions && !rc; i++) {
        const struct guest_mem_region *r = &vm->mem->region[i];

        rc = kvm_vm_show(vm, r->base, r->host, r->size_bytes, false, e);
    }
    return rc;
}

static int enable_cap(struct kvm_vm *vm, uint32_t cap, uint64_t arg)
{
    struct kvm_enable_cap enable = { .cap = cap, .args = { arg } };

    return ioctl(vm->fd, KVM_ENABLE_CAP, &enable) < 0 ? -errno : 0;
}

/* LAPICs in the kernel and nothing else.  A KVM too old to split the two adds a
 * PIC and an IOAPIC, which stay cut off: no route leads to or from them. */
static int create_lapics(struct kvm_vm *vm, struct err *e)
{
    const uint64_t wide = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
    int ret = -ENOTTY;

    if (ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_SPLIT_IRQCHIP) > 0)
        ret = enable_cap(vm, KVM_CAP_SPLIT_IRQCHIP, 0);
    if (ret < 0 && ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return err_set(e, errno, "KVM_CREATE_IRQCHIP: %s", strerror(errno));

    vm->apic_id_max = enable_cap(vm, KVM_CAP_X2APIC_API, wide) == 0 ? UINT32_MAX - 1 : XAPIC_ID_MAX;
    if (vm->nr_vcpus > vm->apic_id_max)
        return err_set(e, EINVAL, "%u vCPUs: this host's KVM has no x2APIC destinations",
                       vm->nr_vcpus);
    return 0;
}

int kvm_vm_create(const struct kvm_vm_params *p, struct kvm_vm **out, struct err *e)
{
    struct kvm_vm *vm = calloc(1, sizeof(*vm));
    int ret;

    if (!vm)
        return err_set(e, ENOMEM, "out of memory");
    vm->kvm_fd = -1;
    vm->fd = -1;
    vm->mem = p->mem;
    vm->nr_vcpus = p->nr_vcpus;
    pthread_mutex_init(&vm->routes_lock, NULL);

    ret = open_kvm(vm, e);
    if (!ret)
        ret = create_vm(vm, e);
    if (!ret)
        ret = set_own_pages(vm, p->own, e);
    if (!ret)
        ret = create_lapics(vm, e);
    if (!ret)
        ret = set_memory(vm, e);
    if (ret < 0) {
        kvm_vm_free(vm);
        return ret;
    }
    *out = vm;
    return 0;
}

void kvm_vm_free(struct kvm_vm *vm)
{
    if (!vm)
        return;
    if (vm->fd >= 0)
        close(vm->fd);
    if (vm->kvm_fd >= 0)
        close(vm->kvm_fd);
    pthread_mutex_destroy(&vm->routes_lock);
    free(vm->routes);
    free(vm);
}

static struct kvm_cpuid_leaf *copy_leaves(const struct kvm_cpuid2 *table)
{
    struct kvm_cpuid_leaf *leaves = calloc(max_of(table->nent, 1u), sizeof(*leaves));

    for (unsigned i = 0; leaves && i < table->nent; i++) {
        const struct kvm_cpuid_entry2 *from = &table->entries[i];

        leaves[i] = (struct kvm_cpuid_leaf){
            .function = from->function, .index = from->index, .flags = from->flags,
            .eax = from->eax, .ebx = from->ebx, .ecx = from->ecx, .edx = from->edx,
        };
    }
    return leaves;
}

int kvm_vm_supported_cpuid(const struct kvm_vm *vm, struct kvm_cpuid_leaf **leaves,
                           unsigned *nr_leaves, struct err *e)
{
    struct kvm_cpuid2 *table = NULL;
    int ret = -E2BIG;

    for (uint32_t nr = CPUID_LEAVES_FIRST; ret == -E2BIG && nr <= CPUID_LEAVES_MAX; nr *= 2) {
        free(table);
        table = calloc(1, sizeof(*table) + nr * sizeof(table->entries[0]));
        if (!table)
            return err_set(e, ENOMEM, "out of memory");
        table->nent = nr;
        ret = ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, table) < 0 ? -errno : 0;
    }
    if (ret < 0) {
        free(table);
        return err_set(e, -ret, "KVM_GET_SUPPORTED_CPUID: %s", strerror(-ret));
    }
    *leaves = copy_leaves(table);
    *nr_leaves = table->nent;
    free(table);
    return *leaves ? 0 : err_set(e, ENOMEM, "out of memory");
}
