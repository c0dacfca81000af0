# One state root: the demo twice, and `train` with every kernel table and thread count (a small round each).
. "$(dirname "$0")/lib.sh"
rounds=${ROUNDS:-2} steps=${STEPS:-3} kernels=${KERNELS:-ref avx2 avx512}
same="--rounds $rounds --steps $steps --seed 7"
if [ "$rounds" = 2 ]; then # fewer held-out windows: the reference kernels are slow under sanitizers
    head -c 60000 "$DATA" >"$WORK/text.txt"
    DATA=$WORK/text.txt
fi

root=
for i in 1 2; do
    want 0 "$ATOLL" demo --members 4 $same --data "$DATA" --dir "$WORK/demo-$i" --json
    [ -n "$root" ] || root=$(json state_root)
    is "$(json state_root)" "$root" "demo $i"
    is "$(json roots_agree)" true
    is "$(json ledger)" ok
    rm -rf "$WORK/demo-$i"
done
for k in $kernels; do
    for threads in 1 2; do
        got=0
        "$ATOLL" train --preset nano --data "$DATA" --replicas 4 $same --kernels $k --threads $threads --json \
            >"$WORK/out" 2>"$WORK/err" || got=$?
        if [ $got -eq 5 ] && grep -q available "$WORK/err"; then
            echo "SKIPPED: $k is not available on this CPU"
            break
        fi
        [ $got -eq 0 ] || fail "train --kernels $k --threads $threads: exit code $got"
        is "$(json state_root)" "$root" "$k, $threads threads"
        echo "$k, $threads threads: $root"
        [ $k != ref ] || break # the reference takes its time
    done
done
