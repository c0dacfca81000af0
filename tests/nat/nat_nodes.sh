# nat_nodes.sh: whole nodes in the namespaces of nat_lib.sh, which is sourced before (sourced). ATOLL is the program, TOOL is
# cli_tool, DATA the corpus. $name is the test's part: node i lives in $dir/$name.i and writes $dir/$name.i.log.
: "${ATOLL:?}" "${TOOL:?}" "${DATA:?}"
if [ -z "${SANITIZE:-}" ]; then preset=nano; else preset=tiny; fi
head -c 12000 "$DATA" >"$dir/text.txt" || fail "no text"

value() { "$ATOLL" status --dir "$dir/$name.$1" --json 2>/dev/null | "$TOOL" get "$2" 2>/dev/null; }
# at_least NODE FIELD N: waits until it is
at_least() {
    n=0
    until now=$(value "$1" "$2") && [ -n "$now" ] && [ "$now" -ge "$3" ]; do
        n=$((n + 1))
        [ $n -lt 1200 ] || fail "$name: $2 of $1 is '$now', not $3"
        sleep 0.05
    done
}
# node NODE PID COMMAND...: in that namespace, in the background; sets $node
node() {
    node=$1
    where=$2
    shift 2
    nsenter -t "$where" -n "$ATOLL" "$@" --dir "$dir/$name.$node" --threads 1 5>&- 7>&- >/dev/null 2>"$dir/$name.$node.log" & node=$!
    pids="$pids $node"
}
# found MIN_MEMBERS: a run of Y's; sets $invite
found() {
    at $Y "$ATOLL" init --dir "$dir/$name.y" --preset $preset --data "$dir/text.txt" --rounds 100000 --steps 2 --seed 7 \
        --min-members "$1" --round-ms 20000 --listen 198.51.100.2:7000 --json >"$dir/$name.json" 2>"$dir/$name.init.log" ||
        fail "$name: no run"
    invite=$("$TOOL" get invite <"$dir/$name.json") || fail "$name: no invite"
}
