# The demo: the contract for scripts, one state root with `train`, a ledger that verifies, shares that sum to 1.
. "$(dirname "$0")/lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt"

want 0 "$ATOLL" demo --members 3 --preset $PRESET --rounds 2 --steps 2 --seed 7 --data "$WORK/text.txt" --dir "$WORK/d" --json
is "$("$TOOL" keys <"$WORK/out")" \
    "heldout_loss_first heldout_loss_last ledger members roots_agree rounds run_id sample seconds state_root tokens"
is "$(json ledger)" ok
is "$(json roots_agree)" true
is "$(json rounds)" 2
is "$(json tokens)" $((3 * 2 * 2 * TOKENS))
is "$(json members.length)" 3
[ "$(json sample | wc -c)" -ge 400 ] || fail "the sample is short"
root=$(json state_root)
last=$(json heldout_loss_last)
first=$(json heldout_loss_first)
points=0
for i in 0 1 2; do
    is "$(json members.$i.tokens)" $((2 * 2 * TOKENS))
    points=$((points + $(json members.$i.points_confirmed)))
done
is $points 2000000000 "two rounds' issuance"
awk -v a="$(json members.0.share)" -v b="$(json members.1.share)" -v c="$(json members.2.share)" \
    'BEGIN { d = a + b + c - 1; exit !(d < 1e-9 && d > -1e-9) }' || fail "shares do not sum to 1"
grep -q 'round  *1/2' "$WORK/err" && grep -q 'round  *2/2' "$WORK/err" || fail "no line for each round"
grep -q 'verified: every balance recomputed from' "$WORK/err" || fail "the end page does not say that it verified"
! grep -q "$(printf '\033')" "$WORK/err" || fail "escape sequences without a terminal"

want 0 "$ATOLL" train --preset $PRESET --data "$WORK/text.txt" --replicas 3 --rounds 2 --steps 2 --seed 7 --json
is "$(json state_root)" "$root" "train against demo"
is "$(json heldout_loss_last)" "$last"
is "$(json heldout_loss_first)" "$first"

# What the folder holds afterwards is a run like any other.
for i in 1 2 3; do
    want 0 "$ATOLL" root "$WORK/d/member-$i"
    is "$(cat "$WORK/out")" "$root"
    want 0 "$ATOLL" ledger verify "$WORK/d/member-$i" --json
    is "$("$TOOL" keys <"$WORK/out")" "head ledger records stewards term uncovered"
done
# From genesis, text and log alone, computed again: the same root; without the text, an error that names it.
want 0 "$ATOLL" ledger replay "$WORK/d/member-2" --json
is "$("$TOOL" keys <"$WORK/out")" \
    "data_exactly_once head records replay rounds samples_counted samples_waiting seconds state_root tokens units units_without_loss"
is "$(json replay)" ok
is "$(json state_root)" "$root" "replayed"
is "$(json units)" 6
is "$(json units_without_loss)" 0
mkdir "$WORK/bare" && cp "$WORK"/d/member-2/ledger.sqlite* "$WORK/bare"
refused 3 "the run's text is not here" "$ATOLL" ledger replay "$WORK/bare"
want 0 "$ATOLL" points --dir "$WORK/d/member-2"
want 0 "$ATOLL" ledger show "$WORK/d/member-1" --json
is "$(json records.0.kind)" JOIN
is "$(grep -o '"heldout_loss": *[0-9]' "$WORK/out" | wc -l)" 8 "each of six receipts tells a loss, and each EPOCH"
want 0 "$ATOLL" status --dir "$WORK/d/member-3" --json
is "$(json ended)" true
want 0 "$ATOLL" doctor --dir "$WORK/d/member-1" --json
is "$(json ok)" true
want 0 "$ATOLL" ask --dir "$WORK/d/member-2" "Call me " --max-tokens 20
refused 3 "not empty" "$ATOLL" demo --rounds 1 --dir "$WORK/d"
refused 3 "" "$ATOLL" finish --dir "$WORK/d/member-1"
