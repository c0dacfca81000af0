# Eight members in groups of two, a pipeline stage each. Undisturbed, the root is that of one process with as many replicas
# as there are groups. While members, the founder too, are killed, paused and cut off: one root, a ledger that verifies, every sample
# counts once; and the run computed again gives that root.
. "$(dirname "$0")/lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt"
want 0 "$ATOLL" train --replicas 4 --preset $PRESET --rounds 2 --steps 4 --seed 5 --data "$WORK/text.txt" --json
root=$(tail -n 1 "$WORK/out" >"$WORK/last" && mv "$WORK/last" "$WORK/out" && json state_root)
want 0 "$ATOLL" demo --members 8 --stages 2 --groups-by-log --preset $PRESET --rounds 2 --steps 4 --seed 5 --data "$WORK/text.txt" --dir "$WORK/c" --json
is "$(json state_root)" "$root" "groups of two"
is "$(json roots_agree)" true
want 0 "$ATOLL" ledger show "$WORK/c/member-1" --json
[ "$(grep -o '"heldout_loss": *[0-9]' "$WORK/out" | wc -l)" -ge 4 ] || fail "no loss in two EPOCHs and receipts of last stages"

want 0 "$ATOLL" demo --members 8 --stages 2 --chaos --seed "${ATOLL_SEED:-3}" --preset $PRESET --rounds 5 --steps 4 \
    --data "$WORK/text.txt" --dir "$WORK/d" --json
is "$(json rounds)" 5
is "$(json roots_agree)" true
is "$(json ledger)" ok
is "$(json data_exactly_once)" true
for kind in kills pauses partitions; do [ "$(json $kind)" -ge 1 ] || fail "no $kind"; done
root=$(json state_root)
tokens=$(json tokens)
want 0 "$ATOLL" ledger replay "$WORK/d/member-8" --json
is "$(json state_root)" "$root" "replayed"
is "$(json tokens)" "$tokens"
! grep -E 'assertion|Sanitizer|runtime error' "$WORK"/*/*.log || fail "crash"

want 2 "$ATOLL" init --dir "$WORK/e" --preset nano --stages 5 --data "$WORK/text.txt"
grep -q "1 to 4 stages" "$WORK/err" || fail "not said what is possible"
