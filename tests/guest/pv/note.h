/* SPDX-License-Identifier: MIT */
/* For assembly: one of Xen's ELF notes.  NOTE TYPE, DIRECTIVE, VALUE... */
#include <xen/elfnote.h>

    .macro NOTE type, kind, value:vararg
    .pushsection .note.Xen, "a", @note
    .balign 4
    .long 4, 2f - 1f, \type
    .asciz "Xen"
1:  \kind \value
2:  .balign 4
    .popsection
    .endm
