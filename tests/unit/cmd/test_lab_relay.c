/* SPDX-License-Identifier: MIT */
/* The relay of the lab's init, run here in a child process, with sockets for the
 * ports and the test as the host. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "relay.h"

struct bench {
    int data_fd, control_fd;        /* the host's ends */
    pid_t pid;                      /* the relay's process */
    uint8_t *texts[3];              /* what came, by file descriptor */
    size_t sizes_bytes[3];
    uint32_t exit_status;
};

static void relay_child(int data_fd, int control_fd, const char *script)
{
    int in[2], out[2], errs[2];
    struct relay r;

    relay_init(&r);
    r.data_fd = data_fd;
    r.control_fd = control_fd;
    fcntl(data_fd, F_SETFL, O_NONBLOCK);
    fcntl(control_fd, F_SETFL, O_NONBLOCK);
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(errs, O_CLOEXEC))
        _exit(1);
    r.command_pid = fork();
    if (r.command_pid == 0) {
        sigset_t none;

        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(errs[1], 2);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_DFL);
        execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    close(errs[1]);
    relay_attach(&r, in[1], out[0], errs[0]);
    relay_run(&r);
    relay_send_end(&r);
    _exit(0);
}

static void bench_start(struct bench *b, const char *script)
{
    int data[2], control[2];

    memset(b, 0, sizeof(*b));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, data), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control), 0);
    b->pid = fork();
    assert_true(b->pid >= 0);
    if (b->pid == 0)
        relay_child(data[1], control[1], script);
    close(data[1]);
    close(control[1]);
    b->data_fd = data[0];
    b->control_fd = control[0];
}

static void send_whole(int fd, const void *data, size_t n)
{
    assert_int_equal(write(fd, data, n), n);
}

static void input_send(struct bench *b, const void *data, size_t n)
{
    const struct lab_frame f = { .type = LAB_FRAME_INPUT, .payload_bytes = n };

    send_whole(b->data_fd, &f, sizeof(f));
    if (n)
        send_whole(b->data_fd, data, n);
}

static void read_whole(int fd, void *data, size_t n)
{
    assert_int_equal(recv(fd, data, n, MSG_WAITALL), n);
}

/* Collects frames up to the end of the command. */
static void bench_finish(struct bench *b)
{
    struct lab_frame f;
    int status;

    for (;;) {
        int fd;

        read_whole(b->data_fd, &f, sizeof(f));
        assert_true(f.payload_bytes <= LAB_FRAME_MAX_BYTES);
        if (f.type == LAB_FRAME_END)
            break;
        assert_true(f.type == LAB_FRAME_OUTPUT || f.type == LAB_FRAME_ERRORS);
        fd = f.type == LAB_FRAME_OUTPUT ? 1 : 2;
        b->texts[fd] = realloc(b->texts[fd], b->sizes_bytes[fd] + f.payload_bytes + 1);
        assert_non_null(b->texts[fd]);
        read_whole(b->data_fd, b->texts[fd] + b->sizes_bytes[fd], f.payload_bytes);
        b->sizes_bytes[fd] += f.payload_bytes;
        b->texts[fd][b->sizes_bytes[fd]] = '\0';
    }
    assert_int_equal(f.payload_bytes, sizeof(struct lab_end));
    read_whole(b->data_fd, &b->exit_status, sizeof(b->exit_status));
    assert_int_equal(waitpid(b->pid, &status, 0), b->pid);
    assert_int_equal(status, 0);
}

static void bench_free(struct bench *b)
{
    close(b->data_fd);
    close(b->control_fd);
    free(b->texts[1]);
    free(b->texts[2]);
}

static void both_outputs_and_the_status_arrive(void **state)
{
    struct bench b;

    bench_start(&b, "echo out; echo err >&2; exit 7");
    bench_finish(&b);
    assert_string_equal((char *)b.texts[1], "out\n");
    assert_string_equal((char *)b.texts[2], "err\n");
    assert_int_equal(b.exit_status, 7);
    bench_free(&b);
}

