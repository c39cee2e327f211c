/* SPDX-License-Identifier: MIT */
/* Xen's notes within an ELF64 image. */
#ifndef XENOLITH_X86_ELF_NOTES_H
#define XENOLITH_X86_ELF_NOTES_H

#include <elf.h>

#include "x86/kernel_image.h"

/* Fills *out from the PT_NOTE segments of an image; eh is its ELF header as
 * kernel_image.c judged it: both header tables lie within the image.  If none carries a Xen
 * note, from the SHT_NOTE sections; if none does either, from a __xen_guest
 * section (kernels before 2.6.19).  0, or -errno with e->text filled: a note
 * that runs past its segment, a number of a size no number has, or no Xen note. */
int elf_notes_read(const Elf64_Ehdr *eh, const uint8_t *elf, size_t bytes, struct xen_notes *out,
                   struct err *e);

#endif
