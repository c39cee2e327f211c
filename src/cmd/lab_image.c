/* SPDX-License-Identifier: MIT */
#include "cmd/lab_image.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/lab_modules.h"

/* What init needs for the ports and the root; and what makes L1 a KVM host with
 * taps and loop devices, which is loaded at the same time, KVM last, since it has to
 * wait (lab/init.c).  No module is in both lists.  Their dependencies come from modules.dep. */
static const char *const lab_root_modules[] = {
    "virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay",
};
static const char *const lab_host_modules[] = {
    "loop", "tun", "kvm-amd",
};

/* No file of an initramfs is as large; keeps a device or a mistake out. */
#define FILE_MAX_BYTES (64 * MIB)

/* ---- where things are ---- */

static bool dir_is_complete(const char *dir)
{
    static const char *const files[] = { "init", "fetch-kernel", "fetch-qemu" };
    char path[PATH_MAX];
    size_t i;

    for (i = 0; i < array_size(files); i++)
        if (snprintf(path, sizeof(path), "%s/%s", dir, files[i]) >= (int)sizeof(path) ||
            access(path, X_OK) < 0)
            return false;
    return true;
}

int lab_image_find_dir(char *dir, size_t size, struct err *err)
{
    /* from BUILD/src/cmd, from BUILD, from PREFIX/bin */
    static const char *const places[] = {
        "/../../lab", "/lab", "/../lab", "/../share/xenolith/lab",
    };
    const char *set = getenv("XENOLITH_LAB_DIR");
    char exe[PATH_MAX], path[PATH_MAX + 64];
    ssize_t n;
    size_t i;

    if (set && *set) {
        if (!dir_is_complete(set))
            return err_set(err, ENOENT, "XENOLITH_LAB_DIR is %s, which does not hold "
                           "'init', 'fetch-kernel' and 'fetch-qemu'", set);
        if (snprintf(dir, size, "%s", set) >= (int)size)
            return err_set(err, ENAMETOOLONG, "XENOLITH_LAB_DIR is too long");
        return 0;
    }
    n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    if (n < 0)
        return err_set(err, errno, "/proc/self/exe: %s", strerror(errno));
    exe[n] = '\0';
    *strrchr(exe, '/') = '\0';
    for (i = 0; i < array_size(places); i++) {
        snprintf(path, sizeof(path), "%s%s", exe, places[i]);
        if (dir_is_complete(path) && snprintf(dir, size, "%s", path) < (int)size)
            return 0;
    }
    return err_set(err, ENOENT, "the lab's files ('init', 'fetch-kernel' and 'fetch-qemu') "
                   "are not near %s; XENOLITH_LAB_DIR can name their folder", exe);
}

/* Runs a script of lab_dir, with one argument or none; the first line of its output, the
 * absolute path of what it found, goes to answer. */
static int script_ask(const char *lab_dir, const char *name, const char *argument,
                      char *answer, size_t size, struct err *err)
{
    char script[PATH_MAX];
    int fds[2], status;
    size_t used = 0;
    ssize_t n;
    pid_t pid;

    if (snprintf(script, sizeof(script), "%s/%s", lab_dir, name) >= (int)sizeof(script))
        return err_set(err, ENAMETOOLONG, "%s: path too long", lab_dir);
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_set(err, errno, "pipe: %s", strerror(errno));
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        dup2(fds[1], STDOUT_FILENO);
        execl(script, script, argument, (char *)NULL);
        fprintf(stderr, "%s: %s\n", script, strerror(errno));
        _exit(127);
    }
    close(fds[1]);
    while (pid > 0 && used < size - 1 &&
           ((n = read(fds[0], answer + used, size - 1 - used)) > 0 ||
            (n < 0 && errno == EINTR)))
        used += max_of(n, 0);
    answer[used] = '\0';
    close(fds[0]);
    if (pid < 0)
        return err_set(err, errno, "fork: %s", strerror(errno));
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_set(err, errno, "wait: %s", strerror(errno));
    answer[strcspn(answer, "\n")] = '\0';
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || answer[0] != '/')
        return err_set(err, ENOENT, "'%s%s%s' failed", script, argument ? " " : "",
                       argument ? argument : "");
    return 0;
}

