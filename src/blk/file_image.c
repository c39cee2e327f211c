/* SPDX-License-Identifier: MIT */
#include "blk/file_image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/log.h"
#include "blk/driver.h"
#include "blk/file_claim.h"

#define PROBE_BYTES 4096u

/* The image of another process, which has claimed it and set its flags. */
static int image_handed_fd(const struct blk_spec *spec, struct stat *st, struct err *e)
{
    int fd = fcntl(spec->handed->fd, F_DUPFD_CLOEXEC, 0);

    if (fd >= 0 && !fstat(fd, st))
        return fd;
    err_set(e, errno, "%s", strerror(errno));
    if (fd >= 0)
        close(fd);
    return -e->code;
}

static int image_open_fd(const struct blk_spec *spec, struct stat *st, struct err *e)
{
    /* O_NONBLOCK: the path may name a FIFO, and opening must not wait for it */
    int flags = (spec->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    const char *how = spec->readonly ? "reading" : "reading and writing";
    int fd = open(spec->path, flags);

    if (fd < 0)
        return err_set(e, errno, "cannot be opened for %s: %s", how, strerror(errno));
    if (fstat(fd, st))
        goto fail;
    if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode)) {
        close(fd);
        return err_set(e, EINVAL, "is %s: expected a raw image file or a block device",
                       S_ISDIR(st->st_mode) ? "a directory" : "neither file nor block device");
    }
    /* io_uring gives -EAGAIN instead of waiting where O_NONBLOCK is set */
    if (fcntl(fd, F_SETFL, spec->readonly ? O_RDONLY : O_RDWR))
        goto fail;
    return fd;
fail:
    err_set(e, errno, "%s", strerror(errno));
    close(fd);
    return -e->code;
}

/* A number the kernel shows about a block device; partitions have the queue's
 * figures with their parent. */
static uint64_t sysfs_u64(dev_t dev, const char *name)
{
    static const char *const format[] = {
        "/sys/dev/block/%u:%u/%s", "/sys/dev/block/%u:%u/../%s",
    };
    unsigned long long v = 0;

    for (unsigned i = 0; i < array_size(format); i++) {
        char path[128];
        FILE *f;
        int n;

        snprintf(path, sizeof(path), format[i], major(dev), minor(dev), name);
        f = fopen(path, "re");
        if (!f)
            continue;
        n = fscanf(f, "%llu", &v);
        fclose(f);
        return n == 1 ? v : 0;
    }
    return 0;
}

static int block_props(const struct stat *st, struct file_image *img, struct blk_props *props,
                       bool *direct_possible, struct err *e)
{
    unsigned physical = 0;
    int logical = 0;
    uint64_t size;

    if (ioctl(img->fd, BLKGETSIZE64, &size) || ioctl(img->fd, BLKSSZGET, &logical) ||
        ioctl(img->fd, BLKPBSZGET, &physical))
        return err_set(e, errno, "cannot be asked for its size: %s", strerror(errno));
    props->size_bytes = align_down(size, (uint64_t)BLK_SECTOR_BYTES);
    props->physical_block_bytes = max_of(physical, BLK_SECTOR_BYTES);
    img->data_end_bytes = size;
    /* A guest may address every 512-byte sector.  Where the medium cannot, the
     * page cache joins them to whole blocks. */
    *direct_possible = logical <= (int)BLK_SECTOR_BYTES;
    /* What discard does here is FALLOC_FL_PUNCH_HOLE: zero with unmapping, no
     * fallback to writing (block/fops.c).  It runs through io_uring, as BLKDISCARD
     * does not, and reads back zeroes. */
    props->can_discard = sysfs_u64(st->st_rdev, "queue/discard_max_bytes") > 0 &&
                         sysfs_u64(st->st_rdev, "queue/write_zeroes_max_bytes") > 0 &&
                         logical <= (int)BLK_SECTOR_BYTES;
    props->discard_granularity_bytes =
        (uint32_t)max_of(sysfs_u64(st->st_rdev, "queue/discard_granularity"),
                         (uint64_t)BLK_SECTOR_BYTES);
    props->discard_alignment_bytes = (uint32_t)sysfs_u64(st->st_rdev, "discard_alignment");
    props->can_write_zeroes = logical <= (int)BLK_SECTOR_BYTES;
    return 0;
}

