# A split run: one state root with the single process, whatever the split, the link and the kernels; the same files; a
# rank that dies or hangs ends all ranks in time with one message; bad input is refused in words; --resume goes on.
. "$(dirname "$0")/lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt" # less text, less to evaluate
DATA=$WORK/text.txt
small="--preset $PRESET --data $DATA --replicas 2 --rounds 2 --steps 2 --seed 11 --threads 1"
second=avx512
"$ATOLL" train $small --rounds 1 --steps 1 --kernels avx512 >/dev/null 2>&1 || second=ref

want 0 "$ATOLL" train $small --json --out "$WORK/alone"
root=$(json state_root)
loss=$(json heldout_loss_last)

# same ARGUMENTS...: a split run has that root, and says what each rank needed.
same() {
    want 0 "$ATOLL" train $small "$@" --json
    is "$(json state_root)" "$root" "$*"
    is "$(json heldout_loss_last)" "$loss" "$*"
    is "$("$TOOL" keys <"$WORK/out")" "heldout_loss_first heldout_loss_last ranks rounds seconds state_root tokens tokens_per_s"
    [ "$(json ranks.0.bytes_planned)" -gt 0 ] && [ "$(json ranks.1.bytes_peak)" -gt 0 ] || fail "no memory figures"
    echo "$*: $root"
}
same --tp 2 --link inproc
same --pp 2 --microbatches 2 --link inproc --kernels avx2,$second
same --tp 2 --pp 2 --microbatches 2 --out "$WORK/split" --kernels $second,avx2
same --link tls --recompute
is "$(json ranks.length)" 2
if [ -z "${SANITIZE:-}" ]; then
    same --tp 4 --microbatches 1
    same --pp 4 --microbatches 4 --link inproc
fi

# The files are those of one process, to the byte.
want 0 "$ATOLL" root "$WORK/split"
is "$(cat "$WORK/out")" "$root"
for file in "$WORK"/alone/*; do
    cmp "$file" "$WORK/split/$(basename "$file")" || fail "$(basename "$file") differs"
done
is "$(ls "$WORK/split")" "$(ls "$WORK/alone")"

# Other outer steps, with momentum in the checkpoint and overlap; rounds too short to be looked at each; auto with one
# replica, where no link decides.
for outer in "--outer diloco --young 1 --steps 3" "--outer sparse --young 0.5 --steps 3 --tau 1" "--outer auto --replicas 1"; do
    want 0 "$ATOLL" train $small $outer --json --out "$WORK/a${outer#--outer }"
    other=$(json state_root)
    other_loss=$(json heldout_loss_last)
    other_rounds=$(json rounds)
    want 0 "$ATOLL" train $small $outer --json --tp 2 --link inproc --out "$WORK/b${outer#--outer }"
    is "$(json state_root)" "$other" "$outer"
    is "$(json heldout_loss_last)" "$other_loss" "$outer"
    is "$(json rounds)" "$other_rounds" "$outer"
    want 0 "$ATOLL" root "$WORK/b${outer#--outer }"
    is "$(cat "$WORK/out")" "$other"
done

# auto with links: every choice is in the journal, which has all the steps, and in the answer.
want 0 "$ATOLL" train $small --outer auto --young 0.5 --rounds 4 --steps 4 --link inproc --json --out "$WORK/auto"
is "$(json tokens)" $((2 * 16 * TOKENS))
is "$(sed -n 's/.*"steps":\([0-9]*\),.*/\1/p' "$WORK/auto/journal.jsonl" | awk '{ n += $1 } END { print n }')" 16
lines=$(grep -c '"round":' "$WORK/auto/journal.jsonl")
is "$(grep -o '"rounds":[0-9]*' "$WORK/out" | cut -d: -f2 | awk '{ n += $1 } END { print n }')" "$lines" "rounds that are told"

