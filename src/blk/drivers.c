/* SPDX-License-Identifier: MIT */
/* The block drivers and filters.  The conformance tests run over these tables. */
#include <string.h>

#include "blk/driver.h"
#include "blk/driver_file.h"
#include "blk/driver_nbd.h"
#include "blk/driver_null.h"
#include "blk/driver_ram.h"
#include "blk/driver_tmem.h"
#include "blk/filter_cow.h"
#include "blk/filter_delay.h"
#include "blk/filter_fault.h"
#include "blk/filter_qos.h"
#include "blk/filter_trace.h"
#include "blk/filter_verify.h"

const struct blk_driver *const blk_driver_table[] = {
    &blk_driver_file,
    &blk_driver_nbd,
    &blk_driver_null,
    &blk_driver_ram,
    &blk_driver_tmem,
    NULL,
};

const struct blk_driver *const blk_filter_table[] = {
    &blk_filter_qos,
    &blk_filter_delay,
    &blk_filter_fault,
    &blk_filter_verify,
    &blk_filter_cow,
    &blk_filter_trace,
    NULL,
};

static const struct blk_driver *find(const struct blk_driver *const table[], const char *name)
{
    for (unsigned i = 0; table[i]; i++)
        if (!strcmp(table[i]->name, name))
            return table[i];
    return NULL;
}

const struct blk_driver *blk_driver_find(const char *name)
{
    return find(blk_driver_table, name);
}

const struct blk_driver *blk_filter_find(const char *name)
{
    return find(blk_filter_table, name);
}
