/* SPDX-License-Identifier: MIT */
/* Sessions of a guest, and of domain 0 beside it, fed with anything.  After every
 * message the store must be sound and every answer well-formed.
 *
 * Input: a first byte of 0xff, then the guest's bytes as they are; or else
 * records { who and type, transaction, length, payload }, so that mutations keep
 * hitting the handlers and not only the framing. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/types.h"
#include "xen/xs_session.h"

#define GUEST_DOMID 7

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_message(struct xs_session *s, const struct xsd_sockmsg *hdr,
                          const void *payload)
{
    const char *text = payload;

    if (hdr->len > XENSTORE_PAYLOAD_MAX || hdr->type >= XS_TYPE_COUNT)
        abort();
    if (hdr->type == XS_WATCH_EVENT &&
        (!hdr->len || text[hdr->len - 1] || strlen(text) + 1 >= hdr->len))
        abort();
    if (hdr->type == XS_ERROR && (text[0] != 'E' || text[hdr->len - 1]))
        abort();
}

static void ignore_kill(struct xs_session *s, const char *why)
{
}

static const struct xs_session_ops ops = { check_message, ignore_kill };

static void ask(struct xs_session *s, uint32_t type, uint32_t tx, const void *data, size_t len)
{
    struct xsd_sockmsg hdr = { .type = type, .tx_id = tx, .len = (uint32_t)len };
    const char *wrong;

    xs_session_feed(s, &hdr, sizeof(hdr));
    xs_session_feed(s, data, len);
    wrong = store_check(s->core->store, NULL);
    if (wrong) {
        fprintf(stderr, "%s\n", wrong);
        abort();
    }
}

static void begin(struct xs_core *core, struct xs_session *dom0, struct xs_session *guest)
{
    /* small limits are reached */
    const struct store_limits limits = {
        .nodes = 20, .node_bytes = 200, .perms = 3, .watches = 6, .transactions = 3,
        .transaction_nodes = 30, .transaction_bytes = 8192,
    };
    static const char home[] = "/local/domain/7\0n7";

    if (xs_core_init(core, &limits) || xs_session_start(core, dom0, &ops) ||
        xs_session_start(core, guest, &ops))
        abort();
    ask(dom0, XS_INTRODUCE, 0, "7\0" "1\0" "1", 6);
    ask(guest, XS_CONTROL, 0, XS_CONTROL_BECOME_DOMAIN "\0" "7",
        sizeof(XS_CONTROL_BECOME_DOMAIN) + 2);
    ask(dom0, XS_MKDIR, 0, home, strlen(home) + 1);
    ask(dom0, XS_SET_PERMS, 0, home, sizeof(home));
    if (guest->client.domid != GUEST_DOMID)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xs_session dom0, guest;
    struct xs_core core;
    struct store_usage usage;

    begin(&core, &dom0, &guest);
    if (size && data[0] == 0xff) {
        xs_session_feed(&guest, data + 1, size - 1);
        if (store_check(core.store, NULL))
            abort();
        size = 0;
    }
    while (size >= 3) {
        struct xs_session *s = data[0] & 0x80 ? &dom0 : &guest;
        size_t len = min_of((size_t)data[2], size - 3);

        ask(s, data[0] & 0x1f, data[1], data + 3, len);
        data += 3 + len;
        size -= 3 + len;
    }
    xs_session_end(&guest);
    xs_session_end(&dom0);
    if (store_check(core.store, &usage) || usage.nr_watches || usage.nr_txs)
        abort();
    xs_core_free(&core);
    return 0;
}
