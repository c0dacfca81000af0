# A founder that is attacked in every way for SECONDS (the argument): its rounds go on with both members, its memory stays
# bounded (printed), its links to the members stand, and afterwards the run ends and verifies as if nothing had been.
. "$(dirname "$0")/../cli/lib.sh"
. "$(dirname "$0")/../cli/swarm_lib.sh"
seconds=$1
seed=${ATOLL_SEED:-7}
echo "again: ATOLL_SEED=$seed sh tests/hostile/hostile.sh $seconds (with ATOLL, TOOL, HOSTILE and DATA set)"
head -c 12000 "$DATA" >"$WORK/text.txt"
DATA=$WORK/text.txt

found "$WORK/a" --rounds 1000000 --steps 2 --seed 7 --min-members 3 --round-ms 60000
want 0 "$ATOLL" status --dir "$WORK/a" --json
id=$(json node_id)
node a "$ATOLL" start --dir "$WORK/a" --threads 1 --json
a=$PID
for m in b c; do
    node $m "$ATOLL" join "$INVITE" --dir "$WORK/$m" --threads 1 --name $m --json
    eval "$m=\$PID"
    b_is_in() { [ "$(status "$WORK/$m" joined)" = true ]; }
    until_ $PATIENCE b_is_in
done
until_ $PATIENCE round_is_at_least "$WORK/a" 3

memory() { sed -n "s/^$1:[^0-9]*\([0-9]*\) kB/\1/p" "/proc/$a/status"; }
tokens() { # of member NUMBER, as the founder counts
    "$ATOLL" points --dir "$WORK/a" --json 2>/dev/null | "$TOOL" get "members.$1.tokens"
}
asked "$WORK/a" round && round_before=$ANSWER
memory_before=$(memory VmRSS)
tokens_b=$(tokens 1) tokens_c=$(tokens 2)

attackers=
for kind in ${ATOLL_ATTACKS:-garbage half-open loris oversize disorder replayed records asking hoard}; do
    "$HOSTILE" $kind 127.0.0.1 "$PORT" "$id" "$RUN" "$seconds" "$seed" >>"$WORK/hostile.out" 2>&1 &
    attackers="$attackers $!"
done
PIDS="$PIDS $attackers"
most=0
attacked() {
    rss=$(memory VmRSS)
    [ "${rss:-0}" -le $most ] || most=$rss
    alive "$a" || fail "the founder ended: $(tail -n 5 "$WORK/a.log")"
    for p in $attackers; do gone "$p" || return 1; done
}
until_ $((seconds + PATIENCE)) attacked
for p in $attackers; do wait "$p" || fail "an attacker ended with exit code $?"; done
sort "$WORK/hostile.out"

asked "$WORK/a" round && round_after=$ANSWER
echo "rounds $round_before to $round_after; memory $((memory_before / 1024)) MiB before, $((most / 1024)) MiB at most"
[ "$round_after" -gt "$round_before" ] || fail "no round was finished in $seconds s of attack"
# Links in all, frames in the making, TLS: what strangers may take together. A sanitizer keeps what was freed.
[ -n "${SANITIZE:-}" ] || [ $((most - memory_before)) -lt $((256 * 1024)) ] || fail "the founder's memory grew from $memory_before to $most kB"
works_on() { [ "$(tokens "$1")" -gt "$2" ] 2>/dev/null; }
until_ $PATIENCE works_on 1 "$tokens_b"
until_ $PATIENCE works_on 2 "$tokens_c"
for m in b c; do
    ! grep -F "the way to the steward is down" "$WORK/$m.log" || fail "$m lost its link to the founder"
done

want 0 "$ATOLL" finish --dir "$WORK/a" --json
ends 0 "$a"
ends 0 "$b"
ends 0 "$c"
is "$(root_of "$WORK/b")" "$(root_of "$WORK/a")" "roots after the end"
is "$(root_of "$WORK/c")" "$(root_of "$WORK/a")" "roots after the end"
for m in a b c; do want 0 "$ATOLL" ledger verify "$WORK/$m"; done
! grep -E 'assertion|Sanitizer|runtime error' "$WORK"/*.log || fail "crash"
echo "passed"
