/* SPDX-License-Identifier: MIT */
/* zeroout DEVICE OFFSET LENGTH: asks a block device to write zeroes (BLKZEROOUT), bytes. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

int main(int argc, char **argv)
{
    uint64_t range[2];
    int fd;

    if (argc != 4) {
        fputs("usage: zeroout DEVICE OFFSET LENGTH\n", stderr);
        return 2;
    }
    range[0] = strtoull(argv[2], NULL, 0);
    range[1] = strtoull(argv[3], NULL, 0);
    fd = open(argv[1], O_RDWR);
    if (fd < 0 || ioctl(fd, BLKZEROOUT, range)) {
        fprintf(stderr, "zeroout: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    return 0;
}
