# SPDX-License-Identifier: MIT
"""Two stock guests that share pages and event channels, by their kernels' devices and
Xen's own libraries: see programs/peers.c."""
from harness import Guest, need


def pair(world, one, other, **keys):
    """Two guests that know each other's number."""
    guests = [Guest(world, script, name=name, **keys).create()
              for name, script in (("one", one), ("other", other))]
    for guest, peer in (guests, reversed(guests)):
        world.store("xenstore-write", f"/local/domain/{guest.domid}/data/peer", str(peer.domid))
    return guests


def both_finish(guests):
    for guest in guests:
        guest.finished()


def test_pages_and_events_are_shared(world):
    both_finish(pair(world, "peers granter", "peers user", vcpus=2))


def test_libxenvchan_carries_megabytes(world):
    both_finish(pair(world, "peers vchan-server 16", "peers vchan-client 16", vcpus=2))
