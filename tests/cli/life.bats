#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Commands to running guests.  The guests are tests/unit/ctl/fake_guest.h's: the
# word on their kernel command line says how they behave.
load setup

# create_guest NAME SCRIPT [WORD...]
create_guest() {
    local name=$1 script=$2
    shift 2
    "$XL" create -q "name=\"$name\"" 'kernel="/k"' memory=64 vcpus=2 "cmdline=\"$script\"" "$@"
}

teardown_guests() {
    for g in run/guest/*; do
        [ ! -d "$g" ] || "$XL" destroy "$(basename "$g")" || true
    done
}

# Even a failing test leaves no process behind.
teardown() {
    teardown_guests
    rm -rf "$TMP"
}

no_guests() {
    [ "$("$XL" list | wc -l)" -eq 1 ] && [ -z "$(ls -A run/guest)" ]
}

@test "create, list, domid, domname, destroy" {
    create_guest web "" 'uuid="11111111-2222-3333-4444-555555555555"'
    status 0 "$XL" list
    [ "${lines[1]}" = "$(printf '%-40s %5d %5d %5d     r-----  %8.1f' web 1 64 2 1.5)" ]
    status 0 "$XL" list -v web
    has "11111111-2222-3333-4444-555555555555        -"
    [ "$("$XL" domid web)" = 1 ]
    [ "$("$XL" domname 1)" = web ]
    "$XL" destroy web
    no_guests
    status 1 "$XL" domid web
}

@test "create returns at once, with no process holding the caller's output" {
    # a daemon that kept the pipe would keep cat waiting
    create_guest g "" 2>&1 | cat
    "$XL" destroy g
}

@test "create -p leaves it paused; pause and unpause" {
    create_guest g "" -p
    [[ "$("$XL" list g)" == *"--p---"* ]]
    "$XL" unpause g
    [[ "$("$XL" list g)" == *"r-----"* ]]
    "$XL" pause 1
    [[ "$("$XL" list g)" == *"--p---"* ]]
}

@test "list -l" {
    create_guest a ""
    create_guest b ""
    "$XL" list -l | python3 -c '
import json, sys
l = json.load(sys.stdin)
assert [g["domid"] for g in l] == [1, 2], l
assert [g["config"]["c_info"]["name"] for g in l] == ["a", "b"], l'
}

@test "a second guest of one name" {
    create_guest g ""
    run create_guest g ""
    [ "$status" -eq 3 ]
    [ "$output" = "a guest called 'g' exists already (domain 1)" ]
}

@test "a guest that cannot be built: one message, nothing left" {
    run create_guest g fail
    [ "$status" -eq 3 ]
    [ "$output" = "command line: kernel: the fake guest was told to fail" ]
    no_guests
}

@test "shutdown -w waits" {
    create_guest g obey
    status 0 "$XL" shutdown -w g
    has "Shutting down domain 1"
    has "Waiting for 1 domains"
    [[ "$output" == *"Domain 1 has been shut down, reason code 0"* ||
       "$output" == *"Domain 1 has been destroyed"* ]]
}

@test "shutdown -a reaches all" {
    for g in a b c; do create_guest $g obey 'on_poweroff="preserve"'; done
    status 0 "$XL" shutdown -a -w
    has "Waiting for 3 domains"
    [ "$("$XL" list | grep -c -- '---s--')" -eq 3 ]
}

@test "a preserved crash is listed as such" {
    create_guest g crash 'on_crash="preserve"'
    "$XL" shutdown -w g || true
    [[ "$("$XL" list g)" == *"---sc-"* ]]
    status 0 "$XL" list -v
    has "       3 "
    status 1 "$XL" unpause g
    has "has stopped"
}

@test "create -e leaves what stops" {
    create_guest g off -e
    "$XL" shutdown -w g || true
    [[ "$("$XL" list g)" == *"---s--"* ]]
}

@test "reboot gives a new number" {
    create_guest g obey
    status 0 "$XL" reboot -w g
    has "Rebooting domain 1"
    until [ "$("$XL" domid g)" = 2 ]; do sleep 0.1; done
}

@test "SIGKILL of a guest's process, and the next command cleans up" {
    create_guest g ""
    pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/' run/guest/1/info)
    kill -KILL "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
    no_guests
    create_guest g ""
    [ "$("$XL" domid g)" = 2 ]
}

@test "console shows what was printed before, and ends with the guest" {
    create_guest g ""
    "$XL" console g </dev/null >out &
    until grep -q "fake guest boots" out; do sleep 0.01; done
    "$XL" destroy g
    wait $!
}

@test "Ctrl-] leaves the console" {
    create_guest g ""
    printf '\035' | "$XL" console -t pv -n 0 g
    [ "$("$XL" domid g)" = 1 ]
}

@test "create -c shows the first byte" {
    create_guest g "off" -c </dev/null >out
    grep -q "fake guest boots" out
}

@test "run shows the console and passes the guest's end on" {
    for row in "off 0" "crash 10"; do
        set -- $row
        status "$2" "$XL" run -q 'name="g"' 'kernel="/k"' memory=64 "cmdline=\"$1\"" \
            'on_crash="destroy"'
        has "fake guest boots"
    done
    no_guests
}

@test "run: SIGTERM asks the guest, which goes" {
    "$XL" run -q 'name="g"' 'kernel="/k"' memory=64 'cmdline="obey"' >out 2>err &
    until grep -q "fake guest boots" out; do sleep 0.01; done
    kill -TERM $!
    wait $!
    no_guests
}

@test "run: Ctrl-] twice destroys" {
    code=0
    { until grep -qs boots out; do sleep 0.01; done; printf '\035'
      until grep -qs asking err; do sleep 0.01; done; printf '\035'; } |
        "$XL" run -q 'name="g"' 'kernel="/k"' memory=64 >out 2>err || code=$?
    [ "$code" -eq 13 ]
    no_guests
}

@test "run that is killed takes its guest along" {
    "$XL" run -q 'name="g"' 'kernel="/k"' memory=64 'cmdline="obey"' >out 2>err &
    until grep -q "fake guest boots" out; do sleep 0.01; done
    pid=$!
    kill -KILL $pid
    wait $pid || true
    until no_guests; do sleep 0.1; done
}

@test "create -F runs in the foreground and succeeds" {
    run create_guest g crash -F 'on_crash="destroy"'
    [ "$status" -eq 0 ]
    run create_guest g fail -F
    [ "$status" -eq 3 ]
}

@test "the logs" {
    create_guest g off -F
    [ "$(cat log/console-g.log)" = "$(printf 'fake guest boots\r')" ]
    create_guest h off
    until grep -q "Done. Exiting now" log/h.log; do sleep 0.01; done
    grep -q "Action for shutdown reason code 0 is destroy" log/h.log
}
