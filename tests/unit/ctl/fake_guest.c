/* SPDX-License-Identifier: MIT */
#include "fake_guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <xen/io/console.h>

#include "dev/xen_console.h"

struct vm_guest {
    struct vm_guest_params p;
    struct fake_guest_seen seen;
    bool running, stopped;
    enum vm_stop why;
    char why_text[64];
    struct loop_timer *stop_timer, *detach_timer;
    struct vm_guest_disk disk[VM_DISKS_MAX];
    unsigned detaching;
    struct xencons_interface *ring;
    struct xen_hostlink link;
    struct xen_hostport port;
    struct xen_console *console;
};

static bool told(const struct vm_config *c, const char *word)
{
    const char *at = c->cmdline;
    size_t len = strlen(word);

    while ((at = strstr(at, word))) {
        if ((at == c->cmdline || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\0'))
            return true;
        at += len;
    }
    return false;
}

static void stop_now(void *arg)
{
    struct vm_guest *g = arg;

    g->running = false;
    g->stopped = true;
    g->p.stopped(g->p.arg, g->why, g->why_text);
}

void fake_guest_stop(struct vm_guest *g, enum vm_stop why, const char *text)
{
    g->why = why;
    snprintf(g->why_text, sizeof(g->why_text), "%s", text);
    loop_timer_arm(g->stop_timer, 0);
}

const struct fake_guest_seen *fake_guest_seen(const struct vm_guest *g)
{
    return &g->seen;
}

static void disk_forget(struct vm_guest *g, unsigned number)
{
    unsigned at = 0;

    while (g->disk[at].vdev_number != number)
        at++;
    for (g->seen.nr_disks--; at < g->seen.nr_disks; at++)
        g->disk[at] = g->disk[at + 1];
}

static void detach_now(void *arg)
{
    struct vm_guest *g = arg;

    disk_forget(g, g->detaching);
    g->p.disk_detached(g->p.arg, g->detaching);
}

int vm_guest_disk_attach(struct vm_guest *g, const struct vm_disk *d, struct err *e)
{
    for (unsigned i = 0; i < g->seen.nr_disks; i++)
        if (g->disk[i].vdev_number == d->vdev_number)
            return err_set(e, EEXIST, "%s: the guest has it already", d->vdev);
    if (!strcmp(d->target, "/busy"))
        return err_set(e, EBUSY, "/busy: already in use");
    g->disk[g->seen.nr_disks] = (struct vm_guest_disk){
        .vdev_number = d->vdev_number, .state = 1, .event_channel = -1, .ring_ref = -1,
    };
    snprintf(g->disk[g->seen.nr_disks].backend, sizeof(g->disk[0].backend),
             "/local/domain/0/backend/vbd/%u/%u", g->p.domid, d->vdev_number);
    g->seen.nr_disks++;
    return 0;
}

int vm_guest_disk_detach(struct vm_guest *g, unsigned vdev_number, bool force, struct err *e)
{
    if (force) {
        disk_forget(g, vdev_number);
        return 0;
    }
    g->detaching = vdev_number;
    if (told(g->p.config, "lets-go"))
        loop_timer_arm(g->detach_timer, 0);
    return -EINPROGRESS;
}

int vm_guest_disk_resize(struct vm_guest *g, unsigned vdev_number, uint64_t *size_bytes,
                         struct err *e)
{
    if (*size_bytes == 512)
        return err_set(e, EOPNOTSUPP, "the fake guest has no disk of one sector");
    *size_bytes = *size_bytes ? *size_bytes : 7 * MIB;
    return 0;
}

unsigned vm_guest_disk_list(const struct vm_guest *g, struct vm_guest_disk *out)
{
    memcpy(out, g->disk, g->seen.nr_disks * sizeof(*out));
    return g->seen.nr_disks;
}

int vm_guest_create(const struct vm_guest_params *p, struct vm_guest **out, struct err *e)
{
    struct vm_guest *g;

    if (told(p->config, "fail")) {
        err_at(e, p->config->file, 0, "kernel");
        return err_set(e, ENOEXEC, "the fake guest was told to fail");
    }
    g = calloc(1, sizeof(*g));
    g->p = *p;
    g->ring = calloc(1, sizeof(*g->ring));
    g->port = (struct xen_hostport){ .kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
                                     .irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
                                     .link = &g->link };
    g->stop_timer = loop_timer_add(p->loop, stop_now, g);
    g->detach_timer = loop_timer_add(p->loop, detach_now, g);
    for (unsigned i = 0; i < p->config->nr_disks; i++)
        vm_guest_disk_attach(g, &p->config->disks[i], e);
    if (xen_console_create(p->loop, g->ring, &g->port, p->console_log_fd, &g->console))
        abort();
    *out = g;
    return 0;
}

void vm_guest_unpause(struct vm_guest *g)
{
    static const char hello[] = "fake guest boots\r\n";

    g->seen.nr_unpaused++;
    if (!g->running && g->seen.nr_unpaused == 1) {
        xen_console_write(g->console, hello, sizeof(hello) - 1);
        if (told(g->p.config, "crash") || (told(g->p.config, "crash-first") && g->p.domid == 1))
            fake_guest_stop(g, VM_STOP_CRASH, "fake panic");
        if (told(g->p.config, "off"))
            fake_guest_stop(g, VM_STOP_POWEROFF, "");
        if (told(g->p.config, "off-later"))
            fake_guest_stop(g, g->p.domid < 3 ? VM_STOP_REBOOT : VM_STOP_POWEROFF, "");
    }
    g->running = true;
}

void vm_guest_pause(struct vm_guest *g)
{
    g->seen.nr_paused++;
    g->running = false;
}

int vm_guest_ask(struct vm_guest *g, const char *request, struct err *e)
{
    snprintf(g->seen.asked, sizeof(g->seen.asked), "%s", request);
    if (told(g->p.config, "obey"))
        fake_guest_stop(g, strcmp(request, "reboot") ? VM_STOP_POWEROFF : VM_STOP_REBOOT, "");
    return 0;
}

void vm_guest_destroy(struct vm_guest *g)
{
    loop_timer_remove(g->stop_timer);
    loop_timer_remove(g->detach_timer);
    xen_console_free(g->console);
    close(g->port.kick_fd);
    close(g->port.irq_fd);
    free(g->ring);
    free(g);
}

void vm_guest_info(const struct vm_guest *g, struct vm_guest_info *info)
{
    *info = (struct vm_guest_info){
        .running = g->running, .paused = !g->running && !g->stopped, .shutdown = g->stopped,
        .crashed = g->stopped && g->why == VM_STOP_CRASH, .why = g->why,
        .memory_bytes = g->p.config->memory_bytes, .vcpus_online = g->p.config->vcpus,
        .vcpus_max = g->p.config->maxvcpus, .cpu_time_ns = 1500000000,
    };
}

struct xen_console *vm_guest_console(struct vm_guest *g)
{
    return g->console;
}