# Going on: a run that was interrupted, in one process and split, ends in the root of the uninterrupted one under another
# split.
long="--preset $PRESET --data $DATA --replicas 2 --rounds 6 --steps $MANY --seed 11 --threads 1"
want 0 "$ATOLL" train $long --json
whole=$(json state_root)
interrupt_round TERM "$WORK/stopped" "$ATOLL" train $long
interrupt_round INT "$WORK/stopped3" "$ATOLL" train $long --tp 2
want 0 "$ATOLL" train $long --resume "$WORK/stopped3" --json
is "$(json state_root)" "$whole" "interrupted with --tp 2"
cp -r "$WORK/stopped" "$WORK/stopped2"
want 0 "$ATOLL" train $long --resume "$WORK/stopped" --out "$WORK/stopped" --tp 2 --json
is "$(json state_root)" "$whole" "resumed with --tp 2"
want 0 "$ATOLL" root "$WORK/stopped"
is "$(cat "$WORK/out")" "$whole"
want 0 "$ATOLL" train $long --resume "$WORK/stopped2" --link inproc --pp 2 --json
is "$(json state_root)" "$whole" "resumed with --pp 2"
want 0 "$ATOLL" train $long --resume "$WORK/stopped2" --json
is "$(json state_root)" "$whole" "resumed in one process"

# Ctrl-Z reaches rank 0, which stops the others before itself; a stop that is longer than the silence that ends a run blames
# nobody. `timeout` gives the run a process group whose parent is in another one: elsewhere the system ignores the signal.
stopped() {
    for p in "$@"; do [ "$(sed 's/.*) //; s/ .*//' "/proc/$p/stat" 2>/dev/null)" = T ] || return 1; done
}
stopped_or_gone() { stopped "$2" || gone "$1"; }
tries=0
while :; do # a run that is over before the signal reaches it is tried again
    rm -f "$WORK/err"
    timeout 280 "$ATOLL" train $long --tp 2 --json >"$WORK/out" 2>"$WORK/err" &
    pid=$!
    PIDS="$PIDS $pid"
    await_round $pid
    run=$(cat /proc/$pid/task/$pid/children)
    kids=$(cat /proc/${run% }/task/${run% }/children 2>/dev/null || true)
    PIDS="$PIDS $run $kids"
    if [ -n "$run" ] && kill -TSTP $run 2>/dev/null; then until_ $PATIENCE stopped_or_gone $pid $run; fi
    if [ -n "$run" ] && stopped $run; then break; fi
    ends 0 $pid
    tries=$((tries + 1))
    [ $tries -lt 20 ] || fail "ends too early"
done
is "$(echo $kids | wc -w)" 3
until_ 30 stopped $kids
sleep 5
kill -CONT $run
ends 0 $pid
is "$(json state_root)" "$whole" "stopped for 5 s"

# Refused, with what to do; nothing hangs, nothing is written.
refused 2 "--tp" "$ATOLL" train $small --tp 3
refused 2 "1 to" "$ATOLL" train $small --pp 77
refused 2 "--microbatches" "$ATOLL" train $small --pp 2 --microbatches 5000
refused 2 "tls, inproc or mpi" "$ATOLL" train $small --link wire
refused 2 "kernels" "$ATOLL" train $small --tp 2 --kernels avx2,nonsense
refused 3 "no such folder" "$ATOLL" train $small --tp 2 --resume "$WORK/nowhere"
refused 3 "another model" "$ATOLL" train --preset 10m --data "$DATA" --tp 2 --rounds 1 --steps 1 --resume "$WORK/alone"
refused 3 "not empty" "$ATOLL" train $small --tp 2 --out "$WORK/alone"
refused 3 "the same --replicas, --seed and --data" "$ATOLL" train $small --replicas 1 --tp 2 --resume "$WORK/alone"
refused 3 "the same --replicas, --seed and --data" "$ATOLL" train $small --seed 12 --resume "$WORK/alone"
for split in "" "--tp 2 --link inproc" "--pp 2"; do # undamaged, so not called damaged
    want 3 "$ATOLL" train $small --outer diloco --resume "$WORK/alone" $split
    says "$WORK/alone: was trained with another --outer than diloco"
    want 3 "$ATOLL" train $small --resume "$WORK/adiloco --young 1 --steps 3" $split
    says "--steps 3: was trained with another --outer than mean"
