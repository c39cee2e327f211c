/* SPDX-License-Identifier: MIT */
/* What the test and its guest programs agree on; also read by the assembler. */
#ifndef TESTS_GUEST_KVM_GUEST_H
#define TESTS_GUEST_KVM_GUEST_H

/* Writes of DOORBELL_VALUE to the doorbell port go to an eventfd, all other
 * writes to any port exit. */
#define PORT_DOORBELL  0x510
#define DOORBELL_VALUE 7
#define PORT_REPORT    0x520        /* what the guest has to say */
#define PORT_QUESTION  0x530        /* read: the host's next number */
#define PORT_END       0x540        /* this vCPU is done */

#define VECTOR_A       0x41
#define VECTOR_B       0x42
#define VECTOR_TIMER   0x43

/* Mapped, but no memory is behind it. */
#define NOTHING_ADDRESS 0xc0001000

#ifndef __ASSEMBLER__
/* Programs of guest_code.S: position-independent, entered with rdi pointing to a
 * word of their own in shared memory.  They end where the next begins. */
extern const char guest_code[], guest_code_end[];
extern const char guest_doorbell[], guest_ports[], guest_chatter[], guest_wait[], guest_timer[],
    guest_spin[], guest_ud2[], guest_mmio[];
extern const char handler_a[], handler_b[], handler_timer[];
#endif

#endif
