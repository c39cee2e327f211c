/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_BLK_DRIVER_RAM_H
#define XENOLITH_BLK_DRIVER_RAM_H

/* A disk in this process's memory, which goes with it. */
extern const struct blk_driver blk_driver_ram;

#endif
