/* SPDX-License-Identifier: MIT */
/* Commands about domains and about the daemon itself. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/num.h"
#include "xen/xs_command.h"

/* Numbers from here on are special (DOMID_FIRST_RESERVED of xen/xen.h). */
#define DOMID_MAX 0x7fefu

struct xs_domain *xs_domain_find(const struct xs_core *core, unsigned domid)
{
    struct xs_domain *d;

    LIST_FOREACH(d, &core->domains, in_core) {
        if (d->domid == domid)
            return d;
    }
    return NULL;
}

static void guest_kill(struct xs_domain *d, const char *why)
{
    if (d->guest && !d->guest->killed) {
        d->guest->killed = true;
        d->guest->ops->kill(d->guest, why);
    }
    d->guest = NULL;
}

/* The domain is no more: for the sessions, for the store, for the watchers. */
static void domain_end(struct xs_core *core, struct xs_domain *d)
{
    guest_kill(d, "its domain was released");
    if (store_domain_forget(core->store, d->domid))
        log_error("xenstored: no memory to forget domain %u completely", d->domid);
    LIST_REMOVE(d, in_core);
    free(d);
    store_fire_special(core->store, "@releaseDomain");
}

/* What toolstacks keep for a domain; see xs_domain.h for the full list. */
static void remove_nodes_of(struct store_client *domain_0, unsigned domid)
{
    char path[XENSTORE_ABS_PATH_MAX + 1], vm[XENSTORE_ABS_PATH_MAX + 1] = "";
    const struct store_node *n;
    uint32_t at = 0;

    snprintf(path, sizeof(path), "/local/domain/%u/vm", domid);
    if (!store_read(domain_0, NULL, path, &n) && n->data->value_len < sizeof(vm))
        memcpy(vm, store_data_value(n->data), n->data->value_len);
    if (!strncmp(vm, "/vm/", 4))
        store_rm(domain_0, NULL, vm);
    snprintf(path, sizeof(path), "/local/domain/%u", domid);
    store_rm(domain_0, NULL, path);
    snprintf(path, sizeof(path), "/libxl/%u", domid);
    store_rm(domain_0, NULL, path);
    /* removing a grandchild does not disturb the list of kinds */
    while (!store_list(domain_0, NULL, "/local/domain/0/backend", &n) && at < n->children.nr) {
        const struct store_node *kind = n->children.v[at++];

        if (snprintf(path, sizeof(path), "/local/domain/0/backend/%s/%u", kind->name, domid) <
            (int)sizeof(path))
            store_rm(domain_0, NULL, path);
    }
}

static void introducer_died(struct xs_core *core, struct xs_domain *d)
{
    struct store_client domain_0;

    log_info("xenstored: the process of domain %u is gone: removing its nodes", d->domid);
    if (!store_client_add(core->store, &domain_0, 0, NULL)) {
        remove_nodes_of(&domain_0, d->domid);
        store_client_remove(&domain_0);
    }
    domain_end(core, d);
}

void xs_domain_session_ended(struct xs_session *s)
{
    struct xs_domain *d, *next;

    for (d = LIST_FIRST(&s->core->domains); d; d = next) {
        next = LIST_NEXT(d, in_core);
        if (d->guest == s)
            d->guest = NULL;
        if (d->introducer == s)
            introducer_died(s->core, d);
    }
}

static int control_become_domain(struct xs_session *s, const char *arg)
{
    struct xs_domain *d;
    unsigned domid;
    int rc;

    if (s->became)
        return -EACCES;
    if (xs_parse_domid(arg, DOMID_MAX, &domid))
        return -EINVAL;
    d = xs_domain_find(s->core, domid);
    if (!d)
        return -ENOENT;
    if (!LIST_EMPTY(&s->client.watches) || !LIST_EMPTY(&s->client.txs) || d->introducer == s)
        return -EBUSY;
    rc = store_client_move(&s->client, domid);
    if (rc)
        return rc;
    guest_kill(d, "a newer connection took its place");
    d->guest = s;
    s->became = true;
    return 0;
}

