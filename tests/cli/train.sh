# `train`: the JSON contract; one state root for every kernel table and thread count; a model that `ask` and `root`
# read; whole files or none.
. "$(dirname "$0")/lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt" # less text, less to evaluate
DATA=$WORK/text.txt
small="--preset $PRESET --data $DATA --replicas 2 --rounds 2 --steps 1 --seed 7"

want 0 "$ATOLL" train $small --out "$WORK/m" --json
is "$("$TOOL" keys <"$WORK/out")" "curve heldout_loss_first heldout_loss_last rounds seconds state_root tokens tokens_per_s"
root=$(json state_root)
is "$(echo "$root" | tr -d '0-9a-f' | wc -c)" 1 "lower-case hex"
is "${#root}" 64
is "$(json tokens)" $((2 * 2 * 1 * TOKENS))
for key in heldout_loss_first heldout_loss_last; do
    value=$(sed -n "s/.*\"$key\":\([^,}]*\).*/\1/p" "$WORK/out")
    is "$value" "$(awk -v v="$value" 'BEGIN { printf "%.9g", v }')" "$key as %.9g"
done
want 0 "$ATOLL" root "$WORK/m"
is "$(cat "$WORK/out")" "$root"

for kernels in ref avx2 avx512; do
    for threads in 1 2; do
        got=0
        "$ATOLL" train $small --kernels $kernels --threads $threads --json >"$WORK/out" 2>"$WORK/err" || got=$?
        if [ $got -eq 5 ]; then
            says "available"
            [ "$(json error.code)" = 5 ] || fail "no error object"
            echo "SKIPPED: $kernels is not available on this CPU"
            break
        fi
        [ $got -eq 0 ] || fail "train --kernels $kernels --threads $threads: exit code $got"
        is "$(json state_root)" "$root" "$kernels, $threads threads"
        [ $kernels != ref ] || break # one_root.sh and the conformance tests say more
    done
done

# Asking: streamed, the same text for the same seed and kernels of any kind, another for another seed.
want 0 "$ATOLL" ask --dir "$WORK/m" "Call me " --max-tokens 200 --seed 3 --json
is "$(json state_root)" "$root"
is "$(json tokens)" 200
text=$(json text)
want 0 "$ATOLL" ask --dir "$WORK/m" "Call me " --max-tokens 200 --seed 3 --kernels ref --threads 2 --json
is "$(json text)" "$text"
want 0 "$ATOLL" ask --dir "$WORK/m" "Call me " --max-tokens 200 --seed 4 --json
[ "$(json text)" != "$text" ] || fail "another seed, the same text"
want 0 "$ATOLL" ask --dir "$WORK/m" "Call me " --max-tokens 200 --seed 3
is "$(cat "$WORK/out")" "$text" "streamed text"
want 0 "$ATOLL" ask --dir "$WORK/m" "x" --max-tokens 5 --temperature 0 --top-k 3 --top-p 0.9
refused 2 "--temperature" "$ATOLL" ask --dir "$WORK/m" x --temperature -1

# Rounds that are not alike are counted by what they were: auto begins with short ones, here for half of 16 steps.
want 0 "$ATOLL" train $small --outer auto --young 0.5 --rounds 4 --steps 4 --json
is "$(json rounds.length)" 2
is "$(json rounds.0.codec) $(json rounds.0.k) $(json rounds.0.steps) $(json rounds.0.rounds)" "plain 0 2 4"
is "$(json rounds.1.codec) $(json rounds.1.k) $(json rounds.1.steps) $(json rounds.1.rounds)" "plain 0 4 2"
is "$(json tokens)" $((2 * 16 * TOKENS))
says "round 4, step 8/16"
says ", plain, 2 steps"
want 0 "$ATOLL" train $small --outer auto --json # so short a run is young throughout
is "$(json rounds.0.steps)" 1

# Nothing is overwritten.
before=$(cksum "$WORK/m/model.safetensors")
refused 3 "not empty" "$ATOLL" train $small --out "$WORK/m"
is "$(cksum "$WORK/m/model.safetensors")" "$before"

# Interrupted: the running round is finished, and a run that goes on from there ends as if nothing had been.
long="--preset $PRESET --data $DATA --replicas 2 --rounds 8 --steps $MANY --seed 7 --threads 1"
want 0 "$ATOLL" train $long --json
whole=$(json state_root)
interrupt_round INT "$WORK/i" "$ATOLL" train $long
want 0 "$ATOLL" root "$WORK/i" --json
[ "$(json round)" -ge 1 ] && [ "$(json round)" -lt 8 ] || fail "round $(json round) in the saved model"
cp -r "$WORK/i" "$WORK/i2"
want 0 "$ATOLL" train $long --resume "$WORK/i" --json
is "$(json state_root)" "$whole" "resumed after an interrupt"

