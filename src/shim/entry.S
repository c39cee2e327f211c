/* SPDX-License-Identifier: MIT */
/* Every way into the shim and both ways out.
 *
 * No segment base can be used to find the vCPU: GS and its shadow belong to the
 * guest.  So a vCPU is found from its stack: each owns an aligned area of
 * AREA_BYTES with struct shim_vcpu at the bottom and the stacks above.  Traps
 * find the stack through the TSS, SYSENTER through its MSR; SYSCALL changes no
 * stack at all, and gets a stub per vCPU that knows its own area.
 */
#include "shim/layout.h"

    .macro SAVE_REGS
    push %rdi; push %rsi; push %rdx; push %rcx; push %rax
    push %r8;  push %r9;  push %r10; push %r11
    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
    cld
    .endm

    .macro RESTORE_REGS
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
    pop %r11; pop %r10; pop %r9;  pop %r8
    pop %rax; pop %rcx; pop %rdx; pop %rsi; pop %rdi
    .endm

    .section .text.entry, "ax"
    .globl shim_entry
/* First instruction of every vCPU; rdi: its number.  Interrupts off. */
shim_entry:
    mov %rdi, %rax
    inc %rax
    shl $AREA_SHIFT, %rax
    lea vcpu_areas(%rip), %rsp
    lea -512(%rsp,%rax), %rsp   /* the first struct shim_regs goes to the very top */
    xor %ebp, %ebp
    call shim_start
    mov %rax, %rsp              /* a struct shim_regs to go to */
    jmp return_iret

    .section .text.stubs, "ax"
/* SYSCALL: rcx is the return address, r11 the flags, rsp still the guest's. */
    .altmacro
    .macro SYSCALL_STUB n, cs, vector
    .p2align 6
    mov %rsp, vcpu_areas + \n * AREA_BYTES + AREA_SCRATCH(%rip)
    lea vcpu_areas + (\n + 1) * AREA_BYTES(%rip), %rsp
    pushq $SEL_FLAT_DATA
    pushq vcpu_areas + \n * AREA_BYTES + AREA_SCRATCH(%rip)
    push %r11
    pushq $\cs
    push %rcx
    pushq $0
    pushq $\vector
    jmp syscall_common
    .endm

    .p2align 6
    .globl syscall64_stubs
syscall64_stubs:
    .set i, 0
    .rept SHIM_MAX_VCPUS
    SYSCALL_STUB %i, SEL_FLAT_CODE64, VECTOR_SYSCALL64
    .set i, i + 1
    .endr

    .p2align 6
    .globl syscall32_stubs
syscall32_stubs:
    .set i, 0
    .rept SHIM_MAX_VCPUS
    SYSCALL_STUB %i, SEL_FLAT_CODE32, VECTOR_SYSCALL32
    .set i, i + 1
    .endr

/* SYSENTER: neither return address nor stack pointer survive; Xen hands the
 * guest a null RPL-3 code selector and zeroes, and its vDSO knows the rest. */
    .section .text.hot, "ax"
    .p2align 4
    .globl sysenter_entry
sysenter_entry:
    pushq $SEL_FLAT_DATA
    pushq $0
    pushfq
    orq $0x200, (%rsp)
    pushq $2                    /* NT would make the next IRET fault */
    popfq
    pushq $3
    pushq $0
    pushq $0
    pushq $VECTOR_SYSENTER
    /* fall through */
syscall_common:
    SAVE_REGS
    mov %rsp, %rdi
    call shim_syscall
    test %eax, %eax
    jz return_iret
    /* SYSRET: shim_syscall made sure that rcx and r11 are rip and flags, the
     * selectors are STAR's, and rip is canonical */
    RESTORE_REGS
    mov 40(%rsp), %rsp
    sysretq

    .globl return_iret
return_iret:
    RESTORE_REGS
    add $16, %rsp
    .globl iret_to_guest
iret_to_guest:                  /* a fault here is the guest's: see trap.c */
    iretq

    .text
trap_common:
    SAVE_REGS
    mov %rsp, %rdi
    call shim_trap
    jmp return_iret

/* No interrupt should find the shim with the guest's stack pointer, as it is around
 * SYSCALL and SYSRET: they are masked there.  QEMU 7.2's emulation of SVM does it all the
 * same, now and then.  There is no vCPU to be found from that stack, so it is put off:
 * ended for the local APIC, and sent to ourselves again. */
interrupt_common:
    SAVE_REGS
    lea vcpu_areas(%rip), %rax
    mov %rsp, %rdx
    sub %rax, %rdx
    cmp $(AREA_BYTES * SHIM_MAX_VCPUS), %rdx
    jae 1f
    mov %rsp, %rdi
    call shim_trap
    jmp return_iret
1:  mov $MSR_X2APIC_EOI, %ecx
    xor %eax, %eax
    xor %edx, %edx
    wrmsr
    mov $MSR_X2APIC_SELF_IPI, %ecx
    mov REGS_VECTOR(%rsp), %eax
    wrmsr
    jmp return_iret

