/* SPDX-License-Identifier: MIT */
/* xenolith lab: runs a command on a throw-away KVM host. */
#ifndef XENOLITH_CMD_LAB_H
#define XENOLITH_CMD_LAB_H

/* Exit status when the lab, and not COMMAND, failed. */
#define LAB_EXIT_FAULT 125

/* argv[0] is the word "lab".  Returns the process's exit status: COMMAND's, 2 for
 * bad options, LAB_EXIT_FAULT when there was no lab to run it in.  When a signal
 * ended the lab, the process ends by that signal. */
int cmd_lab(int argc, char **argv);

#endif
