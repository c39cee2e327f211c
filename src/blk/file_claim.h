/* SPDX-License-Identifier: MIT */
/* Who may open an image: one writer, or any number of readers.  The claim is a
 * flock(), and for a block device that is written also O_EXCL, which keeps the
 * host's own file systems out: both need no lock file, hold between processes
 * and within one, and end with the process however it ends.
 *
 * The claim has an open file of its own.  The one for I/O is registered with
 * io_uring, which lets go of it some time after the ring was closed or its
 * process died: a guest that reboots would find its own disk in use. */
#ifndef XENOLITH_BLK_FILE_CLAIM_H
#define XENOLITH_BLK_FILE_CLAIM_H

#include <sys/stat.h>

#include "base/err.h"
#include "base/types.h"

/* Claims the file at path, which is the one st describes: shared for readers,
 * exclusive for a writer.  With shared_write whoever else has it does not
 * matter, but a later exclusive writer is kept out where possible.  A descriptor
 * that holds the claim until it is closed; or -EBUSY with e naming the holder,
 * or another -errno. */
int file_claim(const char *path, const struct stat *st, bool readonly, bool shared_write,
               struct err *e);

#endif
