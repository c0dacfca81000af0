# nat_lib.sh: the net of the NAT tests (sourced): five network namespaces around the one that the script runs in. Sets $dir,
# a folder that goes away, and the processes that hold the namespaces: $Y $GA $GB $A $B. NAT_TOOL is the program beside it.
#
#   A 10.0.1.2 -- [gateway A] 203.0.113.2 -- R -- 203.0.113.6 [gateway B] -- 10.0.1.2 B       all six are network
#                                            |                                                  namespaces
#                                       198.51.100.2 Y                                        (and the same in IPv6)
#
# Exit 77, with the reason: this system lets nobody make such namespaces.
set -u
PATH=$PATH:/usr/sbin:/sbin
tool=${NAT_TOOL:?the path of nat_tool}

skip() { echo "skipped: $*"; exit 77; }

# rules MASQUERADE: what a household's router does. Nothing comes in that was not asked for; such packets are dropped, as
# most routers do. Port 7001 of B's is forwarded to B: the yardstick for a direct link.
rules() {
    cat <<NFT
flush ruleset
table inet filter {
    chain input { type filter hook input priority 0; policy drop; iif lo accept; iifname "in" accept; ct state established,related accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept; }
    chain forward { type filter hook forward priority 0; policy drop; iifname "in" accept; ct state established,related accept; tcp dport 7001 ip version 4 ct status dnat accept; }
}
table ip nat {
    chain pre { type nat hook prerouting priority -100; iifname "out" tcp dport 7001 dnat to 10.0.1.2; }
    chain post { type nat hook postrouting priority 100; oifname "out" masquerade $1; }
}
NFT
}

if [ "${NAT_INSIDE:-}" != 1 ]; then
    for t in ip nft unshare nsenter; do
        command -v $t >/dev/null || skip "$t is not here (Debian: iproute2, nftables, util-linux)"
    done
    new="unshare -n"
    $new true 2>/dev/null || new="unshare -r -n" # not root, or root without the right to it
    # Whatever the tests need of the system is tried first: nothing that is missing shall look like a failure.
    why=$(rules fully-random | $new sh -c 'ip link add name veth0 type veth peer name veth1 && nft -f - && ip -6 addr add 2001:db8::1/64 dev veth0 nodad && echo 1 >/proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding && nsenter -t $$ -n unshare -n true && "$0" capture </dev/null' "$tool" 2>&1) ||
        skip "no network namespaces with veth, NAT, connection tracking, forwarding, IPv6 and captures: $(echo "$why" | tail -n 1)"
    NAT_INSIDE=1 exec $new sh "$0"
fi

# ---- from here on inside a namespace, which is R ----
dir=$(mktemp -d)
pids=
# What runs in the background ends when its input does, and with this shell that is: nothing stays when it is killed.
mkfifo "$dir/hold"
exec 7<>"$dir/hold"
cleanup() {
    exec 3>&- 4>&- 5>&- 6>&- 7>&-
    for p in $pids; do kill "$p" 2>/dev/null; done
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

ended() { # ended PID: waits for it, and forgets it, for its number may be another's then
    wait "$1"
    status=$?
    left=
    for p in $pids; do [ "$p" = "$1" ] || left="$left $p"; done
    pids=$left
    return $status
}

fail() {
    echo "FAILED: $*"
    for f in "$dir"/*.log; do
        echo "--- $(basename "$f")"
        tail -n 12 "$f"
    done
    exit 1
}
must() { "$@" >"$dir/must.log" 2>&1 || fail "$*"; }

# keep NAME: a namespace, held by a process that reads what never comes; its pid in $NAME
keep() {
    unshare -n cat <"$dir/hold" >/dev/null 7>&- &
    pids="$pids $!"
    eval "$1=$!"
    own=$(readlink /proc/self/ns/net)
    n=0
    while [ "$(readlink /proc/$!/ns/net)" = "$own" ]; do
        n=$((n + 1))
        [ $n -lt 600 ] || fail "no namespace for $1"
        sleep 0.05
    done
    must at $! ip link set lo up
}
at() { # at PID COMMAND...: in that namespace
    pid=$1
    shift
    nsenter -t "$pid" -n "$@"
}
# cable PID1 NAME1 ADDR4 ADDR6 PID2 NAME2 ADDR4 ADDR6
cable() {
    must at "$1" ip link add name "$2" type veth peer name "$6" netns "$5"
    must at "$1" ip addr add "$3" dev "$2"
    must at "$1" ip -6 addr add "$4" dev "$2" nodad
    must at "$5" ip addr add "$7" dev "$6"
    must at "$5" ip -6 addr add "$8" dev "$6" nodad
    must at "$1" ip link set "$2" up
    must at "$5" ip link set "$6" up
}
forward() { at "$1" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'; }
route() { # route PID GATEWAY4 GATEWAY6
    must at "$1" ip route add default via "$2"
    must at "$1" ip -6 route add default via "$3"
}

keep Y; keep GA; keep GB; keep A; keep B
R=$$
cable $R to_y 198.51.100.1/24 2001:db8:0::1/64 $Y net 198.51.100.2/24 2001:db8:0::2/64
cable $R to_a 203.0.113.1/30 2001:db8:a::1/64 $GA out 203.0.113.2/30 2001:db8:a::2/64
cable $R to_b 203.0.113.5/30 2001:db8:b::1/64 $GB out 203.0.113.6/30 2001:db8:b::2/64
cable $GA in 10.0.1.1/24 2001:db8:a1::1/64 $A net 10.0.1.2/24 2001:db8:a1::2/64
cable $GB in 10.0.1.1/24 2001:db8:b1::1/64 $B net 10.0.1.2/24 2001:db8:b1::2/64
for p in $R $GA $GB; do forward $p || fail "cannot forward"; done
route $Y 198.51.100.1 2001:db8:0::1
route $GA 203.0.113.1 2001:db8:a::1
route $GB 203.0.113.5 2001:db8:b::1
route $A 10.0.1.1 2001:db8:a1::1
route $B 10.0.1.1 2001:db8:b1::1
must ip -6 route add 2001:db8:a1::/64 via 2001:db8:a::2
must ip -6 route add 2001:db8:b1::/64 via 2001:db8:b::2

gateway() { rules "$2" | at "$1" nft -f - || fail "nft"; } # gateway PID MASQUERADE

wait_for() { # wait_for FILE TEXT
    n=0
    until grep -q "$2" "$1" 2>/dev/null; do
        n=$((n + 1))
        [ $n -lt 1200 ] || fail "no '$2' in $(basename "$1")"
        grep -q "^failed" "$1" 2>/dev/null && fail "$(grep '^failed' "$1")"
        sleep 0.05
    done
}

# capture: reads every packet at Y from here to `captured`; the canary that it must see comes first.
capture() { # capture NAME
    mkfifo "$dir/$1.c"
    nsenter -t $Y -n "$tool" capture 7>&- <"$dir/$1.c" >"$dir/$1.capture.log" 2>&1 & capture=$!
    pids="$pids $capture"
    exec 5>"$dir/$1.c"
    wait_for "$dir/$1.capture.log" capturing
}
shout() { must at $A "$tool" shout "$1"; } # the canary
# It has seen the canary, no secret, and has lost nothing.
captured() {
    exec 5>&-
    ended $capture || fail "$name: the capture"
    seen=$(grep '^packets' "$dir/$name.capture.log")
    echo "$name: Y saw $seen"
    case $seen in *"secrets=0 canaries="[1-9]*" lost=0" | *"secrets=0 canaries="[1-9]*" (little room)") ;; *) fail "$name: the capture must see the canary, no secret, and lose nothing" ;; esac
}
