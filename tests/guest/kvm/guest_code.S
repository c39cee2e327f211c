/* SPDX-License-Identifier: MIT */
/* Small 64-bit ring-0 programs, copied into guest memory as one block. */
#include "guest.h"

#define MSR_TSC_DEADLINE     0x6e0
#define MSR_X2APIC_EOI       0x80b
#define MSR_X2APIC_SVR       0x80f
#define MSR_X2APIC_LVT_TIMER 0x832
#define SVR_ENABLE           0x1ff
#define TIMER_TSC_DEADLINE   (2 << 17)

.macro say port, value
    mov $\port, %edx
    mov $\value, %eax
    out %eax, %dx
.endm

.macro write_msr msr, value
    mov $\msr, %ecx
    mov $\value, %eax
    xor %edx, %edx
    wrmsr
.endm

.macro end
    say PORT_END, 0
0:  hlt
    jmp 0b
.endm

    .section .rodata
    .balign 16
    .global guest_code
guest_code:

/* One write for the eventfd, one that differs in value, one that differs in size. */
    .global guest_doorbell
guest_doorbell:
    say PORT_DOORBELL, DOORBELL_VALUE
    say PORT_DOORBELL, DOORBELL_VALUE + 1
    mov $DOORBELL_VALUE, %eax
    out %al, %dx
    end

/* Reads of each size, then a string of three words. */
    .global guest_ports
guest_ports:
    mov %rdi, %rsi
    mov $PORT_QUESTION, %edx
    mov $-1, %eax
    in %dx, %al
    mov $PORT_REPORT, %edx
    out %eax, %dx
    mov $PORT_QUESTION, %edx
    mov $-1, %eax
    in %dx, %ax
    mov $PORT_REPORT, %edx
    out %eax, %dx
    mov $PORT_QUESTION, %edx
    in %dx, %eax
    mov $PORT_REPORT, %edx
    out %eax, %dx
    mov $3, %ecx
    cld
    rep outsl
    end

/* Asks and repeats the answer, for ever. */
    .global guest_chatter
guest_chatter:
    mov $PORT_QUESTION, %edx
    in %dx, %eax
    mov $PORT_REPORT, %edx
    out %eax, %dx
    jmp guest_chatter

/* Sleeps between interrupts. */
    .global guest_wait
guest_wait:
    write_msr MSR_X2APIC_SVR, SVR_ENABLE
    say PORT_REPORT, 0
0:  sti
    hlt
    jmp 0b

/* Sets the TSC-deadline timer once, some milliseconds ahead. */
    .global guest_timer
guest_timer:
    write_msr MSR_X2APIC_SVR, SVR_ENABLE
    write_msr MSR_X2APIC_LVT_TIMER, VECTOR_TIMER | TIMER_TSC_DEADLINE
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    add $10000000, %rax
    mov %rax, (%rdi)
    mov %rax, %rdx
    shr $32, %rdx
    mov $MSR_TSC_DEADLINE, %ecx
    wrmsr
0:  sti
    hlt
    jmp 0b

/* Counts in its word. */
    .global guest_spin
guest_spin:
    incq (%rdi)
    jmp guest_spin

    .global guest_ud2
guest_ud2:
    ud2

    .global guest_mmio
guest_mmio:
    mov $NOTHING_ADDRESS, %ebx
    movl $0x12345678, (%rbx)
    end

.macro handler name, vector
    .global \name
\name:
    push %rax
    push %rcx
    push %rdx
    write_msr MSR_X2APIC_EOI, 0
    say PORT_REPORT, \vector
    pop %rdx
    pop %rcx
    pop %rax
    iretq
.endm

    handler handler_a, VECTOR_A
    handler handler_b, VECTOR_B

/* Reports how late it is, in TSC ticks. */
    .global handler_timer
handler_timer:
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    sub (%rdi), %rax
    mov $PORT_REPORT, %edx
    out %eax, %dx
    end

    .global guest_code_end
guest_code_end:

    .section .note.GNU-stack, "", @progbits
