/* SPDX-License-Identifier: MIT */
/* Who counts as wanting a processor of the host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "xen/hostload.h"

#define VCPUS 4

static struct xen_hostload load;
static struct xen_hostwaker waker[VCPUS];
static struct xen_hostlink link[XEN_HOSTLINK_MAX];
static const struct xen_hostload_view view = {
    .load = &load, .wakers = waker, .links = link, .nr_wakers = VCPUS,
};

static int setup(void **state)
{
    load = (struct xen_hostload){ .host_cpus = 2, .nr_links = 3 };
    memset(link, 0, sizeof(link));
    for (unsigned i = 0; i < VCPUS; i++)
        waker[i] = (struct xen_hostwaker){ .state = XEN_HOSTWAKER_HALTED };
    return 0;
}

static void vcpus_count_unless_they_are_halted(void **state)
{
    waker[0].state = XEN_HOSTWAKER_RUNNING;
    waker[2].state = XEN_HOSTWAKER_POLLING;
    assert_false(xen_hostload_crowded(&view, 0));
    waker[3].state = XEN_HOSTWAKER_RUNNING;
    assert_true(xen_hostload_crowded(&view, 0));
    waker[0].state = XEN_HOSTWAKER_HALTED;
    assert_false(xen_hostload_crowded(&view, 0));
}

static void links_count_while_they_are_awake(void **state)
{
    waker[0].state = XEN_HOSTWAKER_RUNNING;
    link[2].awake = 1;
    assert_false(xen_hostload_crowded(&view, 0));
    link[0].awake = 1;
    assert_true(xen_hostload_crowded(&view, 0));
}

static void links_never_bound_do_not_count(void **state)
{
    for (unsigned i = 3; i < XEN_HOSTLINK_MAX; i++)
        link[i].awake = 1;
    assert_false(xen_hostload_crowded(&view, 0));
    load.nr_links = UINT32_MAX;
    assert_true(xen_hostload_crowded(&view, 0));
}

static void the_caller_may_add_itself(void **state)
{
    waker[0].state = XEN_HOSTWAKER_RUNNING;
    assert_false(xen_hostload_crowded(&view, 1));
    assert_true(xen_hostload_crowded(&view, 2));
}

static void nobody_is_crowded_on_a_host_that_is_not_known(void **state)
{
    const struct xen_hostload_view nothing = { 0 };

    for (unsigned i = 0; i < VCPUS; i++)
        waker[i].state = XEN_HOSTWAKER_RUNNING;
    load.host_cpus = 0;
    assert_false(xen_hostload_crowded(&view, 5));
    assert_false(xen_hostload_crowded(&nothing, 5));
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(vcpus_count_unless_they_are_halted),
        TEST(links_count_while_they_are_awake),
        TEST(links_never_bound_do_not_count),
        TEST(the_caller_may_add_itself),
        TEST(nobody_is_crowded_on_a_host_that_is_not_known),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
