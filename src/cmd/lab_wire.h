/* SPDX-License-Identifier: MIT */
/* What the lab command on the host and the init of the lab (lab/init.c) say to
 * each other.
 *
 * Two virtio-serial ports, so that neither a COMMAND that does not read its
 * input nor a reader that does not take the output can hold up the rest:
 *
 *   data     down: COMMAND's standard input; up: its output and, last, its end
 *   control  down: closed outputs;           up: a heartbeat every second
 *
 * Both carry frames: a header, then payload_bytes of payload.  The end of
 * COMMAND travels behind its last output on one stream, so it is the proof that
 * nothing is missing.  Little-endian, as both ends are x86. */
#ifndef XENOLITH_CMD_LAB_WIRE_H
#define XENOLITH_CMD_LAB_WIRE_H

#include "base/types.h"

/* Names of the ports: /sys/class/virtio-ports/vportNpM/name */
#define LAB_PORT_DATA    "xenolith.lab.data"
#define LAB_PORT_CONTROL "xenolith.lab.control"

enum lab_frame_type {
    LAB_FRAME_INPUT = 1,    /* down; empty: end of input */
    LAB_FRAME_OUTPUT,       /* up: standard output */
    LAB_FRAME_ERRORS,       /* up: standard error */
    LAB_FRAME_READY,        /* up, once: COMMAND is about to start; empty */
    LAB_FRAME_END,          /* up, last: struct lab_end */
    LAB_FRAME_TROUBLE,      /* up, last: the lab could not be set up; text */
    LAB_FRAME_BEAT,         /* up, control port; empty */
    LAB_FRAME_CLOSED,       /* down, control port: one byte, 1 or 2: nobody reads
                               this output any more */
};

struct lab_frame {
    uint32_t type;              /* enum lab_frame_type */
    uint32_t payload_bytes;     /* at most LAB_FRAME_MAX_BYTES */
};

#define LAB_FRAME_MAX_BYTES 16384u

/* How COMMAND ended, as a shell would put it: 128 + N for signal N, 127 when it
 * was not found, 126 when it could not be run. */
struct lab_end {
    uint32_t exit_status;
};

/* The orders for init: the file LAB_ORDERS_PATH of its initramfs, a sequence of
 * fields, each "KEY=VALUE" with a final NUL.  Order matters only among fields
 * with the same key.
 *
 *   module=PATH    load this module (in the order given) to get at the ports and
 *                  the root
 *   host-module=PATH  load this one meanwhile
 *   share=PATH     mount the 9p share with tag LAB_SHARE_TAG_PREFIX + its index
 *                  at this absolute path, for writing
 *   cwd=PATH       where COMMAND starts
 *   env=NAME=VALUE one variable of its environment
 *   arg=WORD       one word of COMMAND
 */
#define LAB_ORDERS_PATH      "lab.orders"
#define LAB_MODULES_DIR      "modules"
#define LAB_ROOT_TAG         "xenolith-root"
#define LAB_SHARE_TAG_PREFIX "xenolith-share"
#define LAB_MAX_SHARES 8

#endif
