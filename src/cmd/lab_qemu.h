/* SPDX-License-Identifier: MIT */
/* The QEMU process that is the lab's machine. */
#ifndef XENOLITH_CMD_LAB_QEMU_H
#define XENOLITH_CMD_LAB_QEMU_H

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"
#include "cmd/lab_cpio.h"
#include "cmd/lab_image.h"

struct lab_machine {
    const char *qemu;           /* program */
    unsigned nr_cpus;
    uint64_t memory_mib;
    const char *const *shares;  /* as in struct lab_orders */
    unsigned nr_shares;
    bool verbose;               /* let L1's kernel say more */
};

struct lab_qemu {
    pid_t pid;
    int pid_fd;                 /* readable once QEMU is gone */
    int data_fd, control_fd;    /* stream sockets: the two ports */
    int console_fd;             /* pipe: L1's console */
    int messages_fd;            /* pipe: what QEMU itself has to say */
    int reset_log_fd;           /* file: QEMU's log of processor resets */
    int initramfs_fd;
};

/* What /proc says of QEMU at one moment. */
struct lab_qemu_sample {
    uint64_t cpu_ns;            /* processor time of all its threads so far */
    bool wants_cpu;             /* some thread runs, or would if it were let */
    bool held;                  /* stopped by job control or a debugger */
};

/* Starts it.  All descriptors are non-blocking where they can be, and belong to
 * q.  QEMU has its own session, so that keys at the terminal reach only us, and
 * dies with the thread that called this.  On failure q holds nothing. */
int lab_qemu_start(struct lab_qemu *q, const struct lab_machine *m,
                   const struct lab_kernel *k, const struct lab_cpio *initramfs,
                   struct err *err);

/* Kills it if it lives, waits for it, and returns its wait status.  Descriptors
 * stay open for what is still to be read. */
int lab_qemu_end(struct lab_qemu *q);
/* Closes the descriptors; after lab_qemu_end(). */
void lab_qemu_close(struct lab_qemu *q);

/* -ESRCH when it is gone. */
int lab_qemu_sample(const struct lab_qemu *q, struct lab_qemu_sample *s);

#endif
