/* SPDX-License-Identifier: MIT */
#include "vm/blk_server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/loop.h"
#include "blk/qos_limit.h"
#include "blk/size_watch.h"
#include "dev/vhost_user_blk.h"
#include "mem/lost_pages.h"
#include "vm/config_disk.h"
#include "vm/disk_spec.h"

_Static_assert(VM_BLK_POLL_MAX_NS == VHOST_USER_BLK_POLL_MAX_NS, "one default");

struct server {
    struct loop *loop;
    struct qos_groups *qos_groups;
    int signal_fd;
    struct loop_fd *signal_watch;
    struct blk_size_watch *sizes;       /* if a disk is on a block device */
    unsigned nr_devices;
    const struct vm_blk_export *exports;
    struct vhost_user_blk *device[VM_BLK_EXPORTS_MAX];
};

static int disk_read(const char *text, unsigned index, struct vm_disk *d, struct err *e)
{
    char vdev[] = "xvda";
    int rc;

    vdev[3] = (char)('a' + index);
    rc = vm_disk_spec_parse(text, vdev, d, e);
    if (rc)
        return rc;
    rc = vm_config_disk_judge(d, e);
    if (!rc && d->format == VM_DISK_FORMAT_EMPTY)
        rc = err_set(e, EOPNOTSUPP, "%s: an empty drive has nothing to serve", d->vdev);
    if (rc)
        vm_disk_spec_free(d);
    return rc;
}

static int device_add(struct server *srv, const struct vm_blk_server *s, struct err *e)
{
    const struct vm_blk_export *export = &s->exports[srv->nr_devices];
    struct vm_disk d;
    const struct blk_props *props;
    int rc = disk_read(export->disk, srv->nr_devices, &d, e);

    if (rc)
        return rc;
    rc = vhost_user_blk_create(&(struct vhost_user_blk_params){
        .loop = srv->loop, .socket = export->socket, .serial = d.vdev,
        .disk = { .driver = d.driver, .path = d.target, .size_bytes = d.size_bytes,
                  .readonly = d.readonly, .shared_write = d.shared_write,
                  .no_discard = !d.discard, .reconnect_s = d.reconnect_s,
                  .format = vm_config_disk_image_format(&d),
                  .filters = d.filters, .qos_groups = srv->qos_groups,
                  .quota_bytes = d.quota_bytes, .pool_bytes = d.pool_bytes,
                  .run_dir = s->run_dir, .label = d.vdev },
        .max_queues = s->max_queues, .poll_max_ns = s->poll_max_ns,
    }, &srv->device[srv->nr_devices], e);
    if (!rc) {
        props = vhost_user_blk_props(srv->device[srv->nr_devices++]);
        log_info("%s: serves %s %s, %llu MiB%s", export->socket, d.driver,
                 d.target[0] ? d.target : d.vdev, (unsigned long long)(blk_props_size(props) / MIB),
                 props->readonly ? ", read-only" : "");
    }
    vm_disk_spec_free(&d);
    return rc;
}

/* Sizes are as the images have them by now. */
static void sizes_follow(void *arg)
{
    struct server *srv = arg;

    for (unsigned i = 0; i < srv->nr_devices; i++) {
        struct err e = { 0 };

        if (vhost_user_blk_resize(srv->device[i], 0, &e))
            log_warning("%s: %s", srv->exports[i].socket, e.text);
    }
}

static void signal_ready(void *arg, uint32_t events)
{
    struct server *srv = arg;
    struct signalfd_siginfo si;

    if (read(srv->signal_fd, &si, sizeof(si)) != sizeof(si))
        return;
    if (si.ssi_signo == SIGHUP)
        sizes_follow(srv);
    else
        loop_stop(srv->loop);
}

static int server_open(struct server *srv, const struct vm_blk_server *s, struct err *e)
{
    struct rlimit files;
    sigset_t set;
    int rc = lost_pages_replace();

    if (rc)
        return err_set(e, -rc, "sigaction: %s", strerror(-rc));
    /* each ring takes half a dozen descriptors */
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    srv->loop = loop_create();
    srv->qos_groups = qos_groups_create();
    srv->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (srv->loop && srv->qos_groups && srv->signal_fd >= 0)
        srv->signal_watch = loop_fd_add(srv->loop, srv->signal_fd, EPOLLIN, signal_ready, srv);
    if (!srv->signal_watch)
        return err_set(e, errno, "%s", strerror(errno));
    for (unsigned i = 0; i < s->nr_exports && !rc; i++) {
        rc = device_add(srv, s, e);
        if (!rc && !srv->sizes && vhost_user_blk_props(srv->device[i])->block_device)
            srv->sizes = blk_size_watch_create(srv->loop, sizes_follow, srv);
    }
    return rc;
}

static void server_close(struct server *srv)
{
    while (srv->nr_devices)
        vhost_user_blk_destroy(srv->device[--srv->nr_devices]);
    blk_size_watch_free(srv->sizes);
    qos_groups_free(srv->qos_groups);
    loop_fd_remove(srv->signal_watch);
    if (srv->signal_fd >= 0)
        close(srv->signal_fd);
    loop_free(srv->loop);
}

int vm_blk_server_run(const struct vm_blk_server *s, struct err *e)
{
    struct server srv = { .signal_fd = -1, .exports = s->exports };
    int rc = server_open(&srv, s, e);

    if (!rc)
        loop_run(srv.loop);
    server_close(&srv);
    return rc;
}
