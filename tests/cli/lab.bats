#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The lab as a user meets it.  The tests that boot it need QEMU and a kernel, and
# say so by name when they cannot have them.
load setup
bats_require_minimum_version 1.5.0

setup_file() {
    # kernel and QEMU are fetched once, so that no test's time or output is about that
    local lab_dir
    local program=${XENOLITH:-$BATS_TEST_DIRNAME/../../build/src/cmd/xenolith}
    lab_dir=${XENOLITH_LAB_DIR:-$(dirname "$program")/../../lab}
    if ! "$lab_dir/fetch-qemu" >/dev/null; then
        export NO_LAB="no QEMU for the lab"
    elif ! "$lab_dir/fetch-kernel" amd64 >/dev/null; then
        export NO_LAB="no kernel for the lab"
    fi
}

needs_lab() { [ -z "${NO_LAB:-}" ] || skip "$NO_LAB"; }

# qemu_of FOLDER: a QEMU lives that shares this folder.
qemu_of() { pgrep -f "^[^ ]*qemu-system-x86_64 .*path=$1,security_model" >/dev/null; }

# no_qemu_of FOLDER: and none does.  A killed one may take a moment.
no_qemu_of() {
    local i
    for i in $(seq 100); do
        qemu_of "$1" || return 0
        sleep 0.1
    done
    return 1
}

# until_file FILE PID: waits for the file; fails when the process ends before
until_file() {
    while [ ! -e "$1" ]; do
        kill -0 "$2" || return 1
        sleep 0.1
    done
}

@test "lab --help" {
    status 0 "$XL" lab --help
    has "usage: xenolith lab"
}

@test "bad options are told and nothing boots" {
    status 2 "$XL" lab
    has "expected a command to run"
    status 2 "$XL" lab --cpus none -- true
    has "--cpus none: expected a number from 1 to 64"
    status 2 "$XL" lab --memory 1 -- true
    has "--memory 1: expected a number from 256"
    status 2 "$XL" lab --share /no/such/folder -- true
    has "--share /no/such/folder: No such file or directory"
    status 2 "$XL" lab --share / -- true
    has "expected a folder"
    status 2 "$XL" lab --frobnicate -- true
    has "--frobnicate: no such option"
    status 2 "$XL" lab --cpus
    has "--cpus: expected a value"
}

@test "a kernel that is not there, or has no modules, is told" {
    needs_lab
    status 125 "$XL" lab --kernel no-such-kernel -- true
    has "no-such-kernel: No such file or directory"
    touch vmlinuz
    status 125 "$XL" lab --kernel vmlinuz -- true
    has "modules.dep: No such file or directory"
    echo 'tun:' >modules.dep
    echo 'kvm' >modules.builtin
    status 125 "$XL" lab --kernel vmlinuz -- true
    has "the kernel has no module 'virtio_pci'"
}

@test "a QEMU that cannot run is told and not retried" {
    needs_lab
    XENOLITH_LAB_QEMU=no-such-qemu status 125 "$XL" lab -- true
    has "the machine could not be set up: no-such-qemu: No such file or directory"
    [[ "$output" != *retry* ]]
}

@test "a QEMU that is killed is a lab fault, retried as often as asked" {
    needs_lab
    printf '#!/bin/sh\necho start >>starts\nkill -9 $$\n' >killed
    chmod +x killed
    XENOLITH_LAB_QEMU=./killed status 125 "$XL" lab --retries 2 -- true
    has "lab fault (QEMU was killed by a signal), retry 1 of 2"
    has "retry 2 of 2"
    has "given up after 3 attempts"
    [ "$(wc -l <starts)" = 3 ]
}

@test "outputs, status, folder and environment pass through" {
    needs_lab
    export FOR_THE_LAB="a b"
    "$XL" lab -- bash -c '
        echo "out $FOR_THE_LAB $1"; echo "err" >&2; pwd; test -c /dev/kvm; echo "kvm $?"
        exit 42' bash "arg with  spaces" >out 2>err && false
    [ $? = 42 ]
    [ "$(cat out)" = "$(printf 'out a b arg with  spaces\n%s\nkvm 0' "$PWD")" ]
    [ "$(cat err)" = "err" ]
}

@test "input and output are the same bytes, however many" {
    needs_lab
    head -c 3000001 /dev/urandom >random
    "$XL" lab -- cat <random >back
    cmp random back
    # what is no text at all: every byte, NUL, CR, LF, and no last newline
    printf '\0\1\r\n\n\r\377\033[0m' >odd
    "$XL" lab -- sh -c 'cat odd; cat odd >&2' </dev/null >out 2>err
    cmp odd out
    cmp odd err
}

@test "a signal's status, a command that is not there, one that cannot run" {
    needs_lab
    printf '#!/bin/sh\n' >script
    "$XL" lab -- bash -c '
        (kill -9 $BASHPID); echo $?; exec no-such-command-in-lab' >out 2>err && false
    [ $? = 127 ]
    [ "$(cat out)" = 137 ]
    status 137 "$XL" lab -- bash -c 'kill -9 $$'
    status 126 "$XL" lab -- ./script
    has "./script: Permission denied"
    run -127 "$XL" lab -- no-such-command
    has "no-such-command: No such file or directory"
}

