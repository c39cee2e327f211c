/* SPDX-License-Identifier: MIT */
/* What must outlive the process that serves a ring: a record in memory that it shares with the
 * guest's process, from which another one goes on after it was killed, at whatever instruction.
 *
 * A response takes the place of a request in the ring, so the record keeps a copy of each
 * request from before it is started until its response can be seen.  What is found there
 * afterwards is done (again) in the order of the ring, barriers included.  To do it twice is
 * invisible: the guest has had no answer, so it has ordered nothing after it.
 *
 *              slot is                    when
 *     FREE  -> TAKEN      before req_cons passes the request: one that is not in the record is
 *                         still in the ring
 *     TAKEN -> ANSWERED   once its response is written, where the guest does not look yet
 *     ANSWERED -> FREE    between rsp_publishing and rsp_published
 *
 * Showing responses is three stores: rsp_publishing, the ring's rsp_prod, rsp_published.  After
 * the first of them it is carried through: doing the second again changes nothing, whatever
 * the guest has made of it meanwhile.
 *
 * The in-use bits of grants: a reference is in the record from before its bits are set until
 * after they are cleared.  Whoever goes on clears all that he finds, and starts anew.  Who holds
 * one is counted in each process, so a guest that gives one reference to two disks may find it
 * unused too early; its pages are its own.
 *
 * All of this holds for stores in program order, which is what another process sees of one
 * that has ended; and only once nothing that it has asked of the kernel is under way any
 * more (blk_handed, keep_fd).  A record is believed no more than the process that wrote it:
 * from a wrong one come wrong requests, which are judged like a guest's. */
#ifndef XENOLITH_DEV_XEN_VBD_RECORD_H
#define XENOLITH_DEV_XEN_VBD_RECORD_H

#include "dev/xen_vbd_abi.h"
#include "dev/xen_vbd_grants.h"

#define VBD_RECORD_COUNTERS_MAX 40u
#define VBD_RECORD_FAULT_BYTES  96u
#define VBD_RECORD_ENTRIES_MAX  512u    /* of the largest ring */

enum vbd_record_state { VBD_RECORD_FREE, VBD_RECORD_TAKEN, VBD_RECORD_ANSWERED };

struct vbd_record_slot {
    uint32_t state;             /* enum vbd_record_state */
    uint32_t seq;               /* the request's index in the ring */
    uint32_t rsp;               /* ANSWERED: the response's */
    uint32_t nr_holds;
    struct vbd_request request;
};

struct vbd_record_head {
    uint32_t started;           /* the rest of the record has been filled in */
    uint32_t req_cons;
    uint32_t rsp_publishing;
    uint32_t rsp_published;
    uint32_t faulted;
    char fault[VBD_RECORD_FAULT_BYTES];
    uint64_t counters[VBD_RECORD_COUNTERS_MAX];     /* of all lives; the queue's */
};

/* Where the parts are.  head NULL: there is no record. */
struct vbd_record {
    struct vbd_record_head *head;
    struct vbd_record_slot *slot;       /* nr_entries */
    struct vbd_hold *hold;              /* VBD_SEGMENTS_MAX for each */
    uint64_t *kept;                     /* VBD_GRANTS_MAX: persistent grants */
    uint32_t nr_entries;
};

/* kept[]: a reference, or 0 */
#define VBD_RECORD_KEPT ((uint64_t)1 << 32)

/* Of a record for a ring of nr_entries; what is not used of it takes no memory. */
size_t vbd_record_bytes(uint32_t nr_entries);
/* base: shared memory of that size, zeroes to begin with. */
void vbd_record_lay(struct vbd_record *r, void *base, uint32_t nr_entries);

/* What is to be done again, in order. */
struct vbd_record_left {
    unsigned nr;
    uint16_t slot[VBD_RECORD_ENTRIES_MAX];
};

/* For who starts on it, in place of one that has ended: rsp_prod is the ring's shared word.
 * Gives the dead one's pages back.  0, or -EPROTO for a record that nobody can have written
 * who does what is said above. */
int vbd_record_adopt(const struct vbd_record *r, uint32_t *rsp_prod, struct gnttab_host *grants,
                     struct vbd_record_left *left);

#endif
