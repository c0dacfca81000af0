# A run's folder that was damaged while its node was down: one clear line and exit code 3 or 4, or a repair that leads to
# the right root; nothing is lost either way.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/swarm_lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt"
DATA=$WORK/text.txt
rounds=8
[ -z "${SANITIZE:-}" ] || rounds=100
want 0 "$ATOLL" train --preset $PRESET --data "$DATA" --rounds $rounds --steps 2 --seed 7 --json
root=$(json state_root)

# A run that stopped in the middle; one that was over before the signal reached it is tried again.
got=0 tries=0
while [ $got -eq 0 ] && [ $tries -lt 20 ]; do
    rm -rf "$WORK/good"
    found "$WORK/good" --rounds $rounds --steps 2 --seed 7
    node good "$ATOLL" start --dir "$WORK/good" --threads 1
    until_ 60 round_is_at_least "$WORK/good" 2
    kill -INT "$PID" 2>/dev/null || true
    until_ 60 gone "$PID"
    got=0 tries=$((tries + 1))
    wait "$PID" 2>/dev/null || got=$?
done
is $got 130 "interrupted"

# try FILE DAMAGE...: what `start` makes of a copy with that damage.
try() {
    rm -rf "$WORK/copy"
    cp -r "$WORK/good" "$WORK/copy"
    "$TOOL" "$@"
    got=0
    timeout 60 "$ATOLL" start --dir "$WORK/copy" --threads 1 --json >"$WORK/out" 2>"$WORK/err" || got=$?
    case $got in
    0) is "$(json state_root)" "$root" "after a repair: $*" ;;
    3 | 4)
        says "atoll: "
        is "$(json error.code)" $got
        ;;
    6) [ "$(basename "$2")" = key ] || fail "start after '$*' ended with exit code 6" ;; # another key is another node
    *) fail "start after '$*' ended with exit code $got" ;;
    esac
    echo "$1 ${2#"$WORK/copy/"} $3: exit code $got $(grep '^atoll: ' "$WORK/err" || true)"
}
c=$WORK/copy
stats=$(basename "$(ls "$WORK"/good/stats-*)")
for file in model.safetensors "$stats" config.json genesis key node.ini ledger.sqlite; do
    [ -e "$WORK/good/$file" ] || continue
    size=$(wc -c <"$WORK/good/$file")
    try flip "$c/$file" $((size / 2))
    try cut "$c/$file" $((size / 2))
    try cut "$c/$file" 0
done
shard=$(ls "$WORK/good/data" | head -n 1)
try flip "$c/data/$shard" 5000
try cut "$c/data/$shard" 100

# The undamaged folder goes on.
want 0 "$ATOLL" start --dir "$WORK/good" --threads 1 --json
is "$(json state_root)" "$root"
