/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_BLK_DRIVER_FILE_H
#define XENOLITH_BLK_DRIVER_FILE_H

/* Raw images and block devices of the host, through io_uring. */
extern const struct blk_driver blk_driver_file;

#endif
