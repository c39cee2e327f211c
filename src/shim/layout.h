/* SPDX-License-Identifier: MIT */
/* Numbers that entry.S and the C files share. */
#ifndef XENOLITH_SHIM_LAYOUT_H
#define XENOLITH_SHIM_LAYOUT_H

#define SHIM_MAX_VCPUS   64

/* A vCPU's area: struct shim_vcpu from the bottom, then four stacks for vectors
 * with one of their own, then the ordinary stack, which ends where the area does. */
#define AREA_SHIFT       15
#define AREA_BYTES       (1 << AREA_SHIFT)
#define AREA_SCRATCH     0              /* a word, first in struct shim_vcpu */
#define AREA_IST_FIRST   0x3000         /* stack of the first: ends AREA_IST_BYTES on */
#define AREA_IST_BYTES   0x0800
#define AREA_NR_IST      4              /* #DB, NMI, #DF, #MC */

/* Selectors in the page of the GDT that Xen keeps for itself. */
#define SEL_SHIM_CODE    0xe008
#define SEL_SHIM_DATA    0xe010
#define SEL_FLAT_CODE32  0xe023         /* FLAT_RING3_CS32 */
#define SEL_FLAT_DATA    0xe02b         /* FLAT_RING3_SS */
#define SEL_FLAT_CODE64  0xe033         /* FLAT_RING3_CS64 */
#define SEL_TSS          0xe040
#define SEL_LDT          0xe050
#define SEL_RING1_CODE64 0xe061         /* stands in for FLAT_CODE64 in ring 1 */
#define SEL_RING1_DATA   0xe069         /* stands in for FLAT_DATA in ring 1 */

#define SYSCALL_BYTES    2              /* of the instruction */

/* struct shim_regs */
#define REGS_VECTOR      120

#define MSR_X2APIC_EOI      0x80b
#define MSR_X2APIC_SELF_IPI 0x83f

/* "Vectors" of entries that are not in the IDT. */
#define VECTOR_SYSCALL64 0x100
#define VECTOR_SYSCALL32 0x101
#define VECTOR_SYSENTER  0x102

#endif
