/* SPDX-License-Identifier: MIT */
/* The rules, first match wins:
 *
 *   1. The end of COMMAND was seen: whatever happens afterwards, it ended.
 *   2. We ended the lab ourselves: stopped.
 *   3. Init said that it cannot set the lab up: broken, and so it would be again.
 *   4. L1 sent nonsense: its memory is damaged.
 *   5. QEMU is gone: by a triple fault, by a panic, by a signal, or for no known
 *      reason (COMMAND may have rebooted L1; that looks the same and is treated
 *      the same).  Only when it was gone with an error before L1 ever lived, QEMU
 *      refused to start: broken.
 *   6. QEMU lives, but no heartbeat came for SILENCE_NS.  That alone proves
 *      nothing: on a busy machine QEMU just does not get the processor, and a
 *      stopped process gets none at all.  It is a fault if L1 had plenty of
 *      processor time in which to beat (spinning), or hardly ever wanted any (idle:
 *      a lost timer or wakeup). */
#include "cmd/lab_fault.h"

#include <sys/wait.h>


#define NS_PER_S UINT64_C(1000000000)

/* A heartbeat is due every second and costs L1 well under a millisecond. */
#define SILENCE_NS (60 * NS_PER_S)
/* So much processor time holds sixty heartbeats many times over, even when each
 * of the emulated processors had only a part of it. */
#define SPIN_CPU_NS (60 * NS_PER_S)
/* Idle: the processor was wanted in less than 1/IDLE_SHARE of the silence. */
#define IDLE_SHARE 20

static enum lab_verdict judge_gone(const struct lab_evidence *e)
{
    if (e->triple_fault)
        return LAB_FAULT_TRIPLE;
    if (e->panic)
        return LAB_FAULT_PANIC;
    if (WIFSIGNALED(e->qemu_wait_status))
        return LAB_FAULT_CRASHED;
    if (!e->beat_seen && WEXITSTATUS(e->qemu_wait_status) != 0)
        return LAB_BROKEN;
    return LAB_FAULT_GONE;
}

enum lab_verdict lab_fault_judge(const struct lab_evidence *e)
{
    if (e->end_seen)
        return LAB_ENDED;
    if (e->stopped_by_us)
        return LAB_STOPPED;
    if (e->trouble_seen)
        return LAB_BROKEN;
    if (e->garbled)
        return LAB_FAULT_GARBLED;
    if (e->qemu_exited)
        return judge_gone(e);
    if (e->since_beat_ns < SILENCE_NS)
        return LAB_RUNNING;
    if (e->qemu_cpu_ns >= SPIN_CPU_NS)
        return LAB_FAULT_SPINNING;
    if (max_of(e->qemu_cpu_ns, e->qemu_wanted_ns) < e->since_beat_ns / IDLE_SHARE)
        return LAB_FAULT_IDLE;
    return LAB_RUNNING;
}

bool lab_fault_is(enum lab_verdict v)
{
    return v >= LAB_FAULT_TRIPLE;
}

const char *lab_fault_text(enum lab_verdict v)
{
    switch (v) {
    case LAB_FAULT_TRIPLE:
        return "L1 was reset by a triple fault";
    case LAB_FAULT_PANIC:
        return "L1's kernel panicked";
    case LAB_FAULT_GONE:
        return "L1 was gone before the command ended";
    case LAB_FAULT_CRASHED:
        return "QEMU was killed by a signal";
    case LAB_FAULT_SPINNING:
        return "L1 fell silent, its processors spinning";
    case LAB_FAULT_IDLE:
        return "L1 fell silent, its processors idle";
    case LAB_FAULT_GARBLED:
        return "L1 sent garbled data";
    case LAB_RUNNING:
    case LAB_ENDED:
    case LAB_STOPPED:
    case LAB_BROKEN:
        break;
    }
    return "";
}
