/* SPDX-License-Identifier: MIT */
#include "xen/xs_domain.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xen/xs_proto.h"

#define CONSOLE_LIMIT_BYTES (1 * MIB)
#define FILL_TRIES          64

/* The writing of one domain's nodes.  After a first failure nothing more is
 * sent, so the writers need not look. */
struct fill {
    struct xs_client *c;
    uint32_t tx;
    const struct xs_domain_values *v;
    char home[64];              /* /local/domain/N */
    char vm[64];                /* /vm/UUID */
    char guest_owns[8], guest_reads[8];
    int rc;
    char failed[XENSTORE_ABS_PATH_MAX + 1];     /* where */
};

enum owner {
    OWNER_0_PRIVATE,            /* n0 */
    OWNER_0_GUEST_READS,        /* n0,rN */
    OWNER_GUEST,                /* nN */
    OWNER_GUEST_0_READS,        /* nN,r0 */
    OWNER_INHERITED,            /* as the node above */
};

static void uuid_text(const uint8_t u[16], char text[37])
{
    snprintf(text, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
             "%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7],
             u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

static void permit(struct fill *f, const char *path, enum owner owner)
{
    const char *const perms[][2] = {
        [OWNER_0_PRIVATE] = { "n0" },
        [OWNER_0_GUEST_READS] = { "n0", f->guest_reads },
        [OWNER_GUEST] = { f->guest_owns },
        [OWNER_GUEST_0_READS] = { f->guest_owns, "r0" },
    };

    if (owner != OWNER_INHERITED)
        f->rc = xs_client_set_perms(f->c, f->tx, path, perms[owner], perms[owner][1] ? 2 : 1);
}

/* base/name = the formatted value */
static void __attribute__((format(printf, 5, 6)))
node(struct fill *f, const char *base, const char *name, enum owner owner, const char *fmt, ...)
{
    char path[XENSTORE_ABS_PATH_MAX + 1], value[XENSTORE_PAYLOAD_MAX];
    va_list ap;
    int n;

    if (f->rc)
        return;
    snprintf(path, sizeof(path), "%s%s%s", base, *name ? "/" : "", name);
    va_start(ap, fmt);
    n = vsnprintf(value, sizeof(value), fmt, ap);
    va_end(ap);
    f->rc = n < (int)sizeof(value) ? xs_client_write(f->c, f->tx, path, value) : -E2BIG;
    if (!f->rc)
        permit(f, path, owner);
    if (f->rc)
        snprintf(f->failed, sizeof(f->failed), "%s", path);
}

/* A subtree of an earlier life goes; none is fine. */
static void clear(struct fill *f, const char *path)
{
    int rc = f->rc ? 0 : xs_client_rm(f->c, f->tx, path);

    if (rc && rc != -ENOENT) {
        f->rc = rc;
        snprintf(f->failed, sizeof(f->failed), "%s", path);
    }
}

static void fill_home(struct fill *f)
{
    static const char *const readable[] = {
        "cpu", "memory", "device", "device/suspend", "control",
    };
    static const char *const own[] = {
        "control/shutdown", "control/feature-poweroff", "control/feature-reboot",
        "control/feature-suspend", "control/sysrq", "device/suspend/event-channel",
        "data", "drivers", "feature", "attr", "error",
    };
    const struct xs_domain_values *v = f->v;
    char name[64];

    clear(f, f->home);
    node(f, f->home, "", OWNER_0_GUEST_READS, "%s", "");
    node(f, f->home, "vm", OWNER_INHERITED, "%s", f->vm);
    node(f, f->home, "name", OWNER_INHERITED, "%s", v->name);
    for (size_t i = 0; i < array_size(readable); i++)
        node(f, f->home, readable[i], OWNER_0_GUEST_READS, "%s", "");
    for (size_t i = 0; i < array_size(own); i++)
        node(f, f->home, own[i], OWNER_GUEST, "%s", "");
    node(f, f->home, "control/platform-feature-multiprocessor-suspend", OWNER_INHERITED, "1");
    node(f, f->home, "control/platform-feature-xs_reset_watches", OWNER_INHERITED, "1");
    node(f, f->home, "memory/static-max", OWNER_INHERITED, "%llu",
         (unsigned long long)(v->maxmem_bytes / KIB));
    node(f, f->home, "memory/target", OWNER_INHERITED, "%llu",
         (unsigned long long)(v->target_bytes / KIB));
    node(f, f->home, "memory/videoram", OWNER_INHERITED, "0");
    node(f, f->home, "domid", OWNER_INHERITED, "%u", v->domid);
    node(f, f->home, "store/port", OWNER_INHERITED, "%u", v->store_port);
    node(f, f->home, "store/ring-ref", OWNER_INHERITED, "%llu", (unsigned long long)v->store_gfn);
    for (unsigned i = 0; i < v->nr_vcpus_max; i++) {
        snprintf(name, sizeof(name), "cpu/%u/availability", i);
        node(f, f->home, name, OWNER_INHERITED, i < v->nr_vcpus ? "online" : "offline");
    }
}

/* frontend, backend, and libxl's own note of the device */
static void fill_console(struct fill *f)
{
    const struct xs_domain_values *v = f->v;
    char front[96], back[96], note[96];

    snprintf(front, sizeof(front), "%s/console", f->home);
    snprintf(back, sizeof(back), "/local/domain/0/backend/console/%u/0", v->domid);
    snprintf(note, sizeof(note), "/libxl/%u/device/console/0", v->domid);
    node(f, front, "", OWNER_GUEST_0_READS, "%s", "");
    node(f, front, "backend", OWNER_INHERITED, "%s", back);
    node(f, front, "backend-id", OWNER_INHERITED, "0");
    /* what the host relies on is not the guest's to change */
    node(f, front, "limit", OWNER_0_GUEST_READS, "%llu", (unsigned long long)CONSOLE_LIMIT_BYTES);
    node(f, front, "type", OWNER_0_GUEST_READS, "xenconsoled");
    node(f, front, "output", OWNER_0_GUEST_READS, "pty");
    node(f, front, "tty", OWNER_0_GUEST_READS, "%s", v->console_tty ? v->console_tty : "");
    node(f, front, "port", OWNER_0_GUEST_READS, "%u", v->console_port);
    node(f, front, "ring-ref", OWNER_0_GUEST_READS, "%llu", (unsigned long long)v->console_gfn);
    clear(f, back);
    node(f, back, "", OWNER_0_GUEST_READS, "%s", "");
    node(f, back, "frontend", OWNER_INHERITED, "%s", front);
    node(f, back, "frontend-id", OWNER_INHERITED, "%u", v->domid);
    node(f, back, "online", OWNER_INHERITED, "1");
    node(f, back, "state", OWNER_INHERITED, "1");
    node(f, back, "protocol", OWNER_INHERITED, "vt100");
    node(f, note, "frontend", OWNER_INHERITED, "%s", front);
    node(f, note, "backend", OWNER_INHERITED, "%s", back);
}

static void fill_vm(struct fill *f)
{
    const struct xs_domain_values *v = f->v;
    char uuid[37];

    uuid_text(v->uuid, uuid);
    clear(f, f->vm);
    node(f, f->vm, "", OWNER_0_GUEST_READS, "%s", "");
    node(f, f->vm, "uuid", OWNER_INHERITED, "%s", uuid);
    node(f, f->vm, "name", OWNER_INHERITED, "%s", v->name);
    node(f, f->vm, "image/ostype", OWNER_INHERITED, "linux");
    node(f, f->vm, "image/kernel", OWNER_INHERITED, "%s", v->kernel ? v->kernel : "");
    if (v->ramdisk && *v->ramdisk)
        node(f, f->vm, "image/ramdisk", OWNER_INHERITED, "%s", v->ramdisk);
    if (v->cmdline && *v->cmdline)
        node(f, f->vm, "image/cmdline", OWNER_INHERITED, "%s", v->cmdline);
    node(f, f->vm, "start_time", OWNER_INHERITED, "%llu.%02llu",
         (unsigned long long)(v->start_time_ns / 1000000000),
         (unsigned long long)(v->start_time_ns / 10000000 % 100));
}

static void fill_libxl(struct fill *f)
{
    char path[32];

    snprintf(path, sizeof(path), "/libxl/%u", f->v->domid);
    clear(f, path);
    node(f, path, "", OWNER_0_PRIVATE, "%s", "");
    node(f, path, "type", OWNER_INHERITED, "pv");
    node(f, path, "dm-version", OWNER_INHERITED, "qemu_xen");
}

static int fill_once(struct fill *f)
{
    int rc;

    f->rc = xs_client_tx_start(f->c, &f->tx);
    if (f->rc) {
        snprintf(f->failed, sizeof(f->failed), "transaction");
        return f->rc;
    }
    fill_home(f);
    fill_vm(f);
    fill_libxl(f);
    fill_console(f);
    rc = xs_client_tx_end(f->c, f->tx, f->rc == 0);
    return f->rc ? f->rc : rc;
}

int xs_domain_fill(struct xs_client *c, const struct xs_domain_values *v, struct err *e)
{
    struct fill f = { .c = c, .v = v };
    int rc, tries = 0;

    snprintf(f.home, sizeof(f.home), "/local/domain/%u", v->domid);
    snprintf(f.guest_owns, sizeof(f.guest_owns), "n%u", v->domid & 0xffff);
    snprintf(f.guest_reads, sizeof(f.guest_reads), "r%u", v->domid & 0xffff);
    strcpy(f.vm, "/vm/");
    uuid_text(v->uuid, f.vm + 4);
    do
        rc = fill_once(&f);
    while (rc == -EAGAIN && ++tries < FILL_TRIES);
    if (rc)
        err_set(e, -rc, "cannot write domain %u's nodes to xenstore: %s%s%s", v->domid,
                f.failed, f.failed[0] ? ": " : "", strerror(-rc));
    return rc;
}

static void remove_one(struct xs_client *c, const char *path, int *first)
{
    int rc = xs_client_rm(c, XS_NO_TRANSACTION, path);

    if (rc && rc != -ENOENT && !*first)
        *first = rc;
}

int xs_domain_remove(struct xs_client *c, unsigned domid, const uint8_t uuid[16])
{
    char path[XENSTORE_ABS_PATH_MAX + 1] = "/vm/";
    unsigned nr = 0;
    char *kinds = xs_client_directory(c, XS_NO_TRANSACTION, "/local/domain/0/backend", &nr);
    const char *kind = kinds;
    int first = 0;

    for (unsigned i = 0; kinds && i < nr; i++, kind += strlen(kind) + 1) {
        if (snprintf(path, sizeof(path), "/local/domain/0/backend/%s/%u", kind, domid) <
            (int)sizeof(path))
            remove_one(c, path, &first);
    }
    free(kinds);
    strcpy(path, "/vm/");
    uuid_text(uuid, path + 4);
    remove_one(c, path, &first);
    snprintf(path, sizeof(path), "/libxl/%u", domid);
    remove_one(c, path, &first);
    snprintf(path, sizeof(path), "/local/domain/%u", domid);
    remove_one(c, path, &first);
    return first;
}
