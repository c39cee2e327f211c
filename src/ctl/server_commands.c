/* SPDX-License-Identifier: MIT */
/* The commands of the control socket: what they are called, what they take, what they do. */
#include <errno.h>
#include <string.h>

#include "ctl/config_json.h"
#include "ctl/server_priv.h"
#include "dev/xen_console.h"

json_t *ctl_server_stop_json(const struct ctl_server *s)
{
    /* the text comes from the guest's console or registers: perhaps not UTF-8 */
    json_t *text = json_string(s->why_text);

    return json_pack("{s:i, s:o}", "why", (int)s->why, "text", text ? text : json_string(""));
}

static enum verdict run_info(struct conn *c, json_t *arguments, json_t **result,
                             struct err *e)
{
    struct ctl_server *s = c->server;
    struct vm_guest_info i = { 0 };
    uint64_t up;

    vm_guest_info(s->p.guest, &i);
    up = i.booted_ns ? loop_now_ns() - i.booted_ns : 0;
    *result = json_pack("{s:i, s:b, s:b, s:b, s:b, s:b, s:b, s:i, s:I, s:i, s:i, s:I, s:I, s:i}",
                        "domid", (int)s->p.who->domid,
                        "running", i.running, "blocked", i.blocked, "paused", i.paused,
                        "shutdown", i.shutdown, "crashed", i.crashed, "dying",
                        i.dying || s->destroying, "why", (int)i.why,
                        "memory_bytes", (json_int_t)i.memory_bytes,
                        "vcpus_online", (int)i.vcpus_online, "vcpus_max", (int)i.vcpus_max,
                        "cpu_time_ns", (json_int_t)i.cpu_time_ns, "uptime_ns", (json_int_t)up,
                        "ring", (int)i.ring);
    return VERDICT_REPLY;
}

static enum verdict run_config(struct conn *c, json_t *arguments, json_t **result,
                               struct err *e)
{
    *result = ctl_config_json(c->server->p.config);
    return VERDICT_REPLY;
}

int ctl_server_alive(const struct ctl_server *s, struct err *e)
{
    if (s->stopped || s->destroying)
        return err_set(e, ESRCH, "domain %u has stopped", s->p.who->domid);
    return 0;
}

static enum verdict run_pause(struct conn *c, json_t *arguments, json_t **result,
                              struct err *e)
{
    struct ctl_server *s = c->server;

    if (!ctl_server_alive(s, e))
        vm_guest_pause(s->p.guest);
    return VERDICT_REPLY;
}

static enum verdict run_unpause(struct conn *c, json_t *arguments, json_t **result,
                                struct err *e)
{
    struct ctl_server *s = c->server;

    if (!ctl_server_alive(s, e))
        vm_guest_unpause(s->p.guest);
    return VERDICT_REPLY;
}

static enum verdict run_ask(struct conn *c, json_t *arguments, json_t **result,
                            struct err *e)
{
    struct ctl_server *s = c->server;

    if (!ctl_server_alive(s, e))
        vm_guest_ask(s->p.guest, json_string_value(json_object_get(arguments, "request")), e);
    return VERDICT_REPLY;
}

static enum verdict run_wait(struct conn *c, json_t *arguments, json_t **result,
                             struct err *e)
{
    struct ctl_server *s = c->server;

    if (!s->stopped) {
        c->wait = CONN_WAIT_STOP;
        return VERDICT_WAIT;
    }
    *result = ctl_server_stop_json(s);
    return VERDICT_REPLY;
}

static enum verdict run_destroy(struct conn *c, json_t *arguments, json_t **result,
                                struct err *e)
{
    struct ctl_server *s = c->server;

    if (!s->destroying)
        loop_timer_arm(s->destroy_timer, 0);
    s->destroying = true;
    return VERDICT_REPLY;
}

static enum verdict run_console(struct conn *c, json_t *arguments, json_t **result,
                                struct err *e)
{
    struct ctl_server *s = c->server;

    if (s->destroying || !vm_guest_console(s->p.guest)) {
        err_set(e, ENODEV, "domain %u has no console", s->p.who->domid);
        return VERDICT_REPLY;
    }
    return VERDICT_CONSOLE;
}

static ctl_handler run_help;

enum argument_kind { ARGUMENT_CHOICE, ARGUMENT_TEXT, ARGUMENT_FLAG, ARGUMENT_NUMBER };

struct argument {
    const char *name;
    enum argument_kind kind;
    bool optional;
    const char *const *choices;         /* NULL-terminated */
};

struct command {
    const char *name;
    const char *summary;
    ctl_handler *run;
    const struct argument *arguments;   /* up to one without a name; NULL: none */
};

