/* SPDX-License-Identifier: MIT */
/* The handler keeps no list of mappings: BUS_ADRERR is what a page that its file has lost
 * gives, and nothing else does.  It looks the same whichever file that was; one that is not
 * shared memory (a program or a library of ours that was cut) fails at the next instruction,
 * as it would have.  A page of hugetlbfs cannot be replaced in part, so the units are tried. */
#include "mem/lost_pages.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include "base/types.h"

static bool page_replace(uintptr_t at, uint64_t unit)
{
    void *page = (void *)align_down(at, unit);

    return mmap(page, unit, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == page;
}

static void bus_error(int sig, siginfo_t *info, void *context)
{
    int saved = errno;
    bool replaced = info->si_code == BUS_ADRERR &&
                    (page_replace((uintptr_t)info->si_addr, PAGE_SIZE) ||
                     page_replace((uintptr_t)info->si_addr, 2 * MIB) ||
                     page_replace((uintptr_t)info->si_addr, GIB));

    /* the instruction runs again, into whatever the default is */
    if (!replaced)
        signal(sig, SIG_DFL);
    errno = saved;
}

int lost_pages_replace(void)
{
    struct sigaction sa = { .sa_sigaction = bus_error, .sa_flags = SA_SIGINFO | SA_NODEFER };

    sigemptyset(&sa.sa_mask);
    return sigaction(SIGBUS, &sa, NULL) ? -errno : 0;
}
