# The demo in trouble of its own making: members, the founder too, are killed, paused and cut off by a seed's schedule, each
# at least once, and still there is one root, a ledger that verifies, and every sample counts once; and the run computed again gives that root.
. "$(dirname "$0")/lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt"
want 0 "$ATOLL" demo --members 3 --chaos --seed "${ATOLL_SEED:-3}" --preset $PRESET --rounds 4 --steps 2 --data "$WORK/text.txt" \
    --dir "$WORK/d" --json
is "$("$TOOL" keys <"$WORK/out")" \
    "data_exactly_once heldout_loss_first heldout_loss_last kills ledger members partitions pauses roots_agree rounds run_id sample seconds state_root tokens"
is "$(json rounds)" 4
is "$(json roots_agree)" true
is "$(json ledger)" ok
is "$(json data_exactly_once)" true
for kind in kills pauses partitions; do [ "$(json $kind)" -ge 1 ] || fail "no $kind"; done
is "$(grep -c 'kill -9 member-' "$WORK/err")" "$(json kills)"
is "$(grep -c 'is paused for' "$WORK/err")" "$(json pauses)"
is "$(grep -cE 'cut off (from|one way)' "$WORK/err")" "$(json partitions)"
is "$(grep -c 'connected again; .* bytes had waited' "$WORK/err")" "$(json partitions)" "each cut has healed"
# Their wires lie between them: what a member tells is not where it listens.
for i in 1 2 3; do
    grep -q "^listen=127.77.0.$i:" "$WORK/d/member-$i/node.ini" || fail "member-$i has no address of its own"
    is "$(sed -n "s/^announce=127.77.0.$i:.*/told/p" "$WORK/d/member-$i/node.ini")" told
done
grep -q "counts exactly once" "$WORK/err" || fail "people are not told"
root=$(json state_root)
tokens=$(json tokens)
want 0 "$ATOLL" ledger replay "$WORK/d/member-3" --json
is "$(json state_root)" "$root" "replayed"
is "$(json tokens)" "$tokens"
! grep -E 'assertion|Sanitizer|runtime error' "$WORK"/d/*.log || fail "crash"
