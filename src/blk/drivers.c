/* SPDX-License-Identifier: MIT */
/* The block drivers.  The conformance tests run over this table. */
#include <string.h>

#include "blk/driver.h"
#include "blk/driver_file.h"
#include "blk/driver_nbd.h"
#include "blk/driver_null.h"

const struct blk_driver *const blk_driver_table[] = {
    &blk_driver_file,
    &blk_driver_nbd,
    &blk_driver_null,
    NULL,
};

const struct blk_driver *blk_driver_find(const char *name)
{
    for (unsigned i = 0; blk_driver_table[i]; i++)
        if (!strcmp(blk_driver_table[i]->name, name))
            return blk_driver_table[i];
    return NULL;
}
