# The demo as a newcomer runs it: held-out loss from >= 5.4 to <= 2.0 nats/byte within 150 s on two quiet cores, and a
# sample that is mostly words of the corpus.
. "$(dirname "$0")/lib.sh"
want 0 "$ATOLL" demo --dir "$WORK/d" --json
tail -n 40 "$WORK/err"
awk -v a="$(json heldout_loss_first)" -v b="$(json heldout_loss_last)" -v s="$(json seconds)" 'BEGIN {
    printf "held-out %s -> %s in %s s\n", a, b, s
    exit !(a >= 5.4 && b <= 2.0 && s <= 150)
}' || fail "the bar is missed"
[ "$(json sample | wc -c)" -ge 400 ] || fail "the sample is short"
known=$(json sample | "$TOOL" words "$DATA")
echo "$known % of the sample's words are in the corpus"
[ "$known" -ge 60 ] || fail "only $known % of the sample's words are in the corpus"
is "$(json roots_agree)" true
is "$(json ledger)" ok
