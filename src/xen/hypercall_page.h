/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_XEN_HYPERCALL_PAGE_H
#define XENOLITH_XEN_HYPERCALL_PAGE_H

/* Fills the page of a 64-bit PV guest that holds one 32-byte stub per hypercall
 * (xen/arch-x86/xen-x86_64.h): arguments in rdi, rsi, rdx, r10, r8, result in rax,
 * entered by SYSCALL. */
void hypercall_page_fill(void *page);

#endif
