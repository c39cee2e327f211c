/* SPDX-License-Identifier: MIT */
/* States of the process, all changes on the loop's thread:
 *
 *   RUNNING    a guest runs (or is paused)
 *   KEPT       it has stopped and stays listed: preserve, suspend, or nobody
 *              is to act (-e); only destroy ends this
 *   RESTARTING it has stopped and a new one follows, at once, or when
 *              RESTART_MIN_NS have passed since it started: a guest that dies at
 *              once does not become a busy loop
 *   ENDING     the loop returns and everything is taken down
 *
 * Taking down goes guest, registry entry, connections and consoles: a client that
 * waits for one of them to end then finds disks free and the name gone. */
#include "ctl/guest_process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/dirs.h"
#include "ctl/guest_config.h"
#include "ctl/respawn.h"
#include "ctl/server.h"
#include "ctl/uuid.h"
#include "ctl/xenstored.h"
#include "dev/xen_console.h"

#define RESTART_MIN_NS 2000000000u

enum process_state { PROCESS_RUNNING, PROCESS_KEPT, PROCESS_RESTARTING, PROCESS_ENDING };

struct guest_process {
    const struct guest_process_params *p;
    struct vm_config *config;
    struct loop *loop;
    struct registry registry;
    struct registry_entry entry;
    char xenstore_socket[PATH_MAX];
    int console_log_fd;
    int signal_fd;
    struct loop_fd *signal_watch;
    struct loop_timer *restart_timer;
    struct vm_guest *guest;
    struct ctl_server *server;
    enum process_state state;
    uint64_t started_ns;
    bool asked_to_end;          /* by a signal */
    unsigned nr_held;           /* consoles of the guest that has gone */
    int held_fd[XEN_CONSOLE_CLIENTS_MAX];
    enum guest_exit exit;
};

/* ---- what a stop leads to ---- */

static const char *action_name(enum vm_action a)
{
    static const char *const names[] = {
        [VM_ACTION_DESTROY] = "destroy", [VM_ACTION_RESTART] = "restart",
        [VM_ACTION_RENAME_RESTART] = "rename-restart", [VM_ACTION_PRESERVE] = "preserve",
        [VM_ACTION_COREDUMP_DESTROY] = "coredump-destroy",
        [VM_ACTION_COREDUMP_RESTART] = "coredump-restart",
        [VM_ACTION_SOFT_RESET] = "soft-reset",
    };

    return names[a];
}

static enum vm_action action_for(const struct guest_process *gp, enum vm_stop why)
{
    if (gp->asked_to_end || why == VM_STOP_FAILURE)
        return VM_ACTION_DESTROY;
    if (gp->p->preserve || why == VM_STOP_SUSPEND)
        return VM_ACTION_PRESERVE;
    switch (why) {
    case VM_STOP_POWEROFF:   return gp->config->on_poweroff;
    case VM_STOP_REBOOT:     return gp->config->on_reboot;
    case VM_STOP_CRASH:      return gp->config->on_crash;
    case VM_STOP_WATCHDOG:   return gp->config->on_watchdog;
    case VM_STOP_SOFT_RESET: return gp->config->on_soft_reset;
    default:
        log_warning("unknown shutdown reason code %d", (int)why);
        return VM_ACTION_DESTROY;
    }
}

static enum guest_exit exit_for(enum vm_stop why)
{
    switch (why) {
    case VM_STOP_CRASH:    return GUEST_EXIT_CRASHED;
    case VM_STOP_WATCHDOG: return GUEST_EXIT_WATCHDOG;
    case VM_STOP_FAILURE:  return GUEST_EXIT_HOST;
    default:               return GUEST_EXIT_CLEAN;
    }
}

/* The stopped guest stays, under another name; one like it starts in a process
 * of its own. */