static const struct argument ask_arguments[] = {
    { "request", ARGUMENT_CHOICE,
      .choices = (const char *const[]){ "poweroff", "reboot", "suspend", "halt", NULL } },
    { NULL },
};
static const struct argument attach_arguments[] = { { "disk", ARGUMENT_TEXT }, { NULL } };
static const struct argument detach_arguments[] = {
    { "device", ARGUMENT_TEXT }, { "force", ARGUMENT_FLAG, true }, { NULL },
};
static const struct argument resize_arguments[] = {
    { "device", ARGUMENT_TEXT }, { "size_bytes", ARGUMENT_NUMBER, true }, { NULL },
};

static const struct command commands[] = {
    { "help",    "the commands",                            run_help },
    { "info",    "state and resources",                     run_info },
    { "config",  "configuration, in libxl's JSON",          run_config },
    { "pause",   "stop the vCPUs",                          run_pause },
    { "unpause", "let the vCPUs run",                       run_unpause },
    { "ask",     "ask the guest's kernel, by control/shutdown", run_ask, ask_arguments },
    { "wait",    "answer when the guest has stopped",       run_wait },
    { "destroy", "end the guest now; the connection closes when it is gone", run_destroy },
    { "console", "from the reply on, the connection is the console", run_console },
    { "disk-attach", "give the guest a disk",               ctl_disk_attach, attach_arguments },
    { "disk-detach", "take a disk away, and answer when it is gone", ctl_disk_detach,
      detach_arguments },
    { "disk-list", "the disks, as they stand in xenstore",  ctl_disk_list },
    { "disk-resize", "give a disk another size, or that of its image", ctl_disk_resize,
      resize_arguments },
};

static enum verdict run_help(struct conn *c, json_t *arguments, json_t **result, struct err *e)
{
    json_t *all = json_object();

    for (size_t i = 0; i < array_size(commands); i++)
        json_object_set_new(all, commands[i].name, json_string(commands[i].summary));
    *result = all;
    return VERDICT_REPLY;
}

static bool is_choice(const struct argument *a, const char *value)
{
    for (size_t i = 0; a->choices[i]; i++)
        if (!strcmp(a->choices[i], value))
            return true;
    return false;
}

/* value may be NULL: it was not given. */
static int argument_judge(const struct command *c, const struct argument *a, json_t *value,
                          struct err *e)
{
    static const char *const kinds[] = {
        [ARGUMENT_CHOICE] = "a string", [ARGUMENT_TEXT] = "a string",
        [ARGUMENT_FLAG] = "true or false", [ARGUMENT_NUMBER] = "a number, 0 or more",
    };
    bool fits = a->kind == ARGUMENT_FLAG ? json_is_boolean(value)
                : a->kind == ARGUMENT_NUMBER
                ? json_is_integer(value) && json_integer_value(value) >= 0
                : json_is_string(value);

    if (!value && a->optional)
        return 0;
    if (!fits)
        return err_set(e, EINVAL, "'%s' needs the argument '%s', %s", c->name, a->name,
                       kinds[a->kind]);
    if (a->kind == ARGUMENT_CHOICE && !is_choice(a, json_string_value(value)))
        return err_set(e, EINVAL, "'%s': argument '%s' cannot be '%.64s'", c->name, a->name,
                       json_string_value(value));
    return 0;
}

static bool takes(const struct command *c, const char *key)
{
    for (const struct argument *a = c->arguments; a && a->name; a++)
        if (!strcmp(a->name, key))
            return true;
    return false;
}

static const struct command *command_judge(const char *name, json_t *arguments, struct err *e)
{
    const struct command *c = NULL;
    const char *key;
    json_t *v;

    for (size_t i = 0; i < array_size(commands) && !c; i++)
        if (!strcmp(commands[i].name, name))
            c = &commands[i];
    if (!c) {
        err_set(e, ENOSYS, "there is no command '%s'", name);
        return NULL;
    }
    json_object_foreach(arguments, key, v)
        if (!takes(c, key)) {
            err_set(e, EINVAL, "'%s' takes no argument '%.64s'", name, key);
            return NULL;
        }
    for (const struct argument *a = c->arguments; a && a->name; a++)
        if (argument_judge(c, a, json_object_get(arguments, a->name), e))
            return NULL;
    return c;
}

enum verdict ctl_command_run(struct conn *c, const char *name, json_t *arguments,
                             json_t **result, struct err *e)
{
    const struct command *cmd = command_judge(name, arguments, e);

    return cmd ? cmd->run(c, arguments, result, e) : VERDICT_REPLY;
}
