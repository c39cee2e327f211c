/* SPDX-License-Identifier: MIT */
/* A guest's configuration in the JSON that `xl list -l` and `xl create -n`
 * print: libxl's domain_config, with what only Xenolith knows in "xenolith". */
#ifndef XENOLITH_CTL_CONFIG_JSON_H
#define XENOLITH_CTL_CONFIG_JSON_H

#include <jansson.h>

#include "vm/guest.h"

/* NULL: out of memory. */
json_t *ctl_config_json(const struct vm_config *c);
json_t *ctl_config_json_disk(const struct vm_disk *d);

#endif
