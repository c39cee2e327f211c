/* SPDX-License-Identifier: MIT */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/types.h"

void log_write(enum log_level level, const char *fmt, ...)
{
    static const char *const prefix[] = {
        [LOG_LEVEL_ERROR] = "xenolith: error: ",
        [LOG_LEVEL_WARNING] = "xenolith: warning: ",
        [LOG_LEVEL_INFO] = "xenolith: ",
    };
    char line[1024];
    int at = snprintf(line, sizeof(line), "%s", prefix[level]);
    va_list ap;

    va_start(ap, fmt);
    at += vsnprintf(line + at, sizeof(line) - (size_t)at, fmt, ap);
    va_end(ap);
    at = min_of(at, (int)sizeof(line) - 2);
    line[at++] = '\n';
    /* one write, so that lines of several threads do not mix */
    if (write(STDERR_FILENO, line, (size_t)at) < 0)
        return;
}
