/* SPDX-License-Identifier: MIT */
/* vm/guest.h and the xenstore daemon, without a guest: records what is asked of
 * it, obeys a script, and has the real console on a ring in plain memory. */
#ifndef TESTS_CTL_FAKE_GUEST_H
#define TESTS_CTL_FAKE_GUEST_H

#include "vm/guest.h"

/* The script is the kernel command line of the configuration, words of it:
 *   fail         vm_guest_create() fails
 *   obey         control/shutdown is obeyed
 *   crash, off   stops so as soon as it runs
 *   crash-first  crashes as domain 1
 *   off-later    powers off when it runs as domain 3 or later, else reboots
 *   lets-go      of a disk that is to be detached, soon; it keeps it without this word
 */

/* One guest's own record, for tests in the same process. */
struct fake_guest_seen {
    unsigned nr_paused, nr_unpaused;
    char asked[32];
    unsigned nr_disks;
};
const struct fake_guest_seen *fake_guest_seen(const struct vm_guest *g);

/* Stops it as the guest itself would. */
void fake_guest_stop(struct vm_guest *g, enum vm_stop why, const char *text);

#endif
