/* SPDX-License-Identifier: MIT */
/* Inside the lab: carries the input and output of one command over the ports. */
#ifndef XENOLITH_LAB_RELAY_H
#define XENOLITH_LAB_RELAY_H

#include <sys/types.h>

#include "cmd/lab_wire.h"

/* Bytes that came from one side and wait for the other. */
struct relay_buffer {
    uint8_t data[sizeof(struct lab_frame) + LAB_FRAME_MAX_BYTES];
    size_t start, end;      /* data[start..end) waits */
};

struct relay {
    int data_fd, control_fd;            /* the ports, non-blocking; -1: not open */
    pid_t command_pid;
    int stdin_fd, stdout_fd, stderr_fd; /* our ends of COMMAND's pipes; -1: closed */
    int signal_fd;
    bool command_ended;
    uint32_t exit_status;               /* once it ended */
    bool input_at_end;                  /* no more input will come */
    struct relay_buffer up;             /* frames on their way to the host */
    struct relay_buffer down;           /* frames on their way from the host */
    struct relay_buffer control;        /* the same, on the control port */
};

/* Blocks SIGCHLD and ignores SIGPIPE in this process. */
void relay_init(struct relay *r);

/* The relay owns the pipes' ends from here on. */
void relay_attach(struct relay *r, int stdin_fd, int stdout_fd, int stderr_fd);

/* Queues a frame; waits while the host does not take what is queued already.
 * payload_bytes is at most LAB_FRAME_MAX_BYTES. */
void relay_send(struct relay *r, enum lab_frame_type type, const void *payload,
                size_t payload_bytes);
/* The same, and waits until the host has it all. */
void relay_send_last(struct relay *r, enum lab_frame_type type, const void *payload,
                     size_t payload_bytes);

/* Returns when COMMAND has ended and the host has all it wrote.  Processes that
 * COMMAND left behind do not keep it waiting, though what they wrote until then
 * is carried. */
void relay_run(struct relay *r);

/* Tells the host how COMMAND ended; after relay_run(). */
void relay_send_end(struct relay *r);

#endif
