# 10 MB of random bytes (some dressed as TLS) to the steward's and a member's port while a run goes on, and connections
# that say nothing: the run ends with the root it would have had.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/swarm_lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt"
DATA=$WORK/text.txt
PRESET=nano # long enough for 10 MB to arrive meanwhile
rounds=24
[ -z "${SANITIZE:-}" ] || rounds=12
want 0 "$ATOLL" train --data "$DATA" --replicas 2 --rounds $rounds --steps 2 --seed 7 --json
root=$(json state_root)

found "$WORK/a" --rounds $rounds --steps 2 --seed 7 --min-members 2
node a "$ATOLL" start --dir "$WORK/a" --threads 1
a=$PID
until_ 60 members_are "$WORK/a" 1
node b "$ATOLL" join "$INVITE" --dir "$WORK/b" --threads 1
b=$PID
until_ 60 round_is_at_least "$WORK/a" 1
for i in 1 2 3 4; do
    "$TOOL" flood "$PORT" 2500000 >"$WORK/flooded"
    [ "$(cat "$WORK/flooded")" -gt 0 ] || fail "nothing arrived"
done
ends 0 "$a"
ends 0 "$b"
is "$(root_of "$WORK/a")" "$root" "the steward's root after the noise"
is "$(root_of "$WORK/b")" "$root" "the member's root after the noise"
want 0 "$ATOLL" ledger verify "$WORK/a"
