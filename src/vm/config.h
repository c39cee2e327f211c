/* SPDX-License-Identifier: MIT */
/* What a guest is to be, after an xl.cfg file and key=value words of the command
 * line have been read and judged: see xl.cfg(5). */
#ifndef XENOLITH_VM_CONFIG_H
#define XENOLITH_VM_CONFIG_H

#include "base/err.h"
#include "base/types.h"

enum vm_type { VM_TYPE_PV, VM_TYPE_PVH, VM_TYPE_HVM };

/* on_poweroff, on_reboot, on_watchdog, on_crash, on_soft_reset */
enum vm_action {
    VM_ACTION_DESTROY, VM_ACTION_RESTART, VM_ACTION_RENAME_RESTART,
    VM_ACTION_PRESERVE, VM_ACTION_COREDUMP_DESTROY, VM_ACTION_COREDUMP_RESTART,
    VM_ACTION_SOFT_RESET,
};

/* Where the guest's kernel runs; see docs/design.md, "Rings". */
enum vm_ring { VM_RING_AUTO, VM_RING_1, VM_RING_3 };

enum vm_disk_format {
    VM_DISK_FORMAT_RAW, VM_DISK_FORMAT_QCOW, VM_DISK_FORMAT_QCOW2,
    VM_DISK_FORMAT_VHD, VM_DISK_FORMAT_QED, VM_DISK_FORMAT_VHDX, VM_DISK_FORMAT_VMDK,
    VM_DISK_FORMAT_VDI, VM_DISK_FORMAT_EMPTY,
};

struct vm_disk {
    char *spec;                 /* the line it was read from */
    char *target;               /* absolute path, or what the driver makes of it; never NULL */
    char *driver;               /* engine driver: "file", or what the line says ("null", "ram") */
    unsigned reconnect_s;       /* reconnect=, for servers that are lost */
    uint64_t size_bytes;        /* size=, for drivers that have none of their own; else 0 */
    uint64_t quota_bytes;       /* quota=, of what the host keeps for the disk; 0: none */
    uint64_t pool_bytes;        /* pool=, of what it keeps for all disks; 0: not said */
    char *filters;              /* all filter= of the line, with commas between; NULL: none */
    char vdev[16];              /* xvda, hda1, sdb ... */
    unsigned vdev_number;       /* the number blkif knows it by (Xen's vbd-interface) */
    enum vm_disk_format format;
    bool readonly;              /* access r */
    bool shared_write;          /* access w! : no check whether others write */
    bool cdrom;
    bool discard;               /* offer it: unless no-discard or read-only */
    bool direct_io_safe;
    bool persistent_grants;     /* offer them */
    char *backend;              /* who serves it: "process", or the guest's own process (0,
                                 * Domain-0); NULL: as for all disks of the guest */
    /* Asked for by some lines, but refused today: these stay NULL and false. */
    char *script;               /* script= or its deprecated prefixes */
    bool virtio;                /* specification=virtio */
    bool colo;
    bool untrusted;             /* accepted with a warning */
    unsigned line;              /* where it was given, for messages */
};

struct vm_config {
    char *file;                 /* what was read, for messages; "command line" without a file */
    char *name;
    enum vm_type type;
    char *kernel;
    char *ramdisk;              /* NULL: none */
    char *cmdline;              /* from cmdline, or root and extra; never NULL */
    uint64_t memory_bytes;
    uint64_t maxmem_bytes;      /* at least memory_bytes */
    unsigned vcpus;             /* online at boot */
    unsigned maxvcpus;          /* at least vcpus, at most VM_VCPUS_MAX */
    uint8_t uuid[16];           /* given or made at random */
    enum vm_action on_poweroff, on_reboot, on_watchdog, on_crash, on_soft_reset;
    enum vm_ring ring;          /* Xenolith's own key */
    unsigned max_event_channels;    /* the highest port the guest may open */
    unsigned max_grant_frames;  /* 1 .. VM_GRANT_FRAMES_MAX */
    unsigned max_grant_version; /* 1 or 2 */
    bool disks_apart;           /* Xenolith's own key: each in a process of its own */
    unsigned max_queues;        /* Xenolith's own key: disk queues, 0: as many as vCPUs */
    struct vm_disk *disks;
    unsigned nr_disks;
    bool disks_changed;         /* since it was read: vm_config_disk_add() and those below it */
};

#define VM_VCPUS_MAX 64
#define VM_EVENT_CHANNELS_MIN 8                 /* the first are the toolstack's */
#define VM_EVENT_CHANNELS_MAX 131071            /* of the FIFO ABI's, all but 0 */
#define VM_GRANT_FRAMES_MAX 64                  /* Xen's default, and its limit with it */
#define VM_GRANT_VERSION_MAX 2
#define VM_DISKS_MAX 128
#define VM_NAME_MAX_BYTES 64
#define VM_MEMORY_MIN_BYTES (32 * MIB)
#define VM_MEMORY_MAX_BYTES (16 * 1024 * GIB)   /* what 64-bit Xen gives a guest at most */

/* Reads file ("-": standard input; NULL: none), then the nr_words "key=value"
 * words, each of which is one more line of configuration that overrides the
 * file.  Warnings go to stderr.  On failure e names file, line and field and
 * *out is untouched.  The caller frees *out with vm_config_free(). */
int vm_config_read(const char *file, char *const words[], unsigned nr_words,
                   struct vm_config **out, struct err *e);
/* The same for text in memory; name stands in messages. */
int vm_config_parse(const char *text, size_t len, const char *name,
                    char *const words[], unsigned nr_words,
                    struct vm_config **out, struct err *e);
void vm_config_free(struct vm_config *c);

/* Whether a process of its own serves the disk. */
bool vm_config_disk_apart(const struct vm_config *c, const struct vm_disk *d);

/* One line of disk=[...] for a guest that runs, judged as those of a file are; to be freed with
 * vm_config_disk_free() or given to vm_config_disk_add().  0 or -errno. */
int vm_config_disk_parse(const char *spec, struct vm_disk *out, struct err *e);
void vm_config_disk_free(struct vm_disk *d);
/* Takes what is in *d, whose number no other disk has.  0 or -ENOMEM with *d as it was. */
int vm_config_disk_add(struct vm_config *c, struct vm_disk *d);
/* NULL: there is none.  Until disks are added or removed. */
struct vm_disk *vm_config_disk_find(struct vm_config *c, unsigned vdev_number);
void vm_config_disk_remove(struct vm_config *c, unsigned vdev_number);
/* A disk has another size now, which its line says if that has one.  0 or -ENOMEM. */
int vm_config_disk_resized(struct vm_config *c, unsigned vdev_number, uint64_t size_bytes);
/* The setting that gives a guest these disks, "disk=[...]", to be freed; NULL: out of memory. */
char *vm_config_disks_format(const struct vm_config *c);
/* vm_disk_vdev_number() for those who know no disk lines. */
int vm_config_vdev_number(const char *vdev, unsigned *number);

#endif
