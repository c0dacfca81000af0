# `train --resume`: a run that was stopped at any moment ends as the one that never was, under any split: the same root,
# and the same files to the byte, those of what each replica keeps for itself among them. What is damaged is refused; a
# full disk leaves the checkpoint that was there.
. "$(dirname "$0")/lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt" # less text, less to evaluate
DATA=$WORK/text.txt
PRESET=tiny # many short rounds: unit tests have the larger cuts
run="--preset $PRESET --data $DATA --replicas 2 --rounds 6 --steps 20 --seed 11 --threads 1"
clock() { awk '{ printf "%d", $1 * 1000 }' /proc/uptime; } # ms
random() { od -An -N1 -tu1 /dev/urandom | tr -d ' '; }     # 0 to 255

# saved PID FOLDER N: waits until that run has saved N rounds, or is over.
saved() {
    end=$(($(clock) + 120000))
    while alive "$1" && ! { [ -f "$2/model.safetensors" ] && [ "$(grep -c '"round"' "$2/journal.jsonl")" -ge "$3" ]; }; do
        [ "$(clock)" -lt $end ] || fail "no $3 rounds in 120 s"
        sleep 0.01
    done
}

# stopped SIGNAL FOLDER ARGUMENTS...: a run that saves after every round, and gets that signal at some moment.
stopped() {
    signal=$1 folder=$2
    shift 2
    rm -rf "$folder" "$WORK/err"
    rounds=$((1 + $(random) % 5)) more=$(awk -v r="$(random)" 'BEGIN { printf "%.3f", r / 3000 }')
    "$ATOLL" train $run "$@" --save-seconds 0 --out "$folder" >"$WORK/out" 2>"$WORK/err" &
    pid=$!
    PIDS="$PIDS $pid"
    saved $pid "$folder" $rounds
    sleep "$more"
    PIDS="$PIDS $(cat /proc/$pid/task/$pid/children 2>/dev/null || true)"
    kill -"$signal" $pid 2>/dev/null || true
    end=$(($(clock) + 120000))
    while alive $pid; do
        [ "$(clock)" -lt $end ] || fail "still runs 120 s after kill -$signal"
        sleep 0.02
    done
    wait $pid 2>/dev/null || true
    echo "kill -$signal $more s after round $rounds: $*"
}

# goes_on FOLDER ARGUMENTS...: to the end, which is that of $WORK/whole, with root $whole.
goes_on() {
    folder=$1
    shift
    want 0 "$ATOLL" train $run "$@" --resume "$folder" --save-seconds 0 --out "$folder" --json
    is "$(json state_root)" "$whole" "$*"
    diff -r "$folder" "$WORK/whole" >"$WORK/diff.log" 2>&1 || fail "other files than those of the whole run: $*"
}

# like KIND FIRST SECOND...: every run of that kind is stopped under the one split and goes on under the other.
like() {
    kind=$1
    shift
    rm -rf "$WORK/whole"
    want 0 "$ATOLL" train $run $kind --save-seconds 0 --out "$WORK/whole" --json
    whole=$(json state_root)
    is "$(ls "$WORK/whole" | grep -c '^replica-000[01]-.*\.safetensors$')" 2 "$kind"
    while [ $# -ge 3 ]; do
        stopped "$1" "$WORK/d" $kind $2
        want 0 "$ATOLL" root "$WORK/d" --json
        rounds=$(json round)
        [ "$rounds" -ge 1 ] || fail "no round in the checkpoint"
        rm -rf "$WORK/kept"
        cp -r "$WORK/d" "$WORK/kept"
        goes_on "$WORK/d" $kind $3
        shift 3
    done
}
like "--outer diloco" KILL "" "--tp 2 --link inproc" INT "" "--pp 2"
like "--outer sparse --tau 1" KILL "--tp 2" "" KILL "" "--tp 2 --pp 2 --link inproc"
cp -r "$WORK/kept" "$WORK/both"
like "--outer sparse" INT "--pp 2 --link inproc" ""
like "--tau 1" KILL "--tp 2 --link inproc" "--pp 2 --link inproc"

# Of the last kind: what is not whole is refused, in words; without it, it is a valid run and another one.
kept=$WORK/kept
[ "$rounds" -lt 6 ] || { # it was stopped too late: stop it where something is left
    "$ATOLL" train $run --tau 1 --save-seconds 0 --out "$WORK/early" >"$WORK/out" 2>"$WORK/err" &
    pid=$!
    PIDS="$PIDS $pid"
    saved $pid "$WORK/early" 2
    kill -9 $pid 2>/dev/null || true
    wait $pid 2>/dev/null || true
    kept=$WORK/early
}
again="$ATOLL train $run --tau 1 --resume $WORK/bad"
bad() {
    rm -rf "$WORK/bad"
    cp -r "$kept" "$WORK/bad"
    root=$("$ATOLL" root "$WORK/bad" | cut -c 1-16) # what is there of other states, a crash left
    own=$WORK/bad/replica-0001-$root.safetensors
    [ -f "$own" ] || fail "no $own"
}
bad
rm "$own"
refused 3 "$own: there is no such file" $again
refused 3 "--model-only" $again --tp 2 --link inproc
[ ! -e "$own" ] || fail "a refused run wrote something"
want 0 $again --model-only --tp 2 --link inproc --json
other=$(json state_root)
[ "$other" != "$whole" ] || fail "the run is the same without what the replicas keep"
want 0 $again --model-only --json
is "$(json state_root)" "$other" "--model-only, one process"
bad
"$TOOL" flip "$own" -9
refused 3 "$own" $again
refused 3 "damaged" $again --pp 2 --link inproc
bad
"$TOOL" cut "$own" 5000
refused 3 "truncated" $again --tp 2
bad
cp "$(echo "$own" | sed s/0001/0000/)" "$own"
refused 3 "of replica 0 of 2" $again
refused 3 "another --outer or --tau" "$ATOLL" train $run --outer sparse --resume "$WORK/both"

refused 2 "goes with --resume" "$ATOLL" train $run --model-only
refused 2 "goes with --out" "$ATOLL" train $run --save-seconds 1

# A disk that is full: the file's name, and the checkpoint that was there, whole, without a trace of the new one.
bad
blocks=$((($(wc -c <"$WORK/bad/model.safetensors") + $(wc -c <"$own")) / 1024)) # larger than the one, not the other
for split in "" "--tp 2 --link inproc"; do
    bad
    rm -f "$WORK"/bad/*.tmp # a crash's
    "$ATOLL" root "$WORK/bad" >"$WORK/before"
    want 5 sh -c 'limit=$1; shift; ulimit -f $limit; exec "$@"' sh $blocks $again $split --out "$WORK/bad"
    says "replica-0000-"
    "$ATOLL" root "$WORK/bad" >"$WORK/after"
    cmp "$WORK/before" "$WORK/after" || fail "another model after the disk was full"
    is "$(ls "$WORK/bad" | grep -c "$root")" 3 "files of the checkpoint"
    is "$(ls "$WORK/bad" | wc -l)" 6 "files after the disk was full"
    goes_on "$WORK/bad" --tau 1 $split
done

# Replicas that keep nothing have no file, and old ones go.
want 0 $again --tau 0 --rounds 7 --out "$WORK/bad" --json
is "$(ls "$WORK/bad" | grep -c replica)" 0 "files of a run without overlap"
