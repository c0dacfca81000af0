# The founder goes: four join with steward invites, term 2 begins, the founder is killed with -9 for good. The run goes on,
# a new member joins through another's invite, and everybody's ledger verifies and is the same.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/swarm_lib.sh"
head -c 12000 "$DATA" >"$WORK/text.txt"
DATA=$WORK/text.txt

found "$WORK/a" --rounds 100000 --steps 1 --seed 5 --round-ms 20000 --min-members 5
want 0 "$ATOLL" invite --dir "$WORK/a" --steward 4 --json
for i in 0 1 2 3; do json invites.$i >"$WORK/invite.$i"; done
[ "$(cat "$WORK"/invite.? | sort -u | wc -l)" = 4 ] || fail "the steward invites are not four different ones"
refused 2 "unexpected" "$ATOLL" invite --dir "$WORK/a" 4
refused 2 "" "$ATOLL" invite --dir "$WORK/a" --steward 0

node a "$ATOLL" start --dir "$WORK/a" --threads 1 --json
a=$PID
until_ 60 status_is "$WORK/a" running true
i=0
for m in b c d e; do
    node $m "$ATOLL" join "$(cat "$WORK/invite.$i")" --dir "$WORK/$m" --threads 1 --name $m --json
    eval "pid_$m=\$PID"
    i=$((i + 1))
done

# Four hold the seats of term 2 from a round's edge on.
term_is() { [ "$(status "$WORK/$1" term)" = "$2" ] && [ "$(status "$WORK/$1" stewards)" = 4 ]; }
for m in a b c d e; do until_ 120 term_is $m 2; done
for m in b c d e; do
    [ "$(stat -c %a "$WORK/$m/ticket")" = 600 ] || fail "the ticket of $m can be read by others"
done
[ "$(stat -c %a "$WORK/a/seat-2")" = 600 ] || fail "the secret of a seat can be read by others"
refused 2 "only the founder" "$ATOLL" invite --dir "$WORK/b" --steward
long=$(wc -c <"$WORK/invite.0")
for m in a b c d e; do
    asked "$WORK/$m" invite
    [ ${#ANSWER} -lt $((long - 140)) ] || fail "the invite that $m tells has room for a ticket"
done

kill -9 "$a"
wait "$a" 2>/dev/null || true
asked "$WORK/b" round && before=$ANSWER
until_ 120 round_is_at_least "$WORK/b" $((before + 2))

# Somebody new comes in through a member, and works.
want 0 "$ATOLL" invite --dir "$WORK/b"
node f "$ATOLL" join "$(cat "$WORK/out")" --dir "$WORK/f" --threads 1 --name f --json
pid_f=$PID
works() { [ "$(status "$WORK/f" points_confirmed)" -gt 0 ] 2>/dev/null; }
until_ 120 works

# All but one steward stop. It says whom the run waits for, and does not leave by mistake.
last=
for m in b c d e f; do
    [ -n "$last" ] || [ "$(status "$WORK/$m" role)" != steward ] || last=$m
done
for m in b c d e f; do
    eval "p=\$pid_$m"
    [ $m = "$last" ] || kill "$p"
done
alone() { [ "$(status "$WORK/$last" stewards_here)" -le 1 ] 2>/dev/null; }
until_ 60 alone
if status_is "$WORK/$last" role steward; then # or it had lost its seat meanwhile
    want 0 "$ATOLL" status --dir "$WORK/$last"
    tr -s ' \n' ' ' <"$WORK/out" | # long lines are wrapped
        grep -q 'waiting for 3 of 4 stewards: 1 is here.*missing: .*, .*, .* (atoll start' ||
        fail "status does not say who is missing: $(cat "$WORK/out")"
    refused 2 "only 0 of 4 stewards would stay and 3 are needed" "$ATOLL" finish --dir "$WORK/$last"
    is "$(status "$WORK/$last" running)" true
    want 0 "$ATOLL" finish --dir "$WORK/$last" --anyway
    says "brings this one back"
    echo "$last, alone of four stewards, was asked twice"
fi

# Everybody who is left stops. All have the same records, as far as they have got, and each model is one of the ledger's.
for p in $PIDS; do kill "$p" 2>/dev/null || true; done
for p in $PIDS; do until_ $PATIENCE gone "$p"; done
least=1000000
for m in a b c d e f; do
    want 0 "$ATOLL" ledger verify "$WORK/$m" --json
    [ "$(json stewards)" = 4 ] || fail "$m: the ledger does not end with four stewards"
    [ "$(json records)" -ge $least ] || least=$(json records)
done
for m in a b c d e f; do
    want 0 "$ATOLL" ledger show "$WORK/$m" --count "$least"
    sed '$d' "$WORK/out" >"$WORK/records.$m"
    cmp "$WORK/records.a" "$WORK/records.$m" || fail "$m: other records than the founder had"
    "$ATOLL" ledger show "$WORK/$m" --count 1000000 >>"$WORK/all"
done
for m in b c d e f; do
    grep -q "ends on state $(root_of "$WORK/$m" | cut -c 1-16)" "$WORK/all" || fail "$m: a model that no ledger knows"
done
! grep -l "$(tail -c 200 "$WORK/invite.1" | head -c 40)" "$WORK"/*.log || fail "a secret invite is in a log"
