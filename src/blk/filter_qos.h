/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_BLK_FILTER_QOS_H
#define XENOLITH_BLK_FILTER_QOS_H

/* Limits how many requests, and how many bytes, a disk or a group of disks does per second. */
extern const struct blk_driver blk_filter_qos;

#endif
