#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Disks of running guests.  The guests are tests/unit/ctl/fake_guest.h's: one that does not say
# "lets-go" keeps its disks.
load setup

create_guest() {
    local name=$1 script=$2
    shift 2
    "$XL" create -q "name=\"$name\"" 'kernel="/k"' memory=64 "cmdline=\"$script\"" "$@"
}

teardown() {
    for g in run/guest/*; do
        [ ! -d "$g" ] || "$XL" destroy "$(basename "$g")" || true
    done
    rm -rf "$TMP"
}

vdevs() {
    "$XL" block-list g | sed 1d | cut -d' ' -f1 | xargs
}

@test "block-list has xl's columns" {
    create_guest g "" 'disk=["/a,raw,xvda,w"]'
    status 0 "$XL" block-list g
    [ "${lines[0]}" = "Vdev  BE  handle state evt-ch ring-ref BE-path                       " ]
    [ "${lines[1]}" = "51712 0   1      1     -1     -1       /local/domain/0/backend/vbd/1/51712" ]
    [ "${#lines[@]}" -eq 2 ]
    # several guests in one table, and one that is none is told without failing
    create_guest h "" 'disk=["/a,raw,xvdb,w"]'
    status 0 "$XL" block-list g h nobody
    [ "${#lines[@]}" -eq 4 ]
    has "nobody is an invalid domain identifier"
    "$XL" destroy h
}

@test "block-attach: in one word or in several, as in a file" {
    create_guest g ""
    status 0 "$XL" block-attach g /a,raw,xvdb,w
    [ -z "$output" ]
    "$XL" block-attach 1 /b raw xvdc r
    "$XL" block-attach 1 vdev=xvdd access=r "target=/c d,e"
    "$XL" block-attach g phy:/f hda1
    [ "$(vdevs)" = "51728 51744 51760 769" ]
    "$XL" list -l g | python3 -c '
import json, sys
disks = json.load(sys.stdin)[0]["config"]["disks"]
assert [(d["pdev_path"], d["vdev"], d["readwrite"]) for d in disks] == [
    ("/a", "xvdb", True), ("/b", "xvdc", False), ("/c d,e", "xvdd", False),
    ("/f", "hda1", True)], disks'
}

@test "block-attach: formats, servers and filters, which the guest that follows has too" {
    create_guest g "lets-go obey" 'disk=["/a,raw,xvda,w"]'
    "$XL" block-attach g "/b,qcow2,xvdb,w,filter=qos:iops=100:group=a,filter=delay:time=5ms"
    "$XL" block-attach g vdev=xvdc no-discard reconnect=7 "target=nbd://host:10809/an export"
    "$XL" block-attach g "driver=null,size=1G,vdev=xvdd,filter=cow:file=/o:v"
    "$XL" block-attach g "/c,raw,xvde,w!,persistent-grants,direct-io-safe"
    check='
import json, sys
said = [json.load(open(name))[0]["config"]["disks"] for name in sys.argv[1:]]
disks = {d["vdev"]: d for d in said[0]}
b, c, d, e = (disks["xvd" + x] for x in "bcde")
assert (b["format"], b["driver"], b["reconnect"], b["filters"]) == (
    "qcow2", "nbd", 30, "qos:iops=100:group=a,delay:time=5ms"), b
assert (c["pdev_path"], c["driver"], c["reconnect"], c["discard_enable"]) == (
    "nbd://host:10809/an export", "nbd", 7, False), c
assert (d["driver"], d["size"], d["filters"], "reconnect" in d) == (
    "null", 1 << 30, "cow:file=/o:v", False), d
assert e["shared_write"] and e["persistent_grants"] and e["direct_io_safe"], e
assert not d["shared_write"] and "size" not in e and "filters" not in e
assert all(s == said[0] for s in said)'
    "$XL" list -l g >before
    "$XL" reboot -w g
    until [ "$("$XL" domid g)" = 2 ] && "$XL" list g | grep -q r--; do sleep 0.1; done
    "$XL" list -l g >after
    python3 -c "$check" before after
    [ "$(vdevs)" = "51712 51728 51744 51760 51776" ]
}

@test "block-attach: a line of two paths as long as they may be" {
    create_guest g ""
    path=$(printf '"%.0s' {1..4000})
    "$XL" block-attach g vdev=xvdb "filter=cow:file=/o$path" "target=/b$path"
    "$XL" list -l g | python3 -c '
import json, sys
disk, = json.load(sys.stdin)[0]["config"]["disks"]
assert disk["pdev_path"] == "/b" + 4000 * chr(34), disk
assert disk["filters"] == "cow:file=/o" + 4000 * chr(34), disk'
}

@test "block-attach: what cannot be" {
    create_guest g "" 'disk=["/a,raw,xvda,w"]'
    status 1 "$XL" block-attach g /b,raw,xvda,w
    has "the guest has it already"
    has "libxl_device_disk_add failed."
    status 1 "$XL" block-attach g /busy,raw,xvdb,w
    has "/busy: already in use"
    status 1 "$XL" block-attach g /b,raw,nonsense,w
    has "config parsing error in disk specification: not a virtual device"
    status 1 "$XL" block-attach g /b,qcow2,xvdb,w!
    has "two writers would destroy the qcow2 image itself"
    status 1 "$XL" block-attach g /b,raw,xvdb,filter=qos
    has "expected iops= or bps= or both"
    status 1 "$XL" block-attach g target=/b xvdb
    has "give it last"
    status 1 "$XL" block-attach g /b
    has "no vdev specified"
    status 1 "$XL" block-attach nobody /b,raw,xvdb
    has "nobody is an invalid domain identifier"
    status 2 "$XL" block-attach g
    has "block-attach' requires at least 2 arguments."
    [ "$(vdevs)" = 51712 ]
}

@test "block-attach -n and -N print the disk, and do no more" {
    create_guest g ""
    for words in "-N block-attach g" "block-attach -n g"; do
        stdout_of "$XL" $words /a,raw,xvdb,r | sed 's/^disk: //' | python3 -c '
import json, sys
d = json.load(sys.stdin)
assert d["pdev_path"] == "/a" and d["vdev"] == "xvdb" and not d["readwrite"], d'
    done
    status 1 "$XL" -N block-attach nobody /a,raw,xvdb,r
    [ -z "$(vdevs)" ]
}

@test "block-detach waits for the guest to let go" {
    create_guest g lets-go 'disk=["/a,raw,xvda,w", "/b,raw,xvdb,w"]'
    status 0 "$XL" block-detach g xvda
    [ -z "$output" ]
    [ "$(vdevs)" = 51728 ]
    "$XL" block-detach g 51728
    [ -z "$(vdevs)" ]
    # and the name is free again
    "$XL" block-attach g /a,raw,xvda,w
    [ "$(vdevs)" = 51712 ]
}

@test "block-detach: the guest keeps it, and --force" {
    create_guest g "" 'disk=["/a,raw,xvda,w"]'
    begun=$SECONDS
    status 1 "$XL" block-detach g xvda
    [ $((SECONDS - begun)) -ge 9 ]
    has "unable to remove disk 51712"
    has "libxl_device_disk_safe_remove failed."
    [ "$(vdevs)" = 51712 ]
    status 0 "$XL" block-detach --force g xvda
    [ -z "$(vdevs)" ]
}

@test "block-detach: who waits hears of --force, and of the guest's end" {
    create_guest g obey 'disk=["/a,raw,xvda,w", "/b,raw,xvdb,w"]' 'on_poweroff="preserve"'
    "$XL" block-detach g xvda &
    first=$!
    "$XL" block-detach g xvdb 2>err &
    second=$!
    # both wait: the guest is asked in order
    sleep 1
    "$XL" block-detach -f g xvda
    wait $first
    "$XL" shutdown -w g
    ! wait $second
    grep -q "domain 1 has stopped" err
    status 1 "$XL" block-attach g /c,raw,xvdc,w
    has "domain 1 has stopped"
}

@test "block-detach and block-resize: no such device" {
    create_guest g "" 'disk=["/a,raw,xvda,w"]'
    for device in xvdb 51728 nonsense ""; do
        status 1 "$XL" block-detach g "$device"
        [ "$output" = "Error: Device $device not connected." ]
        status 1 "$XL" block-resize g "$device"
        [ "$output" = "Error: Device $device not connected." ]
    done
    status 2 "$XL" block-detach g
    status 1 "$XL" block-detach nobody xvda
    has "nobody is an invalid domain identifier"
}

@test "block-resize" {
    create_guest g "" 'disk=["/a,raw,xvda,w"]'
    status 0 "$XL" block-resize g xvda
    [ "$output" = "xvda: 7340032 bytes" ]
    status 0 "$XL" block-resize g 51712 10M
    [ "$output" = "51712: 10485760 bytes" ]
    status 1 "$XL" block-resize g xvda 512
    has "no disk of one sector"
    for size in 0 513 much 99999999999G; do
        status 1 "$XL" block-resize g xvda $size
        has "expected a multiple of 512 bytes"
    done
    status 2 "$XL" block-resize g xvda 1M more
}

@test "block-resize: what has no medium has its size after a reboot" {
    create_guest g "lets-go obey" 'disk=["driver=null, size=1G,vdev=xvda"]'
    "$XL" block-resize g xvda 3G
    "$XL" reboot -w g
    until [ "$("$XL" domid g)" = 2 ] && "$XL" list g | grep -q r--; do sleep 0.1; done
    "$XL" list -l g | grep -q '"size": 3221225472'
}

@test "a guest that reboots has the disks it had at last" {
    create_guest g "lets-go obey" 'disk=["/a,raw,xvda,w", "/b,raw,xvdb,w"]'
    "$XL" block-attach g /c,raw,xvdc,w
    "$XL" block-detach g xvda
    "$XL" reboot -w g
    until [ "$("$XL" domid g)" = 2 ] && "$XL" list g | grep -q r--; do sleep 0.1; done
    [ "$(vdevs)" = "51728 51744" ]
}

@test "so has one that follows under rename-restart" {
    create_guest g "lets-go obey" 'disk=["/a,raw,xvda,w"]' 'on_reboot="rename-restart"'
    "$XL" block-attach g 'vdev=xvdb,target=/c "\ d'
    "$XL" block-detach g xvda
    "$XL" reboot g
    until [ "$("$XL" domid g)" = 2 ] && "$XL" list g | grep -q r--; do sleep 0.1; done
    "$XL" list -l g | python3 -c '
import json, sys
disks = json.load(sys.stdin)[0]["config"]["disks"]
assert [d["pdev_path"] for d in disks] == ["/c \"\\ d"], disks'
}

@test "backend=process: a disk for a process of its own" {
    create_guest g "" 'disk_backend="process"' 'disk=["/a,raw,xvda,w","/b,raw,xvdb,w,backend=0"]'
    status 0 "$XL" block-attach -n g backend=process,vdev=xvdc,target=/c
    has '"backend_domname": "process"'
    status 1 "$XL" block-attach g backend=storage,vdev=xvdc,target=/c
    has "backend=storage is not supported"
    "$XL" list -l g | python3 -c '
import json, sys
config = json.load(sys.stdin)[0]["config"]
assert config["xenolith"]["disk_backend"] == "process", config
assert [d.get("backend_domname") for d in config["disks"]] == [None, "0"], config'
    status 1 "$XL" create -n 'name="h"' 'kernel="/k"' memory=64 \
        'disk=["/a,qcow2,xvda,backend=process"]'
    has "backend=process: driver=nbd does not go with a process of its own"
    # which nobody else is to begin
    status 1 "$XL" disk-process
    has "is for guests' processes to start"
    status 0 "$XL" help
    ! has "disk-process"
}
