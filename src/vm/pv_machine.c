/* SPDX-License-Identifier: MIT */
#include "vm/pv_machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "kvm/probe.h"
#include "x86/cpuid_pv.h"
#include "x86/meltdown.h"
#include "xen/hypercall_page.h"

#define MSR_IA32_TSC 0x10
#define XEN_VERSION  (4u << 16 | 17)
#define ANSWER_SECONDS 10       /* another guest's process: it is stopped, or worse */

/* KVM's own pages: anywhere below 4 GiB that shim/abi.h leaves alone */
#define KVM_OWN_GPA  0xfffbc000u

#define CR0_VALUE  0x80050033u      /* PG AM WP NE ET MP PE */
#define CR4_VALUE  0x00000620u      /* OSXMMEXCPT OSFXSR PAE */
#define CR4_OSXSAVE ((uint64_t)1 << 18)
#define EFER_VALUE 0x00000d01u      /* NXE LMA LME SCE */
#define APIC_BASE  0xfee00c00u      /* enabled, x2APIC */
#define APIC_BSP   0x100u

static size_t read_small_file(const char *path, char *buf, size_t size)
{
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(buf, 1, size - 1, f) : 0;

    if (f)
        fclose(f);
    buf[n] = 0;
    return n;
}

static unsigned choose_ring(const struct vm_config *c, const struct kernel_image *k,
                            enum kvm_kind kind)
{
    char meltdown[128];

    if (c->ring != VM_RING_AUTO)
        return c->ring == VM_RING_1 ? 1 : 3;
    if (kind != KVM_KIND_HARDWARE || strcmp(k->notes.guest_os, "linux"))
        return 3;
    return x86_meltdown_affected(read_small_file(X86_MELTDOWN_PATH, meltdown, sizeof(meltdown)) ?
                                 meltdown : NULL) ? 3 : 1;
}

static bool host_tsc_stable(void)
{
    char name[32];

    read_small_file("/sys/devices/system/clocksource/clocksource0/current_clocksource", name,
                    sizeof(name));
    return !strncmp(name, "tsc", 3);
}

