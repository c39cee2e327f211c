/* SPDX-License-Identifier: MIT */
/* A PV guest: its machine, its devices, its life.
 *
 * Everything here runs on the loop's thread.  vCPU threads leave what they have to
 * say in a mailbox, under its lock, and wake the loop; the first reason to stop
 * is the one that counts. */
#include "vm/guest.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/log.h"
#include "blk/qos_limit.h"
#include "dev/xen_console.h"
#include "vm/guest_disks.h"
#include "vm/pv_machine.h"
#include "xen/gnttab_host.h"
#include "xen/xs_client.h"
#include "xen/xs_domain.h"
#include "xen/xs_ring.h"

#include <xen/sched.h>

#define MAILBOX_TEXT_BYTES 65536        /* console_io output not yet taken; more is dropped */
#define STOP_TEXT_BYTES    4096

struct mailbox {
    pthread_mutex_t lock;
    int fd;                     /* eventfd: something came */
    size_t text_bytes;
    char text[MAILBOX_TEXT_BYTES];
    bool stopped;
    enum vm_stop why;
    char why_text[STOP_TEXT_BYTES];
};

struct vm_guest {
    struct vm_guest_params p;
    char *xenstore_socket;
    struct pv_machine *machine;
    struct xs_client *xs;
    bool introduced, filled;
    struct xs_ring *ring;
    struct gnttab_host grants;
    bool grants_ready;
    struct qos_groups *qos_groups;
    struct xen_hostport store_port, console_port;
    struct xen_console *console;
    struct guest_disks disks;
    struct mailbox *mail;
    struct loop_fd *mail_watch;
    bool paused, stopped;
    enum vm_stop why;
    uint64_t booted_ns;
};

static void mail_wake(struct mailbox *b)
{
    const uint64_t one = 1;

    if (write(b->fd, &one, sizeof(one)) < 0)
        return;     /* the counter is full: the loop is awake */
}

static void mail_stop(struct mailbox *b, enum vm_stop why, const char *text)
{
    pthread_mutex_lock(&b->lock);
    if (!b->stopped) {
        b->stopped = true;
        b->why = why;
        snprintf(b->why_text, sizeof(b->why_text), "%s", text);
    }
    pthread_mutex_unlock(&b->lock);
    mail_wake(b);
}

static void machine_console(void *arg, const void *text, size_t bytes)
{
    struct vm_guest *g = arg;
    struct mailbox *b = g->mail;

    pthread_mutex_lock(&b->lock);
    bytes = min_of(bytes, sizeof(b->text) - b->text_bytes);
    memcpy(b->text + b->text_bytes, text, bytes);
    b->text_bytes += bytes;
    pthread_mutex_unlock(&b->lock);
    mail_wake(b);
}

static void machine_log(void *arg, const char *text)
{
    log_info("%s", text);
}

static void machine_shutdown(void *arg, uint32_t reason)
{
    struct vm_guest *g = arg;
    char text[64] = "";

    if (reason > SHUTDOWN_MAX) {
        snprintf(text, sizeof(text), "the guest shut down with unknown reason %u", reason);
        reason = SHUTDOWN_crash;
    }
    mail_stop(g->mail, (enum vm_stop)reason, text);
}

static void machine_crash(void *arg, const char *text)
{
    struct vm_guest *g = arg;

    mail_stop(g->mail, VM_STOP_CRASH, text);
}

static const struct pv_machine_ops machine_ops = {
    .console = machine_console, .log = machine_log, .shutdown = machine_shutdown,
    .crash = machine_crash,
};

static void console_text_take(struct vm_guest *g)
{
    char text[4096];
    size_t n;

    do {
        pthread_mutex_lock(&g->mail->lock);
        n = min_of(g->mail->text_bytes, sizeof(text));
        memcpy(text, g->mail->text, n);
        g->mail->text_bytes -= n;
        memmove(g->mail->text, g->mail->text + n, g->mail->text_bytes);
        pthread_mutex_unlock(&g->mail->lock);
        if (n && g->console)
            xen_console_write(g->console, text, n);
    } while (n);
}

