/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_BLK_FILTER_VERIFY_H
#define XENOLITH_BLK_FILTER_VERIFY_H

/* Remembers checksums of what was written, and compares what is read with them. */
extern const struct blk_driver blk_filter_verify;

#endif