/* blkif.h: the size must be a multiple of the physical block */
static uint32_t regular_block_bytes(const struct stat *st, uint64_t size_bytes)
{
    uint32_t block = (uint32_t)st->st_blksize;

    return block >= BLK_SECTOR_BYTES && block <= 65536 && !(block & (block - 1)) &&
           !(size_bytes % block) ? block : BLK_SECTOR_BYTES;
}

static void regular_props(const struct stat *st, struct file_image *img, struct blk_props *props)
{
    uint64_t size = (uint64_t)st->st_size;

    /* a last sector that the file fills in part only is one of the disk's */
    props->size_bytes = align_up(size, (uint64_t)BLK_SECTOR_BYTES);
    img->data_end_bytes = size;
    props->physical_block_bytes = regular_block_bytes(st, props->size_bytes);
    props->discard_granularity_bytes = props->physical_block_bytes;
    /* A hole beyond the end changes nothing, and fails where holes cannot be made. */
    props->can_discard = !props->readonly &&
        !fallocate(img->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                   (off_t)align_up(size, PAGE_SIZE), (off_t)PAGE_SIZE);
    props->can_write_zeroes = props->can_discard;
}

/* Turns O_DIRECT on if single sectors can be read at every sector's offset and
 * into memory aligned no better than a sector, which is what blkif allows. */
static bool direct_enable(int fd, bool readonly)
{
    int flags = readonly ? O_RDONLY : O_RDWR;
    char *buf;
    ssize_t n;

    if (fcntl(fd, F_SETFL, flags | O_DIRECT))
        return false;
    buf = aligned_alloc(PROBE_BYTES, PROBE_BYTES);
    n = buf ? pread(fd, buf + BLK_SECTOR_BYTES, BLK_SECTOR_BYTES, 0) : -1;
    free(buf);
    if (n >= 0)
        return true;
    fcntl(fd, F_SETFL, flags);
    return false;
}

static int image_open(const struct blk_spec *spec, struct file_image *img,
                      struct blk_props *props, struct err *e)
{
    bool direct_possible = true;
    struct statfs fs;
    struct stat st;
    int rc;

    *img = (struct file_image){
        .claim_fd = -1, .handed = spec->handed,
        .keep_fd = spec->handed ? spec->handed->keep_fd : -1,
        .size_lock = PTHREAD_MUTEX_INITIALIZER,
    };
    *props = (struct blk_props){ .readonly = spec->readonly, .can_flush = true };
    img->fd = spec->handed ? image_handed_fd(spec, &st, e) : image_open_fd(spec, &st, e);
    if (img->fd < 0)
        return img->fd;
    if (!spec->handed) {
        rc = file_claim(spec->path, &st, spec->readonly, spec->shared_write, e);
        img->claim_fd = rc;
        if (rc < 0)
            goto fail;
    }
    img->block_device = S_ISBLK(st.st_mode);
    if (img->block_device) {
        rc = block_props(&st, img, props, &direct_possible, e);
        if (rc)
            goto fail;
    } else {
        regular_props(&st, img, props);
        img->in_memory = !fstatfs(img->fd, &fs) &&
                         (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
    }
    if (!props->size_bytes) {
        rc = err_set(e, EINVAL, "is empty: expected at least one sector of %u bytes",
                     BLK_SECTOR_BYTES);
        goto fail;
    }
    if (spec->no_discard || spec->readonly)
        props->can_discard = false;
    if (spec->readonly)
        props->can_write_zeroes = false;
    img->direct = direct_possible && !spec->no_direct && !img->in_memory &&
                  direct_enable(img->fd, spec->readonly);
    props->direct = img->direct;
    props->block_device = img->block_device;
    props->prompt = !img->direct;
    return 0;
fail:
    file_image_close(img);
    return rc;
}

int file_image_open(const struct blk_spec *spec, struct file_image *img,
                    struct blk_props *props, struct err *e)
{
    int rc;

