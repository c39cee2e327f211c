/* SPDX-License-Identifier: MIT */
/* The first program of the lab (L1): a static binary, alone in an initramfs with
 * the modules it loads and its orders (cmd/lab_wire.h).
 *
 * It puts together a root from the host's own files: the host's / over 9p, never
 * written, under an overlay that takes all writes in memory, and the shared
 * folders, written through, on top.  Then it runs COMMAND there and carries its
 * input and output.
 *
 * Processes: this one carries data in relay_run() and never blocks while COMMAND
 * lives; a child beats the heartbeat, so that a file system that hangs or a sync
 * that takes long is not mistaken for a dead kernel, and one on each processor
 * tells it that this one lives; one loads modules and is gone; one becomes
 * COMMAND. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvm_hold.h"
#include "relay.h"

/* How long the ports may take to appear once their driver is loaded. */
#define PORT_WAIT_MS 10000
#define CLOCK_WAIT_MS 5000
/* Twice as often as the heartbeat. */
#define PULSE_US 500000
/* A host's file name is at most this long. */
#define PATH_BYTES 4096

struct orders {
    char *text;             /* the file, fields NUL-terminated in place */
    size_t text_bytes;
    char **command;         /* NULL-terminated, points into text */
    char **environment;     /* likewise */
    const char *cwd;
    const char *shares[LAB_MAX_SHARES];
    unsigned nr_shares;
};

/* Nothing can be told to the host before the data port is open; the console can
 * always be read. */
struct lab {
    struct relay relay;
    struct orders orders;
};

static void power_off(void)
{
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

/* Says on the data port (or, before there is one, on the console) why the lab
 * cannot work, and ends it. */
static void give_up(struct lab *lab, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), noreturn));

static void give_up(struct lab *lab, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    fprintf(stderr, "lab: %s\n", text);
    if (lab->relay.data_fd >= 0)
        relay_send_last(&lab->relay, LAB_FRAME_TROUBLE, text, strlen(text));
    power_off();
    _exit(1);
}

/* ---- orders ---- */

static const char *field_value(const char *field, const char *key)
{
    size_t n = strlen(key);

    return strncmp(field, key, n) == 0 && field[n] == '=' ? field + n + 1 : NULL;
}

static void orders_read(struct lab *lab)
{
    struct orders *o = &lab->orders;
    unsigned nr_args = 0, nr_env = 0;
    struct stat st;
    char *p;
    int fd = open("/" LAB_ORDERS_PATH, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0)
        give_up(lab, "%s: %s", LAB_ORDERS_PATH, strerror(errno));
    o->text_bytes = st.st_size;
    o->text = malloc(o->text_bytes + 1);
    /* no list is longer than the text */
    o->command = calloc(o->text_bytes + 1, sizeof(char *));
    o->environment = calloc(o->text_bytes + 1, sizeof(char *));
    if (!o->text || !o->command || !o->environment)
        give_up(lab, "orders: %s", strerror(ENOMEM));
    if (read(fd, o->text, o->text_bytes) != (ssize_t)o->text_bytes)
        give_up(lab, "%s: cannot be read whole", LAB_ORDERS_PATH);
    o->text[o->text_bytes] = '\0';
    close(fd);

    for (p = o->text; p < o->text + o->text_bytes; p += strlen(p) + 1) {
        char *value;

        if ((value = (char *)field_value(p, "arg")))
            o->command[nr_args++] = value;
        else if ((value = (char *)field_value(p, "env")))
            o->environment[nr_env++] = value;
        else if ((value = (char *)field_value(p, "cwd")))
            o->cwd = value;
        else if ((value = (char *)field_value(p, "share")) &&
                 o->nr_shares < LAB_MAX_SHARES)
            o->shares[o->nr_shares++] = value;
    }
    if (nr_args == 0 || !o->cwd)
        give_up(lab, "%s: no command or no folder to run it in", LAB_ORDERS_PATH);
}

/* ---- modules and ports ---- */

static int module_load(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;

    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)) {
        r = -errno;
        fprintf(stderr, "lab: module %s: %s\n", path, strerror(errno));
    }
    if (fd >= 0)
        close(fd);
    return r;
}

/* The first value that the orders have under key, or the one after previous; NULL: no
 * more. */
static const char *order_next(const struct orders *o, const char *key, const char *previous)
{
    const char *p = previous ? previous + strlen(previous) + 1 : o->text;

    for (; p < o->text + o->text_bytes; p += strlen(p) + 1) {
        const char *value = field_value(p, key);

        if (value)
            return value;
    }
    return NULL;
}

