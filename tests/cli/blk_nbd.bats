#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Disks that an NBD server has, or a qemu-nbd that is started for them.
load setup

programs() {
    for name; do
        command -v "$name" >/dev/null || skip "no $name: tests/need test"
    done
}

children() { pgrep -P "$1" qemu-nbd || true; }

# refused DISK TEXT: blk serves no such disk, and says why
refused() {
    status 1 "$XL" blk --vhost-user "$TMP/t" --disk "$1"
    has "$2"
    [ ! -e t ]
}

# kit ARGUMENT...: nbdkit in the background, at the socket n
kit() {
    nbdkit --exit-with-parent -f --unix "$TMP/n" "$@" 3>&- &
    kit=$!
    for _ in $(seq 100); do [ ! -S n ] || return 0; sleep 0.05; done
    return 1
}

# client SOCKET CODE: python that finds what the server offers in `features` and `queues`
client() {
    python3 - "$@" <<'END'
import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect(sys.argv[1])
def say(request, payload=b""):
    s.sendall(struct.pack("<III", request, 1, len(payload)) + payload)
def ask(request):
    say(request)
    size = struct.unpack("<III", s.recv(12, socket.MSG_WAITALL))[2]
    return s.recv(size, socket.MSG_WAITALL)
features = struct.unpack("<Q", ask(1))[0]
say(2, struct.pack("<Q", 1 << 30))      # SET_FEATURES: the protocol's
say(16, struct.pack("<Q", 1))           # SET_PROTOCOL_FEATURES: MQ
queues = struct.unpack("<Q", ask(17))[0]
exec(sys.argv[2])
END
}

@test "a qcow2 image is served, claimed, and let go of" {
    programs qemu-nbd qemu-img qemu-io
    qemu-img create -q -f qcow2 image 64M
    qemu-io -f qcow2 -c "write -P 7 1M 64k" image >/dev/null
    serve --vhost-user "$TMP/s" --disk "$TMP/image,qcow2,xvda,w" --queues 3
    grep -q "serves nbd $TMP/image, 64 MiB" log
    client s 'assert queues == 3 and not features >> 5 & 1'
    refused "$TMP/image,qcow2,xvda,w" "already in use by process $server"
    refused "$TMP/image,raw,xvda,w" "already in use by process $server"
    [ "$(children $server | wc -l)" = 1 ]
    kill $server
    wait $server
    [ -z "$(children $server)" ]
    qemu-img check -q image
    qemu-io -r -f qcow2 -c "read -P 7 1M 64k" image | grep -q "read 65536/65536"
}

@test "qemu-nbd goes when its parent is killed" {
    programs qemu-nbd qemu-img
    qemu-img create -q -f vpc -o subformat=dynamic image 64M
    mkdir tmp
    TMPDIR=$TMP/tmp serve --vhost-user "$TMP/s" --disk "$TMP/image,vhd,xvda,w"
    child=$(children $server)
    [ -n "$child" ]
    kill -9 $server
    wait $server || true
    for _ in $(seq 100); do
        [[ "$(cut -d' ' -f3 /proc/"$child"/stat 2>/dev/null)" == [RSD] ]] || break
        sleep 0.05
    done
    [[ "$(cut -d' ' -f3 /proc/"$child"/stat 2>/dev/null)" != [RSD] ]]
    rmdir tmp           # nothing is left in it
}

@test "what is wrong with an image or a server is said" {
    programs qemu-nbd
    truncate -s 1M image
    refused "$TMP/image,qcow2,xvda,w" "$TMP/image: qemu-nbd: "
    has "Image is not in qcow2 format"
    PATH=/nonexistent refused "$TMP/image,qcow2,xvda,w" "qemu-utils"
    refused "$TMP/image,qcow2,xvda,w!" "two writers would destroy"
    refused "$TMP/image,qcow2,xvda,driver=null,size=1M" "do not go together"
    refused "driver=nbd,target=$TMP/image" "needs a URI"
    refused "target=nbd+unix:///?socket=$TMP/none" "no connection to the server"
    refused "target=nbd+unix:///x" "?socket=PATH"
    refused "target=nbds://localhost/x" "TLS is not supported"
    refused "reconnect=soon,target=nbd://localhost/x" "not a number of seconds"
}

@test "an export: by name, read-only, with one queue where a server answers for one only" {
    programs nbdkit
    truncate -s 8M image
    kit -r --filter=exportname file image exportname=disk exportname-strict=true
    refused "access=r,target=nbd+unix:///other?socket=$TMP/n" "no export 'other'"
    refused "target=nbd+unix:///disk?socket=$TMP/n" "read-only: expected access=r"
    serve --vhost-user "$TMP/s" --disk "access=r,target=nbd+unix:///disk?socket=$TMP/n"
    grep -q "8 MiB, read-only" log
    kill $server $kit
    wait $server
    rm n
    kit --filter=multi-conn file image multi-conn-mode=disable
    serve --vhost-user "$TMP/s" --disk "target=nbd+unix:///?socket=$TMP/n"
    client s 'assert queues == 1 and not features >> 12 & 1, (queues, hex(features))'
    kill $server $kit
    wait $server
}
