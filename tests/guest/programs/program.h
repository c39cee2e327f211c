/* SPDX-License-Identifier: MIT */
/* Test programs for the inside of a guest: the first thing that is not as it
 * should be ends the program with a line that says so.  0: as it should be,
 * EXIT_SKIPPED: this machine has no such thing. */
#ifndef TESTS_GUEST_PROGRAM_H
#define TESTS_GUEST_PROGRAM_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_SKIPPED 77

#define check(condition) \
    check_said(condition, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno)

#define check_said(condition, ...) \
    do { \
        if (!(condition)) { \
            printf(__VA_ARGS__); \
            exit(1); \
        } \
    } while (0)

static inline int skip(const char *why)
{
    printf("%s\n", why);
    return EXIT_SKIPPED;
}

#endif
