/* SPDX-License-Identifier: MIT */
/* The shim, as data of this program. */
#include "shim_image.h"

    .section .rodata
    .globl shim_image_start
    .balign 16
shim_image_start:
    .incbin SHIM_ELF
    .globl shim_image_end
shim_image_end:
    .section .note.GNU-stack, "", @progbits
