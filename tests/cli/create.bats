#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# create and run as far as they come without a guest: their options, their
# configuration, what they refuse.
load setup

minimal() {
    printf '%s\n' 'name = "g"' 'kernel = "/boot/vmlinuz"' 'memory = 64' >g.cfg
}

nothing_left() {
    [ -z "$(ls -A run/guest 2>/dev/null)" ]
}

@test "no configuration" {
    status 6 "$XL" create
    [ "$output" = "Config file not specified" ]
    status 6 "$XL" run
}

@test "a file that is not there" {
    status 3 "$XL" create gone.cfg
    [ "${lines[0]}" = "Parsing config from gone.cfg" ]
    [ "${lines[1]}" = "Failed to read config file: gone.cfg: No such file or directory" ]
    [ "${#lines[@]}" -eq 2 ]
    status 3 "$XL" create -q gone.cfg
    [ "${#lines[@]}" -eq 1 ]
    status 3 "$XL" run gone.cfg
    nothing_left
}

@test "a file that is a directory" {
    status 3 "$XL" create -q .
    [ "$output" = "Failed to read config file: .: Is a directory" ]
}

@test "a malformed file is named with its line" {
    minimal
    echo 'vcpus = = 2' >>g.cfg
    status 1 "$XL" create -q g.cfg
    has "g.cfg:4: "
    nothing_left
}

@test "a file that is too large" {
    minimal
    head -c 1100000 /dev/zero | tr '\0' '#' >>g.cfg
    status 3 "$XL" create -q g.cfg
    has "File too large"
}

@test "a dry run prints libxl's JSON and creates nothing" {
    minimal
    for how in "create -n" "create --dryrun" "-N create"; do
        stdout_of "$XL" $how g.cfg >out.json
        python3 - out.json <<'EOF'
import json, sys
c = json.load(open(sys.argv[1]))
assert c["c_info"]["name"] == "g" and c["c_info"]["type"] == "pv", c
assert c["b_info"]["kernel"] == "/boot/vmlinuz", c
assert c["b_info"]["target_memkb"] == 65536, c
assert c["on_reboot"] == "restart", c
EOF
    done
    nothing_left
}

@test "words of the command line win over the file" {
    minimal
    status 0 "$XL" create -n -q g.cfg memory=128 'name="other"'
    has '"name": "other"'
    has '"target_memkb": 131072'
}

@test "the file may come by option, and not at all" {
    minimal
    for how in "-f g.cfg" "--defconfig=g.cfg" "-q g.cfg -p" "/dev/null"; do
        status 0 "$XL" create -n $how 'name="w"' 'kernel="/k"' memory=64
        has '"name": "w"'
    done
    status 0 "$XL" create -n -q 'name="w"' 'kernel="/k"' memory=64
}

@test "two files" {
    minimal
    status 2 "$XL" create g.cfg h.cfg
    has "unexpected argument: h.cfg"
}

@test "options that cannot be honoured" {
    minimal
    for o in -V -A --vncviewer --vncviewer-autopass; do
        status 2 "$XL" create -n $o g.cfg
        [ "$output" = "options -V and -A: there is no VNC display to connect to" ]
    done
    status 2 "$XL" create g.cfg -y
    [ "$output" = "option \`y' not supported." ]
}

@test "help" {
    status 0 "$XL" help create
    has "Usage: xenolith [-vN] create <ConfigFile> [options] [vars]"
    status 0 "$XL" create -h
    has "--defconfig=FILE"
    status 0 "$XL" run -h
    has "Ctrl-]"
}

@test "without KVM a guest is refused, with advice" {
    [ "$("$XL" info kvm_kind)" = none ] || skip "this machine has KVM"
    minimal
    status 3 "$XL" create -q g.cfg
    [ "$output" = "$("$XL" info kvm_advice)" ]
    nothing_left
}
