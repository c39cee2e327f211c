/* SPDX-License-Identifier: MIT */
/* Entry, Xen's notes, and every way from Xen into the kernel and back. */
#include "note.h"

#define HYPERVISOR_IRET 23

    NOTE XEN_ELFNOTE_GUEST_OS, .asciz, "xenolith-test"
    NOTE XEN_ELFNOTE_GUEST_VERSION, .asciz, "1"
    NOTE XEN_ELFNOTE_LOADER, .asciz, "generic"
    NOTE XEN_ELFNOTE_XEN_VERSION, .asciz, "xen-3.0"
    NOTE XEN_ELFNOTE_VIRT_BASE, .quad, VIRT_BASE
    NOTE XEN_ELFNOTE_PADDR_OFFSET, .quad, 0
    NOTE XEN_ELFNOTE_ENTRY, .quad, pv_start
    NOTE XEN_ELFNOTE_HYPERCALL_PAGE, .quad, hypercall_page
    NOTE XEN_ELFNOTE_FEATURES, .asciz, "pae_pgdir_above_4gb"

    .text
    .globl pv_start
/* rsi: struct start_info */
pv_start:
    lea pv_stack_end(%rip), %rsp
    xor %ebp, %ebp
    mov %rsi, %rdi
    call pv_main

    .globl pv_secondary_start
/* The same for another vCPU, whose stack is loaded: rdi is what it is to run. */
pv_secondary_start:
    xor %ebp, %ebp
    call *%rdi
    ud2

/* Xen's frame on entry, from rsp up: rcx, r11, [error code], rip, cs, rflags, rsp, ss.
 * Each entry makes it a struct pv_regs. */
    .macro SAVE
    push %rdi; push %rsi; push %rdx; push %rcx; push %rax
    push %r8;  push %r9;  push %r10; push %r11
    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
    cld
    .endm

with_error:
    SAVE
    mov %rsp, %rdi
    mov %rsp, %rbp
    and $-16, %rsp
    call pv_trap
    mov %rbp, %rsp
    .globl pv_resume
/* Goes on with the struct pv_regs at rsp, by HYPERVISOR_iret. */
pv_resume:
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
    pop %r11; pop %r10; pop %r9;  pop %r8
    pop %rax; pop %rcx; pop %rdx; pop %rsi; pop %rdi
    add $8, %rsp                /* vector */
    pop %rcx
    pop %r11                    /* rsp: where an error code was, now the flags */
    push %rcx
    push %r11
    push %rax
    mov $HYPERVISOR_IRET, %eax
    syscall
    ud2

    .globl pv_iret_user
/* void pv_iret_user(const struct iret_context *c) */
pv_iret_user:
    mov %rdi, %rsp
    mov $HYPERVISOR_IRET, %eax
    syscall
    ud2

    .macro ENTRY_WITHOUT_ERROR vector
    sub $8, %rsp                /* room for one */
    push %rax
    mov 16(%rsp), %rax
    mov %rax, 8(%rsp)
    mov 24(%rsp), %rax
    mov %rax, 16(%rsp)
    movq $0, 24(%rsp)
    pop %rax
    pushq $\vector
    jmp with_error
    .endm

    .altmacro
    .macro TRAP n
    .p2align 6
    .if (\n == 8) || ((\n >= 10) && (\n <= 14)) || (\n == 17) || (\n == 21)
    pushq $\n
    jmp with_error
    .else
    ENTRY_WITHOUT_ERROR \n
    .endif
    .endm

/* 64 bytes each: vectors 0 to 255, then PV_SYSCALL and what follows it */
    .p2align 6
    .globl pv_entries
pv_entries:
    .set i, 0
    .rept 256 + 5
    TRAP %i
    .set i, i + 1
    .endr

    .p2align 6
    .globl pv_failsafe_entry
/* between r11 and rip: ds, es, fs, gs */
pv_failsafe_entry:
    push %rax
    mov 24(%rsp), %rax
    mov %rax, pv_failsafe_selectors(%rip)
    mov 32(%rsp), %rax
    mov %rax, pv_failsafe_selectors + 8(%rip)
    mov 40(%rsp), %rax
    mov %rax, pv_failsafe_selectors + 16(%rip)
    mov 48(%rsp), %rax
    mov %rax, pv_failsafe_selectors + 24(%rip)
    mov 8(%rsp), %rax
    mov %rax, 40(%rsp)
    mov 16(%rsp), %rax
    mov %rax, 48(%rsp)
    pop %rax
    add $32, %rsp
    ENTRY_WITHOUT_ERROR 0x105

    .globl pv_catch, pv_catch_landing
/* int pv_catch(void (*fn)(uint64_t), uint64_t arg) */
pv_catch:
    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
    pushq pv_catch_sp(%rip)
    mov %rsp, pv_catch_sp(%rip)
    mov %rdi, %rax
    mov %rsi, %rdi
    call *%rax
    mov $-1, %eax
pv_catch_landing:               /* rsp is pv_catch_sp again, eax the vector */
    popq pv_catch_sp(%rip)
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
    ret

    .text
    .p2align 12
    .globl hypercall_page
hypercall_page:
    .skip 4096

    .bss
    .p2align 12
    .skip 16384
    .globl pv_stack_end
pv_stack_end:
    .globl pv_catch_sp, pv_failsafe_selectors
pv_catch_sp:
    .quad 0
pv_failsafe_selectors:
    .quad 0, 0, 0, 0

    .section .note.GNU-stack, "", @progbits
