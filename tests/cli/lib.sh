# lib.sh: shared by the end-to-end tests (sourced). Each test is a script: ATOLL and TOOL are the binaries, $WORK a fresh
# folder that is removed at the end; the first failed check ends it with a message and exit code 1.
set -eu
: "${ATOLL:?the binary under test}" "${TOOL:?cli_tool}" "${DATA:?the corpus}"
WORK=$(mktemp -d "${TMPDIR:-/tmp}/atoll-test.XXXXXX")
PIDS= MOUNTED=
# The model: nano; under the sanitizers, where arithmetic crawls, one of 2 layers of 32.
# TOKENS of a step; MANY: steps that take some 0.2 s, so that a signal comes in the middle of something.
if [ -z "${SANITIZE:-}" ]; then PRESET=nano TOKENS=512 MANY=6; else PRESET=tiny TOKENS=64 MANY=60; fi
cleanup() {
    status=$?
    for pid in $PIDS; do kill -9 "$pid" 2>/dev/null || true; done
    if [ $status -ne 0 ]; then for f in "$WORK"/*.log "$WORK"/err; do [ -f "$f" ] && { echo "== $f"; tail -n 20 "$f"; }; done; fi
    if [ -n "$MOUNTED" ]; then umount "$MOUNTED" || true; fi
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# want CODE COMMAND...: runs it; stdout to $WORK/out, stderr to $WORK/err; fails when the exit code is another.
want() {
    code=$1
    shift
    got=0
    "$@" >"$WORK/out" 2>"$WORK/err" || got=$?
    [ "$got" -eq "$code" ] || fail "exit code $got, not $code: $* : $(tail -n 3 "$WORK/err")"
}

# says TEXT: stderr of the last `want` has it in one line; and no trace of a crash.
says() {
    grep -F -- "$1" "$WORK/err" >/dev/null || fail "stderr does not say '$1': $(cat "$WORK/err")"
    ! grep -E 'assertion|Sanitizer|runtime error' "$WORK/err" >/dev/null || fail "crash: $(cat "$WORK/err")"
}

# json PATH: a value of the last `want`'s stdout, which must be exactly one object.
json() { "$TOOL" get "$1" <"$WORK/out" || fail "stdout has no $1: $(head -c 300 "$WORK/out")"; }

# refused CODE TEXT COMMAND...: exit code, one clear line, and the same as JSON with its code.
refused() {
    code=$1 text=$2
    shift 2
    want "$code" "$@"
    says "$text"
    want "$code" "$@" --json
    says "$text"
    [ "$(json error.code)" = "$code" ] || fail "error.code is not $code"
    json error.message >/dev/null
    json error.where >/dev/null
}

is() { [ "$1" = "$2" ] || fail "'$1' is not '$2'${3:+ ($3)}"; }

skip() {
    echo "SKIPPED: $*"
    exit 77
}

# Nothing below waits without end: what hangs is a failure that says where.
if [ -z "${SANITIZE:-}" ]; then PATIENCE=120; else PATIENCE=300; fi # s, for what takes seconds on a quiet machine
now() { awk '{ printf "%d", $1 * 1000 }' /proc/uptime; } # ms

# until_ SECONDS COMMAND...: tries again and again; fails after so many seconds.
until_() {
    deadline=$(($(now) + $1 * 1000))
    shift
    while ! "$@"; do
        [ "$(now)" -lt $deadline ] || fail "in vain: $*"
        sleep 0.05
    done
}

# alive PID: it runs; one that has ended and was not waited for yet does not.
alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null && [ "$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null)" != Z ]; }
gone() { ! alive "$1"; }

# ends CODE PID [SECONDS]: a background process ends, by default within $PATIENCE, with that exit code.
ends() {
    until_ "${3:-$PATIENCE}" gone "$2"
    got=0
    wait "$2" 2>/dev/null || got=$?
    [ $got -eq "$1" ] || fail "process $2 ended with exit code $got, not $1"
}

# all_end_in_time WHY PIDS...: all of them end within 6 s, and $took says after how many ms. Time in which this script itself
# was not given the processor (a turn of its loop longer than 0.25 s) does not count: the ranks' own judges do not count it
# either. In any case it is over after 25 s.
all_end_in_time() {
    why=$1 turn_start=$(now) spent=0 took=0
    shift
    while :; do
        left=
        for p in "$@"; do ! alive "$p" || left="$left $p"; done
        [ -n "$left" ] || break
        sleep 0.02
        turn=$(($(now) - turn_start)) turn_start=$(now)
        took=$((took + turn))
        [ $turn -le 250 ] || turn=250
        spent=$((spent + turn))
        [ $spent -le 6000 ] && [ $took -le 25000 ] || fail "processes$left still run $took ms after $why"
    done
}

# await_round PID [N]: a background `train`, its stderr in $WORK/err, has told of its Nth round (the first).
told_round() {
    [ "$(grep -cs '^round ' "$WORK/err")" -ge "$2" ] || { gone "$1" && fail "ended early: $(cat "$WORK/err")"; }
}
await_round() { until_ $PATIENCE told_round "$1" "${2:-1}"; }

# interrupt_round SIGNAL FOLDER COMMAND...: runs a `train` with --out FOLDER that gets the signal once it has told of its
# first round: the running round, if the signal did not come between two, is finished and saved, and it is told how to go on.
# A run that is over before the signal reaches it is tried again, for that is this script's delay.
interrupt_round() {
    signal=$1 folder=$2 tries=0
    shift 2
    while :; do
        rm -rf "$WORK/err" "$folder"
        "$@" --out "$folder" >"$WORK/out" 2>"$WORK/err" &
        pid=$!
        PIDS="$PIDS $pid"
        until_ $PATIENCE told_round $pid 1
        kill -"$signal" $pid 2>/dev/null || true
        until_ $PATIENCE gone $pid
        got=0 tries=$((tries + 1))
        wait $pid 2>/dev/null || got=$?
        [ $got -eq 0 ] && [ $tries -lt 20 ] || break
    done
    [ $got -eq 130 ] || fail "exit code $got, not 130, after $signal: $*"
    says "goes on"
}

# interrupt_twice SIGNAL PID: in the middle of a long round; the second one stops at once, and no process is left.
interrupt_twice() {
    until_ $PATIENCE grep -qs '^held-out loss before' "$WORK/err"
    kids=$(cat /proc/"$2"/task/"$2"/children)
    PIDS="$PIDS $kids"
    sleep 0.3 # into the round
    kill -"$1" "$2"
    until_ 30 grep -qs 'Finishing round' "$WORK/err"
    kill -"$1" "$2"
    all_end_in_time "the second $1" "$2" $kids
    ends 130 "$2"
    says "stopped at once"
}
