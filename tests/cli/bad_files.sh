# Bad files: one clear line, the right exit code, nothing lost.
. "$(dirname "$0")/lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt" # less text, less to evaluate
DATA=$WORK/text.txt

: >"$WORK/empty.txt"
"$TOOL" noise 20000 >"$WORK/noise.bin"
printf 'too small' >"$WORK/small.txt"
for cmd in "train --rounds 1 --steps 1 --out $WORK/o" "init --dir $WORK/r"; do
    refused 3 "missing.txt" "$ATOLL" $cmd --data "$WORK/missing.txt"
    refused 3 "empty" "$ATOLL" $cmd --data "$WORK/empty.txt"
    refused 3 "noise.bin" "$ATOLL" $cmd --data "$WORK/noise.bin"
    refused 3 "bytes" "$ATOLL" $cmd --data "$WORK/small.txt"
    refused 3 "$WORK" "$ATOLL" $cmd --data "$WORK"
done
[ ! -e "$WORK/o/model.safetensors" ] && [ ! -e "$WORK/r/genesis" ] || fail "a refused command left files"

# A damaged checkpoint: every file, cut or with one bit changed, is refused by `root` and `ask`.
want 0 "$ATOLL" train --preset $PRESET --data "$DATA" --rounds 1 --steps 1 --out "$WORK/m"
want 0 "$ATOLL" root "$WORK/m"
root=$(cat "$WORK/out")
for file in "$WORK"/m/*; do
    [ "$(basename "$file")" != journal.jsonl ] || continue # read by --resume only: below
    size=$(wc -c <"$file")
    cp "$file" "$WORK/keep"
    for damage in "flip $file 20" "flip $file $((size / 2))" "flip $file -3" "cut $file $((size - 1))" "cut $file 7" "cut $file 0"; do
        "$TOOL" $damage
        refused 3 "" "$ATOLL" root "$WORK/m"
        refused 3 "" "$ATOLL" ask --dir "$WORK/m" x
        cp "$WORK/keep" "$file"
    done
    rm "$file"
    refused 3 "" "$ATOLL" root "$WORK/m"
    cp "$WORK/keep" "$file"
done
want 0 "$ATOLL" root "$WORK/m"
is "$(cat "$WORK/out")" "$root"

# A damaged journal: nothing goes on from it, and nothing is changed.
resume="$ATOLL train --preset $PRESET --data $DATA --rounds 2 --steps 1 --resume $WORK/m"
cp "$WORK/m/journal.jsonl" "$WORK/keep"
for damage in "flip $WORK/m/journal.jsonl 1" "cut $WORK/m/journal.jsonl 7" "cut $WORK/m/journal.jsonl 0"; do
    "$TOOL" $damage
    refused 3 "journal.jsonl" $resume
    cp "$WORK/keep" "$WORK/m/journal.jsonl"
done
# Nor from a journal of another run, whatever is alike.
want 0 "$ATOLL" train --preset $PRESET --data "$DATA" --rounds 1 --steps 2 --out "$WORK/m2"
cp "$WORK/m2/journal.jsonl" "$WORK/m"
for split in "" "--tp 2 --link inproc"; do
    want 3 $resume $split
    says "$WORK/m/journal.jsonl"
    says "is of another run"
done
sed 's/"root":"[0-9a-f]*"/"root":null/' "$WORK/keep" >"$WORK/m/journal.jsonl" # of a round that was never saved
want 3 $resume
says "is of another run"
cp "$WORK/keep" "$WORK/m/journal.jsonl"
# Nor with another text of the same length; a journal of before it said which text it was is believed.
tr e i <"$DATA" >"$WORK/other.txt"
other="$ATOLL train --preset $PRESET --data $WORK/other.txt --rounds 2 --steps 1 --resume $WORK/m"
for split in "" "--tp 2 --link inproc"; do
    want 3 $other $split
    says "$WORK/m/journal.jsonl"
    says "another text"
done
sed '1s/"atoll_journal":2/"atoll_journal":1/; 1s/,"text":"[0-9a-f]*"//' "$WORK/keep" >"$WORK/m/journal.jsonl"
want 0 $other
cp "$WORK/keep" "$WORK/m/journal.jsonl"
is "$("$ATOLL" root "$WORK/m" 2>/dev/null)" "$root"
want 0 $resume
refused 3 "no such folder" "$ATOLL" root "$WORK/nowhere"
refused 3 "no model" "$ATOLL" ask --dir "$WORK" x

# A full disk, as a limit on the size of files: an error, and no half-written model.
want 5 sh -c 'ulimit -f 1000; exec "$0" train --data "$1" --rounds 1 --steps 1 --out "$2"' "$ATOLL" "$DATA" "$WORK/full"
[ ! -e "$WORK/full/model.safetensors" ] || fail "a half-written model was left"
ls "$WORK/full" | grep -v '^config.json$\|^stats-\|^journal.jsonl' && fail "temporary files were left"
true

# A file where a run's folder is expected.
: >"$WORK/file"
refused 3 "no node runs" "$ATOLL" finish --dir "$WORK/file"
