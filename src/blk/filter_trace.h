/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_BLK_FILTER_TRACE_H
#define XENOLITH_BLK_FILTER_TRACE_H

struct blk_driver;

extern const struct blk_driver blk_filter_trace;

#endif
