#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What commands say when no guest runs, and where they keep their state.
load setup

@test "list prints xl's heading and nothing else" {
    status 0 "$XL" list
    [ "$output" = "$(printf '%-40s %5s %5s VCPUs\tState\tTime(s)' Name ID Mem)" ]
}

@test "list -v adds xl's columns" {
    status 0 "$XL" list -v
    has "UUID                            Reason-Code	Security Label"
}

@test "list -l prints an empty array" {
    status 0 "$XL" list -l
    [ "$output" = "[]" ]
}

@test "a domain that does not exist" {
    for c in console pause unpause shutdown reboot destroy list; do
        status 1 "$XL" $c ghost
        [ "$output" = "ghost is an invalid domain identifier (rc=-6)" ]
    done
    status 1 "$XL" list 7
    [ "$output" = "Error: Domain '7' does not exist." ]
    status 1 "$XL" destroy 7
    [ "$output" = "7 is an invalid domain identifier (rc=-6)" ]
}

@test "domid and domname of nobody" {
    status 1 "$XL" domid ghost
    [ "$output" = "Can't get domid of domain name 'ghost', maybe this domain does not exist." ]
    status 1 "$XL" domname 7
    [ "$output" = "Can't get domain name of domain id '7', maybe this domain does not exist." ]
    status 1 "$XL" domname ghost
    has "Invalid domain id."
}

@test "shutdown and reboot of all, with none" {
    status 0 "$XL" shutdown -a -w
    status 0 "$XL" reboot -a
}

@test "console types and numbers other than the PV console" {
    status 1 "$XL" console -t serial ghost
    [ "$output" = "console type supported are: pv" ]
    status 1 "$XL" console -n 1 ghost
    has "console 0"
    status 1 "$XL" console -t pv -n 0 ghost
    has "invalid domain identifier"
}

@test "a stale entry is swept away" {
    mkdir -p run/guest/5
    chmod 700 run
    echo '{"name": "dead", "uuid": "00000000-0000-0000-0000-000000000000", "pid": 1}' \
        >run/guest/5/info
    : >run/guest/5/lock
    status 0 "$XL" list
    [ "${#lines[@]}" -eq 1 ]
    [ ! -e run/guest/5 ]
}

@test "a run-time directory that others can write is refused" {
    mkdir run
    chmod 777 run
    status 1 "$XL" list
    has "that nobody else can write"
    has "XENOLITH_RUN_DIR"
    chmod 700 run
}

@test "a run-time directory that cannot be made" {
    : >file
    XENOLITH_RUN_DIR=$TMP/file/run status 1 "$XL" list
    has "$TMP/file"
}

@test "info names the host and its KVM" {
    status 0 "$XL" info
    for key in host release machine nr_cpus total_memory free_memory virt_caps \
               kvm_kind xenolith_version; do
        grep -Eq "^$key +: " <<<"$output" || { echo "no $key in: $output"; false; }
    done
    [[ "$(stdout_of "$XL" info kvm_kind)" =~ ^(hardware|software|none)$ ]]
    [ "$(stdout_of "$XL" info host)" = "$(uname -n)" ]
}