/* Loads what the ports and the root need; what fails is on the console. */
static int root_modules_load(const struct orders *o)
{
    const char *path = NULL;
    int r = 0;

    while (r == 0 && (path = order_next(o, "module", path)))
        r = module_load(path);
    return r;
}

/* A guest's memory that is a memfd gets large pages where its owner asks for them,
 * as anonymous memory does anyway: a nested page fault costs an emulated processor
 * far more than to clear the rest of 2 MiB.  A kernel without the file has no such
 * pages, and works. */
static void huge_pages_allow(void)
{
    static const char word[] = "advise";
    int fd = open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (write(fd, word, sizeof(word) - 1) < 0)
        fprintf(stderr, "lab: shmem_enabled: %s\n", strerror(errno));
    close(fd);
}

/* Linux measures its TSC a second time when it is two seconds old, and KVM keeps for good
 * the rate that it finds when it is loaded.  If that is mended afterwards by more than KVM
 * tolerates, and the processor cannot scale a guest's TSC, KVM takes the TSC of every guest
 * to be 0 (its multiplier stays unset), and timers come when the life of the guest, or of
 * the host, has doubled.  Until the second measurement the clock has another name. */
static void clock_wait(int fd)
{
    static const char early[] = "tsc-early";
    char name[sizeof(early)];

    for (unsigned waited_ms = 0; waited_ms < CLOCK_WAIT_MS; waited_ms += 5) {
        ssize_t n = pread(fd, name, sizeof(name), 0);

        if (n < (ssize_t)sizeof(early) - 1 || memcmp(name, early, sizeof(early) - 1) != 0)
            return;
        usleep(5000);
    }
    fprintf(stderr, "lab: the rate of the TSC is not settled; guests' timers may be late\n");
}

/* The processor's half of KVM, which is the one that looks at the clock. */
static bool is_kvm_vendor_module(const char *path)
{
    return strncmp(strrchr(path, '/') + 1, "kvm-", 4) == 0;
}

/* Loads what makes this a KVM host. */
static int host_modules_load(const struct orders *o, int clock_fd)
{
    const char *path = NULL;
    int r = 0;

    while (r == 0 && (path = order_next(o, "host-module", path))) {
        if (is_kvm_vendor_module(path))
            clock_wait(clock_fd);
        r = module_load(path);
    }
    return r;
}

/* That takes about as long as the way to the root, so another processor does it
 * meanwhile.  The root takes /sys with it. */
static pid_t host_modules_start(struct lab *lab)
{
    int clock_fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource",
                        O_RDONLY | O_CLOEXEC);
    pid_t pid;

    if (clock_fd < 0)
        give_up(lab, "the name of the clock: %s", strerror(errno));
    pid = fork();
    if (pid < 0)
        give_up(lab, "fork: %s", strerror(errno));
    if (pid == 0)
        _exit(host_modules_load(&lab->orders, clock_fd) < 0);
    close(clock_fd);
    return pid;
}

static void host_modules_wait(struct lab *lab, pid_t pid)
{
    const char *what;
    int status, r;

    if (waitpid(pid, &status, 0) != pid || status != 0)
        give_up(lab, "a module of the KVM host cannot be loaded");
    r = kvm_hold(&what);
    if (r < 0)
        give_up(lab, "%s: %s", what, strerror(-r));
}

/* Opens the port with this name; -1 while there is none. */
static int port_try_open(const char *name)
{
    DIR *d = opendir("/sys/class/virtio-ports");
    struct dirent *e;
    int found = -1;

    if (!d)
        return -1;
    while (found < 0 && (e = readdir(d))) {
        char path[PATH_BYTES], text[128] = "";
        int fd;
        ssize_t n;

        snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", e->d_name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        n = read(fd, text, sizeof(text) - 1);
        close(fd);
        if (n <= 0)
            continue;
        text[strcspn(text, "\n")] = '\0';
        if (strcmp(text, name) != 0)
            continue;
        snprintf(path, sizeof(path), "/dev/%s", e->d_name);
        found = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    }
    closedir(d);
    return found;
}

static int port_open(struct lab *lab, const char *name)
{
    unsigned waited_ms;

    for (waited_ms = 0; waited_ms < PORT_WAIT_MS; waited_ms += 2) {
        int fd = port_try_open(name);

        if (fd >= 0)
            return fd;
        usleep(2000);
    }
    give_up(lab, "port %s did not appear", name);
}

/* What a kernel leaves to user space: names for a process's own files, which shells
 * take for granted. */
static void dev_links_make(void)
{
    static const char *const link[][2] = {
        { "/proc/self/fd", "/dev/fd" },     { "fd/0", "/dev/stdin" },
        { "fd/1", "/dev/stdout" },          { "fd/2", "/dev/stderr" },
    };

    for (size_t i = 0; i < sizeof(link) / sizeof(link[0]); i++)
        if (symlink(link[i][0], link[i][1]) < 0)
            fprintf(stderr, "lab: %s: %s\n", link[i][1], strerror(errno));
}

