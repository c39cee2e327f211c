#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# xenolith blk as its operator meets it; what clients meet is vhost_user.bats.
load setup

ended() { # STATUS
    local status=0
    wait $server || status=$?
    [ $status = "$1" ] || { echo "status $status, wanted $1"; cat log; return 1; }
}

# talk SOCKET REQUEST FLAGS PAYLOAD_HEX: sends one message, prints the reply's payload
talk() {
    python3 - "$@" <<'END'
import socket, struct, sys
path, request, flags, payload = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect(path)
s.sendall(struct.pack("<III", request, flags, len(payload) // 2) + bytes.fromhex(payload))
header = s.recv(12, socket.MSG_WAITALL)
if len(header) < 12:
    print("closed")
else:
    print(s.recv(struct.unpack("<III", header)[2], socket.MSG_WAITALL).hex())
END
}

@test "blk without what it needs" {
    for words in "" "--vhost-user s" "--disk driver=null,size=1M" "--vhost-user s --vhost-user t" \
                 "--disk driver=null,size=1M --vhost-user s" \
                 "--vhost-user s --disk driver=null,size=1M more" \
                 "--vhost-user s --disk driver=null,size=1M --queues 0" \
                 "--vhost-user s --disk driver=null,size=1M --queues 65" \
                 "--vhost-user s --disk driver=null,size=1M --poll-us x"; do
        # shellcheck disable=SC2086
        status 2 "$XL" blk $words
    done
    [ ! -e s ]
}

@test "a disk that cannot be served leaves no socket behind" {
    status 1 "$XL" blk --vhost-user "$TMP/ok" --disk driver=null,size=1M \
        --vhost-user "$TMP/s" --disk "$TMP/missing,raw,xvda,r"
    has "cannot be opened"
    [ ! -e s ] && [ ! -e ok ]
    status 1 "$XL" blk --vhost-user "$TMP/s" --disk "$TMP/x,qcow2,xvda,r"
    has "$TMP/x: cannot be opened"
    status 1 "$XL" blk --vhost-user "$TMP/s" --disk vdev=xvda,cdrom
    has "empty"
}

@test "filters that make no sense are told, and leave no socket behind" {
    local words
    for words in "qos:iops=some: expected requests per second" \
                 "qos:speed=1: unknown option \`speed=1', expected iops=" \
                 "slow: no filter is called" \
                 "qos:iops=5,vdev=xvdq,filter=delay: expected time=" \
                 "fault:error=EWHAT: expected hang, EIO"; do
        status 1 "$XL" blk --vhost-user "$TMP/s" --disk "driver=ram,size=1M,filter=${words%%: *}"
        has "${words#*: }"
    done
    # of a group, only one can say what it may do
    status 1 "$XL" blk --vhost-user "$TMP/s" --disk "driver=ram,size=1M,filter=qos:iops=5:group=g" \
        --vhost-user "$TMP/t" --disk "driver=ram,size=1M,filter=qos:iops=6:group=g"
    has "group=g has other limits already"
    [ ! -e s ] && [ ! -e t ]
}

@test "filters over a disk, and a group of disks" {
    serve --vhost-user "$TMP/s" --disk \
        "driver=ram,size=1M,filter=qos:iops=5:group=g,filter=delay:time=1ms,filter=verify" \
        --vhost-user "$TMP/t" --disk "driver=ram,size=1M,filter=qos:group=g"
    [ -S s ] && [ -S t ]
    kill $server
    ended 0
}

@test "tmem shows the pool of disks that share one, as long as there is one" {
    status 0 "$XL" tmem
    [ "$output" = "No disk has driver=tmem." ]
    serve --vhost-user "$TMP/s" --disk driver=tmem,size=1M,pool=64M,quota=512k \
        --vhost-user "$TMP/t" --disk driver=tmem,size=2M
    status 0 "$XL" tmem
    has "bound_mb               : 64"
    has "pages_stored           : 0"
    has "disks                  : 2"
    [ "$(grep -c "^(process $server)" <<<"$output")" = 2 ]
    grep -q "^(process $server) *xvda *1024 *512 *0 " <<<"$output"
    grep -q "^(process $server) *xvdb *2048 *- *0 " <<<"$output"
    # one pool has one bound
    status 1 "$XL" blk --vhost-user "$TMP/u" --disk driver=tmem,size=1M,pool=65M
    has "may reach 64 MiB"
    kill $server
    ended 0
    status 0 "$XL" tmem
    [ "$output" = "No disk has driver=tmem." ]
    # a killed one takes it along as well
    serve --vhost-user "$TMP/s" --disk driver=tmem,size=1M,pool=64M
    kill -9 $server
    ended 137
    status 0 "$XL" tmem
    [ "$output" = "No disk has driver=tmem." ]
    serve --vhost-user "$TMP/s" --disk driver=tmem,size=1M,pool=65M
    kill $server
    ended 0
}

@test "what a client did is recorded, through a kill, and fio does it again" {
    serve --vhost-user "$TMP/s" --disk \
        "driver=ram,size=1G,filter=trace:file=$TMP/trace,filter=delay:time=10ms"
    "$CLIENT" s 2 sleep 0.5 0 $server 2 >client
    kill -9 $server
    ended 137
    status 0 "$XL" blk-trace trace
    has "# xvda, 1073741824 bytes, 2 queues, from 20"
    nr=$(grep -c ' read  .* 4096 ok$' <<<"$output")
    # 2 queues, 2 requests each, 10 ms or a little more
    [ "$nr" -gt 20 ] && [ "$nr" -le 204 ]
    has "# $nr requests; 0 older ones overwritten, "
    truncate -s 1G image
    "$XL" blk-trace --iolog="$TMP/image" trace >iolog
    fio --name=again --read_iolog=iolog --ioengine=psync --output-format=json >fio.json
    python3 - "$nr" <<'END'
import json, sys
job = json.load(open("fio.json"))["jobs"][0]
assert job["error"] == 0 and job["read"]["total_ios"] == int(sys.argv[1]), job["read"]
assert 400 <= job["job_runtime"] < 5000, job["job_runtime"]
END
}

@test "what is no trace, or what fio cannot name" {
    echo "a letter, longer than a magic number" >letter
    status 1 "$XL" blk-trace letter
    has "letter: is no trace of a disk"
    status 1 "$XL" blk-trace missing
    has "missing: No such file"
    status 2 "$XL" blk-trace
    status 2 "$XL" blk-trace --iolog="a b" letter
    has "without blanks"
    status 1 "$XL" blk --vhost-user "$TMP/s" \
        --disk "driver=ram,size=1M,filter=trace:file=$TMP/letter"
    has "is something else than a trace"
    grep -q letter letter
}

@test "a socket that is no socket, or too long, or in use" {
    : >file
    status 1 "$XL" blk --vhost-user "$TMP/file" --disk driver=null,size=1M
    has "$TMP/file"
    [ -f file ]
    status 1 "$XL" blk --vhost-user "$TMP/$(printf 'x%.0s' $(seq 120))" --disk driver=null,size=1M
    has "107 bytes"
    serve --vhost-user "$TMP/s" --disk driver=null,size=1M
    status 1 "$XL" blk --vhost-user "$TMP/s" --disk driver=null,size=1M
    [ -S s ]
    kill $server
    ended 0
}

@test "a socket that a killed server has left behind is replaced" {
    serve --vhost-user "$TMP/s" --disk driver=null,size=1M
    kill -9 $server
    ended 137
    [ -S s ]
    serve --vhost-user "$TMP/s" --disk driver=null,size=1M
    [ "$(talk s 1 1 "")" != closed ]
    kill $server
    ended 0
    [ ! -e s ]
}

@test "several disks; what clients are told of each" {
    truncate -s 3M image
    serve --vhost-user "$TMP/a" --disk "$TMP/image,raw,xvda,r" \
          --vhost-user "$TMP/b" --disk driver=null,size=8M --queues 3
    # GET_FEATURES: a read-only disk says so
    python3 - "$(talk a 1 1 "")" "$(talk b 1 1 "")" <<'END'
import struct, sys
a, b = (struct.unpack("<Q", bytes.fromhex(x))[0] for x in sys.argv[1:])
assert a >> 5 & 1 and not b >> 5 & 1, (hex(a), hex(b))
for bit in (9, 12, 28, 29, 30, 32, 34):
    assert b >> bit & 1, bit
assert not a >> 13 & 1 and b >> 13 & 1
END
    kill $server
    ended 0
    [ ! -e a ] && [ ! -e b ]
}

@test "messages that make no sense cost their client the connection, and nobody else" {
    serve --vhost-user "$TMP/s" --disk driver=null,size=1M
    [ "$(talk s 99 1 "")" = closed ]                    # an unknown request
    [ "$(talk s 1 2 "")" = closed ]                     # another version
    [ "$(talk s 2 1 0102)" = closed ]                   # too short
    [ "$(talk s 2 1 ffffffffffffffff)" = closed ]       # features nobody offered
    [ "$(talk s 11 1 4000000000000000)" = closed ]      # ring 64
    [ "$(talk s 24 1 000000003c00000000000000)" = closed ]      # not negotiated
    [ "$(talk s 5 1 0900000000000000)" = closed ]       # nine regions
    [ "$(talk s 12 1 0000000000000000)" = closed ]      # no descriptor
    [ "$(talk s 1 1 "")" != closed ]
    kill $server
    ended 0
    grep -q "dismissed: SET_FEATURES:" log
}

@test "a client that sends half a message keeps no other disk waiting" {
    serve --vhost-user "$TMP/a" --disk driver=null,size=1M \
          --vhost-user "$TMP/b" --disk driver=null,size=1M
    python3 - <<'END'
import socket
a = socket.socket(socket.AF_UNIX)
a.connect("a")
a.sendall(b"\x01\x00\x00\x00\x01")
b = socket.socket(socket.AF_UNIX)
b.settimeout(10)
b.connect("b")
b.sendall(bytes.fromhex("010000000100000000000000"))
assert len(b.recv(20, socket.MSG_WAITALL)) == 20
END
    kill $server
    ended 0
}

# GET_CONFIG's capacity, in sectors
capacity() {
    # features with protocol features, CONFIG agreed, then 8 bytes from 0 are asked for
    python3 - "$1" <<'END'
import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect(sys.argv[1])
s.sendall(struct.pack("<IIIQ", 16, 1, 8, 1 << 9))
s.sendall(struct.pack("<IIIIII", 24, 1, 12, 0, 8, 0))
size = struct.unpack("<III", s.recv(12, socket.MSG_WAITALL))[2]
print(struct.unpack_from("<Q", s.recv(size, socket.MSG_WAITALL), 12)[0])
END
}

@test "SIGHUP makes it look at sizes" {
    truncate -s 1M a
    truncate -s 2M b
    serve --vhost-user "$TMP/s" --disk "$TMP/a,raw,xvda,w" \
        --vhost-user "$TMP/t" --disk "$TMP/b,raw,xvdb,r"
    [ "$(capacity s) $(capacity t)" = "2048 4096" ]
    truncate -s 3M a
    truncate -s 512 b
    [ "$(capacity s) $(capacity t)" = "2048 4096" ]
    kill -HUP $server
    until grep -q "t: resized from 4096 sectors to 1" log; do sleep 0.05; done
    grep -q "s: resized from 2048 sectors to 6144" log
    [ "$(capacity s) $(capacity t)" = "6144 1" ]
    # what has no size keeps the one it had
    truncate -s 0 a
    kill -HUP $server
    until grep -q "s: is empty" log; do sleep 0.05; done
    [ "$(capacity s)" = 6144 ]
    kill $server
    ended 0
}

@test "an idle server uses no CPU" {
    serve --vhost-user "$TMP/s" --disk driver=null,size=1M
    before=$(cut -d' ' -f14,15 /proc/$server/stat)
    sleep 1
    [ "$before" = "$(cut -d' ' -f14,15 /proc/$server/stat)" ]
    kill $server
    ended 0
}
