#!/bin/sh
# The gateways are real routers: miniupnpd, which speaks UPnP IGD and NAT-PMP on many a household's router, in the namespace
# of each (nat_lib.sh), with its files in the test's folder. Nobody relays, and both translate each connection to a random
# port: until that is changed nothing but a mapped port leads to B. A listens where nobody reaches it.
#
#   UPnP      B's router knows that alone: B maps its port, A dials B there, rounds are computed; B's clean end removes it
#   NAT-PMP   the same by a router that knows that alone, and a B that is started again
# And with NAT_ROUTER_ALL=1, which takes half a minute:
#   leases    by processes that map a port and do nothing else (nat_tool map), by both protocols: a short lease is renewed; a
#             router that was started anew is told again; the mapping is removed when the process is killed
#   gone      the router's daemon is dead and its rules are lost: A, started again, punches through to B, and rounds go on
# What a router forwards is read from its lease file and from the kernel's rules. B's port number is another machine's already,
# on its router, so B gets the next one; with NAT-PMP the one after it, which A has to hear of. ATOLL is the program, TOOL is
# cli_tool, DATA the corpus. Exit 77: no such daemon, or no such namespaces.
PATH=$PATH:/usr/sbin:/sbin
miniupnpd --version 2>&1 | grep -q nftables || { echo "skipped: needs the Debian package miniupnpd-nftables"; exit 77; }
. "$(dirname "$0")/nat_lib.sh"
. "$(dirname "$0")/nat_nodes.sh"

all=${NAT_ROUTER_ALL:-}

# Its outer address must be one that is not reserved, or the daemon forwards nothing, and documentation's are. No packet
# leaves this net.
out_GA=11.22.33.2
out_GB=11.22.33.6
must at $GA ip addr add $out_GA/32 dev out
must at $GB ip addr add $out_GB/32 dev out
must ip route add $out_GA/32 via 203.0.113.2
must ip route add $out_GB/32 via 203.0.113.6

# household MASQUERADE: the rules of a router that forwards what its daemon says
household() {
    cat <<NFT
flush ruleset
table inet filter {
    chain upnp_forward { }
    chain upnp_pre { }
    chain upnp_post { }
    chain input { type filter hook input priority 0; policy drop; iif lo accept; iifname "in" accept; ct state established,related accept; }
    chain forward { type filter hook forward priority 0; policy drop; iifname "in" accept; ct state established,related accept; jump upnp_forward; }
    chain pre { type nat hook prerouting priority -100; jump upnp_pre; }
    chain post { type nat hook postrouting priority 100; jump upnp_post; oifname "out" ip version 4 masquerade $1; }
}
NFT
}

# of GATEWAY: sets $where, the process that holds its namespace, and $out, its outer address
of() {
    eval "where=\$$1 out=\$out_$1"
}
listens() { [ -n "$(at "$where" ss -Hlun "sport = $1")" ]; }
# router GATEWAY UPNP NAT_PMP [PORT...]: starts it, with nothing but another machine's ports in its memory
router() {
    of "$1"
    gateway=$1 upnp=$2 nat_pmp=$3
    shift 3
    household fully-random | at "$where" nft -f - || fail "nft"
    for i in "$@"; do echo "TCP:$i:10.0.1.9:$i:$(($(date +%s) + 86400)):another machine"; done >"$dir/$gateway.leases"
    cat >"$dir/$gateway.conf" <<CONF
ext_ifname=out
ext_ip=$out
listening_ip=in
http_port=0
enable_upnp=$upnp
enable_natpmp=$nat_pmp
secure_mode=yes
lease_file=$dir/$gateway.leases
min_lifetime=1
max_lifetime=86400
minissdpdsocket=$dir/no_minissdpd
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=upnp_forward
upnp_nat_chain=upnp_pre
upnp_nat_postrouting_chain=upnp_post
uuid=$(cat /proc/sys/kernel/random/uuid)
allow 1024-65535 10.0.1.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
CONF
    nsenter -t "$where" -n miniupnpd -d -f "$dir/$gateway.conf" -P "$dir/$gateway.pid" 7>&- >"$dir/$gateway.log" 2>&1 </dev/null &
    eval "router_$gateway=$!"
    pids="$pids $!"
    [ "$upnp" = no ] || soon "$gateway hears UPnP" listens 1900
    [ "$nat_pmp" = no ] || soon "$gateway hears NAT-PMP" listens 5351
}
# router_dies GATEWAY MASQUERADE: and what it forwarded with it
router_dies() {
    of "$1"
    eval "kill -9 \$router_$1; ended \$router_$1"
    household "$2" | at "$where" nft -f - || fail "nft"
    rm -f "$dir/$1.leases"
}