static int open_ramdisk(const struct vm_config *c, int *fd, uint64_t *bytes, struct err *e)
{
    struct stat st;

    *fd = -1;
    *bytes = 0;
    if (!c->ramdisk)
        return 0;
    *fd = open(c->ramdisk, O_RDONLY | O_CLOEXEC);
    if (*fd < 0 || fstat(*fd, &st)) {
        err_at(e, c->ramdisk, 0, "ramdisk");
        return err_set(e, errno, "cannot be read: %s", strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        err_at(e, c->ramdisk, 0, "ramdisk");
        return err_set(e, EINVAL, "is no regular file");
    }
    *bytes = (uint64_t)st.st_size;
    return 0;
}

static int build(struct pv_machine *m, const struct vm_config *c, const struct kernel_image *k,
                 struct err *e)
{
    struct pv_build_params p = {
        .mem = &m->mem,
        .first_mfn = m->memory.boot->first_mfn,
        .nr_pages = m->memory.boot->nr_pages,
        .kernel = k,
        .ramdisk_name = c->ramdisk,
        .cmdline = c->cmdline,
        .shared_info_mfn = (SHIM_GPA + SHIM_OFF_SHARED_INFO) >> PAGE_SHIFT,
        .store_port = PV_STORE_PORT,
        .console_port = PV_CONSOLE_PORT,
        .user_bit = m->ring == 3,
        .fill_hypercall_page = hypercall_page_fill,
    };
    int rc;

    _Static_assert(sizeof(p.hole_l4) == sizeof(m->memory.boot->hole_l4), "hole");
    memcpy(p.hole_l4, m->memory.boot->hole_l4, sizeof(p.hole_l4));
    rc = open_ramdisk(c, &p.ramdisk_fd, &p.ramdisk_bytes, e);
    if (!rc)
        rc = pv_build(&p, &m->built, e);
    if (p.ramdisk_fd >= 0)
        close(p.ramdisk_fd);
    return rc;
}

/* CPUID of all vCPUs and what the shim shows the kernel. */
static int set_cpuid(struct pv_machine *m, uint32_t tsc_khz, bool tsc_stable, struct err *e)
{
    struct x86_cpuid_table hardware, kernel;
    struct kvm_cpuid_leaf *leaves;
    struct shim_boot *b = m->memory.boot;
    unsigned nr;
    int rc = kvm_vm_supported_cpuid(m->vm, &leaves, &nr, e);

    if (rc)
        return rc;
    _Static_assert(sizeof(struct kvm_cpuid_leaf) == sizeof(struct x86_cpuid_entry), "cpuid");
    _Static_assert(sizeof(struct shim_cpuid) == sizeof(struct x86_cpuid_entry), "cpuid");
    rc = cpuid_pv_tables(&(struct cpuid_pv_params){
                             .supported = (const struct x86_cpuid_entry *)leaves,
                             .nr_supported = nr, .tsc_deadline = true,
                             .tsc_stable = tsc_stable, .tsc_khz = tsc_khz,
                             .xen_version = XEN_VERSION,
                         }, &hardware, &kernel, e);
    b->xcr0 = cpuid_pv_xcr0((const struct x86_cpuid_entry *)leaves, nr);
    free(leaves);
    if (rc)
        return rc;
    b->nr_cpuid = kernel.nr;
    memcpy(b->cpuid, kernel.entry, kernel.nr * sizeof(b->cpuid[0]));
    for (unsigned i = 0; i < m->nr_vcpus && !rc; i++) {
        cpuid_pv_set_apic_id(&hardware, i);
        rc = kvm_vcpu_set_cpuid(m->vcpu[i], (const struct kvm_cpuid_leaf *)hardware.entry,
                                hardware.nr);
    }
    return rc ? err_set(e, -rc, "KVM refuses the CPUID of the guest") : 0;
}

/* A vCPU at the shim's first instruction: long mode, flat, interrupts off. */
static int set_state(struct pv_machine *m, unsigned i)
{
    const struct kvm_segment code = { .limit = ~0u, .selector = 0x08, .type = 11, .present = 1,
                                      .s = 1, .l = 1, .g = 1 };
    const struct kvm_segment data = { .limit = ~0u, .selector = 0x10, .type = 3, .present = 1,
                                      .s = 1, .db = 1, .g = 1 };
    struct kvm_regs regs = { .rip = m->memory.entry, .rflags = 2, .rdi = i };
    struct kvm_sregs s;
    int rc = kvm_vcpu_get_sregs(m->vcpu[i], &s);

    if (rc)
        return rc;
    s.cr0 = CR0_VALUE;
    s.cr3 = m->memory.boot->parking_cr3;
    s.cr4 = CR4_VALUE | (m->memory.boot->xcr0 ? CR4_OSXSAVE : 0);
    s.efer = EFER_VALUE;
    s.cs = code;
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    s.apic_base = APIC_BASE | (i ? 0 : APIC_BSP);
    rc = kvm_vcpu_set_sregs(m->vcpu[i], &s);
    if (!rc && m->memory.boot->xcr0)
        rc = kvm_vcpu_set_xcr0(m->vcpu[i], m->memory.boot->xcr0);
    if (!rc)
        rc = kvm_vcpu_set_runnable(m->vcpu[i]);
    if (!rc)
        rc = kvm_vcpu_set_regs(m->vcpu[i], &regs);
    return rc;
}

static int create_vcpus(struct pv_machine *m, unsigned nr, struct err *e)
{
    struct kvm_vm_params p = { .mem = &m->mem, .own = gpa(KVM_OWN_GPA), .nr_vcpus = nr };
    struct shim_boot *b = m->memory.boot;
    struct timespec now;
    uint32_t tsc_khz;
    int8_t shift;
    int rc = kvm_vm_create(&p, &m->vm, e);

    for (unsigned i = 0; i < nr && !rc; i++) {
        rc = kvm_vcpu_create(m->vm, i, &m->vcpu[i], e);
        m->nr_vcpus += !rc;
    }
    if (rc)
        return rc;
    rc = kvm_vcpu_get_tsc_khz(m->vcpu[0], &tsc_khz);
    if (rc || !tsc_khz)
        return err_set(e, rc ? -rc : ENOTSUP, "KVM does not tell the rate of the TSC");
    if (host_tsc_stable())
        b->flags |= SHIM_FLAG_TSC_STABLE;
    rc = set_cpuid(m, tsc_khz, b->flags & SHIM_FLAG_TSC_STABLE, e);
    if (rc)
        return rc;
    for (unsigned i = 0; i < nr && !rc; i++)
        rc = set_state(m, i);
    if (rc)
        return err_set(e, -rc, "KVM refuses the state of a vCPU");
    rc = kvm_vcpu_get_msr(m->vcpu[0], MSR_IA32_TSC, &b->tsc_start);
    if (rc)
        return err_set(e, -rc, "KVM does not tell the TSC");
    clock_gettime(CLOCK_REALTIME, &now);
    b->wallclock_sec = (uint64_t)now.tv_sec;
    b->wallclock_nsec = (uint32_t)now.tv_nsec;
    b->tsc_khz = tsc_khz;
    x86_tsc_scale(tsc_khz, &b->tsc_to_ns_mul, &shift);
    b->tsc_shift = shift;
    return 0;
}

_Static_assert(VM_GRANT_FRAMES_MAX <= GNTTAB_FRAMES_MAX, "the shim's region has room");

static void fill_boot(struct pv_machine *m, const struct vm_config *c, unsigned domid)
{
    struct shim_boot *b = m->memory.boot;

    b->flags |= m->ring == 1 ? SHIM_FLAG_KERNEL_RING1 : SHIM_FLAG_USER_BIT | SHIM_FLAG_TWO_ROOTS;
    b->nr_vcpus = m->nr_vcpus;
    b->domid = domid;
    memcpy(b->uuid, c->uuid, sizeof(b->uuid));
    b->virt_base = m->built.virt_base;
    b->initial_pages = (m->built.virt_end - m->built.virt_base) >> PAGE_SHIFT;
    b->cr3 = m->built.l4_gpa.v;
    b->rip = m->built.entry;
    b->rsp = m->built.stack_ptr;
    b->rsi = m->built.start_info_va;
    b->store_port = PV_STORE_PORT;
    b->console_port = PV_CONSOLE_PORT;
    b->store_mfn = (uint32_t)m->built.store_mfn;
    b->console_mfn = (uint32_t)m->built.console_mfn;
    b->evtchn_port_max = c->max_event_channels;
    b->grant_frames_max = c->max_grant_frames;
    b->grant_version_max = c->max_grant_version;
    m->memory.grants.nr_frames_max = c->max_grant_frames;
}

/* The n bytes in the vCPU's text, copied before they are looked at; 0-terminated. */
static size_t take_text(const struct pv_machine *m, struct kvm_vcpu *v, uint32_t n, char *to)
{
    n = min_of(n, (uint32_t)SHIM_TEXT_BYTES);
    memcpy(to, pv_memory_vcpu_status(&m->memory, kvm_vcpu_id(v))->text, n);
    to[n] = 0;
    return n;
}

static void call_about_peers(const struct pv_machine *m, struct kvm_vcpu *v)
{
    uint8_t *text = pv_memory_vcpu_status(&m->memory, kvm_vcpu_id(v))->text;
    struct shim_peer_call c;

    memcpy(&c, text, sizeof(c));
    if (m->peers)
        pv_peers_call(m->peers, &c);
    else
        c.result = -ESRCH;
    memcpy(text, &c, sizeof(c));
}

static enum kvm_next io_out(void *arg, struct kvm_vcpu *v, uint16_t port, unsigned size_bytes,
                            uint32_t data)
{
    struct pv_machine *m = arg;
    char text[SHIM_TEXT_BYTES + 1];
    uint64_t frame[SHIM_TEXT_BYTES / sizeof(uint64_t)];

    switch (port) {
    case SHIM_IO_CONSOLE:
        m->ops->console(m->arg, text, take_text(m, v, data, text));
        return KVM_NEXT_RUN;
    case SHIM_IO_LOG:
        take_text(m, v, data, text);
        m->ops->log(m->arg, text);
        return KVM_NEXT_RUN;
    case SHIM_IO_SHUTDOWN:
        m->ops->shutdown(m->arg, data);
        return KVM_NEXT_LEAVE;
    case SHIM_IO_CRASH:
        take_text(m, v, data, text);
        m->ops->crash(m->arg, text);
        return KVM_NEXT_LEAVE;
    case SHIM_IO_LINK:
        pv_links_changed(m->links, data);
        return KVM_NEXT_RUN;
    case SHIM_IO_PEER:
        call_about_peers(m, v);
        return KVM_NEXT_RUN;
    case SHIM_IO_RELEASE:
        data = min_of(data, (uint32_t)array_size(frame));
        memcpy(frame, pv_memory_vcpu_status(&m->memory, kvm_vcpu_id(v))->text,
               data * sizeof(frame[0]));
        for (uint32_t i = 0; i < data; i++)
            pv_memory_release_frame(&m->memory, frame[i]);
        return KVM_NEXT_RUN;
    default:
        return KVM_NEXT_RUN;    /* a doorbell nobody listens to (any more) */
    }
}

static uint32_t io_in(void *arg, struct kvm_vcpu *v, uint16_t port, unsigned size_bytes)
{
    struct pv_machine *m = arg;

    if (port >= XEN_CALL_IO_PORT && port - XEN_CALL_IO_PORT < XEN_HOSTLINK_MAX)
        return pv_links_call(m->links, port - XEN_CALL_IO_PORT, kvm_vcpu_id(v));
    return ~0u;
}

static void failure(void *arg, struct kvm_vcpu *v, const char *text)
{
    struct pv_machine *m = arg;

    m->ops->crash(m->arg, text);
}

static const struct kvm_exit_ops exit_ops = { .io_out = io_out, .io_in = io_in,
                                              .failure = failure };

static void kernel_expected(void *arg, uint64_t offset, uint64_t bytes)
{
    struct pv_machine *m = arg;

    pv_populate_start(&m->populate, m->memory.ram + offset, bytes);
}

/* Memory with the shim, the kernel and all that it begins with. */
static int fill_memory(struct pv_machine *m, const struct vm_config *c, struct err *e)
{
    struct kernel_room room = { .expect = kernel_expected, .arg = m };
    struct kernel_image kernel = { 0 };
    struct kvm_probe probe;
    int rc = pv_memory_create(&m->mem, c->memory_bytes >> PAGE_SHIFT,
                              c->maxmem_bytes >> PAGE_SHIFT, &m->memory, e);

    if (rc)
        return rc;
    room.ram = m->memory.ram;
    room.bytes = m->memory.boot->nr_pages << PAGE_SHIFT;
    rc = kernel_image_load(c->kernel, &room, &kernel, e);
    if (!rc) {
        kvm_probe(&probe);
        m->ring = choose_ring(c, &kernel, probe.kind);
        rc = pv_memory_fill(&m->memory, m->ring == 1 ? PV_M2P_KERNEL_RING1 :
                            probe.kind == KVM_KIND_SOFTWARE ? PV_M2P_SOFTWARE_KVM :
                            PV_M2P_KERNEL_RING3, e);
    }
    if (!rc)
        rc = build(m, c, &kernel, e);
    kernel_image_free(&kernel);
    pv_populate_end(&m->populate);
    return rc;
}

static int create(struct pv_machine *m, const struct vm_config *c, unsigned domid, struct err *e)
{
    int rc = fill_memory(m, c, e);

    if (!rc)
        rc = create_vcpus(m, c->maxvcpus, e);
    if (!rc)
        fill_boot(m, c, domid);
    if (!rc)
        rc = kvm_vcpu_threads_start(m->vcpu, m->nr_vcpus, &exit_ops, m, &m->threads, e);
    if (!rc)    /* before a vCPU leaves the VM: they are parked */
        rc = pv_links_create(m->vm, m->nr_vcpus, kvm_vcpu_threads_cpus(m->threads),
                             &m->memory.shared, &m->links, e);
    return rc;
}

int pv_machine_create(const struct vm_config *c, unsigned domid,
                      const struct pv_machine_ops *ops, void *arg,
                      struct pv_machine **out, struct err *e)
{
    struct pv_machine *m = calloc(1, sizeof(*m));
    int rc;

    if (!m)
        return err_set(e, ENOMEM, "out of memory");
    m->ops = ops;
    m->arg = arg;
    guest_mem_init(&m->mem);
    rc = create(m, c, domid, e);
    if (rc) {
        pv_machine_free(m);
        return rc;
    }
    *out = m;
    return 0;
}

int pv_machine_meet(struct pv_machine *m, const struct pv_meeting *with, struct err *e)
{
    struct pv_peers_params p = {
        .domid = m->memory.boot->domid, .connect = with->connect, .arg = with->arg,
        .listen_fd = with->listen_fd, .answer_seconds = ANSWER_SECONDS,
        .link_ops = &pv_links_peer_ops, .links = m->links,
        .mem = &m->mem, .grants = m->memory.grants, .ram_fd = m->memory.ram_fd,
        .first_mfn = m->memory.boot->first_mfn,
        .ram_pages = m->memory.ram_bytes >> PAGE_SHIFT,
    };
    int rc = 0;

    for (unsigned w = 0; w < PV_NR_PEER_WINDOWS && !rc; w++) {
        m->window[w] = p.window[w] = pv_peers_window();
        rc = m->window[w] ? kvm_vm_show(m->vm, gpa(PEER_GPA + w * PEER_BYTES), m->window[w],
                                        PEER_BYTES, w == PV_WINDOW_READ, e)
                          : err_set(e, ENOMEM, "out of memory");
    }
    if (!rc)
        return pv_peers_create(&p, &m->peers, e);
    close(with->listen_fd);
    return rc;
}

void pv_machine_free(struct pv_machine *m)
{
    if (!m)
        return;
    if (m->peers)
        pv_peers_cut(m->peers);
    kvm_vcpu_threads_stop(m->threads);
    pv_peers_free(m->peers);
    pv_links_free(m->links);
    for (unsigned i = 0; i < m->nr_vcpus; i++)
        kvm_vcpu_free(m->vcpu[i]);
    kvm_vm_free(m->vm);
    for (unsigned w = 0; w < PV_NR_PEER_WINDOWS; w++)
        pv_peers_window_free(m->window[w]);
    guest_mem_free(&m->mem);
    free(m);
}
