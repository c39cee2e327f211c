/* SPDX-License-Identifier: MIT */
/* Domains for the tests of pv_build(): a synthetic kernel, guest memory, and
 * parameters that a test may change before it builds. */
#ifndef XENOLITH_TESTS_PV_DOMAIN_H
#define XENOLITH_TESTS_PV_DOMAIN_H

#include "elf_image.h"
#include "x86/pv_build.h"

#define DOMAIN_FIRST_MFN 0x100000ull
#define LINUX_BASE       0xffffffff80000000ull
#define LINUX_P2M        0x8000000000ull

struct domain {
    struct image file;
    struct kernel_image kernel;
    struct guest_mem mem;
    struct pv_build_params p;
    struct pv_build_result r;
    struct err e;
};

/* At physical address 16 MiB, with 4 MiB of bss. */
extern const struct image_shape domain_linux_shape;
/* 3,000 bytes at physical address 0x2000, ending at 0xa010. */
extern const struct image_shape domain_small_shape;

void domain_init(struct domain *d, const struct image_shape *s, const struct notes *n,
                 uint64_t nr_pages);
void domain_free(struct domain *d);

/* The notes of Linux: high VIRT_BASE, p2m apart, ramdisk not mapped. */
void notes_add_linux(struct notes *n);
void domain_init_linux(struct domain *d, uint64_t nr_pages);
/* A kernel without any of these, as small test kernels are. */
void domain_init_small(struct domain *d, uint64_t nr_pages);

/* Byte i is i * 3 + 1. */
void domain_add_ramdisk(struct domain *d, size_t bytes);

void domain_build(struct domain *d);
/* pv_build() fails with this code and a message that contains text. */
void domain_assert_refused(struct domain *d, int code, const char *text);

#endif
