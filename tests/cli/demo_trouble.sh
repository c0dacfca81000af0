# The demo in trouble: a member killed with kill -9 comes back and the run ends well; an interrupt or the death of the
# demo leaves no process behind; a port or disk problem is told with the log's end.
. "$(dirname "$0")/lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt"

# pid_in FOLDER: the process that runs a member's node.
pid_in() { cat "$1/lock" 2>/dev/null || true; }
# in_round FOLDER N: whether the founder's node is that far.
in_round() {
    now=$("$ATOLL" status --dir "$1" --json 2>/dev/null | "$TOOL" get round 2>/dev/null) || return 1
    [ "$now" -ge "$2" ]
}
start_demo() { # start_demo FOLDER ROUNDS
    "$ATOLL" demo --members 3 --rounds "$2" --steps 2 --seed 7 --data "$WORK/text.txt" --dir "$1" --json >"$WORK/demo.out" \
        2>"$WORK/demo.log" &
    demo=$!
    PIDS="$PIDS $demo"
}

start_demo "$WORK/k" 30
until_ 60 in_round "$WORK/k/member-1" 2
kill -9 "$(pid_in "$WORK/k/member-2")"
now=$("$ATOLL" status --dir "$WORK/k/member-1" --json | "$TOOL" get round)
until_ 60 in_round "$WORK/k/member-1" $((now + 2))
kill -9 "$(pid_in "$WORK/k/member-1")"
ends 0 $demo 200 # though two members were killed
is "$("$TOOL" get roots_agree <"$WORK/demo.out")" true
is "$("$TOOL" get ledger <"$WORK/demo.out")" ok
is "$("$TOOL" get rounds <"$WORK/demo.out")" 30
grep -q 'member-2 was killed by signal 9' "$WORK/demo.log" || fail "the death of member-2 was not told"
grep -q 'member-1 was killed by signal 9' "$WORK/demo.log" || fail "the death of member-1 was not told"

for signal in INT KILL; do
    start_demo "$WORK/$signal" 1000
    until_ 60 in_round "$WORK/$signal/member-1" 1
    pids="$(pid_in "$WORK/$signal/member-1") $(pid_in "$WORK/$signal/member-2") $(pid_in "$WORK/$signal/member-3")"
    is "$(echo $pids | wc -w)" 3
    kill -$signal $demo
    ends $([ $signal = KILL ] && echo 137 || echo 130) $demo
    for pid in $pids; do until_ 10 gone "$pid"; done # no member outlives the demo
done
# What an interrupted demo leaves is a run that can go on.
want 0 "$ATOLL" ledger verify "$WORK/INT/member-1"
want 0 "$ATOLL" ledger verify "$WORK/KILL/member-1"

# A member that cannot go on ends the demo, with the end of its log and its exit code.
want 5 sh -c 'ulimit -f 1000; exec "$0" demo --members 2 --rounds 2 --steps 1 --data "$1" --dir "$2"' "$ATOLL" \
    "$WORK/text.txt" "$WORK/full"
says "its log ("
