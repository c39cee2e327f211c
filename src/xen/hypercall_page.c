/* SPDX-License-Identifier: MIT */
#include "xen/hypercall_page.h"

#include "base/types.h"

#include <string.h>
#include <xen/xen.h>

#define STUB_BYTES   32
#define FILLER_INT3  0xcc

void hypercall_page_fill(void *page)
{
    /* push rcx; push r11; mov $nr, eax; syscall; pop r11; pop rcx; ret */
    static const uint8_t plain[] = {
        0x51, 0x41, 0x53, 0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3,
    };
    /* push rcx; push r11; push rax; mov $nr, eax; syscall: struct iret_context
     * begins with these three, and nothing comes back */
    static const uint8_t iret[] = { 0x51, 0x41, 0x53, 0x50, 0xb8, 0, 0, 0, 0, 0x0f, 0x05 };
    uint8_t *stub = page;

    memset(page, FILLER_INT3, PAGE_SIZE);
    for (uint32_t nr = 0; nr < PAGE_SIZE / STUB_BYTES; nr++, stub += STUB_BYTES) {
        if (nr == __HYPERVISOR_iret) {
            memcpy(stub, iret, sizeof(iret));
            memcpy(stub + 5, &nr, sizeof(nr));
        } else {
            memcpy(stub, plain, sizeof(plain));
            memcpy(stub + 4, &nr, sizeof(nr));
        }
    }
}
