# lib.sh: shared by the end-to-end tests (sourced). Each test is a script: ATOLL and TOOL are the binaries, $WORK a fresh
# folder that is removed at the end; the first failed check ends it with a message and exit code 1.
set -eu
: "${ATOLL:?the binary under test}" "${TOOL:?cli_tool}" "${DATA:?the corpus}"
WORK=$(mktemp -d "${TMPDIR:-/tmp}/atoll-test.XXXXXX")
PIDS= MOUNTED=
# The model: nano; under the sanitizers, where arithmetic crawls, one of 2 layers of 32.
if [ -z "${SANITIZE:-}" ]; then PRESET=nano TOKENS=512; else PRESET=tiny TOKENS=64; fi # tokens of a step
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

# alive PID: it runs; one that has ended and was not waited for yet does not.
alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null && [ "$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null)" != Z ]; }