static void rename_restart(struct guest_process *gp)
{
    const struct guest_config *gc = gp->p->config;
    char name[REGISTRY_NAME_BYTES + 32], suffix[24];
    uint8_t uuid[16];
    time_t now = time(NULL);
    struct tm tm;
    struct err e = { 0 };

    gmtime_r(&now, &tm);
    strftime(suffix, sizeof(suffix), "-%Y%m%dT%H%MZ", &tm);
    snprintf(name, sizeof(name), "%s%s", gp->config->name, suffix);
    if (uuid_random(uuid))
        err_set(&e, errno, "no random numbers: %s", strerror(errno));
    else if (!registry_rename(&gp->registry, &gp->entry, name, uuid, &e)) {
        log_info("Preserving domain %u %s with suffix%s", gp->entry.guest.domid,
                 gp->config->name, suffix);
        guest_respawn(gc, gp->config->uuid, &e);
    }
    if (e.code)
        log_error("cannot restart %s: %s", gp->config->name, e.text);
}

static void act(struct guest_process *gp, enum vm_action action)
{
    uint64_t lived = loop_now_ns() - gp->started_ns;

    switch (action) {
    case VM_ACTION_COREDUMP_DESTROY:
    case VM_ACTION_COREDUMP_RESTART:
        log_warning("no core was written: Xenolith does not dump guests; going on with \"%s\"",
                    action == VM_ACTION_COREDUMP_DESTROY ? "destroy" : "restart");
        act(gp, action == VM_ACTION_COREDUMP_DESTROY ? VM_ACTION_DESTROY : VM_ACTION_RESTART);
        return;
    case VM_ACTION_SOFT_RESET:
        log_warning("a PV guest has no soft reset; going on with \"restart\"");
        act(gp, VM_ACTION_RESTART);
        return;
    case VM_ACTION_RENAME_RESTART:
        rename_restart(gp);
        gp->state = PROCESS_KEPT;
        return;
    case VM_ACTION_PRESERVE:
        gp->state = PROCESS_KEPT;
        return;
    case VM_ACTION_RESTART:
        gp->state = PROCESS_RESTARTING;
        loop_timer_arm(gp->restart_timer, lived < RESTART_MIN_NS ? RESTART_MIN_NS - lived : 0);
        return;
    case VM_ACTION_DESTROY:
        break;
    }
    log_info("Domain %u needs to be cleaned up: destroying the domain", gp->entry.guest.domid);
    gp->state = PROCESS_ENDING;
    loop_stop(gp->loop);
}

/* ---- events ---- */

static void guest_stopped(void *arg, enum vm_stop why, const char *text)
{
    struct guest_process *gp = arg;
    enum vm_action action = action_for(gp, why);

    if (gp->state != PROCESS_RUNNING)
        return;
    if (vm_guest_console(gp->guest))
        xen_console_drain(vm_guest_console(gp->guest));
    log_info("Domain %u has shut down, reason code %d 0x%x", gp->entry.guest.domid,
             (int)why, (unsigned)why);
    if (text[0])
        log_write(why == VM_STOP_CRASH || why == VM_STOP_FAILURE ? LOG_LEVEL_ERROR
                  : LOG_LEVEL_INFO, "Domain %u: %s", gp->entry.guest.domid, text);
    log_info("Action for shutdown reason code %d is %s", (int)why, action_name(action));
    gp->exit = exit_for(why);
    ctl_server_stopped(gp->server, why, text);
    act(gp, action);
}

static void disk_detached(void *arg, unsigned vdev_number)
{
    struct guest_process *gp = arg;

    log_info("disk %u of domain %u is detached", vdev_number, gp->entry.guest.domid);
    ctl_server_disk_detached(gp->server, vdev_number);
}

static void destroy(void *arg)
{
    struct guest_process *gp = arg;

    if (gp->state != PROCESS_KEPT)
        gp->exit = GUEST_EXIT_DESTROYED;
    gp->state = PROCESS_ENDING;
    loop_stop(gp->loop);
}

static void restart_due(void *arg)
{
    struct guest_process *gp = arg;

    if (gp->state == PROCESS_RESTARTING)
        loop_stop(gp->loop);
}

