/* SPDX-License-Identifier: MIT */
#include "x86/meltdown.h"

#include <string.h>

bool x86_meltdown_affected(const char *sysfs_text)
{
    static const char safe[] = "Not affected";
    size_t n = sizeof(safe) - 1;

    return !sysfs_text || strncmp(sysfs_text, safe, n) ||
           (sysfs_text[n] && sysfs_text[n] != '\n');
}
