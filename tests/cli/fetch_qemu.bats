#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Which QEMU the lab takes.  The archive is a fake one, and so are the QEMUs.
load setup
bats_require_minimum_version 1.5.0

fetch_qemu() {
    local program=${XENOLITH:-$BATS_TEST_DIRNAME/../../build/src/cmd/xenolith}
    PATH=$TMP/bin:$PATH XENOLITH_CACHE=$TMP/cache run --separate-stderr \
        "${XENOLITH_LAB_DIR:-$(dirname "$program")/../../lab}/fetch-qemu" "$@"
}

# script NAME: an executable in the path, of standard input
script() {
    mkdir -p bin
    { echo '#!/bin/bash'; cat; } >"bin/$1"
    chmod +x "bin/$1"
}

installed() { script qemu-system-x86_64 <<<"echo 'QEMU emulator version $1 (Debian)'"; }

cached() {
    mkdir -p "cache/qemu/$1"
    : >"cache/qemu/$1/qemu-system-x86_64"
    chmod +x "cache/qemu/$1/qemu-system-x86_64"
}

# An archive that has nothing, and writes down that it was asked.
archive_is_empty() {
    script apt-get <<<"echo asked >>'$TMP/asked'"
    script apt-cache <<<"exit 0"
}

answer_is() {
    [ "$status" -eq 0 ] && [ "$output" = "$1" ] || {
        echo "wanted $1, got $status: $output / $stderr"
        return 1
    }
}

@test "an installed QEMU that is new enough is taken, and nobody is asked" {
    archive_is_empty
    installed 8.1.0
    fetch_qemu
    answer_is "$TMP/bin/qemu-system-x86_64"
    [ ! -e asked ]
}

@test "versions are compared as numbers" {
    archive_is_empty
    installed 10.0.2
    fetch_qemu
    answer_is "$TMP/bin/qemu-system-x86_64"
    [ ! -e asked ]
}

# An archive with the packages of a QEMU; firmware FILE... of seabios.
archive_has_qemu() {
    local name file
    mkdir -p p/qemu-system-x86/usr/bin p/qemu-system-data/usr/share/qemu \
        p/seabios/usr/share/seabios debs
    echo 'echo "QEMU emulator version 10.0"' >p/qemu-system-x86/usr/bin/qemu-system-x86_64
    chmod +x p/qemu-system-x86/usr/bin/qemu-system-x86_64
    echo x >p/qemu-system-data/usr/share/qemu/kvmvapic.bin
    for file; do echo x >"p/seabios/usr/share/seabios/$file"; done
    for name in qemu-system-x86 qemu-system-data seabios; do
        mkdir p/$name/DEBIAN
        printf '%s\n' "Package: $name" "Version: 1:10.0" "Architecture: all" \
            "Maintainer: x <x@x>" "Description: x" >p/$name/DEBIAN/control
        dpkg-deb -b p/$name debs/$name.deb >/dev/null
    done
    script apt-get <<<"case \"\$*\" in *download*) cp '$TMP'/debs/*.deb . ;; esac"
    script apt-cache <<<'echo "qemu-system-x86 | 1:10.0 | http://x $(. /etc/os-release
echo "${VERSION_CODENAME:-}")-backports/main amd64 Packages"'
}

@test "an old QEMU is replaced by the archive's, which brings its firmware" {
    archive_has_qemu bios-256k.bin
    installed 7.2.22
    fetch_qemu
    answer_is "$TMP/cache/qemu/1_10.0/qemu-system-x86_64"
    [ -s cache/qemu/1_10.0/firmware/bios-256k.bin ]
    [ -s cache/qemu/1_10.0/firmware/kvmvapic.bin ]
    run "$output" --version
    [ "$output" = "QEMU emulator version 10.0" ]
    [ "$(ls -A cache/qemu)" = 1_10.0 ]
}

@test "a QEMU without its firmware never gets into the cache" {
    archive_has_qemu other.bin
    installed 7.2.22
    fetch_qemu
    answer_is "$TMP/bin/qemu-system-x86_64"
    [[ "$stderr" == *"lacks its firmware"* ]]
    [ "$(ls -A cache/qemu)" = asked ]
}

@test "an installed QEMU that is new enough goes before the cache" {
    archive_is_empty
    installed 10.1.0
    cached 10.0.2
    fetch_qemu
    answer_is "$TMP/bin/qemu-system-x86_64"
}

@test "one in the cache that does not run any more is passed over" {
    archive_is_empty
    installed 7.2.22
    cached 9.2.0
    cached 10.0.2
    printf '#!/bin/sh\nexit 127\n' >cache/qemu/10.0.2/qemu-system-x86_64
    fetch_qemu
    answer_is "$TMP/cache/qemu/9.2.0/qemu-system-x86_64"
}

@test "the newest in the cache goes before an old one that is installed" {
    archive_is_empty
    installed 7.2.22
    cached 9.2.0
    cached 10.0.2
    fetch_qemu
    answer_is "$TMP/cache/qemu/10.0.2/qemu-system-x86_64"
    [ ! -e asked ]
}

@test "without a newer one the old one has to do, and the archive is left alone for a day" {
    archive_is_empty
    installed 7.2.22
    fetch_qemu
    answer_is "$TMP/bin/qemu-system-x86_64"
    [[ "$stderr" == *"the lab does with an older one"* ]]
    [ "$(cat asked)" = asked ]
    fetch_qemu
    answer_is "$TMP/bin/qemu-system-x86_64"
    [ -z "$stderr" ]
    [ "$(cat asked)" = asked ]
    touch -d '2 days ago' cache/qemu/asked
    fetch_qemu
    [ "$(wc -l <asked)" -eq 2 ]
}

@test "a cache that cannot be written is told, and the old one does" {
    archive_is_empty
    installed 7.2.22
    : >cache
    fetch_qemu
    answer_is "$TMP/bin/qemu-system-x86_64"
    [[ "$stderr" == *"cannot write to $TMP/cache/qemu"* ]]
}

@test "a download that fails leaves nothing half done" {
    script apt-get <<<'case "$*" in *download*) echo "no route" >&2; exit 100 ;; esac'
    script apt-cache <<<'echo "qemu-system-x86 | 1:10.0 | http://x $(. /etc/os-release
echo "${VERSION_CODENAME:-}")-backports/main amd64 Packages"'
    installed 7.2.22
    fetch_qemu
    answer_is "$TMP/bin/qemu-system-x86_64"
    [[ "$stderr" == *"no route"* ]]
    [ "$(ls -A cache/qemu)" = asked ]
}

@test "an unknown option is told how it is used" {
    fetch_qemu --frobnicate
    [ "$status" -eq 2 ]
    [[ "$stderr" == *"usage: fetch-qemu"* ]]
}