static void signalled(void *arg, uint32_t events)
{
    struct guest_process *gp = arg;
    struct signalfd_siginfo si;
    struct err e = { 0 };

    if (read(gp->signal_fd, &si, sizeof(si)) != sizeof(si))
        return;
    if (gp->state == PROCESS_RUNNING && !gp->asked_to_end) {
        gp->asked_to_end = true;
        log_info("signal %u: asking domain %u to shut down", si.ssi_signo,
                 gp->entry.guest.domid);
        if (!vm_guest_ask(gp->guest, "poweroff", &e))
            return;
        log_warning("%s", e.text);
    }
    log_info("signal %u: destroying domain %u", si.ssi_signo, gp->entry.guest.domid);
    destroy(gp);
}

/* ---- one guest ---- */

static int console_attach(struct guest_process *gp, struct err *e)
{
    struct xen_console *console = vm_guest_console(gp->guest);
    int fd, rc;

    if (gp->p->console_fd < 0 || !console)
        return 0;
    fd = fcntl(gp->p->console_fd, F_DUPFD_CLOEXEC, 0);
    rc = fd < 0 ? -errno : xen_console_attach(console, fd, fd, NULL, NULL);
    if (!rc)
        return 0;
    if (fd >= 0)
        close(fd);
    return err_set(e, -rc, "cannot attach the console: %s", strerror(-rc));
}

/* Takes down what guest_start() made, but for the ends of its consoles. */
static void guest_end(struct guest_process *gp)
{
    if (gp->guest && vm_guest_console(gp->guest))
        gp->nr_held = xen_console_clients_hold(vm_guest_console(gp->guest), gp->held_fd);
    if (gp->guest)
        vm_guest_destroy(gp->guest);
    gp->guest = NULL;
}

static void consoles_end(struct guest_process *gp)
{
    while (gp->nr_held)
        close(gp->held_fd[--gp->nr_held]);
}

static int peer_listen(void *arg, struct err *e)
{
    struct guest_process *gp = arg;

    return registry_listen_peer(&gp->entry, e);
}

static int peer_connect(void *arg, unsigned domid)
{
    const struct guest_process *gp = arg;

    return registry_connect_peer(&gp->registry, domid);
}

static int guest_start(struct guest_process *gp, bool paused, struct err *e)
{
    const struct vm_guest_params vp = {
        .config = gp->config, .domid = gp->entry.guest.domid, .loop = gp->loop,
        .xenstore_socket = gp->xenstore_socket, .run_dir = gp->registry.path,
        .console_log_fd = gp->console_log_fd,
        .peer_listen = peer_listen, .peer_connect = peer_connect,
        .stopped = guest_stopped, .disk_detached = disk_detached, .arg = gp,
    };
    struct ctl_server_params sp = {
        .loop = gp->loop, .config = gp->config, .who = &gp->entry.guest,
        .destroy = destroy, .arg = gp,
    };
    int rc = vm_guest_create(&vp, &gp->guest, e);

    if (rc)
        return rc;
    sp.guest = gp->guest;
    sp.listen_fd = registry_listen(&gp->entry, e);
    rc = sp.listen_fd < 0 ? sp.listen_fd : ctl_server_create(&sp, &gp->server, e);
    if (rc && sp.listen_fd >= 0)
        close(sp.listen_fd);
    if (!rc)
        rc = console_attach(gp, e);
    if (rc) {
        guest_end(gp);
        ctl_server_free(gp->server);
        gp->server = NULL;
        return rc;
    }
    gp->state = PROCESS_RUNNING;
    gp->started_ns = loop_now_ns();
    if (!paused)
        vm_guest_unpause(gp->guest);
    return 0;
}

/* The stopped guest goes; the next one takes its name and a new number. */
static int guest_restart(struct guest_process *gp, struct err *e)
{
    int rc;

    guest_end(gp);
    rc = registry_renew(&gp->registry, &gp->entry, e);
    consoles_end(gp);
    ctl_server_free(gp->server);
    gp->server = NULL;
    if (!rc)
        rc = guest_start(gp, false, e);
    if (!rc)
        log_info("Domain %u follows by reboot", gp->entry.guest.domid);
    return rc;
}

