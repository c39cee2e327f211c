/* SPDX-License-Identifier: MIT */
#include "pv_domain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sys/mman.h>

#include <xen/elfnote.h>

static void fill_page(void *page)
{
    memset(page, 0xc3, PAGE_SIZE);
}

void domain_init(struct domain *d, const struct image_shape *s, const struct notes *n,
                 uint64_t nr_pages)
{
    memset(d, 0, sizeof(*d));
    image_make(&d->file, s, n);
    if (kernel_image_parse(d->file.data, d->file.bytes, "kernel", NULL, &d->kernel, &d->e))
        fail_msg("%s", d->e.text);
    err_clear(&d->e);
    guest_mem_init(&d->mem);
    assert_int_equal(guest_mem_add(&d->mem, gpa(DOMAIN_FIRST_MFN << PAGE_SHIFT),
                                   nr_pages << PAGE_SHIFT, "ram", false, &d->e), 0);
    d->p = (struct pv_build_params){
        .mem = &d->mem, .first_mfn = DOMAIN_FIRST_MFN, .nr_pages = nr_pages, .kernel = &d->kernel,
        .ramdisk_fd = -1, .ramdisk_name = "ramdisk", .cmdline = "console=hvc0 quiet",
        .shared_info_mfn = 0x77, .store_port = 1, .console_port = 2, .user_bit = true,
        .fill_hypercall_page = fill_page,
    };
    d->p.hole_l4[0] = 0x9001;       /* some present entry */
}

void domain_free(struct domain *d)
{
    if (d->p.ramdisk_fd >= 0)
        close(d->p.ramdisk_fd);
    kernel_image_free(&d->kernel);
    guest_mem_free(&d->mem);
}

void domain_add_ramdisk(struct domain *d, size_t bytes)
{
    int fd = memfd_create("ramdisk", MFD_CLOEXEC);
    uint8_t *data = malloc(bytes);

    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(i * 3 + 1);
    assert_int_equal(write(fd, data, bytes), (ssize_t)bytes);
    free(data);
    d->p.ramdisk_fd = fd;
    d->p.ramdisk_bytes = bytes;
}

void domain_build(struct domain *d)
{
    if (pv_build(&d->p, &d->r, &d->e))
        fail_msg("%s", d->e.text);
}

void domain_assert_refused(struct domain *d, int code, const char *text)
{
    assert_int_equal(pv_build(&d->p, &d->r, &d->e), -code);
    if (!strstr(d->e.text, text))
        fail_msg("message \"%s\" lacks \"%s\"", d->e.text, text);
}

const struct image_shape domain_linux_shape = {
    .paddr = 0x1000000, .text_bytes = 3000, .mem_bytes = 0x412345, .entry = 0x1000000,
};
const struct image_shape domain_small_shape = {
    .paddr = 0x2000, .text_bytes = 3000, .mem_bytes = 0x8010, .entry = 0x2000,
};

void notes_add_linux(struct notes *n)
{
    notes_add_common(n);
    note_add_u64(n, XEN_ELFNOTE_VIRT_BASE, LINUX_BASE);
    note_add_u64(n, XEN_ELFNOTE_INIT_P2M, LINUX_P2M);
    note_add_u64(n, XEN_ELFNOTE_ENTRY, LINUX_BASE + 0x1000010);
    note_add_u32(n, XEN_ELFNOTE_MOD_START_PFN, 1);
}

void domain_init_linux(struct domain *d, uint64_t nr_pages)
{
    struct notes n = { 0 };

    notes_add_linux(&n);
    domain_init(d, &domain_linux_shape, &n, nr_pages);
}

void domain_init_small(struct domain *d, uint64_t nr_pages)
{
    struct notes n = { 0 };

    notes_add_common(&n);
    note_add_u64(&n, XEN_ELFNOTE_HYPERCALL_PAGE, 0x3000);
    domain_init(d, &domain_small_shape, &n, nr_pages);
}
