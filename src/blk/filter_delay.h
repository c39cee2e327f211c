/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_BLK_FILTER_DELAY_H
#define XENOLITH_BLK_FILTER_DELAY_H

/* Keeps each request for a time before the disk gets it. */
extern const struct blk_driver blk_filter_delay;

#endif