/* Until the process is to end. */
static void guests_run(struct guest_process *gp)
{
    struct err e = { 0 };
    char text[1024];

    while (gp->state != PROCESS_ENDING) {
        loop_run(gp->loop);
        if (gp->state == PROCESS_RESTARTING && guest_restart(gp, &e)) {
            log_error("cannot restart %s: %s", gp->config->name,
                      err_str(&e, text, sizeof(text)));
            gp->exit = GUEST_EXIT_NOT_STARTED;
            gp->state = PROCESS_ENDING;
        }
    }
}

/* ---- the process ---- */

static int signals_open(struct guest_process *gp, struct err *e)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    /* before the first vCPU thread: all inherit it */
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    gp->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    gp->loop = loop_create();
    if (gp->loop && gp->signal_fd >= 0)
        gp->signal_watch = loop_fd_add(gp->loop, gp->signal_fd, EPOLLIN, signalled, gp);
    if (gp->signal_watch)
        gp->restart_timer = loop_timer_add(gp->loop, restart_due, gp);
    if (!gp->restart_timer)
        return err_set(e, errno, "cannot make an event loop: %s", strerror(errno));
    return 0;
}

/* Everything but the guest itself.  The xenstore daemon is started before the
 * registry entry is taken: it must not inherit that lock. */
static int process_open(struct guest_process *gp, struct err *e)
{
    char run_dir[PATH_MAX];
    int rc = signals_open(gp, e);

    if (!rc)
        rc = ctl_run_dir(run_dir, sizeof(run_dir), e);
    if (!rc)
        rc = registry_open(&gp->registry, run_dir, e);
    if (!rc)
        rc = ctl_xenstored_ensure(run_dir, gp->xenstore_socket, sizeof(gp->xenstore_socket),
                                  e);
    if (!rc)
        rc = registry_take(&gp->registry, gp->config->name, gp->config->uuid, &gp->entry, e);
    if (rc)
        return rc;
    gp->console_log_fd = ctl_log_open("console-", gp->config->name, e);
    return gp->console_log_fd < 0 ? gp->console_log_fd : 0;
}

static void process_close(struct guest_process *gp)
{
    guest_end(gp);
    if (gp->entry.lock_fd >= 0)
        registry_release(&gp->registry, &gp->entry);
    consoles_end(gp);
    ctl_server_free(gp->server);
    registry_close(&gp->registry);
    if (gp->console_log_fd >= 0)
        close(gp->console_log_fd);
    if (gp->loop) {
        loop_timer_remove(gp->restart_timer);
        loop_fd_remove(gp->signal_watch);
        loop_free(gp->loop);
    }
    if (gp->signal_fd >= 0)
        close(gp->signal_fd);
}

int guest_process_run(const struct guest_process_params *p)
{
    struct guest_process gp = {
        .p = p, .config = p->config->config, .registry = { .dir_fd = -1 },
        .entry = { .dir_fd = -1, .lock_fd = -1 }, .console_log_fd = -1, .signal_fd = -1,
        .exit = GUEST_EXIT_NOT_STARTED,
    };
    struct err e = { 0 };
    int rc = process_open(&gp, &e);

    if (!rc)
        rc = guest_start(&gp, p->paused, &e);
    if (rc) {
        /* first the cleaning, then the message: who reads it finds nothing left */
        process_close(&gp);
        p->started(p->arg, 0, &e);
        return GUEST_EXIT_NOT_STARTED;
    }
    log_info("Domain %u is %s", gp.entry.guest.domid, gp.config->name);
    p->started(p->arg, gp.entry.guest.domid, NULL);
    guests_run(&gp);
    log_info("Done. Exiting now");
    process_close(&gp);
    return gp.exit;
}