# A second time: at once, with the files of the checkpoint before and no others.
before=$(cksum "$WORK"/i2/*)
rm "$WORK/err"
"$ATOLL" train $long --steps 100000 --resume "$WORK/i2" --out "$WORK/i2" --json >"$WORK/out" 2>"$WORK/err" &
PIDS=$!
interrupt_twice TERM $PIDS
is "$(json error.code)" 130
is "$(cksum "$WORK"/i2/*)" "$before" "the second interrupt"

# Without --out there is nothing to finish a round for.
rm "$WORK/err"
"$ATOLL" train $long --steps 100000 >"$WORK/out" 2>"$WORK/err" &
PIDS=$!
until_ $PATIENCE grep -qs '^held-out loss before' "$WORK/err"
kill -INT $PIDS
ends 130 $PIDS
says "nothing was written"

# A first save that comes to no model leaves a folder that the next run takes; one with somebody else's files it does not.
want 5 sh -c 'data=$1 out=$2; shift 2; ulimit -f 40; exec "$0" train "$@" --data "$data" --out "$out"' "$ATOLL" \
    "$DATA" "$WORK/first" $small
says "$WORK/first"
[ -e "$WORK/first/config.json" ] || mkdir -p "$WORK/first"
touch "$WORK/first/journal.jsonl" "$WORK/first/replica-0000-0123456789abcdef.safetensors"
want 0 "$ATOLL" train $small --out "$WORK/first"
is "$(ls "$WORK/first" | grep -c replica)" 0
mkdir "$WORK/foreign"
touch "$WORK/foreign/config.json"
refused 3 "the folder is not empty" "$ATOLL" train $small --out "$WORK/foreign"

# One run at a time writes into a folder, with a checkpoint in it or not yet; who reads does not wait; a killed run is none.
tiny="--preset tiny --data $DATA --seed 7 --threads 1"
"$ATOLL" train $tiny --rounds 1000000 --steps 1 --save-seconds 0 --out "$WORK/one" >"$WORK/one.log" 2>&1 &
one=$!
"$ATOLL" train $tiny --rounds 1000000 --steps 1 --save-seconds 1000000 --out "$WORK/new" >"$WORK/new.log" 2>&1 &
new=$!
PIDS="$PIDS $one $new"
until_ $PATIENCE test -f "$WORK/one/model.safetensors"
until_ $PATIENCE grep -qs '^held-out loss before' "$WORK/new.log"
kill -STOP $one $new # they hold on to their folders, and to no processor
again="$ATOLL train $tiny --rounds 1 --steps 1 --resume $WORK/one --out $WORK/one"
refused 5 "another process writes into the folder $WORK/one" $again
refused 5 "another process writes into the folder $WORK/one" $again --tp 2
refused 5 "another process writes into the folder $WORK/new" "$ATOLL" train $tiny --rounds 1 --steps 1 --out "$WORK/new"
is "$(ls -A "$WORK/new")" "" "files where nothing is saved yet"
want 0 "$ATOLL" root "$WORK/one"
kill -9 $one $new
wait $one $new 2>/dev/null || true
want 0 $again
: >"$WORK/one/lock" # a swarm's folder: its node holds this
want 5 flock "$WORK/one/lock" $again
says "another atoll runs in $WORK/one"
want 0 "$ATOLL" train $tiny --rounds 1 --steps 1 --out "$WORK/new"

# Where nothing can be written, that is said before the first round; a folder made for it goes again.
refused 3 "/proc/none" "$ATOLL" train $tiny --rounds 1 --steps 1 --out /proc/none
! grep -q 'held-out' "$WORK/err" || fail "trained first: $(cat "$WORK/err")"
deep=$WORK
while [ ${#deep} -lt 800 ]; do deep=$deep/$(printf %0100d 0); done
deep=$deep/$(printf "%0$((1011 - ${#deep}))d" 0) # its files' paths are too long
refused 3 "too long" "$ATOLL" train $tiny --rounds 1 --steps 1 --out "$deep" --tp 2 --link inproc
! grep -q 'held-out' "$WORK/err" || fail "trained first: $(cat "$WORK/err")"
[ ! -e "$deep" ] || fail "an empty folder was left"
if [ "$(id -u)" != 0 ]; then
    mkdir -m 555 "$WORK/shut"
    refused 5 "$WORK/shut/model.safetensors" "$ATOLL" train $tiny --rounds 1 --steps 1 --out "$WORK/shut"
fi
