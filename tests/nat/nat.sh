#!/bin/sh
# Two nodes that nobody can dial reach each other: A and B behind a gateway each, the arranger Y on the net between, as
# processes of net/ alone (nat_tool.c); whole nodes are in nat_swarm.sh.
#
#   cone        the gateways keep a port's mapping whoever it talks to: A and B punch
#   symmetric   a fresh random port for every connection: they are relayed
#   mapped      B's gateway forwards a port when it is asked (NAT-PMP), until B is gone: A dials
#   firewall    IPv6, no address is translated, only answers come in: they punch
# A capture at Y reads every packet: what A and B say to each other is in none. The figures printed are of this run alone.
#   NAT_MB=64 sh nat.sh     measures, with more bytes.  Exit 77: this system lets nobody make such namespaces.
. "$(dirname "$0")/nat_lib.sh"
mb=${NAT_MB:-4}

# one NAME ARRANGER [map]: Y, B and a capture at Y run from here to `over`
one() {
    name=$1
    arranger=$2
    mkfifo "$dir/$name.y" "$dir/$name.b"
    capture "$name"
    nsenter -t $Y -n "$tool" arrange "$arranger" 7000 5>&- 7>&- <"$dir/$name.y" >"$dir/$name.y.log" 2>&1 & y=$!
    exec 3>"$dir/$name.y"
    wait_for "$dir/$name.y.log" ready
    nsenter -t $B -n "$tool" wait "$arranger" 7000 7001 ${3:-} 3>&- 5>&- 7>&- <"$dir/$name.b" >"$dir/$name.b.log" 2>&1 & b=$!
    exec 4>"$dir/$name.b"
    pids="$pids $y $b"
    wait_for "$dir/$name.b.log" ready
    shout "$arranger"
}
# reach WAY MB D,M,P,R [B_HOST B_PORT]: A climbs, and ends up on that way
reach() {
    way=$1
    megabytes=$2
    ways=$3
    log=$dir/$name.a.log
    shift 3
    at $A timeout 120 "$tool" reach "$arranger" 7000 "$ways" "$megabytes" "$@" >"$log" 2>&1 </dev/null ||
        fail "$name: A did not reach B"
    grep -q "^done way=$way" "$log" || fail "$name: not $way"
    grep -q "^secret" "$log" || fail "$name: the secret did not come back"
    echo "$name: $(grep '^up' "$log") $(sed -n 's/^done way=[a-z]*//p' "$log")"
}
over() {
    exec 4>&-
    ended $b || fail "$name: B"
    exec 3>&-
    ended $y || fail "$name: Y"
    echo "$name: $(grep '^relayed' "$dir/$name.y.log")"
}
relayed() { sed -n 's/^relayed=\([0-9]*\) .*/\1/p' "$dir/$name.y.log"; }

# Where they can punch, they have the time for it on a slow machine too.
NAT_PUNCH_MS=30000
export NAT_PUNCH_MS
gateway $GA ""
gateway $GB ""
one cone 198.51.100.2
reach punched 0 0,0,1,1
captured # before bulk is sent: it shall lose nothing, and not slow what is measured
reach direct "$mb" 1,0,0,0 203.0.113.6 7001
reach punched "$mb" 0,0,1,1
over
[ "$(relayed)" = 0 ] || fail "cone: something was relayed"
if [ -n "${NAT_MB:-}" ]; then # a relay against a direct link between the same two
    one cone_relay 198.51.100.2
    reach relayed 0 0,0,0,1
    captured
    reach direct "$mb" 1,0,0,0 203.0.113.6 7001
    reach relayed "$mb" 0,0,0,1
    over
fi

# The address leads nowhere: the whole ladder is climbed, and a punch fails as soon as it does by default.
unset NAT_PUNCH_MS
gateway $GA fully-random
gateway $GB fully-random
one symmetric 198.51.100.2
reach relayed 0 1,0,1,1 10.0.1.77 7001
captured
reach relayed "$mb" 0,0,0,1
over
[ "$(relayed)" -gt $((mb << 20)) ] || fail "symmetric: the bytes did not go through Y"

if [ "${NAT_PMP:-1}" = 1 ]; then
    mkfifo "$dir/gateway.in"
    nsenter -t $GB -n "$tool" gateway 10.0.1.1 203.0.113.6 7>&- <"$dir/gateway.in" >"$dir/gateway.log" 2>&1 & pids="$pids $!"
    exec 6>"$dir/gateway.in"
    wait_for "$dir/gateway.log" ready
    one mapped 198.51.100.2 map
    wait_for "$dir/mapped.b.log" "^mapped 203.0.113.6:7001 by NAT-PMP for 3600 s"
    wait_for "$dir/gateway.log" "inside=7001 outside=7001 lifetime=3600"
    reach direct 0 0,1,1,1 203.0.113.6 7001
    kill -9 $b || fail "mapped: no B"
    ended $b
    wait_for "$dir/gateway.log" "inside=7001 outside=0 lifetime=0"
    echo "mapped: the gateway was asked to forget it when B was killed"
    exec 3>&- 4>&- 5>&- 6>&-
fi

NAT_PUNCH_MS=30000
export NAT_PUNCH_MS
one firewall 2001:db8:0::2
reach punched 0 0,0,1,1
captured
over
echo "all reached"
