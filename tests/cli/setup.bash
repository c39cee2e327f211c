# SPDX-License-Identifier: MIT
# Every test gets a run-time and a log directory of its own, and must leave no
# guest in it.  `run` of bats merges both outputs; stdout_of and stderr_of keep
# them apart.

setup() {
    XL="${XENOLITH:-$BATS_TEST_DIRNAME/../../build/src/cmd/xenolith}"
    TMP=$(mktemp -d)
    export XENOLITH_RUN_DIR=$TMP/run XENOLITH_LOG_DIR=$TMP/log
    cd "$TMP"
}

teardown() {
    # what a test that failed has left in the background
    jobs -p | xargs -r kill -9 2>/dev/null || true
    [ -z "$(ls -A "$TMP/run/guest" 2>/dev/null)" ] || { ls -R "$TMP/run"; false; }
    rm -rf "$TMP"
}

stdout_of() { "$@" 2>/dev/null; }
stderr_of() { "$@" 2>&1 >/dev/null; }

# status WANTED COMMAND...: runs it, holds it to that exit status.
status() {
    local wanted=$1
    shift
    run "$@"
    [ "$status" -eq "$wanted" ] || { echo "status $status, wanted $wanted: $output"; return 1; }
}

# has TEXT: the last output has a line with it.
has() {
    [[ "$output" == *"$1"* ]] || { echo "wanted: $1"; echo "got: $output"; return 1; }
}

# serve ARGUMENT...: xenolith blk in the background, until the test ends; its messages are in
# log.  bats waits for whoever has its descriptor 3.
serve() {
    "$XL" blk "$@" 2>log 3>&- &
    server=$!
    for _ in $(seq 200); do
        ! grep -q serves log || return 0
        kill -0 $server 2>/dev/null || break
        sleep 0.05
    done
    cat log
    return 1
}