int xs_do_control(struct xs_session *s, struct xs_request *r)
{
    static const char help[] = "check\nhelp\n" XS_CONTROL_BECOME_DOMAIN " <domid>\n";
    const char *v[2], *wrong;
    unsigned nr;
    int rc = xs_request_strings(r, 1, array_size(v), v, &nr);

    if (rc)
        return rc;
    if (!strcmp(v[0], XS_CONTROL_BECOME_DOMAIN))
        return nr == 2 ? control_become_domain(s, v[1]) : -EINVAL;
    if (!strcmp(v[0], "help") && nr == 1) {
        r->reply = help;
        r->reply_len = sizeof(help);
        return 0;
    }
    if (!strcmp(v[0], "check") && nr == 1) {
        wrong = store_check(s->core->store, NULL);
        if (wrong) {
            log_error("xenstored: the store is damaged: %s", wrong);
            return -EIO;
        }
        return 0;
    }
    return -EINVAL;
}

int xs_do_introduce(struct xs_session *s, struct xs_request *r)
{
    struct xs_domain *d;
    uint64_t gfn, port;
    const char *v[4];
    unsigned nr, domid;
    int rc = xs_request_strings(r, 3, array_size(v), v, &nr);

    if (rc || xs_parse_domid(v[0], DOMID_MAX, &domid) || domid == 0 ||
        num_parse_u64(v[1], 0, UINT64_MAX, &gfn) || num_parse_u64(v[2], 1, UINT32_MAX, &port))
        return -EINVAL;
    d = xs_domain_find(s->core, domid);
    if (d && d->introducer != s)
        return -EBUSY;      /* the domain would have two lives */
    if (!d) {
        d = calloc(1, sizeof(*d));
        if (!d)
            return -ENOMEM;
        d->domid = domid;
        d->introducer = s;
        LIST_INSERT_HEAD(&s->core->domains, d, in_core);
        store_fire_special(s->core->store, "@introduceDomain");
    }
    d->gfn = gfn;
    d->port = (uint32_t)port;
    return 0;
}

/* The one domid a request names. */
static int domid_only(const struct xs_request *r, unsigned *domid)
{
    const char *v;
    unsigned nr;
    int rc = xs_request_strings(r, 1, 1, &v, &nr);

    return rc ? rc : xs_parse_domid(v, UINT16_MAX, domid);
}

static int introduced(const struct xs_core *core, unsigned domid, struct xs_domain **d)
{
    if (domid == 0)
        return -EINVAL;
    *d = xs_domain_find(core, domid);
    return *d ? 0 : -ENOENT;
}

int xs_do_release(struct xs_session *s, struct xs_request *r)
{
    struct xs_domain *d;
    unsigned domid;
    int rc = domid_only(r, &domid);

    if (!rc)
        rc = introduced(s->core, domid, &d);
    if (!rc)
        domain_end(s->core, d);
    return rc;
}

int xs_do_resume(struct xs_session *s, struct xs_request *r)
{
    struct xs_domain *d;
    unsigned domid;
    int rc = domid_only(r, &domid);

    /* There is no memory of an earlier @releaseDomain that would have to go:
     * each one fired is the end of the domain. */
    return rc ? rc : introduced(s->core, domid, &d);
}

int xs_do_is_domain_introduced(struct xs_session *s, struct xs_request *r)
{
    unsigned domid;
    int rc = domid_only(r, &domid);

    if (rc)
        return rc;
    r->reply = domid == 0 || xs_domain_find(s->core, domid) ? "T" : "F";
    r->reply_len = 2;
    return 0;
}

int xs_do_get_domain_path(struct xs_session *s, struct xs_request *r)
{
    unsigned domid;
    int rc = domid_only(r, &domid);

    if (rc)
        return rc;
    r->reply = r->buf;
    r->reply_len = (size_t)snprintf(r->buf, sizeof(r->buf), "/local/domain/%u", domid) + 1;
    return 0;
}

int xs_do_set_target(struct xs_session *s, struct xs_request *r)
{
    struct xs_domain *d;
    const char *v[2];
    unsigned nr, domid, target;
    int rc = xs_request_strings(r, 2, 2, v, &nr);

    if (rc || xs_parse_domid(v[0], DOMID_MAX, &domid) || xs_parse_domid(v[1], DOMID_MAX, &target))
        return -EINVAL;
    rc = introduced(s->core, domid, &d);
    if (!rc)
        rc = introduced(s->core, target, &d);
    return rc ? rc : store_domain_set_target(s->core->store, domid, target);
}
