/* SPDX-License-Identifier: MIT */
/* The device's nodes: what a guest finds, and what it may write. */
#include "xen_vbd_fixture.h"

static void guest_finds_what_libxl_would_have_written(void **state)
{
    static const struct { const char *dir, *key, *value; } nodes[] = {
        { FRONT, "backend", BACK }, { FRONT, "backend-id", "0" }, { FRONT, "state", "1" },
        { FRONT, "virtual-device", "51712" }, { FRONT, "device-type", "disk" },
        { BACK, "frontend", FRONT }, { BACK, "frontend-id", "7" }, { BACK, "online", "1" },
        { BACK, "state", "2" }, { BACK, "dev", "xvda" }, { BACK, "mode", "w" },
        { BACK, "type", "file" }, { BACK, "device-type", "disk" }, { BACK, "removable", "0" },
        { BACK, "bootable", "1" }, { BACK, "info", "0" }, { BACK, "sectors", "8192" },
        { BACK, "sector-size", "512" }, { BACK, "physical-sector-size", "4096" },
        { BACK, "feature-flush-cache", "1" }, { BACK, "feature-barrier", "1" },
        { BACK, "feature-discard", "1" }, { BACK, "discard-granularity", "4096" },
        { BACK, "discard-alignment", "0" }, { BACK, "discard-secure", "0" },
        { BACK, "feature-persistent", "1" }, { BACK, "feature-max-indirect-segments", "256" },
        { BACK, "max-ring-page-order", "4" }, { BACK, "multi-queue-max-queues", "4" },
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < array_size(nodes); i++)
        expect(f, nodes[i].dir, nodes[i].key, nodes[i].value);
    expect(f, BACK, "params", f->disk);
    expect_no_change(f, XenbusStateInitWait);
}

/* xs_client asks for no permissions: the request is made by hand */
static void expect_perms(struct fixture *f, const char *path, const char *perms, size_t len)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    struct xsd_sockmsg m = { .type = XS_GET_PERMS, .len = (uint32_t)strlen(path) + 1 };
    char reply[128];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(sa.sun_path, f->socket, strlen(f->socket));
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(write(fd, &m, sizeof(m)), sizeof(m));
    assert_int_equal(write(fd, path, m.len), m.len);
    assert_int_equal(recv(fd, &m, sizeof(m), MSG_WAITALL), sizeof(m));
    assert_int_equal(m.type, XS_GET_PERMS);
    assert_true(m.len <= sizeof(reply));
    assert_int_equal(recv(fd, reply, m.len, MSG_WAITALL), m.len);
    assert_int_equal(m.len, len);
    assert_memory_equal(reply, perms, len);
    close(fd);
}

static void each_end_owns_its_directory_and_reads_the_other(void **state)
{
    struct fixture *f = *state;

    expect_perms(f, FRONT, "n7\0r0", 6);
    expect_perms(f, FRONT "/state", "n7\0r0", 6);
    expect_perms(f, BACK, "n0\0r7", 6);
    expect_perms(f, BACK "/state", "n0\0r7", 6);
    expect_perms(f, BACK "/sectors", "n0\0r7", 6);
}

static void readonly_cdrom_says_so(void **state)
{
    struct fixture *f = *state;
    struct xen_vbd_params p = vbd_params(f);
    struct err e = { 0 };

    p.disk.readonly = true;
    p.cdrom = true;
    p.persistent = false;
    assert_int_equal(xen_vbd_create(&p, &f->vbd, &e), 0);
    expect(f, BACK, "mode", "r");
    expect(f, BACK, "info", "7");       /* VDISK_CDROM, _REMOVABLE, _READONLY */
    expect(f, BACK, "device-type", "cdrom");
    expect(f, FRONT, "device-type", "cdrom");
    expect(f, BACK, "feature-discard", "0");
    expect(f, BACK, "feature-persistent", "0");
}