static void mail_came(void *arg, uint32_t events)
{
    struct vm_guest *g = arg;
    bool stopped;
    uint64_t n;

    if (read(g->mail->fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
        return;
    console_text_take(g);
    pthread_mutex_lock(&g->mail->lock);
    stopped = g->mail->stopped;
    pthread_mutex_unlock(&g->mail->lock);
    if (!stopped || g->stopped)
        return;
    g->stopped = true;
    g->why = g->mail->why;      /* never written again */
    kvm_vcpu_threads_pause(g->machine->threads);
    console_text_take(g);
    xen_console_drain(g->console);
    g->p.stopped(g->p.arg, g->why, g->mail->why_text);
}

static void store_died(void *arg)
{
    struct vm_guest *g = arg;

    log_error("the xenstore daemon has gone: devices of guest %u cannot change any more",
              g->p.domid);
}

static int store_connect_as_guest(void *arg, struct err *e)
{
    struct vm_guest *g = arg;

    return xs_client_connect_domain_fd(g->xenstore_socket, g->p.domid, e);
}

/* Before anything that takes time: the daemon ends when nobody is connected. */
static int connect_store(struct vm_guest *g, struct err *e)
{
    int rc = xs_client_connect(g->p.loop, g->xenstore_socket, &g->xs, e);

    if (!rc)
        xs_client_on_death(g->xs, store_died, g);
    return rc;
}

static int create_store(struct vm_guest *g, struct err *e)
{
    const struct vm_config *c = g->p.config;
    const struct pv_build_result *built = &g->machine->built;
    struct timespec now;
    int rc;

    clock_gettime(CLOCK_REALTIME, &now);
    rc = xs_domain_fill(g->xs, &(struct xs_domain_values){
        .domid = g->p.domid, .name = c->name, .maxmem_bytes = c->maxmem_bytes,
        .target_bytes = c->memory_bytes, .nr_vcpus = c->vcpus, .nr_vcpus_max = c->maxvcpus,
        .kernel = c->kernel, .ramdisk = c->ramdisk, .cmdline = c->cmdline,
        .store_gfn = built->store_mfn, .console_gfn = built->console_mfn,
        .store_port = PV_STORE_PORT, .console_port = PV_CONSOLE_PORT,
        .start_time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
        .uuid = { c->uuid[0], c->uuid[1], c->uuid[2], c->uuid[3], c->uuid[4], c->uuid[5],
                  c->uuid[6], c->uuid[7], c->uuid[8], c->uuid[9], c->uuid[10], c->uuid[11],
                  c->uuid[12], c->uuid[13], c->uuid[14], c->uuid[15] },
    }, e);
    if (rc)
        return rc;
    g->filled = true;
    rc = xs_client_introduce(g->xs, g->p.domid, built->store_mfn, PV_STORE_PORT);
    if (rc)
        return err_set(e, -rc, "the xenstore daemon does not take guest %u: %s", g->p.domid,
                       strerror(-rc));
    g->introduced = true;
    rc = pv_links_fixed(g->machine->links, PV_STORE_LINK, PV_STORE_PORT, &g->store_port, e);
    if (rc)
        return rc;
    return xs_ring_create(&(struct xs_ring_params){
        .loop = g->p.loop, .port = &g->store_port, .domid = g->p.domid,
        .page = guest_mem_ptr(&g->machine->mem, gpa(built->store_mfn << PAGE_SHIFT), PAGE_SIZE),
        .connect = store_connect_as_guest, .arg = g,
    }, &g->ring, e);
}

static int create_console(struct vm_guest *g, struct err *e)
{
    void *page = guest_mem_ptr(&g->machine->mem,
                               gpa(g->machine->built.console_mfn << PAGE_SHIFT), PAGE_SIZE);
    int rc = pv_links_fixed(g->machine->links, PV_CONSOLE_LINK, PV_CONSOLE_PORT,
                            &g->console_port, e);

    if (rc)
        return rc;
    rc = xen_console_create(g->p.loop, page, &g->console_port, g->p.console_log_fd, &g->console);
    return rc ? err_set(e, -rc, "the console cannot be set up: %s", strerror(-rc)) : 0;
}

static void disk_detached(void *arg, unsigned vdev_number)
{
    struct vm_guest *g = arg;

    g->p.disk_detached(g->p.arg, vdev_number);
}

static int create_disks(struct vm_guest *g, struct err *e)
{
    const struct vm_config *c = g->p.config;
    int rc = gnttab_host_init(&g->grants, &g->machine->mem, &g->machine->memory.grants);

    if (rc)
        return err_set(e, -rc, "out of memory");
    g->grants_ready = true;
    g->qos_groups = qos_groups_create();
    if (!g->qos_groups)
        return err_set(e, ENOMEM, "out of memory");
    g->disks = (struct guest_disks){
        .common = {
            .loop = g->p.loop, .xs = g->xs, .grants = &g->grants, .port_ops = &pv_links_ops,
            .port_owner = g->machine->links, .domid = g->p.domid,
            .disk = { .qos_groups = g->qos_groups, .run_dir = g->p.run_dir },
            .max_queues = min_of(c->max_queues ? c->max_queues : c->maxvcpus, XEN_VBD_QUEUES_MAX),
            .poll_max_ns = XEN_VBD_POLL_MAX_NS,
        },
        .config = c, .detached = disk_detached, .arg = g,
    };
    for (unsigned i = 0; i < c->nr_disks && !rc; i++) {
        rc = guest_disks_add(&g->disks, &c->disks[i], i == 0, e);
        if (rc)
            err_at(e, c->file, c->disks[i].line, "disk");
    }
    return rc;
}

static int create_meeting(struct vm_guest *g, struct err *e)
{
    struct pv_meeting m = { .connect = g->p.peer_connect, .arg = g->p.arg,
                            .listen_fd = g->p.peer_listen(g->p.arg, e) };

    return m.listen_fd < 0 ? m.listen_fd : pv_machine_meet(g->machine, &m, e);
}

static int create_mailbox(struct vm_guest *g, struct err *e)
{
    g->mail = calloc(1, sizeof(*g->mail));
    if (!g->mail)
        return err_set(e, ENOMEM, "out of memory");
    pthread_mutex_init(&g->mail->lock, NULL);
    g->mail->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (g->mail->fd >= 0)
        g->mail_watch = loop_fd_add(g->p.loop, g->mail->fd, EPOLLIN, mail_came, g);
    return g->mail_watch ? 0 : err_set(e, errno, "cannot wait for the guest: %s",
                                       strerror(errno));
}

int vm_guest_create(const struct vm_guest_params *p, struct vm_guest **out, struct err *e)
{
    struct vm_guest *g = calloc(1, sizeof(*g));
    int rc;

    if (!g)
        return err_set(e, ENOMEM, "out of memory");
    g->p = *p;
    g->paused = true;
    g->xenstore_socket = strdup(p->xenstore_socket);
    rc = g->xenstore_socket ? create_mailbox(g, e) : err_set(e, ENOMEM, "out of memory");
    if (!rc)
        rc = connect_store(g, e);
    if (!rc)
        rc = pv_machine_create(p->config, p->domid, &machine_ops, g, &g->machine, e);
    if (!rc)
        rc = create_store(g, e);
    if (!rc)
        rc = create_console(g, e);
    if (!rc)
        rc = create_disks(g, e);
    if (!rc)
        rc = create_meeting(g, e);
    if (rc) {
        vm_guest_destroy(g);
        return rc;
    }
    *out = g;
    return 0;
}

void vm_guest_unpause(struct vm_guest *g)
{
    if (!g->paused || g->stopped)
        return;
    if (!g->booted_ns)
        g->booted_ns = loop_now_ns();
    g->paused = false;
    kvm_vcpu_threads_resume(g->machine->threads);
}

void vm_guest_pause(struct vm_guest *g)
{
    if (g->paused || g->stopped)
        return;
    kvm_vcpu_threads_pause(g->machine->threads);
    g->paused = true;
}

int vm_guest_ask(struct vm_guest *g, const char *request, struct err *e)
{
    char path[64];
    int rc;

    snprintf(path, sizeof(path), "/local/domain/%u/control/shutdown", g->p.domid);
    rc = xs_client_write(g->xs, XS_NO_TRANSACTION, path, request);
    return rc ? err_set(e, -rc, "%s cannot be written: %s", path, strerror(-rc)) : 0;
}

int vm_guest_disk_attach(struct vm_guest *g, const struct vm_disk *d, struct err *e)
{
    return guest_disks_add(&g->disks, d, false, e);
}

int vm_guest_disk_detach(struct vm_guest *g, unsigned vdev_number, bool force, struct err *e)
{
    return guest_disks_detach(&g->disks, vdev_number, force, e);
}

int vm_guest_disk_resize(struct vm_guest *g, unsigned vdev_number, uint64_t *size_bytes,
                         struct err *e)
{
    return guest_disks_resize(&g->disks, vdev_number, size_bytes, e);
}

unsigned vm_guest_disk_list(const struct vm_guest *g, struct vm_guest_disk *out)
{
    return guest_disks_list(&g->disks, out);
}

void vm_guest_destroy(struct vm_guest *g)
{
    if (!g)
        return;
    if (g->machine && g->machine->peers)
        pv_peers_cut(g->machine->peers);    /* a vCPU may wait for one */
    if (g->machine && g->machine->threads)
        kvm_vcpu_threads_pause(g->machine->threads);
    guest_disks_remove_all(&g->disks);
    qos_groups_free(g->qos_groups);
    if (g->grants_ready)
        gnttab_host_free(&g->grants);
    xen_console_free(g->console);
    xs_ring_free(g->ring);
    if (g->filled)
        xs_domain_remove(g->xs, g->p.domid, g->p.config->uuid);
    if (g->introduced)
        xs_client_release(g->xs, g->p.domid);
    xs_client_free(g->xs);
    pv_machine_free(g->machine);
    if (g->mail) {
        loop_fd_remove(g->mail_watch);
        if (g->mail->fd >= 0)
            close(g->mail->fd);
        pthread_mutex_destroy(&g->mail->lock);
        free(g->mail);
    }
    free(g->xenstore_socket);
    free(g);
}

void vm_guest_info(const struct vm_guest *g, struct vm_guest_info *info)
{
    const struct pv_machine *m = g->machine;
    uint64_t up = load_relaxed(&m->memory.status->vcpus_up);
    uint64_t pages = min_of(load_relaxed(&m->memory.status->nr_pages),
                            m->memory.ram_bytes >> PAGE_SHIFT);
    bool all_blocked = true;

    *info = (struct vm_guest_info){
        .paused = g->paused, .shutdown = g->stopped && g->why != VM_STOP_CRASH,
        .crashed = g->stopped && g->why == VM_STOP_CRASH, .why = g->why,
        .vcpus_max = m->nr_vcpus, .booted_ns = g->booted_ns, .ring = m->ring,
        .memory_bytes = (pages ? pages : g->p.config->memory_bytes >> PAGE_SHIFT) << PAGE_SHIFT,
    };
    for (unsigned i = 0; i < m->nr_vcpus; i++) {
        info->cpu_time_ns += kvm_vcpu_threads_cpu_time_ns(m->threads, i);
        if (!(up >> i & 1))
            continue;
        info->vcpus_online++;
        if (!load_relaxed(&pv_memory_vcpu_status(&m->memory, i)->blocked))
            all_blocked = false;
    }
    if (!info->vcpus_online)        /* before the first instruction of the shim */
        info->vcpus_online = g->p.config->vcpus;
    info->blocked = !g->paused && !g->stopped && all_blocked && up;
    info->running = !g->paused && !g->stopped && !all_blocked;
}

struct xen_console *vm_guest_console(struct vm_guest *g)
{
    return g->console;
}
