/* SPDX-License-Identifier: MIT */
/* A process that shares its memory with us may cut the file it lies in; touching a page
 * beyond the new end is SIGBUS then, which ends a process that has many other clients. */
#ifndef XENOLITH_MEM_LOST_PAGES_H
#define XENOLITH_MEM_LOST_PAGES_H

/* From now on such a page becomes one of zeroes, private to this process, when it is touched.
 * What finds zeroes there has to live with any content anyhow.  0 or -errno. */
int lost_pages_replace(void);

#endif
