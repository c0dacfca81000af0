# Help everywhere with examples; mistakes on the command line end with exit code 2 and a hint.
. "$(dirname "$0")/lib.sh"

want 0 "$ATOLL" --help
commands=$(sed -n 's/^  \([a-z]*\)  .*/\1/p' "$WORK/out" | grep -v '^atoll$')
[ "$(echo "$commands" | wc -l)" -ge 12 ] || fail "the overview lists too few commands: $commands"
for c in $commands; do
    want 0 "$ATOLL" "$c" --help
    grep -q '^examples:' "$WORK/out" || fail "$c --help has no examples"
    grep -q "^  .*atoll $c" "$WORK/out" || fail "$c --help has no example of $c"
    cp "$WORK/out" "$WORK/help"
    want 0 "$ATOLL" help "$c"
    cmp -s "$WORK/out" "$WORK/help" || fail "help $c differs from $c --help"
    wide=$(awk 'length($0) > 80' "$WORK/help")
    [ -z "$wide" ] || fail "$c --help does not fit 80 columns: $wide"
done

want 2 "$ATOLL"
says "no command given"
refused 2 "did you mean \`atoll train\`?" "$ATOLL" tarin
refused 2 "unknown command" "$ATOLL" xyzzy
refused 2 "did you mean --rounds?" "$ATOLL" train --round
refused 2 "did you mean --threads?" "$ATOLL" train --thread 2
refused 2 "--threads: 0: must be 1 to 64" "$ATOLL" train --threads 0
refused 2 "--threads: 0: must be 1 to 64" "$ATOLL" start --dir "$WORK/x" --threads 0
refused 2 "--threads: 65: must be 1 to 64" "$ATOLL" bench gemm --threads 65
refused 2 "--rounds: 1.5 is not a whole number" "$ATOLL" train --rounds 1.5
refused 2 "--temperature: hot is not a number" "$ATOLL" ask --dir "$WORK" --temperature hot prompt
want 2 "$ATOLL" train --json --seed
says "needs a value"
is "$(json error.code)" 2
refused 2 "unknown preset" "$ATOLL" train --preset huge --data "$DATA"
refused 2 "nano" "$ATOLL" init --dir "$WORK/x" --preset huge --data "$DATA"
refused 2 "usage: atoll root" "$ATOLL" root a b
refused 2 "did you mean \`atoll ledger verify\`?" "$ATOLL" ledger verfy
refused 2 "usage: atoll join" "$ATOLL" join --dir "$WORK/x"
refused 2 "--dir" "$ATOLL" start
refused 2 "unknown kernels" "$ATOLL" train --kernels sse9
refused 2 "a list needs several ranks" "$ATOLL" train --data "$DATA" --kernels ref,ref
refused 2 "verify, replay, show or export is missing" "$ATOLL" ledger
refused 2 "gemm, train, sync or node" "$ATOLL" bench
mkdir "$WORK/empty"
refused 2 "atoll ledger verify DIR" sh -c 'cd "$1" && exec "$2" ledger verify $3' - "$WORK/empty" "$(realpath "$ATOLL")"

want 0 "$ATOLL" version
grep -q '^atoll [0-9]' "$WORK/out" || fail "version"
want 0 "$ATOLL" version --json
json version >/dev/null
want 5 sh -c '"$0" version >/dev/full' "$ATOLL"
says "stdout"

# An interrupted bench is an error like any other: one object, 130.
"$ATOLL" bench train --preset tiny --json >"$WORK/out" 2>"$WORK/err" &
PIDS=$!
until_ 60 grep -q "needs" "$WORK/err"
kill -TERM "$PIDS"
ends 130 "$PIDS"
is "$(json error.code)" 130