/* ---- the heartbeat ---- */

/* Beats one processor's pulse for ever. */
static void pulse(int cpu, volatile unsigned *count)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof(one), &one) < 0) {
        fprintf(stderr, "lab: pulse of processor %d: %s\n", cpu, strerror(errno));
        _exit(1);
    }
    for (;;) {
        ++*count;
        usleep(PULSE_US);
    }
}

/* True when every processor has had a pulse since the last time this was true. */
static bool all_alive(const volatile unsigned *count, unsigned *seen, int nr_cpus)
{
    bool all = true;

    for (int i = 0; i < nr_cpus; i++)
        all = all && count[i] != seen[i];
    for (int i = 0; all && i < nr_cpus; i++)
        seen[i] = count[i];
    return all;
}

/* A beat says that every processor lives: one that is stuck alone would hang what
 * runs there for ever, while the others go on. */
static void heartbeat_start(struct lab *lab)
{
    const struct lab_frame beat = { .type = LAB_FRAME_BEAT };
    int nr_cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    unsigned *seen = calloc(nr_cpus, sizeof(*seen));
    volatile unsigned *count = mmap(NULL, nr_cpus * sizeof(*count), PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = -1;

    if (seen && count != MAP_FAILED)
        pid = fork();
    if (pid < 0)
        give_up(lab, "heartbeat: %s", strerror(errno));
    if (pid > 0)
        return;
    for (int i = 0; i < nr_cpus; i++) {
        pid = fork();
        if (pid < 0)
            fprintf(stderr, "lab: pulse of processor %d: %s\n", i, strerror(errno));
        if (pid == 0)
            pulse(i, &count[i]);
    }
    for (;;) {
        /* A full port means that the host is not reading, so a lost beat is no
         * loss; the port takes a small frame whole or not at all. */
        if (all_alive(count, seen, nr_cpus) &&
            write(lab->relay.control_fd, &beat, sizeof(beat)) < 0 && errno != EAGAIN)
            _exit(1);
        sleep(1);
    }
}

/* ---- the root ---- */

/* mkdir -p; what is there already may be anything. */
static int make_path(const char *path)
{
    char part[PATH_BYTES];
    char *p;

    if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
        return -ENAMETOOLONG;
    for (p = part + 1;; p++) {
        char c = *p;

        if (c != '/' && c != '\0')
            continue;
        *p = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return -errno;
        *p = c;
        if (c == '\0')
            return 0;
    }
}

static void must_mount(struct lab *lab, const char *source, const char *target,
                       const char *type, unsigned long flags, const char *options)
{
    int r = make_path(target);

    if (r < 0)
        give_up(lab, "cannot make the folder %s: %s", target, strerror(-r));
    if (mount(source, target, type, flags, options) < 0)
        give_up(lab, "cannot mount %s on %s: %s", source, target, strerror(errno));
}

/* The host may change its files while the lab runs, but nobody expects a lab of
 * some seconds to follow changes outside the shared folders: cache=loose there.
 * A shared folder is read and written by both sides: cache=mmap keeps nothing but
 * what programs have mapped, and every write is with the host when it returns. */
#define OPTIONS_9P "trans=virtio,version=9p2000.L,msize=524288,"

static void root_assemble(struct lab *lab)
{
    const struct orders *o = &lab->orders;
    unsigned i;

    must_mount(lab, LAB_ROOT_TAG, "/lower", "9p", MS_RDONLY, OPTIONS_9P "cache=loose");
    must_mount(lab, "overlay", "/writes", "tmpfs", 0, "size=100%");
    if (mkdir("/writes/upper", 0755) < 0 || mkdir("/writes/work", 0755) < 0)
        give_up(lab, "overlay: %s", strerror(errno));
    must_mount(lab, "overlay", "/root", "overlay", 0,
               "lowerdir=/lower,upperdir=/writes/upper,workdir=/writes/work");
    must_mount(lab, "/proc", "/root/proc", NULL, MS_MOVE, NULL);
    must_mount(lab, "/sys", "/root/sys", NULL, MS_MOVE, NULL);
    must_mount(lab, "/dev", "/root/dev", NULL, MS_MOVE, NULL);
    must_mount(lab, "devpts", "/root/dev/pts", "devpts", 0, "mode=620,ptmxmode=666");
    must_mount(lab, "shm", "/root/dev/shm", "tmpfs", 0, "mode=1777,size=100%");
    must_mount(lab, "tmp", "/root/tmp", "tmpfs", 0, "mode=1777,size=100%");
    must_mount(lab, "run", "/root/run", "tmpfs", 0, "mode=755,size=100%");
    must_mount(lab, "debug", "/root/sys/kernel/debug", "debugfs", 0, NULL);
    for (i = 0; i < o->nr_shares; i++) {
        char tag[32], target[PATH_BYTES];

        snprintf(tag, sizeof(tag), "%s%u", LAB_SHARE_TAG_PREFIX, i);
        snprintf(target, sizeof(target), "/root%s", o->shares[i]);
        must_mount(lab, tag, target, "9p", 0, OPTIONS_9P "cache=mmap");
    }
    if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0)
        give_up(lab, "cannot enter the new root: %s", strerror(errno));
}

