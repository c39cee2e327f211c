/* SPDX-License-Identifier: MIT */
#include "ctl/protocol.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Takes root. */
static char *line_format(json_t *root)
{
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    size_t len = text ? strlen(text) : 0;
    char *line = text ? realloc(text, len + 2) : NULL;

    json_decref(root);
    if (!line) {
        free(text);
        return NULL;
    }
    strcpy(line + len, "\n");
    return line;
}

char *ctl_request_format(const char *command, json_t *arguments)
{
    if (!arguments)
        arguments = json_object();
    return line_format(json_pack("{s:i, s:s, s:o}", "version", CTL_PROTOCOL_VERSION,
                                 "command", command, "arguments", arguments));
}

static json_t *line_parse(const char *line, size_t len, const char *what, struct err *e)
{
    json_error_t je;
    json_t *root = json_loadb(line, len, JSON_REJECT_DUPLICATES, &je);

    if (!root)
        err_set(e, EPROTO, "%s is not JSON: %s", what, je.text);
    else if (!json_is_object(root)) {
        err_set(e, EPROTO, "%s is not a JSON object", what);
        json_decref(root);
        root = NULL;
    }
    return root;
}

int ctl_request_parse(const char *line, size_t len, char command[CTL_COMMAND_BYTES],
                      json_t **arguments, struct err *e)
{
    json_t *root = line_parse(line, len, "request", e);
    json_t *version, *name, *args;
    int rc = 0;

    if (!root)
        return -e->code;
    version = json_object_get(root, "version");
    name = json_object_get(root, "command");
    args = json_object_get(root, "arguments");
    if (!json_is_integer(version))
        rc = err_set(e, EPROTO, "request has no version number");
    else if (json_integer_value(version) != CTL_PROTOCOL_VERSION)
        rc = err_set(e, EPROTONOSUPPORT, "request is of version %lld, expected %d",
                     (long long)json_integer_value(version), CTL_PROTOCOL_VERSION);
    else if (!json_is_string(name))
        rc = err_set(e, EPROTO, "request has no command");
    else if (json_string_length(name) >= CTL_COMMAND_BYTES)
        rc = err_set(e, EPROTO, "command name is longer than %d bytes", CTL_COMMAND_BYTES - 1);
    else if (args && !json_is_object(args))
        rc = err_set(e, EPROTO, "arguments are not a JSON object");
    else {
        strcpy(command, json_string_value(name));
        *arguments = args ? json_incref(args) : json_object();
        if (!*arguments)
            rc = err_set(e, ENOMEM, "out of memory");
    }
    json_decref(root);
    return rc;
}

char *ctl_reply_format(json_t *result)
{
    if (!result)
        result = json_object();
    return line_format(json_pack("{s:o}", "return", result));
}

char *ctl_reply_format_error(const struct err *e)
{
    char text[1024];
    json_t *j;

    err_str(e, text, sizeof(text));
    j = json_string(text);
    if (!j)     /* a cut UTF-8 sequence, or a guest's bytes */
        j = json_string("the message is not UTF-8");
    return line_format(json_pack("{s:{s:i, s:o}}", "error", "code", e->code, "text", j));
}

int ctl_reply_parse(const char *line, size_t len, json_t **result, struct err *e)
{
    json_t *root = line_parse(line, len, "reply", e);
    json_t *ret, *error;
    int rc = 0;

    if (!root)
        return -e->code;
    ret = json_object_get(root, "return");
    error = json_object_get(root, "error");
    if (json_is_object(ret))
        *result = json_incref(ret);
    else if (json_is_object(error)) {
        json_int_t code = json_integer_value(json_object_get(error, "code"));
        const char *text = json_string_value(json_object_get(error, "text"));

        rc = err_set(e, code > 0 && code < 4096 ? (int)code : EPROTO, "%s",
                     text ? text : "no reason given");
    } else
        rc = err_set(e, EPROTO, "reply has neither return nor error");
    json_decref(root);
    return rc;
}