@test "shared folders are read and written, the rest is left alone" {
    needs_lab
    mkdir "a, b" elsewhere
    echo host >"a, b/file"
    ln -s file "a, b/link"
    cd elsewhere
    "$XL" lab --share "$TMP/a, b" --share "$TMP/elsewhere" -- sh -c '
        pwd; cat "../a, b/link"; echo lab >"../a, b/new"; rm "../a, b/file"
        echo also >new; chmod 751 new; echo lost >/etc/lab-was-here; cat /etc/lab-was-here' >out
    [ "$(cat out)" = "$(printf '%s\nhost\nlost' "$TMP/elsewhere")" ]
    [ "$(cat "$TMP/a, b/new")" = lab ]
    [ ! -e "$TMP/a, b/file" ]
    [ "$(cat new)" = also ]
    [ "$(stat -c %a new)" = 751 ]
    [ ! -e /etc/lab-was-here ]
}

@test "--cpus and --memory" {
    needs_lab
    "$XL" lab --cpus 3 --memory 8192 -- sh -c 'nproc; grep MemTotal /proc/meminfo' >out
    [ "$(head -n 1 out)" = 3 ]
    [ "$(awk '/MemTotal/ { print ($2 > 7 * 1024 * 1024) }' out)" = 1 ]
}

@test "a reader that goes away ends the writer" {
    needs_lab
    "$XL" lab -- sh -c 'yes; echo $? >status' | head -n 1 >out
    [ "$(cat out)" = y ]
    [ "$(cat status)" = 141 ]
}

@test "Ctrl-C and SIGTERM leave nothing behind" {
    needs_lab
    local signal pid
    for signal in INT TERM; do
        rm -f started
        # env: a shell's background jobs ignore SIGINT
        env --default-signal=INT "$XL" lab -- sh -c 'touch started; sleep 100000' 3>&- &
        pid=$!
        until_file started $pid
        qemu_of "$TMP"
        kill -$signal $pid
        wait $pid && false
        [ $? = $((128 + $(kill -l $signal))) ]
        no_qemu_of "$TMP"
    done
}

@test "killing the process kills QEMU" {
    needs_lab
    "$XL" lab -- sh -c 'touch started; sleep 100000' 3>&- &
    until_file started $!
    qemu_of "$TMP"
    kill -KILL $!
    wait $! && false
    no_qemu_of "$TMP"
}

@test "a failing command is not retried" {
    needs_lab
    "$XL" lab -- sh -c 'echo run >>runs; exit 1' 2>err && false
    [ $? = 1 ]
    [ "$(wc -l <runs)" = 1 ]
    [ ! -s err ]
}

@test "the death of L1 is a lab fault, told and retried" {
    needs_lab
    # dies in the first run only: by a panic
    "$XL" lab -- sh -c '
        echo run >>runs
        [ "$(wc -l <runs)" = 1 ] || exit 5
        echo partial; sleep 1; echo c >/proc/sysrq-trigger; sleep 100000' >out 2>err && false
    [ $? = 5 ]
    [ "$(wc -l <runs)" = 2 ]
    [ "$(cat out)" = partial ]
    grep "lab fault (L1's kernel panicked), retry 1 of 2; the output above is void" err
    grep "lab console: .*sysrq triggered crash" err
}

@test "L1 reset from within is a lab fault; the last retry says so" {
    needs_lab
    mkdir logs
    TMPDIR=$TMP/logs status 125 "$XL" lab --retries 0 --keep -- sh -c '
        echo b >/proc/sysrq-trigger; sleep 100000'
    has "lab fault (L1 was gone before the command ended), given up after 1 attempt"
    has "logs kept in $TMP/logs/xenolith-lab."
    [ -s "$TMP"/logs/xenolith-lab.*/console.log ]
}

@test "a virtual machine is held, so that L1's kernel leaves its text alone" {
    needs_lab
    # KVM names a folder for each virtual machine, after its owner's process: init is 1
    status 0 "$XL" lab -- sh -c 'mount -t debugfs d /sys/kernel/debug; ls /sys/kernel/debug/kvm'
    [[ "$output" =~ (^|$'\n')1-[0-9]+ ]]
}

@test "KVM is loaded when the rate of the TSC is settled, not before" {
    needs_lab
    status 0 "$XL" lab -- sh -c \
        'dmesg | sed -n "s/.*\(Switched to clocksource tsc\)$/\1/p; s/.*\(Nested Paging\).*/\1/p"'
    [ "$output" = $'Switched to clocksource tsc\nNested Paging' ]
}

@test "the lab is a KVM host: a guest runs in it" {
    needs_lab
    local kernel
    kernel=$("$(dirname "$XL")/../../lab/fetch-kernel" amd64)
    mkdir kernel
    cp "$kernel/vmlinux" kernel/
    # no root file system: the guest's kernel boots, panics and resets
    "$XL" lab -- qemu-system-x86_64 -accel kvm -cpu host -m 256 -nodefaults -no-reboot \
        -display none -serial stdio -kernel kernel/vmlinux \
        -append "console=ttyS0 panic=-1" </dev/null >out 2>err
    grep -a "Hypervisor detected: KVM" out
    grep -a "VFS: Unable to mount root fs" out
}
