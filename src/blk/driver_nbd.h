/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_BLK_DRIVER_NBD_H
#define XENOLITH_BLK_DRIVER_NBD_H

struct blk_driver;

extern const struct blk_driver blk_driver_nbd;

#endif
