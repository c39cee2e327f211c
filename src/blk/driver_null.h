/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_BLK_DRIVER_NULL_H
#define XENOLITH_BLK_DRIVER_NULL_H

/* A disk of zeroes that forgets what is written: the cost of everything but a
 * medium. */
extern const struct blk_driver blk_driver_null;

#endif
