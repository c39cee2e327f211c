/* SPDX-License-Identifier: MIT */
/* The vCPU loop, and how another thread gets a vCPU out of it without a lost
 * wake-up.
 *
 * The requester: (1) sets bits in request, (2) sets run->immediate_exit, (3)
 * signals the thread.  The loop: enters KVM_RUN; on EINTR takes immediate_exit
 * back to 0, then looks at request.
 *
 *  - (2) happens before KVM looks at immediate_exit: KVM returns at once.
 *  - (2) happens after: the thread is inside KVM_RUN, (3) interrupts it there.
 *  - The loop's reset of immediate_exit swallows a (2) that came between: then
 *    (1) was earlier still, and the look at request that follows sees it.
 *
 * So no step needs the signal blocked or a handler that does anything.
 *
 * request is looked at only after EINTR, never between a handler and KVM_RUN:
 * KVM finishes an I/O instruction (result register, rip) when it is entered the
 * next time, before it looks at immediate_exit.  A vCPU that left by
 * KVM_LEFT_REQUEST therefore has complete registers. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/atomic.h"
#include "kvm/internal.h"

/* Longer than any text describe.c makes. */
#define FAILURE_TEXT_BYTES 2048

/* One writer: no locked instruction is needed. */
static void count(uint64_t *counter)
{
    store_relaxed(counter, load_relaxed(counter) + 1);
}

void kvm_vcpu_request(struct kvm_vcpu *v, pthread_t thread, uint32_t bits)
{
    fetch_or(&v->request, bits);
    /* pairs with swap_acq_rel() in take_kick() */
    store_release(&v->run->immediate_exit, 1);
    pthread_kill(thread, KVM_KICK_SIGNAL);
}

void kvm_vcpu_request_clear(struct kvm_vcpu *v, uint32_t bits)
{
    fetch_and(&v->request, ~bits);
}

uint32_t kvm_vcpu_requests(const struct kvm_vcpu *v)
{
    return load_acquire(&v->request);
}

/* Whether a request is why KVM_RUN was interrupted. */
static bool take_kick(struct kvm_vcpu *v)
{
    /* A swap, not a store: what it overwrites was written after request was set;
     * pairs with store_release() in kvm_vcpu_request(). */
    (void)swap_acq_rel(&v->run->immediate_exit, 0);
    return kvm_vcpu_requests(v) != 0;
}

/* A string instruction (rep outs, rep ins) brings io.count items at once. */
static enum kvm_next handle_io(struct kvm_vcpu *v, const struct kvm_exit_ops *ops, void *arg)
{
    const uint16_t port = v->run->io.port;
    const unsigned size_bytes = v->run->io.size;
    const uint32_t nr = v->run->io.count;
    const bool out = v->run->io.direction == KVM_EXIT_IO_OUT;
    uint8_t *data = (uint8_t *)v->run + v->run->io.data_offset;

    count(out ? &v->counts.io_out : &v->counts.io_in);
    for (uint32_t i = 0; i < nr; i++, data += size_bytes) {
        uint32_t value = 0;

        if (!out) {
            value = ops->io_in(arg, v, port, size_bytes);
            memcpy(data, &value, size_bytes);
            continue;
        }
        memcpy(&value, data, size_bytes);
        if (ops->io_out(arg, v, port, size_bytes, value) == KVM_NEXT_LEAVE)
            return KVM_NEXT_LEAVE;
    }
    return KVM_NEXT_RUN;
}

static enum kvm_left fail(struct kvm_vcpu *v, const struct kvm_exit_ops *ops, void *arg,
                          int run_errno)
{
    char text[FAILURE_TEXT_BYTES];

    kvm_vcpu_describe_failure(v, run_errno, text, sizeof(text));
    ops->failure(arg, v, text);
    return KVM_LEFT_FAILURE;
}

enum kvm_left kvm_vcpu_run(struct kvm_vcpu *v, const struct kvm_exit_ops *ops, void *arg)
{
    if (kvm_vcpu_requests(v))
        return KVM_LEFT_REQUEST;

    for (;;) {
        if (unlikely(ioctl(v->fd, KVM_RUN, 0) < 0)) {
            switch (errno) {
            case EINTR:
                count(&v->counts.signal);
                if (take_kick(v))
                    return KVM_LEFT_REQUEST;
                continue;
            case EAGAIN:        /* INIT or SIPI arrived */
                count(&v->counts.other);
                continue;
            default:
                count(&v->counts.other);
                return fail(v, ops, arg, errno);
            }
        }
        switch (v->run->exit_reason) {
        case KVM_EXIT_IO:
            if (handle_io(v, ops, arg) == KVM_NEXT_LEAVE)
                return KVM_LEFT_HANDLER;
            continue;
        case KVM_EXIT_MMIO:
            count(&v->counts.mmio);
            return fail(v, ops, arg, 0);
        default:
            count(&v->counts.other);
            return fail(v, ops, arg, 0);
        }
    }
}