static void order_0_may_come_with_either_name_of_the_ring(void **state)
{
    static const char *const name[] = { "ring-ref", "ring-ref0" };
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        describe(f, 1, 0, false);
        undescribe(f, 0);
        put(f, "ring-page-order", "0");
        put(f, name[i], "4");
        put(f, "event-channel", "%u", PORT_BASE);
        set_state(f, XenbusStateInitialised);
        expect_state(f, XenbusStateConnected);
        use_queue(f, 0);
        set_state(f, XenbusStateInitialising);
        expect_state(f, XenbusStateInitWait);
        undescribe(f, 1);
        xs_client_rm(f->guest_xs, XS_NO_TRANSACTION, FRONT "/ring-ref0");
    }
}

/* One node of a good description replaced; NULL removes it. */
static void bad_descriptions_are_refused_by_name(void **state)
{
    static const struct { const char *key, *value; } bad[] = {
        { "multi-queue-num-queues", "0" }, { "multi-queue-num-queues", "5" },
        { "multi-queue-num-queues", "4294967297" }, { "multi-queue-num-queues", "-1" },
        { "multi-queue-num-queues", "two" }, { "multi-queue-num-queues", "" },
        { "multi-queue-num-queues", "2 " }, { "protocol", "\033[2J\n" }, { "ring-page-order", "5" },
        { "ring-page-order", "99999999999999999999" }, { "ring-page-order", "%s%n" },
        { "protocol", "x86_32-abi" }, { "protocol", "arm-abi" }, { "protocol", "" },
        { "feature-persistent", "2" }, { "queue-1/ring-ref0", NULL },
        { "queue-1/ring-ref1", "garbage" }, { "queue-1/ring-ref1", "4294967295" },
        { "queue-1/ring-ref1", "8193" }, { "queue-0/event-channel", NULL },
        { "queue-1/event-channel", "0" }, { "queue-1/event-channel", "131072" },
        { "queue-1/event-channel", "999" },
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < array_size(bad); i++) {
        char path[256], *text;

        describe(f, 2, 1, true);
        snprintf(path, sizeof(path), "%s/%s", FRONT, bad[i].key);
        if (bad[i].value)
            put(f, bad[i].key, "%s", bad[i].value);
        else
            assert_int_equal(xs_client_rm(f->guest_xs, XS_NO_TRANSACTION, path), 0);
        set_state(f, XenbusStateInitialised);
        expect_state(f, XenbusStateClosing);
        text = get(f, BACK, "error");
        assert_non_null(text);
        /* the node at fault, or for what its value stands for, that */
        if (!strstr(text, bad[i].key) && !strstr(text, "grant reference") && !strstr(text, "port"))
            fail_msg("%s = '%s': '%s'", bad[i].key, bad[i].value, text);
        for (char *c = text; *c; c++)
            assert_true(*c >= ' ' && *c <= '~');
        free(text);
        assert_int_equal(f->nr_bound, 0);
        assert_int_equal(guest_grants_in_use(&f->guest), 0);
        /* and the next attempt may be better */
        xs_client_rm(f->guest_xs, XS_NO_TRANSACTION, BACK "/error");
        undescribe(f, 2);
        set_state(f, XenbusStateInitialising);
        expect_state(f, XenbusStateInitWait);
    }
    describe(f, 2, 1, true);
    set_state(f, XenbusStateInitialised);
    expect_state(f, XenbusStateConnected);
    use_queue(f, 1);
    set_state(f, XenbusStateClosed);
    expect_state(f, XenbusStateClosed);
    undescribe(f, 2);
}

static void nonsense_in_state_changes_nothing(void **state)
{
    static const char *const text[] = { "", "x", "-1", "9", "4294967300", "7" };
    struct fixture *f = *state;

    for (unsigned i = 0; i < array_size(text); i++) {
        put(f, "state", "%s", text[i]);
        expect_no_change(f, XenbusStateInitWait);
    }
}

int main(void)
{
#define with_vbd(test) cmocka_unit_test_setup_teardown(test, setup_vbd, teardown)
    static const struct CMUnitTest tests[] = {
        with_vbd(guest_finds_what_libxl_would_have_written),
        with_vbd(each_end_owns_its_directory_and_reads_the_other),
        cmocka_unit_test_setup_teardown(readonly_cdrom_says_so, setup, teardown),
        with_vbd(order_0_may_come_with_either_name_of_the_ring),
        with_vbd(bad_descriptions_are_refused_by_name),
        with_vbd(nonsense_in_state_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
