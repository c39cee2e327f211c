/* SPDX-License-Identifier: MIT */
/* What the lab boots: a kernel from the cache that lab/fetch-kernel keeps, and an
 * initramfs made of lab/init, the modules it needs, and its orders. */
#ifndef XENOLITH_CMD_LAB_IMAGE_H
#define XENOLITH_CMD_LAB_IMAGE_H

#include <limits.h>

#include "base/err.h"
#include "base/types.h"
#include "cmd/lab_cpio.h"
#include "cmd/lab_wire.h"

struct lab_kernel {
    char image[PATH_MAX];       /* vmlinux or vmlinuz */
    char folder[PATH_MAX];      /* with modules/ and modules.dep */
};

/* What happens inside the lab. */
struct lab_orders {
    const char *shares[LAB_MAX_SHARES];     /* absolute, resolved */
    unsigned nr_shares;
    const char *cwd;
    char *const *command;                   /* NULL-terminated */
    char *const *environment;               /* likewise */
};

/* The folder with init and the scripts that fetch things: $XENOLITH_LAB_DIR, or beside the running
 * program's build, or where an installed program has it.  -ENOENT when neither. */
int lab_image_find_dir(char *dir, size_t size, struct err *err);

/* The program that emulates the lab: $XENOLITH_LAB_QEMU, or what fetch-qemu says. */
int lab_image_find_qemu(const char *lab_dir, char *path, size_t size, struct err *err);

/* The newest cached kernel, or a new one: runs fetch-kernel.  flavour is
 * "amd64" or another that fetch-kernel knows; kernel_file replaces the image when
 * not NULL (its folder must then hold modules/, as fetch-kernel leaves it). */
int lab_image_find_kernel(const char *lab_dir, const char *flavour,
                          const char *kernel_file, struct lab_kernel *k,
                          struct err *err);

/* Builds the initramfs into c, which the caller frees in any case. */
int lab_image_build(const char *lab_dir, const struct lab_kernel *k,
                    const struct lab_orders *orders, struct lab_cpio *c,
                    struct err *err);

#endif