int lab_image_find_qemu(const char *lab_dir, char *path, size_t size, struct err *err)
{
    const char *set = getenv("XENOLITH_LAB_QEMU");

    if (!set || !*set)
        return script_ask(lab_dir, "fetch-qemu", NULL, path, size, err);
    if (snprintf(path, size, "%s", set) >= (int)size)
        return err_set(err, ENAMETOOLONG, "XENOLITH_LAB_QEMU is too long");
    return 0;
}

int lab_image_find_kernel(const char *lab_dir, const char *flavour,
                          const char *kernel_file, struct lab_kernel *k,
                          struct err *err)
{
    static const char *const images[] = { "vmlinux", "vmlinuz" };
    char *slash;
    size_t i;
    int r;

    if (kernel_file) {
        if (!realpath(kernel_file, k->image))
            return err_set(err, errno, "%s: %s", kernel_file, strerror(errno));
        memcpy(k->folder, k->image, sizeof(k->folder));
        slash = strrchr(k->folder, '/');
        *slash = '\0';
        return 0;
    }
    r = script_ask(lab_dir, "fetch-kernel", flavour, k->folder, sizeof(k->folder), err);
    if (r < 0)
        return r;
    /* The ELF image boots sooner: nothing has to be unpacked in emulation. */
    for (i = 0; i < array_size(images); i++)
        if (snprintf(k->image, sizeof(k->image), "%s/%s", k->folder, images[i]) <
                (int)sizeof(k->image) && access(k->image, R_OK) == 0)
            return 0;
    return err_set(err, ENOENT, "%s holds no kernel", k->folder);
}

/* ---- the initramfs ---- */

/* The whole file, with a final NUL that is not counted; the caller frees it. */
static int file_read(const char *path, char **data, size_t *size_bytes, struct err *err)
{
    struct stat st;
    size_t used = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    *data = NULL;
    if (fd < 0)
        return err_set(err, errno, "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size > FILE_MAX_BYTES) {
        close(fd);
        return err_set(err, EINVAL, "%s is not a file of a sensible size", path);
    }
    *data = malloc(st.st_size + 1);
    while (*data && used < (size_t)st.st_size) {
        ssize_t n = read(fd, *data + used, st.st_size - used);

        if (n <= 0)
            break;
        used += n;
    }
    close(fd);
    if (!*data)
        return err_set(err, ENOMEM, "%s: %s", path, strerror(ENOMEM));
    if (used != (size_t)st.st_size) {
        free(*data);
        *data = NULL;
        return err_set(err, EIO, "%s: cannot be read whole", path);
    }
    (*data)[used] = '\0';
    *size_bytes = used;
    return 0;
}

static int add_file(struct lab_cpio *c, const char *name, uint32_t mode,
                    const char *path, struct err *err)
{
    size_t size_bytes;
    char *data;
    int r = file_read(path, &data, &size_bytes, err);

    if (r < 0)
        return r;
    lab_cpio_add_file(c, name, mode, data, size_bytes);
    free(data);
    return 0;
}

static int add_module(struct lab_cpio *c, const char *folder, const char *module,
                      struct err *err)
{
    char path[PATH_MAX + 128], name[128];
    size_t size_bytes;
    char *data;
    int r;

    snprintf(path, sizeof(path), "%s/modules/%s.ko", folder, module);
    snprintf(name, sizeof(name), "%s/%s.ko", LAB_MODULES_DIR, module);
    r = file_read(path, &data, &size_bytes, err);
    if (r < 0)
        return r;
    lab_cpio_add_file(c, name, 0644, data, lab_modules_unsigned_bytes(data, size_bytes));
    free(data);
    return 0;
}

