/* SPDX-License-Identifier: MIT */
/* One attempt to run COMMAND in the lab. */
#ifndef XENOLITH_CMD_LAB_RUN_H
#define XENOLITH_CMD_LAB_RUN_H

#include "base/err.h"
#include "base/types.h"
#include "cmd/lab_fault.h"
#include "cmd/lab_qemu.h"

/* What Linux writes on its console when it panics. */
#define LAB_PANIC_MARK "Kernel panic - not syncing"

#define LAB_CONSOLE_KEPT_BYTES 16384u
#define LAB_MESSAGES_KEPT_BYTES 4096u

/* The last bytes of an endless text. */
struct lab_tail {
    char *text;             /* room_bytes and a final NUL */
    size_t used_bytes;
    size_t room_bytes;
};

struct lab_result {
    enum lab_verdict verdict;
    unsigned exit_status;   /* LAB_ENDED: COMMAND's */
    int signal;             /* LAB_STOPPED: the signal that asked for it */
    bool output_passed;     /* something of COMMAND's output went out */
    bool input_taken;       /* something of our standard input was read */
    char trouble[512];      /* LAB_BROKEN: what L1 or QEMU said */
    struct lab_tail console;    /* L1's console */
    struct lab_tail messages;   /* QEMU's standard error */
    struct lab_tail reset_log;
};

int lab_result_init(struct lab_result *r, struct err *err);
void lab_result_free(struct lab_result *r);

/* Carries our standard input, output and error until the lab is no more, and
 * leaves no QEMU behind, however it ends.  signal_fd is a signalfd with the
 * signals that end the lab.  show_console copies L1's console to standard error.
 * 0 with r filled, or -errno when the attempt could not even begin. */
int lab_run(const struct lab_machine *m, const struct lab_kernel *k,
            const struct lab_cpio *initramfs, int signal_fd, bool show_console,
            struct lab_result *r, struct err *err);

#endif
