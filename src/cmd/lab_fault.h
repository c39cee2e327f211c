/* SPDX-License-Identifier: MIT */
/* Tells a fault of the lab from a failure of the command that runs in it.
 * Pure: evidence in, verdict out. */
#ifndef XENOLITH_CMD_LAB_FAULT_H
#define XENOLITH_CMD_LAB_FAULT_H

#include "base/types.h"

enum lab_verdict {
    LAB_RUNNING,            /* nothing is wrong that we can see: wait */
    LAB_ENDED,              /* COMMAND ended and all its output is here */
    LAB_STOPPED,            /* gone because we ended it */
    LAB_BROKEN,             /* cannot work, and would not the next time: QEMU
                               refuses its options, a mount fails, ... */
    LAB_FAULT_TRIPLE,       /* from here on, faults of the lab, worth a retry */
    LAB_FAULT_PANIC,
    LAB_FAULT_GONE,
    LAB_FAULT_CRASHED,      /* QEMU itself died of a signal that is not ours */
    LAB_FAULT_SPINNING,
    LAB_FAULT_IDLE,
    LAB_FAULT_GARBLED,      /* it sent what init never sends */
};

/* The three times count from the last heartbeat, or from the start of QEMU before
 * the first. */
struct lab_evidence {
    bool end_seen;          /* LAB_FRAME_END came */
    bool trouble_seen;      /* LAB_FRAME_TROUBLE came */
    bool garbled;           /* a frame made no sense */
    bool stopped_by_us;
    bool beat_seen;         /* at least one heartbeat came: L1 has booted */
    bool qemu_exited;
    int qemu_wait_status;   /* as wait(2) has it; with qemu_exited */
    bool triple_fault;      /* in QEMU's log of processor resets */
    bool panic;             /* on L1's console */
    uint64_t since_beat_ns;
    uint64_t qemu_cpu_ns;   /* processor time QEMU's threads had */
    uint64_t qemu_wanted_ns;/* time in which at least one of them wanted it */
};

enum lab_verdict lab_fault_judge(const struct lab_evidence *e);

/* true for verdicts that are the lab's fault, so that a retry makes sense */
bool lab_fault_is(enum lab_verdict v);

/* "L1 was reset by a triple fault" and so on; "" for what is no fault. */
const char *lab_fault_text(enum lab_verdict v);

#endif
