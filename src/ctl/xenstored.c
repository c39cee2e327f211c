/* SPDX-License-Identifier: MIT */
#include "ctl/xenstored.h"

#include "xen/xs_daemon.h"

int ctl_xenstored_ensure(const char *run_dir, char *socket_path, size_t size, struct err *e)
{
    return xs_daemon_ensure(run_dir, socket_path, size, e);
}

int ctl_xenstored_main(int argc, char **argv)
{
    return xs_daemon_main(argc, argv);
}
