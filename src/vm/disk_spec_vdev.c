/* SPDX-License-Identifier: MIT */
/* Names of virtual devices and the numbers they stand for: xen-vbd-interface(7). */
#include <errno.h>
#include <string.h>

#include "base/num.h"
#include "vm/disk_spec.h"

#define EXTENDED (1u << 28)             /* the encoding for what the old one cannot say */
#define RESERVED (2u << 28)             /* numbers from here on have no meaning yet */
#define EXTENDED_DISK_MAX ((1u << 20) - 1)
#define EXTENDED_PARTITION_MAX 255

/* Linux's majors, which the older encodings are made of */
enum { MAJOR_IDE0 = 3, MAJOR_SCSI = 8, MAJOR_IDE1 = 22, MAJOR_XVD = 202 };

/* A decimal number without leading zeros at *p, which moves past it. */
static bool take_decimal(const char **p, unsigned max, unsigned *out)
{
    const char *start = *p;
    unsigned v = 0;

    while (**p >= '0' && **p <= '9') {
        v = v * 10 + (unsigned)(*(*p)++ - '0');
        if (v > max)
            return false;
    }
    *out = v;
    return *p > start && (*start != '0' || *p == start + 1);
}

/* Letters count a..z, aa..az, ba.. from 0. */
static bool take_letters(const char **p, unsigned max, unsigned *out)
{
    const char *start = *p;
    unsigned v = 0;

    while (**p >= 'a' && **p <= 'z') {
        v = v * 26 + (unsigned)(*(*p)++ - 'a') + 1;
        if (v > max + 1)
            return false;
    }
    *out = v - 1;
    return *p > start;
}

/* prefix, letters, and a partition number unless it is the whole disk */
static bool lettered(const char *vdev, const char *prefix, unsigned disk_max,
                     unsigned partition_max, unsigned *disk, unsigned *partition)
{
    const char *p = vdev + strlen(prefix);

    *partition = 0;
    if (strncmp(vdev, prefix, strlen(prefix)) || !take_letters(&p, disk_max, disk))
        return false;
    if (!*p)
        return true;
    return take_decimal(&p, partition_max, partition) && *partition && !*p;
}

/* d0, d0p0, d12p3 */
static bool numbered(const char *vdev, unsigned *disk, unsigned *partition)
{
    const char *p = vdev + 1;

    *partition = 0;
    if (*vdev != 'd' || !take_decimal(&p, EXTENDED_DISK_MAX, disk))
        return false;
    if (!*p)
        return true;
    return *p++ == 'p' && take_decimal(&p, EXTENDED_PARTITION_MAX, partition) && !*p;
}

int vm_disk_vdev_number(const char *vdev, unsigned *number)
{
    unsigned disk, partition;
    uint64_t given;

    if (lettered(vdev, "xvd", EXTENDED_DISK_MAX, EXTENDED_PARTITION_MAX, &disk, &partition) ||
        numbered(vdev, &disk, &partition)) {
        if (disk <= 15 && partition <= 15)
            *number = MAJOR_XVD << 8 | disk << 4 | partition;
        else
            *number = EXTENDED | disk << 8 | partition;
    } else if (lettered(vdev, "sd", 15, 15, &disk, &partition)) {
        *number = MAJOR_SCSI << 8 | disk << 4 | partition;
    } else if (lettered(vdev, "hd", 3, 63, &disk, &partition)) {
        *number = (disk < 2 ? MAJOR_IDE0 : MAJOR_IDE1) << 8 | (disk & 1) << 6 | partition;
    } else if (!num_parse_u64(vdev, 1, RESERVED - 1, &given)) {
        *number = (unsigned)given;
    } else {
        return -EINVAL;
    }
    return 0;
}
