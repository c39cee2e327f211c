/* SPDX-License-Identifier: MIT */
/* Who may open an image: one writer, or any number of readers.  The claim is a
 * flock() on the open file: it needs no lock file, holds between processes and
 * within one, and the kernel drops it however the process ends. */
#ifndef XENOLITH_BLK_FILE_CLAIM_H
#define XENOLITH_BLK_FILE_CLAIM_H

#include "base/err.h"
#include "base/types.h"

/* Claims what fd has open: shared for readers, exclusive for a writer.  With
 * shared_write whoever else has it does not matter, but a later exclusive
 * writer is kept out where possible.  0, -EBUSY with e naming the holder, or
 * another -errno.  The claim lasts until fd is closed. */
int file_claim(int fd, bool readonly, bool shared_write, struct err *e);

#endif
