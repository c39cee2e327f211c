/* SPDX-License-Identifier: MIT */
#include "ctl/guest_config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/config_json.h"
#include "vm/guest.h"

/* All of fd, which may be a pipe. */
static int read_all(int fd, char **text, size_t *len)
{
    char *buf = malloc(GUEST_CONFIG_BYTES_MAX + 1), *fitted;
    size_t have = 0;
    ssize_t n = 1;

    if (!buf)
        return -ENOMEM;
    while (n && have <= GUEST_CONFIG_BYTES_MAX) {
        n = read(fd, buf + have, GUEST_CONFIG_BYTES_MAX + 1 - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 || have + (size_t)n > GUEST_CONFIG_BYTES_MAX) {
            free(buf);
            return n < 0 ? -errno : -EFBIG;
        }
        have += (size_t)n;
    }
    fitted = realloc(buf, have + 1);
    *text = fitted ? fitted : buf;
    *len = have;
    return 0;
}

int guest_config_read(const char *file, char *const words[], unsigned nr_words,
                      struct guest_config *out, enum guest_config_fault *fault,
                      struct err *e)
{
    struct guest_config g = { .words = words, .nr_words = nr_words };
    int rc = 0;

    *fault = GUEST_CONFIG_UNREADABLE;
    if (file) {
        int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);

        rc = fd < 0 ? -errno : read_all(fd, &g.text, &g.text_bytes);
        if (fd >= 0)
            close(fd);
        if (rc)
            return err_set(e, -rc, "Failed to read config file: %s: %s", file, strerror(-rc));
    }
    *fault = GUEST_CONFIG_MALFORMED;
    rc = vm_config_parse(g.text ? g.text : "", g.text_bytes, file ? file : "command line",
                         words, nr_words, &g.config, e);
    if (rc)
        free(g.text);
    else
        *out = g;
    return rc;
}

void guest_config_free(struct guest_config *g)
{
    vm_config_free(g->config);
    free(g->text);
    memset(g, 0, sizeof(*g));
}

const char *guest_config_name(const struct guest_config *g)
{
    return g->config->name;
}

char *guest_config_dump(const struct guest_config *g)
{
    json_t *j = ctl_config_json(g->config);
    char *text = j ? json_dumps(j, JSON_INDENT(4)) : NULL;

    json_decref(j);
    return text;
}
