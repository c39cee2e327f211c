/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_BLK_FILTER_COW_H
#define XENOLITH_BLK_FILTER_COW_H

/* Writes go to an overlay, the disk below is only read. */
extern const struct blk_driver blk_filter_cow;

#endif
