/* SPDX-License-Identifier: MIT */
#ifndef XENOLITH_X86_MELTDOWN_H
#define XENOLITH_X86_MELTDOWN_H

#include "base/types.h"

#define X86_MELTDOWN_PATH "/sys/devices/system/cpu/vulnerabilities/meltdown"

/* Whether user code can read supervisor pages that are mapped, going by the text
 * of the file above (Documentation/ABI/testing/sysfs-devices-system-cpu).  Only
 * "Not affected" says no; NULL (no such file) and unknown words count as yes. */
bool x86_meltdown_affected(const char *sysfs_text);

#endif