/* Vectors with a stack of their own: if the guest was running, go on from the
 * vCPU's ordinary stack, which is empty, so that the same vector may come again. */
trap_ist:
    SAVE_REGS
    mov %rsp, %rdi
    call shim_leave_ist
    mov %rax, %rsp
    mov %rsp, %rdi
    call shim_trap
    jmp return_iret

    .macro TRAP_STUB n
    .p2align 4
    .if (\n == 8) || ((\n >= 10) && (\n <= 14)) || (\n == 17) || (\n == 21) || \
        (\n == 29) || (\n == 30)
    .else
    pushq $0
    .endif
    pushq $\n
    .if (\n == 1) || (\n == 2) || (\n == 8) || (\n == 18)
    jmp trap_ist
    .elseif \n >= 32
    jmp interrupt_common
    .else
    jmp trap_common
    .endif
    .endm

    .p2align 4
    .globl trap_stubs
trap_stubs:
    .set i, 0
    .rept 256
    TRAP_STUB %i
    .set i, i + 1
    .endr

/* Instructions that may fault on what the guest chose; shim_trap() moves rip from
 * the first address of a row to the second. */
    .macro FIXUP from, to
    .pushsection .rodata.fixup, "a"
    .quad \from, \to
    .popsection
    .endm

/* uint64_t guest_copy_raw(void *to, const void *from, uint64_t bytes): the number
 * of bytes not copied.  Most are frames and arguments, for which REP takes too long to
 * begin. */
#define COPY_FEW_WORDS 16
    .section .text.hot, "ax"
    .p2align 4
    .globl guest_copy_raw
guest_copy_raw:
    mov %rdx, %rcx
    shr $3, %rcx
    jz 4f
    cmp $COPY_FEW_WORDS, %rcx
    ja 3f
1:  mov (%rsi), %rax
2:  mov %rax, (%rdi)
    add $8, %rsi
    add $8, %rdi
    dec %rcx
    jnz 1b
    jmp 4f
3:  rep movsq
4:  mov %rdx, %rcx
    and $7, %ecx
    jz 6f
5:  rep movsb
6:  mov %rcx, %rax
    ret
7:  shl $3, %rcx                /* words left, then the odd bytes */
    and $7, %edx
    lea (%rcx,%rdx), %rax
    ret
    FIXUP 1b, 7b
    FIXUP 2b, 7b
    FIXUP 3b, 7b
    FIXUP 5b, 6b

    .text
/* int wrmsr_raw(uint32_t msr, uint64_t value): 0, or -1 when it faults */
    .globl wrmsr_raw
wrmsr_raw:
    mov %edi, %ecx
    mov %esi, %eax
    mov %rsi, %rdx
    shr $32, %rdx
1:  wrmsr
    xor %eax, %eax
    ret
2:  mov $-1, %eax
    ret
    FIXUP 1b, 2b

/* int rdmsr_raw(uint32_t msr, uint64_t *value): 0, or -1 when it faults */
    .globl rdmsr_raw
rdmsr_raw:
    mov %edi, %ecx
1:  rdmsr
    mov %eax, (%rsi)
    mov %edx, 4(%rsi)
    xor %eax, %eax
    ret
2:  mov $-1, %eax
    ret
    FIXUP 1b, 2b

/* int wrfsbase_raw(uint64_t base): 0, or -1 when it faults */
    .globl wrfsbase_raw
wrfsbase_raw:
1:  wrfsbase %rdi
    xor %eax, %eax
    ret
2:  mov $-1, %eax
    ret
    FIXUP 1b, 2b

/* int load_gs_raw(uint16_t selector): into the base that SWAPGS hides */
    .globl load_gs_raw
load_gs_raw:
    swapgs
1:  mov %edi, %gs
    mfence
    swapgs
    xor %eax, %eax
    ret
2:  xor %eax, %eax
    mov %eax, %gs
    mfence
    swapgs
    mov $-1, %eax
    ret
    FIXUP 1b, 2b

/* void shim_halt(void): sleeps until an interrupt has been served.  STI takes effect
 * one instruction late, so nothing should come between the caller's last look and
 * HLT; what does, an NMI, or an interrupt where that rule is not kept (as it seems,
 * in QEMU's emulation of SVM when the VM is left there), finds its rip at
 * shim_halt_insn, and the trap handler moves it on: see halt_is_over(). */
    .globl shim_halt, shim_halt_insn
shim_halt:
    sti
shim_halt_insn:
    hlt
    cli
    ret

/* void shim_reload_cs(void): reloads CS after the GDT has changed */
    .globl shim_reload_cs
shim_reload_cs:
    pop %rax
    pushq $SEL_SHIM_CODE
    push %rax
    lretq

    .section .areas, "aw", @nobits
    .p2align AREA_SHIFT
    .globl vcpu_areas
vcpu_areas:
    .skip AREA_BYTES * SHIM_MAX_VCPUS

    .section .note.GNU-stack, "", @progbits
