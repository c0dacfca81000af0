# Nodes by hand: init, start, join from other folders, status, finish; a member killed with kill -9 comes back; noise on
# the port; a folder cannot be used twice.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/swarm_lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt"
DATA=$WORK/text.txt

found "$WORK/a" --rounds 100000 --steps 2 --seed 7 --round-ms 20000
[ "$(stat -c %a "$WORK/a/key")" = 600 ] || fail "the key can be read by others"
refused 3 "" "$ATOLL" init --dir "$WORK/a" --data "$DATA" # another run must not overwrite this one
node a "$ATOLL" start --dir "$WORK/a" --threads 1 --json
a=$PID
until_ 60 round_is_at_least "$WORK/a" 1
[ "$(stat -c %a "$WORK/a/control.sock")" = 600 ] || fail "the control socket is open to others"
refused 5 "runs in" "$ATOLL" start --dir "$WORK/a"

# A port in use.
mkfifo "$WORK/pipe"
"$TOOL" hold 0 <"$WORK/pipe" >"$WORK/port" &
PIDS="$PIDS $!"
exec 9>"$WORK/pipe"
until_ 10 test -s "$WORK/port"
refused 5 "$(cat "$WORK/port")" "$ATOLL" init --dir "$WORK/p" --data "$DATA" --listen "127.0.0.1:$(cat "$WORK/port")"
refused 5 "$PORT" "$ATOLL" init --dir "$WORK/p" --data "$DATA" --listen "127.0.0.1:$PORT"
refused 2 "" "$ATOLL" init --dir "$WORK/p" --data "$DATA" --listen "127.0.0.1:99999"

# Wrong invites: cut, changed, empty, of nobody.
refused 6 "" "$ATOLL" join "$(echo "$INVITE" | cut -c 1-40)" --dir "$WORK/x"
refused 6 "" "$ATOLL" join "${INVITE}a" --dir "$WORK/x"
refused 6 "" "$ATOLL" join "$(echo "$INVITE" | tr 'abcdefg' 'bcdefga')" --dir "$WORK/x"
refused 6 "" "$ATOLL" join "hello" --dir "$WORK/x"
refused 6 "" "$ATOLL" join "" --dir "$WORK/x"

# Two join at different times.
node b "$ATOLL" join "$INVITE" --dir "$WORK/b" --threads 1 --name bea --json
b=$PID
until_ 60 members_are "$WORK/a" 2
b_is_member() { [ "$(status "$WORK/b" joined)" = true ]; }
until_ 60 b_is_member
want 0 "$ATOLL" invite --dir "$WORK/b" # any member lets others in
THROUGH_B=$(cat "$WORK/out")
[ "$THROUGH_B" != "$INVITE" ] || fail "b's invite does not name b"
node c "$ATOLL" join "$THROUGH_B" --dir "$WORK/c" --threads 1 --json
c=$PID
until_ 60 members_are "$WORK/a" 3
until_ 60 status_is "$WORK/b" run_id "$RUN"
until_ 60 status_is "$WORK/a" members.1.name bea

# A folder of another run.
want 0 "$ATOLL" init --dir "$WORK/other" --data "$DATA" --json
refused 3 "" "$ATOLL" join "$INVITE" --dir "$WORK/other"

# 10 MB of noise on the founder's port while the run goes on.
asked "$WORK/a" round && before=$ANSWER
want 0 "$TOOL" flood "$PORT" 10000000
until_ 60 round_is_at_least "$WORK/a" $((before + 2))

# kill -9 on a member; the run goes on without it; it comes back with its folder.
kill -9 "$c"
wait "$c" 2>/dev/null || true
asked "$WORK/a" round && before=$ANSWER
until_ 60 round_is_at_least "$WORK/a" $((before + 2))
node c2 "$ATOLL" start --dir "$WORK/c" --threads 1 --json
c=$PID
c_works() { # rounds may be shorter than asking takes
    reached=$(status "$WORK/a" round)
    [ "$(status "$WORK/c" round)" -ge "${reached:-1000000}" ] 2>/dev/null
}
until_ 60 c_works
until_ 60 members_are "$WORK/a" 3

# kill -9 on the steward: nothing that it acknowledged is lost, and everybody goes on.
kill -9 "$a"
wait "$a" 2>/dev/null || true
want 0 "$ATOLL" ledger verify "$WORK/a" --json
records=$(json records)
node a2 "$ATOLL" start --dir "$WORK/a" --threads 1 --json
a=$PID
until_ 60 status_is "$WORK/a" running true
asked "$WORK/a" round && before=$ANSWER
until_ 60 round_is_at_least "$WORK/a" $((before + 2))
records_grew() { [ "$(status "$WORK/a" records)" -gt "$records" ] 2>/dev/null; }
until_ 60 records_grew

# The running node's ledger as one file, which is whole by itself.
before=$(status "$WORK/a" records)
want 0 "$ATOLL" ledger export "$WORK/a" --out "$WORK/for-others" --json
exported=$(json records)
[ "$exported" -ge "$before" ] || fail "exported $exported records, $before were there"
mkdir "$WORK/elsewhere"
mv "$WORK/for-others" "$WORK/elsewhere/ledger"
want 0 "$ATOLL" ledger verify "$WORK/elsewhere/ledger" --json
is "$(json records)" "$exported"
refused 5 "exists already" "$ATOLL" ledger export "$WORK/a" --out "$WORK/elsewhere/ledger"
refused 2 "add --out FILE" "$ATOLL" ledger export "$WORK/a"

# Asking and points while it runs; then one member finishes alone, then the run.
until_ 60 test -e "$WORK/b/model.safetensors" # a member keeps a model when it has caught up with the run
want 0 "$ATOLL" ask --dir "$WORK/b" "Call " --max-tokens 8
want 0 "$ATOLL" points --dir "$WORK/a" --json
is "$(json members.length)" 3
want 0 "$ATOLL" finish --dir "$WORK/c" --now
ends 0 "$c"
node c3 "$ATOLL" start --dir "$WORK/c" --threads 1 --json # and back again, as a member of the same name and points
c=$PID
until_ 60 members_are "$WORK/a" 3
until_ 60 c_works
want 0 "$ATOLL" finish --dir "$WORK/c"
ends 0 "$c"
asked "$WORK/a" round && before=$ANSWER
until_ 60 round_is_at_least "$WORK/a" $((before + 1))
want 0 "$ATOLL" finish --dir "$WORK/a" --json
ends 0 "$a"
ends 0 "$b"
is "$("$TOOL" get ended <"$WORK/b.out")" true
is "$(root_of "$WORK/a")" "$(root_of "$WORK/b")" "roots after the end"
for d in a b c; do
    want 0 "$ATOLL" ledger verify "$WORK/$d"
done

# A peer with a wrong key: the same place, another node. The invite's holder must not take it for the founder.
node other "$ATOLL" start --dir "$WORK/other" --listen "127.0.0.1:$PORT"
other=$PID
until_ 60 status_is "$WORK/other" running true
want 6 "$ATOLL" join "$INVITE" --dir "$WORK/y"
says ""
[ ! -e "$WORK/y/genesis" ] || fail "took a genesis from a stranger"
kill -INT "$other"
ends 130 "$other"
want 0 "$ATOLL" ledger verify "$WORK/other"