    if (!spec->handed && (!spec->path || !spec->path[0])) {
        err_at(e, NULL, 0, "target");
        return err_set(e, EINVAL, "a file disk needs the path of an image or block device");
    }
    rc = image_open(spec, img, props, e);
    if (rc)
        err_at(e, spec->path, 0, NULL);
    return rc;
}

void file_image_close(struct file_image *img)
{
    if (img->claim_fd >= 0)
        close(img->claim_fd);
    close(img->fd);
}

/* ---- other sizes ---- */

static int length_judge(const struct file_image *img, uint64_t size_bytes,
                        const struct blk_props *props, struct err *e)
{
    err_at(e, NULL, 0, "size");
    if (img->block_device)
        return err_set(e, EOPNOTSUPP, "a block device is made larger or smaller by the host's "
                       "means; then leave the size out");
    if (props->readonly)
        return err_set(e, EROFS, "the image is read-only here: change the file, then leave the "
                       "size out");
    if (size_bytes % BLK_SECTOR_BYTES || size_bytes > INT64_MAX)
        return err_set(e, EINVAL, "%llu bytes: expected a multiple of %u",
                       (unsigned long long)size_bytes, BLK_SECTOR_BYTES);
    err_clear(e);
    return 0;
}

static int length_read(const struct file_image *img, struct stat *st, uint64_t *bytes,
                       struct err *e)
{
    if (fstat(img->fd, st) || (img->block_device && ioctl(img->fd, BLKGETSIZE64, bytes)))
        return err_set(e, errno, "cannot be asked for its size: %s", strerror(errno));
    if (!img->block_device)
        *bytes = (uint64_t)st->st_size;
    return 0;
}

/* What the medium has is what the disk has. */
static int length_take(struct file_image *img, struct blk_props *props, struct err *e)
{
    uint64_t length, size;
    struct stat st;
    int rc = length_read(img, &st, &length, e);

    if (rc)
        return rc;
    size = img->block_device ? align_down(length, (uint64_t)BLK_SECTOR_BYTES)
                             : align_up(length, (uint64_t)BLK_SECTOR_BYTES);
    if (!size)
        return err_set(e, EINVAL, "is empty: expected at least one sector of %u bytes",
                       BLK_SECTOR_BYTES);
    if (!img->block_device)
        props->physical_block_bytes = regular_block_bytes(&st, size);
    store_relaxed(&img->data_end_bytes, length);
    blk_props_size_set(props, size);
    return 0;
}

/* The size goes down before the file is cut: what is judged from then on stays in front of
 * the cut, and what a write from before appends, file_image_trim() takes off again. */
static int length_set(struct file_image *img, uint64_t size_bytes, struct blk_props *props,
                      struct err *e)
{
    uint64_t before = blk_props_size(props);

    if (size_bytes < before)
        blk_props_size_set(props, size_bytes);
    if (!ftruncate(img->fd, (off_t)size_bytes))
        return 0;
    blk_props_size_set(props, before);
    return err_set(e, errno, "cannot be made %s: %s", size_bytes < before ? "smaller" : "larger",
                   strerror(errno));
}

int file_image_resize(struct file_image *img, uint64_t size_bytes, struct blk_props *props,
                      struct err *e)
{
    int rc = size_bytes ? length_judge(img, size_bytes, props, e) : 0;

    if (rc)
        return rc;
    pthread_mutex_lock(&img->size_lock);
    if (size_bytes)
        rc = length_set(img, size_bytes, props, e);
    if (!rc)
        rc = length_take(img, props, e);
    pthread_mutex_unlock(&img->size_lock);
    return rc;
}

void file_image_trim(struct file_image *img, const struct blk_props *props)
{
    struct stat st;

    pthread_mutex_lock(&img->size_lock);
    if (!img->block_device && !fstat(img->fd, &st) &&
        (uint64_t)st.st_size > blk_props_size(props) &&
        ftruncate(img->fd, (off_t)blk_props_size(props)))
        log_warning("an image that was made smaller has grown by a write from before: %s",
                    strerror(errno));
    pthread_mutex_unlock(&img->size_lock);
}
