/* SPDX-License-Identifier: MIT */
/* on_...="rename-restart": another process for the same configuration. */
#ifndef XENOLITH_CTL_RESPAWN_H
#define XENOLITH_CTL_RESPAWN_H

#include "base/err.h"

struct guest_config;

/* Runs this program's `create` on the kept text and words, with uuid, and waits
 * until the guest is there.  -ECHILD: it said why on standard error. */
int guest_respawn(const struct guest_config *gc, const uint8_t uuid[16], struct err *e);

#endif
