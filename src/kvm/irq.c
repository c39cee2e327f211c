/* SPDX-License-Identifier: MIT */
/* Interrupt routes, irqfds and ioeventfds.
 *
 * KVM takes the table of routes only as a whole.  kvm_vm.routes is the table KVM
 * accepted last; a change is made in a copy, which replaces it once KVM agrees.
 * The lock spans the ioctl, or two changes could reach KVM in the wrong order. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm/internal.h"

/* Message address and data: Intel SDM volume 3, "Message Signalled Interrupts";
 * with KVM_X2APIC_API_USE_32BIT_IDS the upper half of the address holds bits 8
 * to 31 of the destination. */
#define MSI_ADDRESS_BASE 0xfee00000u
#define MSI_DEST_SHIFT   12
#define VECTOR_MIN       16

static size_t routing_bytes(uint32_t nr)
{
    return sizeof(struct kvm_irq_routing) + nr * sizeof(struct kvm_irq_routing_entry);
}

static struct kvm_irq_routing_entry *find_entry(struct kvm_irq_routing *table, uint32_t gsi)
{
    for (uint32_t i = 0; i < table->nr; i++)
        if (table->entries[i].gsi == gsi)
            return &table->entries[i];
    return NULL;
}

static bool route_is_valid(const struct kvm_vm *vm, const struct kvm_irq_route *r)
{
    return r->vector >= VECTOR_MIN && r->gsi < vm->nr_gsis && r->apic_id <= vm->apic_id_max;
}

int kvm_irq_routes_set(struct kvm_vm *vm, const struct kvm_irq_route *routes, unsigned nr_routes)
{
    struct kvm_irq_routing *table;
    uint32_t nr_old;
    int ret = 0;

    for (unsigned i = 0; i < nr_routes; i++)
        if (!route_is_valid(vm, &routes[i]))
            return -EINVAL;

    pthread_mutex_lock(&vm->routes_lock);
    nr_old = vm->routes ? vm->routes->nr : 0;
    table = calloc(1, routing_bytes(nr_old + nr_routes));
    if (!table) {
        ret = -ENOMEM;
        goto out;
    }
    if (nr_old)
        memcpy(table, vm->routes, routing_bytes(nr_old));
    for (unsigned i = 0; i < nr_routes; i++) {
        struct kvm_irq_routing_entry *entry = find_entry(table, routes[i].gsi);

        if (!entry)
            entry = &table->entries[table->nr++];
        *entry = (struct kvm_irq_routing_entry){
            .gsi = routes[i].gsi,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi.address_lo = MSI_ADDRESS_BASE | (routes[i].apic_id & 0xff) << MSI_DEST_SHIFT,
            .u.msi.address_hi = routes[i].apic_id & ~0xffu,
            .u.msi.data = routes[i].vector,
        };
    }
    if (ioctl(vm->fd, KVM_SET_GSI_ROUTING, table) < 0) {
        ret = -errno;
        free(table);
        goto out;
    }
    free(vm->routes);
    vm->routes = table;
out:
    pthread_mutex_unlock(&vm->routes_lock);
    return ret;
}

int kvm_irq_route_set(struct kvm_vm *vm, uint32_t gsi, uint32_t apic_id, uint8_t vector)
{
    struct kvm_irq_route route = { .gsi = gsi, .apic_id = apic_id, .vector = vector };

    return kvm_irq_routes_set(vm, &route, 1);
}

static int irqfd(struct kvm_vm *vm, int fd, uint32_t gsi, uint32_t flags)
{
    struct kvm_irqfd arg = { .fd = (uint32_t)fd, .gsi = gsi, .flags = flags };

    return ioctl(vm->fd, KVM_IRQFD, &arg) < 0 ? -errno : 0;
}

int kvm_irqfd_add(struct kvm_vm *vm, int fd, uint32_t gsi)
{
    if (gsi >= vm->nr_gsis)
        return -EINVAL;
    return irqfd(vm, fd, gsi, 0);
}

int kvm_irqfd_remove(struct kvm_vm *vm, int fd, uint32_t gsi)
{
    return irqfd(vm, fd, gsi, KVM_IRQFD_FLAG_DEASSIGN);
}

static int ioeventfd(struct kvm_vm *vm, int fd, uint16_t port, uint32_t value, uint32_t flags)
{
    struct kvm_ioeventfd arg = {
        .addr = port, .len = sizeof(value), .datamatch = value, .fd = fd,
        .flags = KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH | flags,
    };

    return ioctl(vm->fd, KVM_IOEVENTFD, &arg) < 0 ? -errno : 0;
}

int kvm_ioeventfd_add(struct kvm_vm *vm, int fd, uint16_t port, uint32_t value)
{
    return ioeventfd(vm, fd, port, value, 0);
}

int kvm_ioeventfd_remove(struct kvm_vm *vm, int fd, uint16_t port, uint32_t value)
{
    return ioeventfd(vm, fd, port, value, KVM_IOEVENTFD_FLAG_DEASSIGN);
}
