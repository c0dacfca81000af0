# Lossy outer steps in a swarm: two members end on the root of `atoll train` with the same settings, and text and ledger
# alone give it again, error feedback included. Stopped in between, both go on with the error feedback that they had.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/swarm_lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt"
DATA=$WORK/text.txt PRESET=tiny

gather() {
    node b "$ATOLL" $1 --dir "$WORK/b" --threads 1 --json
    b=$PID
    node a "$ATOLL" start --dir "$WORK/a" --threads 1 --json
    a=$PID
}

# Both have ended, on one root, which is computed again; only each member's first unit began with zero error feedback.
check() {
    ends 0 "$a"
    ends 0 "$b"
    root=$(root_of "$WORK/a")
    is "$(root_of "$WORK/b")" "$root" "$1: both members"
    "$ATOLL" ledger show "$WORK/a" --count 100000 --json >"$WORK/log"
    zero=$(grep -o '"kind":"RECEIPT"[^}]*}' "$WORK/log" | grep -vc '"feedback":' || true)
    is "$zero" 2 "$1: units that began with zero error feedback"
    want 0 "$ATOLL" ledger replay "$WORK/a" --json
    is "$(json state_root)" "$root" "$1: computed again from the ledger"
    rm -rf "$WORK/b"
}

for kind in diloco sparse; do
    same="--rounds 3 --steps 3 --seed 11 --outer $kind"
    found "$WORK/a" $same --min-members 2 --round-ms 100000
    gather "join $INVITE"
    check $kind
    if [ "$(grep -o '"included":2' "$WORK/log" | wc -l)" = 3 ]; then
        want 0 "$ATOLL" train --preset $PRESET --data "$DATA" --replicas 2 $same --json
        is "$(json state_root)" "$root" "$kind: atoll train"
    else # a machine so slow that a member missed a round
        echo "$kind: not compared with atoll train: a round closed without one of the two"
    fi
    rm -rf "$WORK/a"
done

found "$WORK/a" --rounds 100000 --steps 1 --seed 11 --outer sparse --keep 40 --min-members 2 --round-ms 100000
gather "join $INVITE"
until_ $PATIENCE round_is_at_least "$WORK/b" 2
kill -INT "$a" "$b"
ends 130 "$a"
ends 130 "$b"
gather start
asked "$WORK/a" round && before=$ANSWER
until_ $PATIENCE round_is_at_least "$WORK/b" $((before + 2))
want 0 "$ATOLL" finish --dir "$WORK/a"
check stopped

refused 2 "choose mean" "$ATOLL" init --dir "$WORK/c" --data "$DATA" --outer auto
refused 2 "4096" "$ATOLL" init --dir "$WORK/c" --data "$DATA" --outer diloco --keep 50
refused 2 "young" "$ATOLL" init --dir "$WORK/c" --data "$DATA" --young 0.5
refused 2 "goes with --outer mean" "$ATOLL" init --dir "$WORK/c" --preset nano --data "$DATA" --stages 2 --outer sparse
