#!/bin/sh
# Members behind NATs train together: A and B behind a gateway each, which reach the founder Y alone, on the net between
# (nat_lib.sh). Nobody tells them anything but the invite.
#
#   cone        they are linked through their NATs; Y relays for nobody
#   symmetric   they are linked by a relay at Y
# Each takes part in the rounds, all end with one state, and the ledger verifies. A's name is the secret of the capture at
# Y: it is in the log that each sends and gets, and in no packet. ATOLL is the program, TOOL is cli_tool, DATA the corpus.
. "$(dirname "$0")/nat_lib.sh"
. "$(dirname "$0")/nat_nodes.sh"
secret="call me Ishmael, some years ago" # nat_tool.h

# together NAME WAY RELAY_KB: from the founding to the end
together() {
    name=$1
    capture "$name"
    shout 198.51.100.2
    found 3
    node y $Y start --relay-kb "$3"; y=$node
    node a $A join "$invite" --name "$secret"; a=$node
    node b $B join "$invite" --listen 0.0.0.0:7002 --map-port; b=$node # no router answers: nothing comes of it
    at_least a "peers_$2" 1
    at_least b "peers_$2" 1
    at_least y round "$(($(value y round) + 3))" # with all three: it opens with no fewer
    for i in 0 1 2; do at_least y "members.$i.points_confirmed" 1; done
    echo "$name: a peers=$(value a peers) $2=$(value a "peers_$2"), y relays=$(value y relays) relayed=$(value y relayed_bytes)"
    [ "$2" = punched ] || at_least y relayed_bytes 1
    "$ATOLL" finish --dir "$dir/$name.y" >/dev/null 2>&1 || fail "$name: cannot finish"
    for p in $y $a $b; do ended $p || fail "$name: a node has failed"; done
    root=$("$ATOLL" root "$dir/$name.y") || fail "$name: no root"
    for i in a b; do [ "$("$ATOLL" root "$dir/$name.$i")" = "$root" ] || fail "$name: $i ends with another state"; done
    must "$ATOLL" ledger verify "$dir/$name.a"
    # A names its loopback address, for it listens there: of no use to B, and nothing on B's machine shall hear of it
    ! grep -E "no link to (.* at )?127\." "$dir/$name.b.log" || fail "$name: B has dialled its own machine"
    captured
}

gateway $GA ""
gateway $GB ""
together cone punched 0
gateway $GA fully-random
gateway $GB fully-random
together symmetric relayed 1000
echo "both trained"
