# SPDX-License-Identifier: MIT
"""Two stock guests that share pages and event channels, by their kernels' devices and
Xen's own libraries: see programs/peers.c."""
from harness import Guest, need


def pair(world, one, other, names=("one", "other"), **keys):
    """Two guests that know each other's number."""
    guests = [Guest(world, script, name=name, **keys).create()
              for name, script in zip(names, (one, other))]
    for guest, peer in (guests, reversed(guests)):
        world.store("xenstore-write", f"/local/domain/{guest.domid}/data/peer", str(peer.domid))
    return guests


# The one that is left would wait for ever, as on Xen, but is as well as ever.
ENDLESS = "timeout -s KILL 15 peers vchan-{0} 100000\n" \
          "[ $? = 137 ] && echo '@@ left' && cat /proc/uptime\n"


def one_dies(world, which):
    guests = pair(world, ENDLESS.format("server"), ENDLESS.format("client"))
    guests[1].expect("^@@ it flows")
    guests[which].kill_process()
    left = guests[1 - which]
    left.expect("^@@ left")
    left.finished()
    need(world.row(guests[which].name) is None, "the killed one is still listed")
    both_finish(pair(world, "peers vchan-server 1", "peers vchan-client 1",
                     names=("third", "fourth")))


def both_finish(guests):
    for guest in guests:
        guest.finished()


def test_pages_and_events_are_shared(world):
    both_finish(pair(world, "peers granter", "peers user", vcpus=2))


def test_a_paused_guest_still_grants(world):
    one, other = pair(world, "peers granter", "peers look")
    other.expect("^@@ told")
    world.xl("pause", "one")
    world.store("xenstore-write", f"/local/domain/{other.domid}/data/paused", "1")
    other.finished()
    need(one.alive(), "the granter has ended")


def test_libxenvchan_carries_megabytes(world):
    both_finish(pair(world, "peers vchan-server 16", "peers vchan-client 16", vcpus=2))


def test_a_server_that_is_killed_leaves_its_client_well(world):
    one_dies(world, 0)


def test_a_client_that_is_killed_leaves_its_server_well(world):
    one_dies(world, 1)
