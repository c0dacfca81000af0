# The ledger: one byte changed, a record dropped, swapped, repeated, or a stranger's: exit code 4 and the record named.
. "$(dirname "$0")/lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt"
want 0 "$ATOLL" demo --preset $PRESET --members 2 --rounds 2 --steps 1 --seed 1 --data "$WORK/text.txt" --dir "$WORK/d" --json
cp "$WORK"/d/member-1/ledger.sqlite* "$WORK/" 2>/dev/null
want 0 "$ATOLL" ledger verify "$WORK/ledger.sqlite" --json
n=$(json records)
[ "$n" -ge 10 ] || fail "only $n records"
"$TOOL" sql "$WORK/ledger.sqlite" "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode=DELETE" >/dev/null
cp "$WORK/ledger.sqlite" "$WORK/good.sqlite"

# bad RECORD STATEMENT: after the statement, verify names this record.
bad() {
    cp "$WORK/good.sqlite" "$WORK/bad.sqlite"
    "$TOOL" sql "$WORK/bad.sqlite" "$2" >/dev/null
    want 4 "$ATOLL" ledger verify "$WORK/bad.sqlite" --json
    says "record $1"
    is "$("$TOOL" keys <"$WORK/out")" "ledger reason record"
    is "$(json ledger)" bad
    is "$(json record)" "$1" "$2"
}

last=$((n - 1)) i=0 step=1
[ -z "${SANITIZE:-}" ] || step=3 # the same code each time
while [ $i -lt "$n" ]; do
    # One bit of the first, the middle and the last byte of each column.
    for column in body author sig; do
        for at in 1 "length($column)/2" "length($column)"; do
            hex=$("$TOOL" sql "$WORK/good.sqlite" "SELECT hex(substr($column, $at, 1)) FROM record WHERE idx=$i")
            flipped=$(printf '%02X' $((0x$hex ^ 1)))
            [ $((i % 3)) -eq 0 ] || [ "$at" = 1 ] || continue
            bad $i "UPDATE record SET $column = CAST(substr($column, 1, $at - 1) || x'$flipped' || substr($column, $at + 1) AS BLOB) WHERE idx=$i"
        done
    done
    if [ $((i % 4)) -eq 0 ] || [ $i -eq $last ]; then
        # Dropped: a hole; and closed up, as a thief would do it.
        [ $i -eq $last ] || bad $i "DELETE FROM record WHERE idx=$i"
        bad $i "DELETE FROM record WHERE idx=$i; UPDATE record SET idx=-idx WHERE idx>$i; UPDATE record SET idx=-idx-1 WHERE idx<0"
        # Repeated: once more behind itself.
        bad $((i + 1)) "UPDATE record SET idx=-idx WHERE idx>$i; UPDATE record SET idx=-idx+1 WHERE idx<0; INSERT INTO record SELECT $((i + 1)), body, author, sig FROM record WHERE idx=$i"
    fi
    # Swapped with the next.
    if [ $i -lt $last ] && [ $((i % 4)) -eq 1 ]; then
        bad $i "UPDATE record SET idx=-1 WHERE idx=$i; UPDATE record SET idx=$i WHERE idx=$((i + 1)); UPDATE record SET idx=$((i + 1)) WHERE idx=-1"
    fi
    i=$((i + step))
done

# A stranger's record, well signed, from another run: behind the last, and in the place of one.
want 0 "$ATOLL" demo --preset $PRESET --members 1 --rounds 1 --steps 1 --seed 2 --data "$WORK/text.txt" --dir "$WORK/e" --json
cp "$WORK"/e/member-1/ledger.sqlite* "$WORK/e/" 2>/dev/null
"$TOOL" sql "$WORK/e/ledger.sqlite" "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode=DELETE" >/dev/null
stranger="ATTACH '$WORK/e/ledger.sqlite' AS e;"
bad "$n" "$stranger INSERT INTO record SELECT $n, body, author, sig FROM e.record WHERE idx=0"
bad 3 "$stranger DELETE FROM record WHERE idx=3; INSERT INTO record SELECT 3, body, author, sig FROM e.record WHERE idx=0"
# A checkpoint's root changed.
want 0 cp "$WORK/good.sqlite" "$WORK/bad.sqlite"
"$TOOL" sql "$WORK/bad.sqlite" "UPDATE checkpoint SET root = zeroblob(32) WHERE size = (SELECT max(size) FROM checkpoint)" >/dev/null
want 4 "$ATOLL" ledger verify "$WORK/bad.sqlite"

# Not a ledger at all.
"$TOOL" noise 5000 >"$WORK/noise.sqlite"
refused 3 "" "$ATOLL" ledger verify "$WORK/noise.sqlite"
refused 3 "no such file" "$ATOLL" ledger verify "$WORK/nothing"
refused 3 "no ledger" "$ATOLL" ledger verify "$WORK/d"
want 0 "$ATOLL" ledger verify "$WORK/good.sqlite"

# A folder of another version of the program: whatever reads it says so.
cp -r "$WORK/d/member-1" "$WORK/old"
want 0 "$ATOLL" status --dir "$WORK/old" --json
"$TOOL" sql "$WORK/old/ledger.sqlite" "UPDATE meta SET value = CAST(x'0801' || substr(value, 3) AS BLOB) WHERE key = 'genesis'" >/dev/null
is "$("$TOOL" sql "$WORK/old/ledger.sqlite" "SELECT hex(substr(value, 1, 2)) FROM meta WHERE key = 'genesis'")" 0801
version="its genesis is of version 1"
refused 3 "$version" "$ATOLL" ledger verify "$WORK/old"
refused 3 "$version" "$ATOLL" status --dir "$WORK/old"
refused 3 "$version" "$ATOLL" start --dir "$WORK/old"
