/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_BLK_FILTER_FAULT_H
#define XENOLITH_BLK_FILTER_FAULT_H

/* Lets requests fail, or hang, by rules that can be repeated exactly. */
extern const struct blk_driver blk_filter_fault;

#endif