static void network_up(struct lab *lab)
{
    struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
        give_up(lab, "loopback interface: %s", strerror(errno));
    close(fd);
    if (sethostname("lab", 3) < 0)
        give_up(lab, "host name: %s", strerror(errno));
}

/* ---- COMMAND ---- */

static const char *environment_get(char *const *environment, const char *name)
{
    for (; *environment; environment++) {
        const char *value = field_value(*environment, name);

        if (value)
            return value;
    }
    return NULL;
}

/* Whatever runs out of memory in here, it is not to be init: without it the lab
 * looks as if its kernel had died. */
static void oom_score_set(const char *score)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (write(fd, score, strlen(score)) < 0)
        fprintf(stderr, "lab: oom_score_adj: %s\n", strerror(errno));
    close(fd);
}

static void command_exec(const struct orders *o, const int stdio[3])
{
    const char *path = environment_get(o->environment, "PATH");
    sigset_t none;
    int i;

    for (i = 0; i < 3; i++)
        if (dup2(stdio[i], i) < 0)
            _exit(126);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    oom_score_set("0");
    setsid();
    if (chdir(o->cwd) < 0) {
        fprintf(stderr, "lab: %s: %s\n", o->cwd, strerror(errno));
        _exit(126);
    }
    /* execvpe() searches the PATH of the caller */
    setenv("PATH", path ? path : "/usr/sbin:/usr/bin:/sbin:/bin", 1);
    execvpe(o->command[0], o->command, o->environment);
    i = errno == ENOENT ? 127 : 126;
    fprintf(stderr, "lab: %s: %s\n", o->command[0], strerror(errno));
    _exit(i);
}

static void command_start(struct lab *lab)
{
    int in[2], out[2], errs[2];

    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(errs, O_CLOEXEC) < 0)
        give_up(lab, "pipes: %s", strerror(errno));
    relay_send(&lab->relay, LAB_FRAME_READY, NULL, 0);
    lab->relay.command_pid = fork();
    if (lab->relay.command_pid < 0)
        give_up(lab, "fork: %s", strerror(errno));
    if (lab->relay.command_pid == 0)
        command_exec(&lab->orders, (int[3]){ in[0], out[1], errs[1] });
    close(in[0]);
    close(out[1]);
    close(errs[1]);
    relay_attach(&lab->relay, in[1], out[0], errs[0]);
}

int main(void)
{
    struct lab lab = { 0 };
    unsigned i;
    pid_t host_modules;
    int console;

    relay_init(&lab.relay);
    /* the archive holds /dev/console, which the kernel opened for us */
    must_mount(&lab, "proc", "/proc", "proc", 0, NULL);
    must_mount(&lab, "sys", "/sys", "sysfs", 0, NULL);
    must_mount(&lab, "dev", "/dev", "devtmpfs", 0, NULL);
    dev_links_make();
    console = open("/dev/console", O_RDWR | O_CLOEXEC);
    for (i = 0; i < 3 && console >= 0; i++)
        dup2(console, i);
    orders_read(&lab);
    oom_score_set("-1000");
    huge_pages_allow();
    host_modules = host_modules_start(&lab);
    if (root_modules_load(&lab.orders) < 0)
        give_up(&lab, "a module for the ports or the root cannot be loaded");
    lab.relay.control_fd = port_open(&lab, LAB_PORT_CONTROL);
    lab.relay.data_fd = port_open(&lab, LAB_PORT_DATA);
    heartbeat_start(&lab);
    root_assemble(&lab);
    network_up(&lab);
    host_modules_wait(&lab, host_modules);
    command_start(&lab);
    relay_run(&lab.relay);

    /* What programs had mapped of a shared folder goes to the host before the
     * host learns that all is done, for then it ends QEMU. */
    sync();
    for (i = lab.orders.nr_shares; i-- > 0;)
        umount2(lab.orders.shares[i], MNT_DETACH);
    sync();
    relay_send_end(&lab.relay);
    power_off();
    return 0;
}
