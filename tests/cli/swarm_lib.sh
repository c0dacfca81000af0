# swarm_lib.sh: nodes of a small run, for the tests that need several (sourced after lib.sh).

# found DIR [init options]: founds a run, sets INVITE and RUN.
found() {
    dir=$1
    shift
    want 0 "$ATOLL" init --preset $PRESET --dir "$dir" --data "$DATA" "$@" --json
    INVITE=$(json invite)
    RUN=$(json run_id)
    PORT=$(json listen | sed 's/.*://')
}

# node NAME COMMAND...: runs a node in the background, its stderr in $WORK/NAME.log; sets PID.
node() {
    name=$1
    shift
    "$@" >"$WORK/$name.out" 2>"$WORK/$name.log" &
    PID=$!
    PIDS="$PIDS $PID"
}

# status DIR PATH: one value of the running node's status; empty when it does not answer.
status() { "$ATOLL" status --dir "$1" --json 2>/dev/null | "$TOOL" get "$2" 2>/dev/null || true; }

# asked DIR PATH: the same in $ANSWER, from a node that runs: one that is busy is asked again.
answers() { ANSWER=$(status "$1" "$2") && [ -n "$ANSWER" ]; }
asked() { until_ 60 answers "$1" "$2"; }

round_is_at_least() {
    now=$(status "$1" round)
    [ -n "$now" ] && [ "$now" -ge "$2" ]
}
status_is() { [ "$(status "$1" "$2")" = "$3" ]; }
members_are() { [ "$(status "$1" members.length)" = "$2" ]; }
ended() { [ "$("$ATOLL" status --dir "$1" --json 2>/dev/null | "$TOOL" get ended 2>/dev/null)" = true ]; }

root_of() { "$ATOLL" root "$1" || fail "no root in $1"; }
