/* SPDX-License-Identifier: MIT */
/* The ways in and out of low.c's kernel. */
#include "note.h"

#define IRET (hypercall_page + 23 * 32)

    /* nothing that says where it is, or where it begins: the ELF file does */
    NOTE XEN_ELFNOTE_GUEST_OS, .asciz, "low"
    NOTE XEN_ELFNOTE_GUEST_VERSION, .asciz, "0"
    NOTE XEN_ELFNOTE_LOADER, .asciz, "generic"
    NOTE XEN_ELFNOTE_HYPERCALL_PAGE, .quad, hypercall_page
    NOTE XEN_ELFNOTE_XEN_VERSION, .asciz, "xen-3.0"
    NOTE XEN_ELFNOTE_FEATURES, .asciz, "!writable_page_tables|pae_pgdir_above_4gb"
    NOTE XEN_ELFNOTE_PAE_MODE, .asciz, "yes"

    .text
    .globl low_start
low_start:
    mov %rsi, low_start_info
    mov $low_stack_end, %esp
    call low_main
    ud2

    .altmacro
    .macro ENTRY n
    .p2align 4
    pop %rcx
    pop %r11
    .if (\n != 8) && ((\n < 10) || (\n > 14)) && (\n != 17)
    pushq $0
    .endif
    pushq $\n
    jmp common
    .endm

/* 16 bytes each: vectors 0 to 31, 32 for a system call, 33 for an event */
    .p2align 4
    .globl low_entries
low_entries:
    .set i, 0
    .rept 34
    ENTRY %i
    .set i, i + 1
    .endr

common:
    push %rdi; push %rsi; push %rdx; push %rcx; push %rax
    push %r8;  push %r9;  push %r10; push %r11
    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
    mov %rsp, %rdi
    call low_trap
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
    pop %r11; pop %r10; pop %r9;  pop %r8
    pop %rax; pop %rcx; pop %rdx; pop %rsi; pop %rdi
    add $16, %rsp
    pushq $0
    jmp IRET

    .globl low_user_run, low_user_back
/* uint64_t low_user_run(uint64_t (*fn)(void)): in user mode, on the tables and from
 * the text of the kernel */
low_user_run:
    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
    mov %rsp, low_saved_sp
    pushq $0xe02b
    pushq $low_user_stack_end
    pushfq
    andq $~0x200, (%rsp)
    pushq $0xe033
    pushq $1f
    pushq $0
    jmp IRET
1:  call *%rdi
    int $0x20
    ud2

/* the gate of vector 0x20 */
low_user_back:
    mov low_saved_sp, %rsp
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
    ret

    .globl low_gate
/* another gate, whose handler changes one register */
low_gate:
    pop %rcx
    pop %r11
    mov $0x1e51c0de, %eax
    pushq $0
    jmp IRET

    .p2align 12
    .globl hypercall_page
hypercall_page:
    .fill 4096, 1, 0xc3

    .globl low_saved_sp
    .bss
low_saved_sp:
    .quad 0
    .p2align 12
    .skip 4096
low_stack_end:
    .skip 4096
    .globl low_trap_stack_end
low_trap_stack_end:
    .skip 4096
low_user_stack_end:
    .section .note.GNU-stack, "", @progbits
