# atoll plan: the documented examples work; the plan file is one JSON object that fits the model; what cannot be is refused
# in words, by file, line or field.
. "$(dirname "$0")/lib.sh"
nodes=$(dirname "$0")/../../docs/nodes.example.json

want 0 "$ATOLL" plan --preset 124m --nodes "$nodes"
for word in replica stage GFLOP/s Bottleneck spare 'ready to take over'; do
    grep -F "$word" "$WORK/out" >/dev/null || fail "the table does not say '$word'"
done

want 0 "$ATOLL" plan --preset 1b --outer sparse --nodes "$nodes" --json
is "$(json plan)" 2
is "$(json model)" 1b
[ "$(json replicas.0.stages.length)" -ge 2 ] || fail "1b fits no single node of the example"
[ "$(json replicas.0.stages.0.ranks.0.bytes)" -gt 1000000000 ] || fail "no memory figures"
cp "$WORK/out" "$WORK/plan.json"
want 0 "$ATOLL" plan --preset 1b --outer sparse --nodes "$nodes" --json
cmp "$WORK/plan.json" "$WORK/out" || fail "planned twice, two plans"

want 0 "$ATOLL" plan --preset 10m --tp 2 --replicas 2 --nodes "$nodes" --json
is "$(json replicas.length)" 2
is "$(json replicas.1.stages.0.ranks.0.node)" office

# A given split has no place for some machines that a search would use: no loss is told where it would be a gain.
want 0 "$ATOLL" plan --preset 10m --tp 2 --nodes "$nodes"
sed -n 's/.*the run would \(rise\|fall\) from \([0-9.]*\) to \([0-9.]*\) .*/\1 \2 \3/p' "$WORK/out" >"$WORK/moves"
awk '($1 == "rise") != ($3 > $2) { exit 1 }' "$WORK/moves" || fail "a rise is told as a fall: $(cat "$WORK/moves")"
grep -q '^rise' "$WORK/moves" || fail "no machine is told to be worth a stage"

want 2 "$ATOLL" plan --preset 7b --nodes "$nodes"
says "these nodes offer 58 GB: add about"
says "or take 1b"
want 2 "$ATOLL" plan --preset 10m
says "atoll bench node"
want 2 "$ATOLL" plan --preset 10m --nodes "$nodes" --replicas 7
says "7 replicas need a node each, and there are 6"
want 2 "$ATOLL" plan --preset 10m --nodes "$nodes" --tp 3
says "tensor ranks"
want 2 "$ATOLL" plan --preset 10m --nodes "$nodes" --tp 8
says "8 ranks need a node each"
want 2 "$ATOLL" plan --preset 12m --nodes "$nodes"
want 3 "$ATOLL" plan --preset 10m --nodes "$WORK/missing.json"
sed 's/"gflops": 600/"gflops": -600/' "$nodes" >"$WORK/bad.json"
want 3 "$ATOLL" plan --preset 10m --nodes "$WORK/bad.json"
says "bad.json: nodes[2].gflops"
sed 's/"gflops": 600,/"gflops": 600/' "$nodes" >"$WORK/bad.json"
want 3 "$ATOLL" plan --preset 10m --nodes "$WORK/bad.json" --json
says "bad.json line 4"
is "$(json error.code)" 3

# This machine's own entry goes into a nodes.json as it is.
want 0 "$ATOLL" bench node --preset "$PRESET" --threads 1 --json
printf '{"nodes": [%s]}' "$(cat "$WORK/out")" >"$WORK/nodes.json"
want 0 "$ATOLL" plan --preset nano --nodes "$WORK/nodes.json"
grep '1 replica' "$WORK/out" >/dev/null || fail "one node, no replica"