rules_say() { at "$where" nft list chain inet filter upnp_pre | grep -q "$1"; }
# forwards GATEWAY OUTSIDE INSIDE: ports; to 10.0.1.2
forwards() {
    of "$1"
    grep -q "^TCP:$2:10.0.1.2:$3:" "$dir/$1.leases" 2>/dev/null && rules_say "dport $2 dnat ip to 10.0.1.2:$3\$"
}
forgot() { # forgot GATEWAY OUTSIDE
    of "$1"
    ! grep -q "^TCP:$2:" "$dir/$1.leases" 2>/dev/null && ! rules_say "dport $2 "
}
# lease_end GATEWAY: of port 7001, in seconds since 1970
lease_end() { sed -n "s/^TCP:7001:[0-9.]*:7001:\([0-9]*\):.*/\1/p" "$dir/$1.leases" 2>/dev/null; }
renewed() { # renewed GATEWAY END: it runs on after that
    now=$(lease_end "$1")
    [ -n "$now" ] && [ "$now" -gt "$2" ]
}
# soon WHAT COMMAND...: waits until it is so
soon() {
    what=$1
    shift
    n=0
    until "$@"; do
        n=$((n + 1))
        [ $n -lt 1000 ] || fail "in vain: $what"
        sleep 0.1
    done
}

# map GATEWAY PID LEASE_S: maps port 7001 until it ends, which it does at the latest with this script; sets $map
map() {
    nsenter -t "$2" -n "$tool" map 10.0.1.2 7001 "$3" 7>&- <"$dir/hold" >"$dir/map_$1.log" 2>&1 & map=$!
    pids="$pids $map"
}
lease() { # lease GATEWAY: it is mapped; sets $end, when that is over
    soon "$1 forwards port 7001" forwards "$1" 7001 7001
    end=$(lease_end "$1")
    end=${end:-0}
}
unmapped() { # unmapped GATEWAY PID
    kill -9 "$2" || fail "no process to kill"
    ended "$2"
    soon "$1 forgets a mapping when the process that asked for it is killed" forgot "$1" 7001
}
# stop PID NODE: interrupts it, which is a clean end
stop() {
    kill "$1"
    ended "$1"
    [ $? = 130 ] && grep -q "interrupted" "$dir/run.$2.log" || fail "$2 does not end well"
}

dialled() { at $A ss -Htn state established "dst $out_GB and dport = $1"; }
has_dialled() { [ -n "$(dialled "$1")" ]; }
# by PROTOCOL PORT: B's port is mapped by it to that one, A dials B there, and a round with both begins and ends
by() {
    soon "B maps its port by $1" grep -qF "the gateway forwards $out_GB:$2 to this node ($1)" "$dir/run.b.log"
    soon "the router forwards B's port" forwards GB "$2" 7002
    soon "A dials B" has_dialled "$2"
    at_least a peers 2
    ways="$(value a peers) $(value a peers_punched) $(value a peers_relayed)"
    [ "$ways" = "2 0 0" ] || fail "$1: of A's links (all, punched, relayed) there are $ways"
    at_least y round "$(($(value y round) + 2))" # with all three: it opens with no fewer
    echo "$1: A has dialled B:" $(dialled "$2")
}

name=run
router GA no yes
router GB yes no 7002
if [ -n "$all" ]; then
    map GB $B 6; map_b=$map
    map GA $A 4; map_a=$map
fi
found 3
node y $Y start --relay-kb 0; y=$node
node b $B join "$invite" --listen 0.0.0.0:7002 --map-port; b=$node
at_least y members.length 2
node a $A join "$invite"; a=$node
[ -z "$all" ] || { lease GB; end_b=$end; }
by UPnP 7003
for i in 1 2; do at_least y "members.$i.points_confirmed" 1; done
if [ -n "$all" ]; then
    lease GA
    soon "NAT-PMP: a mapping of 4 s is renewed" renewed GA "$end"
    router_dies GA fully-random
    router GA no yes # the process in A is to notice when it renews the mapping again
    soon "UPnP: a mapping of 6 s is renewed" renewed GB "$end_b"
fi
stop $b b
soon "the mapping is removed at B's clean end" forgot GB 7003
if [ -n "$all" ]; then
    unmapped GB $map_b
    lease GA
    unmapped GA $map_a
    for i in "GB $B" "GA $A"; do # with leases that do not end by themselves meanwhile
        map $i 3600
        lease ${i% *}
        unmapped ${i% *} $map
    done
    echo "renewed, told again, and removed"
fi

router_dies GB fully-random
router GB no yes 7002 7003
node b $B start --map-port; b=$node
by NAT-PMP 7004

if [ -n "$all" ]; then
    router_dies GB ""
    router_dies GA ""
    stop $a a
    node a $A start; a=$node
    at_least a peers_punched 1
    [ "$(value a peers_relayed)" = 0 ] || fail "gone: relayed, but Y relays for nobody"
    at_least y round "$(($(value y round) + 2))"
    echo "gone: $(grep punched "$dir/run.a.log")"
fi
"$ATOLL" finish --dir "$dir/run.y" >/dev/null 2>&1 || fail "cannot finish"
for i in $y $a $b; do ended $i || fail "a node has failed"; done
root=$("$ATOLL" root "$dir/run.y") || fail "no root"
for i in a b; do [ "$("$ATOLL" root "$dir/run.$i")" = "$root" ] || fail "$i ends with another state"; done
must "$ATOLL" ledger verify "$dir/run.a"
echo "all end with one state"
