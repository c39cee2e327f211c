/* SPDX-License-Identifier: MIT */
#include "cmd/cmd.h"

#include <errno.h>
#include <string.h>

#include "cmd/lab.h"
#include "ctl/xenstored.h"
#include "vm/disk_process.h"

static const char create_options[] =
    "-h                       Print this help.\n"
    "-p                       Leave the domain paused after it is created.\n"
    "-c                       Connect to the console after the domain is created.\n"
    "-f FILE, --defconfig=FILE\n"
    "                         Use the given configuration file.\n"
    "-q, --quiet              Quiet.\n"
    "-n, --dryrun             Dry run: print the resulting configuration, create nothing.\n"
    "-d                       Print the resulting configuration, too.\n"
    "-F                       Run in foreground until death of the domain.\n"
    "-e                       Do nothing when the domain stops (no on_... action).\n"
    "-V, -A                   Refused: there is no VNC display.";

static const char run_options[] =
    "-h                       Print this help.\n"
    "-p                       Leave the domain paused after it is created.\n"
    "-f FILE, --defconfig=FILE\n"
    "                         Use the given configuration file.\n"
    "-q, --quiet              Quiet.\n"
    "Ctrl-] asks the guest to shut down; a second Ctrl-] destroys it.";

static const char list_options[] =
    "-l, --long               Output all VM details, as JSON.\n"
    "-v, --verbose            Prints out UUIDs and shutdown reasons.";

static const char shutdown_options[] =
    "-a, --all                Shutdown all guest domains.\n"
    "-h                       Print this help.\n"
    "-F                       Accepted; a PV guest needs no fallback.\n"
    "-w, --wait               Wait for guest(s) to shutdown.";

static const char reboot_options[] =
    "-a, --all                Reboot all guest domains.\n"
    "-h                       Print this help.\n"
    "-F                       Accepted; a PV guest needs no fallback.\n"
    "-w, --wait               Wait for guest(s) to reboot.";

static const char console_options[] =
    "-t <type>                Console type: pv.\n"
    "-n <number>              Console number: 0.\n"
    "Ctrl-] leaves the console.";

static const char blk_options[] =
    "--vhost-user=SOCKET      Listen at SOCKET for the virtual machine that gets the disk.\n"
    "--disk=SPEC              The disk, as in disk=[...] of xl.cfg; follows its SOCKET.\n"
    "--queues=N               Offer up to N queues for each disk (64).\n"
    "--poll-us=N              Poll up to N microseconds before sleeping (100).";

static const char blk_trace_options[] =
    "--iolog=NAME             Print it for fio --read_iolog, to be replayed on NAME.";

static const struct cmd table[] = {
    { "create", cmd_create, "<ConfigFile> [options] [vars]",
      "Create a domain from config file <filename>", create_options, true },
    { "run", cmd_run, "<ConfigFile> [options] [vars]",
      "Create a domain, show its console, and end when it ends", run_options },
    { "list", cmd_list, "[options] [Domain]",
      "List information about all/some domains", list_options },
    { "console", cmd_console, "[options] <Domain>",
      "Attach to domain's console", console_options },
    { "pause", cmd_pause, "<Domain>", "Pause execution of a domain", NULL },
    { "unpause", cmd_unpause, "<Domain>", "Unpause a paused domain", NULL },
    { "shutdown", cmd_shutdown, "[options] <-a|Domain>",
      "Issue a shutdown signal to a domain", shutdown_options },
    { "reboot", cmd_reboot, "[options] <-a|Domain>",
      "Issue a reboot signal to a domain", reboot_options },
    { "destroy", cmd_destroy, "[options] <Domain>", "Terminate a domain immediately",
      "-f                       Accepted; there is no domain 0 to protect." },
    { "domid", cmd_domid, "<DomainName>", "Convert a domain name to domain id", NULL },
    { "domname", cmd_domname, "<DomainId>", "Convert a domain id to domain name", NULL },
    { "block-attach", cmd_block_attach, "<Domain> <disk-spec-component(s)>...",
      "Create a new virtual block device",
      "-h                       Print this help.\n"
      "-n                       Dry run: print the disk as it would be, attach nothing.", true },
    { "block-list", cmd_block_list, "<Domain(s)>",
      "List virtual block devices for a domain", NULL },
    { "block-detach", cmd_block_detach, "[option] <Domain> <DevId>",
      "Destroy a domain's virtual block device",
      "-f, --force              Take the device away after a second, whatever the domain does." },
    { "block-resize", cmd_block_resize, "<Domain> <DevId> [Size]",
      "Tell a domain that a block device has another size", NULL },
    { "blk", cmd_blk, "--vhost-user SOCKET --disk SPEC [...]",
      "Serve disks to other virtual machines over vhost-user", blk_options },
    { "blk-trace", cmd_blk_trace, "[options] <File>",
      "Print what filter=trace has recorded of a disk", blk_trace_options },
    { "tmem", cmd_tmem, "", "Show the pool of pages that tmem disks share", NULL },
    { "info", cmd_info, "[Field]", "Get information about this host and its KVM", NULL },
    { "lab", cmd_lab, "[options] -- <Command> [args]",
      "Run a command in a throw-away machine that has KVM", NULL },
    { "help", cmd_help, "[Command]", "Print this list, or help on one command", NULL },
    { "xenstored", ctl_xenstored_main, "--run-dir <Dir> [--grace-ms <N>]",
      "Serve the xenstore of a run-time directory", NULL, false, true },
    { VM_DISK_PROCESS_COMMAND, vm_disk_process_main, "",
      "Serve a disk of the guest whose process has started this one", NULL, false, true },
    { "version", cmd_version, "", "Print the version of this program", NULL },
};

const struct cmd *cmd_find(const char *name)
{
    const struct cmd *found = NULL;
    size_t len = strlen(name);

    for (size_t i = 0; i < array_size(table); i++) {
        if (!strcmp(table[i].name, name))
            return &table[i];
        if (table[i].internal || !len || strncmp(table[i].name, name, len))
            continue;
        if (found)
            return NULL;
        found = &table[i];
    }
    return found;
}

void cmd_help_all(FILE *to)
{
    fprintf(to, "Usage %s [-vfNtT] <subcommand> [args]\n\n", program_invocation_short_name);
    fprintf(to, "%s full list of subcommands:\n\n", program_invocation_short_name);
    for (size_t i = 0; i < array_size(table); i++)
        if (!table[i].internal)
            fprintf(to, " %-19s %s\n", table[i].name, table[i].summary);
}

void cmd_help_one(FILE *to, const struct cmd *c)
{
    fprintf(to, "Usage: %s [-v%s] %s %s\n\n%s.\n\n", program_invocation_short_name,
            c->can_dryrun ? "N" : "", c->name, c->synopsis, c->summary);
    if (c->options)
        fprintf(to, "Options:\n\n%s\n", c->options);
}