static void a_signal_is_128_and_its_number(void **state)
{
    struct bench b;

    bench_start(&b, "kill -9 $$");
    bench_finish(&b);
    assert_int_equal(b.exit_status, 128 + 9);
    bench_free(&b);
}

static void a_megabyte_passes_both_ways_unchanged(void **state)
{
    const size_t n = 1 << 20;
    uint8_t *sent = malloc(n);
    struct bench b;
    size_t i;
    pid_t writer;

    assert_non_null(sent);
    for (i = 0; i < n; i++)
        sent[i] = i * 2654435761u >> 13;
    bench_start(&b, "cat");
    /* "cat" answers while it is fed, so feeding takes a process of its own */
    writer = fork();
    if (writer == 0) {
        for (i = 0; i < n; i += LAB_FRAME_MAX_BYTES)
            input_send(&b, sent + i, LAB_FRAME_MAX_BYTES);
        input_send(&b, NULL, 0);
        _exit(0);
    }
    bench_finish(&b);
    waitpid(writer, NULL, 0);
    assert_int_equal(b.sizes_bytes[1], n);
    assert_memory_equal(b.texts[1], sent, n);
    assert_int_equal(b.exit_status, 0);
    free(sent);
    bench_free(&b);
}

static void a_frame_that_comes_in_pieces_is_put_together(void **state)
{
    const struct lab_frame f = { .type = LAB_FRAME_INPUT, .payload_bytes = 3 };
    struct bench b;
    size_t i;

    bench_start(&b, "cat");
    for (i = 0; i < sizeof(f); i++)
        send_whole(b.data_fd, (const uint8_t *)&f + i, 1);
    send_whole(b.data_fd, "a", 1);
    send_whole(b.data_fd, "bc", 2);
    input_send(&b, NULL, 0);
    bench_finish(&b);
    assert_string_equal((char *)b.texts[1], "abc");
    bench_free(&b);
}

static void a_command_that_does_not_read_may_end(void **state)
{
    char data[LAB_FRAME_MAX_BYTES] = "";
    struct bench b;

    bench_start(&b, "exec <&-; echo closed; exit 5");
    input_send(&b, data, sizeof(data));
    bench_finish(&b);
    assert_string_equal((char *)b.texts[1], "closed\n");
    assert_int_equal(b.exit_status, 5);
    bench_free(&b);
}

static void a_process_left_behind_does_not_keep_the_lab(void **state)
{
    struct bench b;

    /* the child keeps the outputs open longer than any test runs */
    bench_start(&b, "echo before; sleep 100000 & echo $!");
    bench_finish(&b);
    assert_memory_equal(b.texts[1], "before\n", 7);
    assert_int_equal(b.exit_status, 0);
    assert_int_equal(kill(atoi((char *)b.texts[1] + 7), SIGKILL), 0);
    bench_free(&b);
}

static void a_closed_output_reaches_the_command_as_sigpipe(void **state)
{
    struct {
        struct lab_frame head;
        uint8_t fd;
    } __attribute__((packed)) f = { { LAB_FRAME_CLOSED, 1 }, 1 };
    struct bench b;

    bench_start(&b, "yes");
    send_whole(b.control_fd, &f, sizeof(f));
    bench_finish(&b);
    assert_int_equal(b.exit_status, 128 + SIGPIPE);
    bench_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_outputs_and_the_status_arrive),
        cmocka_unit_test(a_signal_is_128_and_its_number),
        cmocka_unit_test(a_megabyte_passes_both_ways_unchanged),
        cmocka_unit_test(a_frame_that_comes_in_pieces_is_put_together),
        cmocka_unit_test(a_command_that_does_not_read_may_end),
        cmocka_unit_test(a_process_left_behind_does_not_keep_the_lab),
        cmocka_unit_test(a_closed_output_reaches_the_command_as_sigpipe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
