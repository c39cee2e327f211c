#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Words, options and exit statuses.
load setup

@test "no command prints help and fails" {
    status 1 "$XL"
    has "full list of subcommands"
}

@test "help lists every command with its line" {
    status 0 "$XL" help
    for c in list console pause unpause shutdown reboot destroy domid domname info \
             lab help; do
        has "
 $c "
    done
    has "List information about all/some domains"
}

@test "help COMMAND, COMMAND -h and COMMAND --help say the same" {
    for c in list console shutdown domid info; do
        status 0 "$XL" help $c
        first=$output
        has "Usage: xenolith [-v] $c"
        status 0 "$XL" $c -h
        [ "$output" = "$first" ]
        status 0 "$XL" $c --help
        [ "$output" = "$first" ]
    done
}

@test "help for an unknown command" {
    status 0 "$XL" help frobnicate
    [ "$output" = 'command "frobnicate" not implemented' ]
}

@test "an unknown command" {
    status 1 "$XL" frobnicate
    [ "$output" = "command not implemented" ]
}

@test "a command may be abbreviated while it is unambiguous" {
    status 0 "$XL" li
    has "Name  "
    status 1 "$XL" d
    [ "$output" = "command not implemented" ]
}

@test "called as xl it says xl" {
    ln -s "$XL" xl
    status 0 ./xl help list
    has "Usage: xl [-v] list"
    status 2 ./xl destroy
    has "'xl destroy' requires at least 1 argument."
}

@test "an unknown option" {
    status 2 "$XL" list -y
    [ "$output" = "option \`y' not supported." ]
    status 2 "$XL" list --nonesuch
    [ "$output" = "option \`--nonesuch' not supported." ]
}

@test "an unknown global option" {
    status 1 "$XL" -y list
    [ "$output" = "unknown global option" ]
}

@test "xl's global options are taken" {
    status 0 "$XL" -v -f -t -T list
    status 1 "$XL" -N list
    [ "$output" = "command does not implement -N (dryrun) option" ]
}

@test "commands that need a domain say so" {
    for c in console pause unpause destroy domid domname; do
        status 2 "$XL" $c
        has "'xenolith $c' requires at least 1 argument."
    done
    for c in shutdown reboot; do
        status 1 "$XL" $c
        has "You must specify -a or a domain id."
    done
}

@test "the version" {
    status 0 "$XL" --version
    [[ "$output" =~ ^xenolith\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
}

@test "a full disk under the output is an error" {
    status 1 sh -c '"$0" help >/dev/full' "$XL"
    has "stdout"
}
