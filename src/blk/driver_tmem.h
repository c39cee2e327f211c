/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_BLK_DRIVER_TMEM_H
#define XENOLITH_BLK_DRIVER_TMEM_H

struct blk_driver;

extern const struct blk_driver blk_driver_tmem;

#endif
