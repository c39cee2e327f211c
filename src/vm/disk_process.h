/* SPDX-License-Identifier: MIT */
/* backend=process: this program once more, as the process that serves one disk. */
#ifndef XENOLITH_VM_DISK_PROCESS_H
#define XENOLITH_VM_DISK_PROCESS_H

#include <sys/types.h>

/* The internal command that main() hands to vm_disk_process_main(). */
#define VM_DISK_PROCESS_COMMAND "disk-process"

/* As struct vbd_remote_spawn's. */
int vm_disk_process_spawn(void *arg, int socket, pid_t *pid);

/* The exit status of the program, whose descriptor 3 is the socket. */
int vm_disk_process_main(int argc, char **argv);

#endif
