/* SPDX-License-Identifier: MIT */
/* info, help, version.  info's lines are `xl info`'s where the host has such a
 * thing, and kvm_... for what only a KVM host has. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "ctl/host.h"

/* only: NULL, or the beginning of the one field asked for, whose bare value is
 * printed then (xl's way). */
__attribute__((format(printf, 3, 4)))
static void field(const char *only, const char *name, const char *fmt, ...)
{
    va_list ap;

    if (only && strncmp(name, only, strlen(only)))
        return;
    if (!only)
        printf("%-22s : ", name);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

/* The text after "key :" in the first such line of a /proc file; "" if none. */
static void proc_value(const char *file, const char *key, char *value, size_t size)
{
    FILE *f = fopen(file, "re");
    char line[512];

    value[0] = '\0';
    while (f && !value[0] && fgets(line, sizeof(line), f)) {
        char *colon = strchr(line, ':');
        size_t len = strlen(key);

        if (!colon || strncmp(line, key, len) || line[len + strspn(line + len, " \t")] != ':')
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        snprintf(value, size, "%.*s", (int)strcspn(colon, "\n"), colon);
    }
    if (f)
        fclose(f);
}

static unsigned long long meminfo_mib(const char *key)
{
    char value[64];

    proc_value("/proc/meminfo", key, value, sizeof(value));
    return strtoull(value, NULL, 10) / 1024;
}

static unsigned nr_nodes(void)
{
    char path[64];
    unsigned nr = 0;

    do
        snprintf(path, sizeof(path), "/sys/devices/system/node/node%u", nr++);
    while (!access(path, F_OK));
    return nr > 1 ? nr - 1 : 1;
}

int cmd_info(int argc, char **argv)
{
    struct cmd_options o = { "info", "h", NULL };
    char cores[64], siblings[64], mhz[64];
    unsigned long nr_cores, nr_siblings;
    struct ctl_host host;
    struct utsname u;
    const char *only;

    while (cmd_option_next(&o, argc, argv) >= 0)
        ;
    if (o.status >= 0)
        return o.status;
    only = optind < argc ? argv[optind] : NULL;
    uname(&u);
    ctl_host_probe(&host);
    proc_value("/proc/cpuinfo", "cpu cores", cores, sizeof(cores));
    proc_value("/proc/cpuinfo", "siblings", siblings, sizeof(siblings));
    proc_value("/proc/cpuinfo", "cpu MHz", mhz, sizeof(mhz));
    nr_cores = strtoul(cores, NULL, 10);
    nr_siblings = strtoul(siblings, NULL, 10);
    nr_cores = nr_cores ? nr_cores : 1;
    field(only, "host", "%s", u.nodename);
    field(only, "release", "%s", u.release);
    field(only, "version", "%s", u.version);
    field(only, "machine", "%s", u.machine);
    field(only, "nr_cpus", "%ld", sysconf(_SC_NPROCESSORS_ONLN));
    field(only, "max_cpu_id", "%ld", sysconf(_SC_NPROCESSORS_CONF) - 1);
    field(only, "nr_nodes", "%u", nr_nodes());
    field(only, "cores_per_socket", "%lu", nr_cores);
    field(only, "threads_per_core", "%lu", nr_siblings > nr_cores ? nr_siblings / nr_cores : 1);
    field(only, "cpu_mhz", "%s", mhz);
    field(only, "virt_caps", "%s", strcmp(host.kvm, "none") ? "pv" : "");
    field(only, "xen_caps", "%s", strcmp(host.kvm, "none") ? "xen-3.0-x86_64" : "");
    field(only, "total_memory", "%llu", meminfo_mib("MemTotal"));
    field(only, "free_memory", "%llu", meminfo_mib("MemAvailable"));
    field(only, "kvm_kind", "%s", host.kvm);
    field(only, "kvm_extension", "%s", host.extension[0] ? host.extension : "none");
    field(only, "kvm_nested", "%s", host.nested ? "yes" : "no");
    if (host.advice[0])
        field(only, "kvm_advice", "%s", host.advice);
    field(only, "xenolith_version", "%s", XENOLITH_VERSION);
    field(only, "cc_compiler", "%s", __VERSION__);
    return CMD_OK;
}

int cmd_help(int argc, char **argv)
{
    const struct cmd *c;

    if (argc < 2 || !strcmp(argv[1], "help")) {
        cmd_help_all(stdout);
        return CMD_OK;
    }
    c = cmd_find(argv[1]);
    if (c)
        cmd_help_one(stdout, c);
    else
        printf("command \"%s\" not implemented\n", argv[1]);
    return CMD_OK;
}

int cmd_version(int argc, char **argv)
{
    printf("xenolith %s\n", XENOLITH_VERSION);
    return CMD_OK;
}
