#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# A stock Debian kernel in QEMU, which is the vhost-user client, on disks of xenolith blk.  It
# runs without KVM.  fio writes, reads back and compares; a second disk carries fio.
load setup

setup_file() {
    local guest=$BATS_TEST_DIRNAME/../guest kernel
    export FILES=$BATS_FILE_TMPDIR
    kernel=$("$BATS_TEST_DIRNAME/../../lab/fetch-kernel" cloud-amd64)
    ln -s "$kernel" "$FILES/kernel"
    "$guest/mkinitrd" virtio "$kernel" "$PROGRAMS" "$FILES/base.cpio"
    "$guest/mkinitrd" tools "$FILES/tools.img"
}

serve() { # NAME ARGUMENT...
    local name=$1
    shift
    "$XL" blk "$@" 2>>"log.$name" &
    eval "server_$name=$!"
}

# script: what the guest runs, from standard input
script() {
    cat >script
    "$BATS_TEST_DIRNAME/../guest/mkinitrd" with "$FILES/base.cpio" script initrd
}

# boot [DEVICE OPTION [OPTION...]]: in the background, its console in the file console
boot() {
    local device=${1:-}
    [ $# = 0 ] || shift
    qemu-system-x86_64 -machine q35,memory-backend=m -m 384 -smp 2 -accel tcg,thread=multi \
        -cpu max -nodefaults -no-user-config -display none -no-reboot -serial file:console \
        -object memory-backend-memfd,id=m,size=384M,share=on \
        -kernel "$FILES/kernel/vmlinuz" -initrd initrd \
        -append "console=ttyS0 quiet panic=-1 ${append:-}" \
        -chardev socket,id=c0,path=disk.sock,reconnect=1 \
        -device vhost-user-blk-pci,chardev=c0,num-queues=2"$device" \
        -chardev socket,id=c1,path=tools.sock,reconnect=1 \
        -device vhost-user-blk-pci,chardev=c1,num-queues=1 \
        -monitor unix:monitor,server,nowait "$@" 2>qemu.log &
    qemu=$!
}

# monitor COMMAND: what QEMU's monitor says to it
monitor() {
    python3 - "$1" <<'END'
import socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.settimeout(20)
    s.connect("monitor")
    said = s.makefile("rwb", buffering=0)
    def prompt():
        text = b""
        while not text.endswith(b"(qemu) "):
            byte = said.read(1)
            if not byte:
                break
            text += byte
        return text.decode(errors="replace")
    prompt()
    said.write(sys.argv[1].encode() + b"\n")
    print(prompt())
END
}

disks_begin() { # [FORMAT]
    local format=${1:-raw}
    if [ "$format" = raw ]; then
        truncate -s 64M image
    else
        qemu-img create -q -f "$format" image 64M
    fi
    serve disk --vhost-user disk.sock --disk "$TMP/image,$format,xvda,w"
    serve tools --vhost-user tools.sock --disk "$FILES/tools.img,raw,xvdb,r"
    for _ in $(seq 100); do
        if [ -S disk.sock ] && [ -S tools.sock ]; then return 0; fi
        sleep 0.05
    done
    return 1
}

# said TEXT: waits until the guest has said it
said() {
    for _ in $(seq 600); do
        ! grep -qF "$1" console 2>/dev/null || return 0
        kill -0 $qemu 2>/dev/null || break
        sleep 0.2
    done
    echo "the guest never said: $1"
    cat console qemu.log log.*
    return 1
}

finish() {
    said "@@ status 0"
    wait $qemu
    kill "$server_disk" "$server_tools"
    wait "$server_disk" "$server_tools"
    ! grep -h -E "stopped|dismissed|[1-9][0-9]* with errors" log.*
}

verify="fio --name=v --filename=/dev/vda --rw=randwrite --bs=4k --iodepth=32 --ioengine=libaio
    --direct=1 --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_backlog=512"

what_works() { # WORDS OF fio
    cat <<END
set -e
disk vda; disk vdb; tools vdb
cd /sys/block/vda
[ \$(cat size) = 131072 ] && [ \$(cat ro) = 0 ] && [ \$(cat /sys/block/vdb/ro) = 1 ]
[ \$(ls mq | wc -l) = 2 ] && [ \$(cat serial) = xvda ]
[ "\$(cat queue/write_cache)" = "write back" ]
[ \$(cat queue/discard_max_bytes) != 0 ] && [ \$(cat queue/write_zeroes_max_bytes) != 0 ]
echo "@@ packed \$(cut -c35 device/features)"
$(echo "$verify" | tr '\n' ' ') $1 >/tmp/fio || { cat /tmp/fio; exit 1; }
# write-zeroes, discard, flush, and the switch of the write cache
dd if=/dev/urandom of=/dev/vda bs=1M count=4 conv=fsync 2>/dev/null
fio --name=t --filename=/dev/vda --rw=trim --bs=64k --size=2m --ioengine=psync >/tmp/fio
zeroout /dev/vda 2097152 1048576
dd if=/dev/vda bs=1M count=3 iflag=direct 2>/dev/null | cmp -n 3145728 - /dev/zero
! dd if=/dev/vda bs=1M skip=3 count=1 iflag=direct 2>/dev/null | cmp -s -n 1048576 - /dev/zero
echo "write through" >queue/write_cache
[ "\$(cat queue/write_cache)" = "write through" ]
dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null
dd if=/tmp/data of=/dev/vda bs=1M oflag=direct 2>/dev/null
dd if=/dev/vda bs=1M count=4 iflag=direct 2>/dev/null | cmp - /tmp/data
END
}

@test "split rings" {
    what_works --size=16m | script
    disks_begin
    boot
    said "@@ packed 0"
    finish
}

@test "packed rings" {
    what_works --size=16m | script
    disks_begin
    boot ,packed=on
    said "@@ packed 1"
    finish
}

@test "a qcow2 disk" {
    command -v qemu-nbd >/dev/null || skip "no qemu-nbd: tests/need test"
    { what_works --size=16m; echo 'echo "@@ sum $(md5sum </dev/vda)"'; } | script
    disks_begin qcow2
    boot
    finish
    # what the guest has written, as another program reads it
    qemu-img convert -f qcow2 -O raw image raw
    grep -q "@@ sum $(md5sum <raw | cut -c-32)" console
    qemu-img check -q image
}

# killed_under_load [DEVICE OPTION]: the guest sees a pause, and no more
killed_under_load() {
    what_works "--size=32m --loops=4" | script
    disks_begin
    boot "$@"
    said "@@ packed"
    for _ in 1 2 3; do
        sleep 0.7
        kill -9 "$server_disk"
        wait "$server_disk" || true
        serve disk --vhost-user disk.sock --disk "$TMP/image,raw,xvda,w"
    done
    finish
    [ "$(grep -c "client has come" log.disk)" -ge 3 ]
}

@test "a server killed under load and started again, split rings" {
    killed_under_load
}

@test "a server killed under load and started again, packed rings" {
    killed_under_load ,packed=on
}

@test "one guest after the other, the first of them killed" {
    echo 'disk vda; echo "@@ here"; dd if=/dev/vda of=/dev/null bs=64k; sleep 9' | script
    disks_begin
    boot
    said "@@ here"
    kill -9 $qemu
    wait $qemu || true
    what_works --size=4m | script
    boot
    finish
}

@test "a disk that grows and shrinks before the guest's eyes" {
    script <<'END'
disk vda
for sectors in 262144 65536; do
    echo "@@ sees $(cat /sys/block/vda/size)"
    until [ $(cat /sys/block/vda/size) = $sectors ]; do usleep 10000; done
    dd if=/dev/urandom of=/tmp/last bs=1M count=1 2>/dev/null
    dd if=/tmp/last of=/dev/vda bs=1M seek=$((sectors / 2048 - 1)) oflag=direct 2>/dev/null ||
        return 1
    dd if=/dev/vda bs=1M skip=$((sectors / 2048 - 1)) iflag=direct 2>/dev/null | cmp - /tmp/last ||
        return 1
done
END
    disks_begin
    boot
    said "@@ sees 131072"
    truncate -s 128M image
    kill -HUP "$server_disk"
    said "@@ sees 262144"
    truncate -s 32M image
    kill -HUP "$server_disk"
    finish
    [ "$(stat -c %s image)" = $((32 << 20)) ]
}

# moved_under_load [DEVICE OPTION]: the guest reads into its page cache while its memory is
# being copied.  No processor writes these pages (which Debian's kernel would do as it gets them),
# so QEMU knows from the server's log alone that they have to be copied again.
moved_under_load() {
    local append="init_on_alloc=0"
    script <<'END'
disk vda
dd if=/dev/urandom of=/dev/vda bs=1M count=32 conv=fsync 2>/dev/null
sum=$(dd if=/dev/vda bs=1M count=32 iflag=direct 2>/dev/null | md5sum)
echo 3 >/proc/sys/vm/drop_caches
exec 3</dev/vda         # what is cached goes with the last who has it open
echo "@@ reading"
for i in $(seq 0 127); do
    dd if=/dev/vda of=/dev/null bs=256k skip=$i count=1 2>/dev/null
    usleep 30000
done
reads=$(cut -c1-8 /sys/block/vda/stat)
[ "$(dd if=/dev/vda bs=1M count=32 2>/dev/null | md5sum)" = "$sum" ] &&
    [ "$(cut -c1-8 /sys/block/vda/stat)" = "$reads" ]
END
    disks_begin
    boot "${1:-}"
    said "@@ reading"
    monitor "migrate_set_parameter max-bandwidth 64M"
    monitor 'migrate -d "exec:cat >state"'
    for _ in $(seq 100); do
        monitor "info migrate" >progress
        ! grep -qE "status: (completed|failed)" progress || break
        sleep 0.3
    done
    grep -q "status: completed" progress
    monitor quit
    wait $qemu || true
    mv console console.before
    boot "${1:-}" -incoming "exec:cat state"
    finish
    ! grep -q "@@ status" console.before
}

@test "a guest moved to another QEMU under load, split rings" {
    moved_under_load
}

@test "a guest moved to another QEMU under load, packed rings" {
    moved_under_load ,packed=on
}