done
cp -r "$WORK/alone" "$WORK/bad"
"$TOOL" flip "$WORK/bad/model.safetensors" -9
refused 3 "damaged" "$ATOLL" train $small --rounds 3 --tp 2 --resume "$WORK/bad"
"$TOOL" cut "$WORK/bad/model.safetensors" 5000
refused 3 "model.safetensors" "$ATOLL" train $small --rounds 3 --tp 2 --resume "$WORK/bad"
(ulimit -n 64 && refused 5 "ulimit -n" "$ATOLL" train $small --tp 2)
refused 2 "--plan FILE" "$ATOLL" train $small --tp 2 --listen 127.0.0.1:0

# Weights that make a step not finite: split or not, one message names tensor, layer, replica, round and step; nothing
# hangs, and what was there stays.
cp -r "$WORK/alone" "$WORK/huge"
"${HUGE:?huge_model}" "$WORK/huge"
rm "$WORK/huge/journal.jsonl" # it is of the weights before
before=$(cksum "$WORK"/huge/*)
refused 3 "is not finite (replica 0, round 3, step 1)" "$ATOLL" train $small --rounds 3 --resume "$WORK/huge"
where=$(json error.where) message=$(json error.message)
echo "not finite: $where: $message"
for split in "--tp 2 --link inproc" "--tp 2 --pp 2 --microbatches 2" "--link tls"; do
    "$ATOLL" train $small --rounds 3 --resume "$WORK/huge" --out "$WORK/huge" --json $split >"$WORK/out" 2>"$WORK/err" &
    pid=$!
    PIDS="$PIDS $pid"
    start=$(now)
    kids=
    while alive $pid; do # every rank that is seen must be gone with its parent
        kids="$kids $(cat /proc/$pid/task/$pid/children 2>/dev/null || true)"
        [ $(($(now) - start)) -lt $((PATIENCE * 1000)) ] || fail "still runs: $split"
        sleep 0.05
    done
    ends 3 $pid
    for p in $kids; do ! alive "$p" || fail "a rank outlives the run: $split"; done
    is "$(json error.where)" "$where" "$split"
    is "$(json error.message | sed 's/ (said by rank 0 .*//')" "$message" "$split"
    is "$(grep -c '^atoll: ' "$WORK/err")" 1 "one message"
done
is "$(cksum "$WORK"/huge/*)" "$before"

# In trouble: a rank is killed, or stops answering; rank 0 is.
# trouble SIGNAL WHO TEXT: WHO is 0 (the parent, rank 0) or the number of a child.
trouble() {
    rm -rf "$WORK/t" "$WORK/err"
    save= # where rank 0 stays, there is a checkpoint to go on from
    [ "$2" = 0 ] || save="--save-seconds 1"
    "$ATOLL" train $small --rounds 100000 --tp 2 --out "$WORK/t" $save --json >"$WORK/out" 2>"$WORK/err" &
    pid=$!
    PIDS="$PIDS $pid"
    await_round $pid
    [ "$2" = 0 ] || until_ $PATIENCE test -e "$WORK/t/model.safetensors"
    kids=$(cat /proc/$pid/task/$pid/children)
    PIDS="$PIDS $kids"
    set -- "$1" "$2" "$3" $kids
    victim=$pid
    [ "$2" = 0 ] || victim=$(echo $kids | cut -d' ' -f"$2")
    kill -"$1" "$victim"
    others=$kids
    [ "$2" = 0 ] || others="$pid $kids" # whoever is stopped, stays; the others must not
    all_end_in_time "kill -$1 of rank $2" $others
    kill -9 $pid 2>/dev/null || true
    got=0
    wait $pid || got=$?
    grep -qF -- "$3" "$WORK/err" || fail "stderr does not say '$3': $(cat "$WORK/err")"
    if [ "$2" != 0 ]; then
        is $got 6
        is "$(json error.code)" 6
        is "$(grep -c '^atoll: ' "$WORK/err")" 1 "one message"
        says "the same command with --resume $WORK/t goes on"
    fi
    [ -z "$(ls "$WORK/t" 2>/dev/null | grep tmp)" ] || fail "temporary files were left"
    echo "kill -$1 rank $2: all ended after $took ms: $(grep '^atoll: ' "$WORK/err" | head -n 1)"
}
trouble KILL 2 "rank 2 (replica 1, stage 0, tensor rank 0; pid "
trouble STOP 1 "is gone: silent for 4 s"
trouble KILL 0 "rank 0 (replica 0, stage 0, tensor rank 0; pid "
if [ -z "${SANITIZE:-}" ]; then
    trouble STOP 0 "rank 0 (replica 0, stage 0, tensor rank 0; pid "
fi

# Interrupted twice in the middle of a long round: every process ends at once, and the checkpoint is the one before.
before=$(cksum "$WORK"/stopped2/*)
for link in tls inproc; do
    rm "$WORK/err"
    "$ATOLL" train $small --rounds 100 --steps 100000 --tp 2 --link $link --resume "$WORK/stopped2" \
        --out "$WORK/stopped2" --json >"$WORK/out" 2>"$WORK/err" &
    PIDS="$PIDS $!"
    interrupt_twice INT $!
    is "$(json error.code)" 130
    says "the last checkpoint is whole"
    is "$(cksum "$WORK"/stopped2/*)" "$before" "the second interrupt, $link"
done

# Without --out nothing is kept: one interrupt ends the run, in its last round too, with overlap too.
for more in "--tau 0" "--tau 1"; do
    rm "$WORK/err"
    "$ATOLL" train $small --rounds 1 --steps 100000 --tp 2 --link inproc $more --json >"$WORK/out" 2>"$WORK/err" &
    PIDS="$PIDS $!"
    pid=$!
    until_ $PATIENCE grep -qs '^held-out loss before' "$WORK/err"
    sleep 0.3 # into the round
    kill -INT $pid
    ends 130 $pid
    is "$(json error.code)" 130 "$more"
    says "nothing was written"
done

# A plan's file: here alone, whatever its nodes are; and two "machines", one of them never coming.
layers=$("$TOOL" get num_hidden_layers <"$WORK/alone/config.json")
cat >"$WORK/plan.json" <<EOF
{"plan": 2, "model": "$PRESET", "microbatches": 2, "recompute": false, "replicas": [
  {"stages": [{"layer_first": 0, "layers": 1, "ranks": [{"node": "a"}, {"node": "b"}]},
              {"layer_first": 1, "layers": $((layers - 1)), "ranks": [{"node": "b"}]}]},
  {"stages": [{"layer_first": 0, "layers": $layers, "ranks": [{"node": "a"}]}]}]}
EOF
planned="--data $DATA --rounds 2 --steps 2 --seed 11 --threads 1 --plan $WORK/plan.json"
want 0 "$ATOLL" train $planned --json
is "$(json state_root)" "$root" "--plan"
head -c 32 /dev/urandom >"$WORK/secret"
chmod 644 "$WORK/secret"
port=$((20000 + $$ % 12000)) # below those that the system gives out
far="$planned --secret $WORK/secret"
refused 3 "chmod 600" "$ATOLL" train $far --node a --listen 127.0.0.1:$port
chmod 600 "$WORK/secret"
refused 2 "no node of the plan is called 'c'" "$ATOLL" train $far --node c --join 127.0.0.1:$port
refused 2 "--join" "$ATOLL" train $far --node a --join 127.0.0.1:$port
refused 2 "say HOST:PORT" "$ATOLL" train $far --node a
refused 3 "is a plan for" "$ATOLL" train $far --preset 10m
"$ATOLL" train $far --node b --join 127.0.0.1:$port --json >"$WORK/b.json" 2>"$WORK/b.log" &
pid=$!
PIDS="$PIDS $pid"
want 0 "$ATOLL" train $far --node a --listen 127.0.0.1:$port --json
is "$(json state_root)" "$root" "two machines"
ends 0 $pid
is "$("$TOOL" get state_root <"$WORK/b.json")" "$root" "two machines, node b"
head -c 32 /dev/urandom >"$WORK/secret2"
chmod 600 "$WORK/secret2"
"$ATOLL" train $far --node a --listen 127.0.0.1:$port >"$WORK/a.log" 2>&1 &
pid=$!
PIDS="$PIDS $pid"
until_ 60 grep -qs "waits " "$WORK/a.log"
refused 6 "has another secret" "$ATOLL" train $planned --secret "$WORK/secret2" --node b --join 127.0.0.1:$port
want 6 "$ATOLL" train $far --seed 12 --node b --join 127.0.0.1:$port
says "training settings"
ends 6 $pid
grep -q "has training settings .* where rank 0 has" "$WORK/a.log" || fail "node a does not say what differs: $(cat "$WORK/a.log")"
