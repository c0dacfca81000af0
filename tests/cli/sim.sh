# atoll sim: first and last line reproduce the run; --json is one object with what the judges say; one seed is one run, to
# the byte; a stored result can be replayed; a planted bug ends with exit code 4; what is not simulated is refused by name.
. "$(dirname "$0")/lib.sh"
small="--nodes 5 --hours 0.09 --round-s 20"

want 0 "$ATOLL" sim --seed 3 $small
line=$(head -n 1 "$WORK/out")
is "$(tail -n 1 "$WORK/out")" "$line"
echo "$line" | grep -q '^seed 3, commit [0-9a-z-]*: atoll sim --seed 3 --nodes 5 --hours 0.09 ' || fail "first line: $line"
grep -q '^safety      no violation' "$WORK/out" || fail "no word on safety"

# The printed line is the run.
want 0 "$ATOLL" sim --seed 3 $small --json
is "$(json safety_violations)" 0
is "$(json liveness)" true
for figure in rounds finality_ms_p50 bytes_per_node_round messages_per_node_round utilisation commit kills joins events \
    events_per_s wall_s; do
    json $figure >/dev/null
done
[ "$(json rounds)" -ge 5 ] || fail "only $(json rounds) rounds"
root=$(json state_root) print=$(json fingerprint)
is "$(json command)" "$(echo "$line" | sed 's/.*: atoll/atoll/')"
cp "$WORK/out" "$WORK/result.json"
want 0 sh -c "\"\$0\" ${line#*: atoll } --json" "$ATOLL"
is "$(json fingerprint)" "$print"

# Replayed from the stored result, twice: the same trace, and the same run.
want 0 "$ATOLL" sim --replay "$WORK/result.json" --lines 50 --json
is "$(json state_root)" "$root"
is "$(json fingerprint)" "$print"
hash=$(json trace_hash)
grep -v 'virtual' "$WORK/err" >"$WORK/trace"
[ "$(grep -c '^[0-9]* [0-9]' "$WORK/trace")" -eq 50 ] || fail "not 50 lines of trace"
want 0 "$ATOLL" sim --replay "$WORK/result.json" --lines 50 --json
is "$(json trace_hash)" "$hash"
cmp "$WORK/err" "$WORK/trace" || fail "another trace"
want 0 "$ATOLL" sim --seed 4 $small --replay --json
[ "$(json trace_hash)" != "$hash" ] || fail "another seed, the same run"

# The judges are awake, and the run that they stopped can be shown.
for bug in ack-early count-unfetched; do
    want 4 "$ATOLL" sim --seed 3 $small --canary $bug --json
    says "safety violation"
    is "$(json safety_violations)" 1
    is "$(json liveness)" false
    cp "$WORK/out" "$WORK/bug.json"
    want 4 "$ATOLL" sim --replay "$WORK/bug.json"
    is "$(sed -n 's/^safety *//p' "$WORK/out")" "$("$TOOL" get violation <"$WORK/bug.json")"
done

# Stopped by hand: nothing is judged.
rm "$WORK/err"
"$ATOLL" sim --seed 3 --nodes 8 --hours 10000 --json >"$WORK/out" 2>"$WORK/err" &
pid=$!
PIDS="$PIDS $pid"
until_ $PATIENCE grep -qs '^seed' "$WORK/err"
kill -INT $pid
ends 130 $pid
is "$(json interrupted)" true
is "$(json unfinished)" "not judged: stopped by you"

refused 2 "nat is not simulated" "$ATOLL" sim --faults crash,nat
refused 2 "There are: all, none, latency, bandwidth" "$ATOLL" sim --faults crush
refused 2 "no such bug. There are: ack-early" "$ATOLL" sim --canary blue
refused 2 "1 to 4000" "$ATOLL" sim --nodes 5000
refused 2 "a single steward must be honest" "$ATOLL" sim --nodes 4 --byzantine 4
refused 2 "too short" "$ATOLL" sim --hours 0.1 --round-s 60
refused 2 "a FILE is for --replay" "$ATOLL" sim "$WORK/result.json"
refused 3 "missing.json" "$ATOLL" sim --replay "$WORK/missing.json"
echo "nothing of the kind" >"$WORK/other"
refused 3 "no line with" "$ATOLL" sim --replay "$WORK/other"
echo "atoll sim --seed x" >"$WORK/other"
refused 2 "--seed: x" "$ATOLL" sim --replay "$WORK/other"
