/* SPDX-License-Identifier: MIT */
#include "ctl/guest_config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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

/* target= takes all that follows, so only the last word may have it. */
static bool has_target(const char *word)
{
    const char *at = strstr(word, "target=");

    return at && (at == word || at[-1] == ',' || at[-1] == ' ');
}

char *guest_config_disk_spec(char *const words[], unsigned nr_words, struct err *e)
{
    struct vm_disk d;
    char *spec = NULL;
    size_t bytes;
    FILE *to = open_memstream(&spec, &bytes);

    for (unsigned i = 0; to && i < nr_words; i++) {
        fprintf(to, "%s%s", i ? "," : "", words[i]);
        if (i + 1 < nr_words && has_target(words[i]))
            err_set(e, EINVAL, "config parsing error in disk specification: target= takes the"
                    " rest of the line, give it last: `%.200s'", words[i]);
    }
    if (!to || fclose(to))
        err_set(e, ENOMEM, "out of memory");
    if (!e->code && !vm_config_disk_parse(spec, &d, e)) {
        vm_config_disk_free(&d);
        return spec;
    }
    free(spec);
    return NULL;
}

char *guest_config_disk_dump(const char *spec, struct err *e)
{
    struct vm_disk d;
    json_t *j;
    char *text;

    if (vm_config_disk_parse(spec, &d, e))
        return NULL;
    j = ctl_config_json_disk(&d);
    vm_config_disk_free(&d);
    text = j ? json_dumps(j, JSON_INDENT(4)) : NULL;
    json_decref(j);
    if (!text)
        err_set(e, ENOMEM, "out of memory");
    return text;
}

char *guest_config_dump(const struct guest_config *g)
{
    json_t *j = ctl_config_json(g->config);
    char *text = j ? json_dumps(j, JSON_INDENT(4)) : NULL;

    json_decref(j);
    return text;
}