static int modules_find(const struct lab_kernel *k, struct lab_modules *root,
                        struct lab_modules *host, struct err *err)
{
    char path[PATH_MAX + 128];
    char *dep = NULL, *builtin = NULL;
    size_t size_bytes;
    int r;

    snprintf(path, sizeof(path), "%s/modules.dep", k->folder);
    r = file_read(path, &dep, &size_bytes, err);
    if (r == 0) {
        snprintf(path, sizeof(path), "%s/modules.builtin", k->folder);
        r = file_read(path, &builtin, &size_bytes, err);
    }
    if (r == 0)
        r = lab_modules_resolve(dep, builtin, lab_root_modules, array_size(lab_root_modules),
                                root, err);
    if (r == 0)
        r = lab_modules_resolve(dep, builtin, lab_host_modules, array_size(lab_host_modules),
                                host, err);
    if (r < 0)
        err_at(err, k->folder, 0, NULL);
    free(dep);
    free(builtin);
    return r;
}

static void order(FILE *f, const char *key, const char *value)
{
    fprintf(f, "%s=%s", key, value);
    fputc('\0', f);
}

static void order_modules(FILE *f, const char *key, const struct lab_modules *modules)
{
    char path[128];
    unsigned i;

    for (i = 0; i < modules->nr_names; i++) {
        snprintf(path, sizeof(path), "/%s/%s.ko", LAB_MODULES_DIR, modules->names[i]);
        order(f, key, path);
    }
}

static int add_orders(struct lab_cpio *c, const struct lab_orders *orders,
                      const struct lab_modules *root, const struct lab_modules *host,
                      struct err *err)
{
    char *text = NULL;
    size_t size_bytes = 0;
    FILE *f = open_memstream(&text, &size_bytes);
    char *const *s;
    unsigned i;

    if (!f)
        return err_set(err, errno, "orders: %s", strerror(errno));
    order_modules(f, "module", root);
    order_modules(f, "host-module", host);
    for (i = 0; i < orders->nr_shares; i++)
        order(f, "share", orders->shares[i]);
    order(f, "cwd", orders->cwd);
    for (s = orders->environment; *s; s++)
        order(f, "env", *s);
    for (s = orders->command; *s; s++)
        order(f, "arg", *s);
    if (fclose(f) != 0) {
        free(text);
        return err_set(err, ENOMEM, "orders: %s", strerror(ENOMEM));
    }
    lab_cpio_add_file(c, LAB_ORDERS_PATH, 0600, text, size_bytes);
    free(text);
    return 0;
}

int lab_image_build(const char *lab_dir, const struct lab_kernel *k,
                    const struct lab_orders *orders, struct lab_cpio *c,
                    struct err *err)
{
    struct lab_modules root, host;
    char path[PATH_MAX + 8];
    unsigned i;
    int r;

    snprintf(path, sizeof(path), "%s/init", lab_dir);
    lab_cpio_add_dir(c, "dev", 0755);
    lab_cpio_add_char_device(c, "dev/console", 0600, 5, 1);
    lab_cpio_add_dir(c, LAB_MODULES_DIR, 0755);
    r = add_file(c, "init", 0755, path, err);
    if (r == 0)
        r = modules_find(k, &root, &host, err);
    for (i = 0; r == 0 && i < root.nr_names; i++)
        r = add_module(c, k->folder, root.names[i], err);
    for (i = 0; r == 0 && i < host.nr_names; i++)
        r = add_module(c, k->folder, host.names[i], err);
    if (r == 0)
        r = add_orders(c, orders, &root, &host, err);
    if (r < 0)
        return r;
    r = lab_cpio_finish(c);
    return r < 0 ? err_set(err, -r, "initramfs: %s", strerror(-r)) : 0;
}
