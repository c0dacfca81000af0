#!/bin/sh
# bench/swarm, its quickest part on the smallest model: does it run, and does its JSON say what the report needs?
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
command -v python3 >/dev/null 2>&1 || { echo "no python3: the benchmarks are not tested"; exit 77; }
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
ATOLL_BENCH_OUT=$WORK
PYTHONDONTWRITEBYTECODE=1
export ATOLL_BENCH_OUT PYTHONDONTWRITEBYTECODE
# Losses by tokens: of two stewards both write EPOCH; a run that is ended early has no loss of after its last round.
python3 - "$here" <<'PY'
import importlib.machinery, importlib.util, sys
sys.path.insert(0, sys.argv[1] + "/bench/lib")
loader = importlib.machinery.SourceFileLoader("swarm", sys.argv[1] + "/bench/swarm")
swarm = importlib.util.module_from_spec(importlib.util.spec_from_loader("swarm", loader))
loader.exec_module(swarm)


def told(rounds, stewards):
    for n in range(rounds):
        yield {"kind": "RECEIPT", "round": n, "replica": 0, "tokens": 10}
        yield {"kind": "CLOSE", "round": n, "included_list": [0]}
        yield from [{"kind": "EPOCH", "round": n, "heldout_loss": 5 - n}] * stewards
    yield {"kind": "END"}


for stewards in 1, 4:
    assert swarm.curve(list(told(3, stewards)), 3) == [(0, 5), (10, 4), (30, 3)]
    assert swarm.curve(list(told(3, stewards)), 9) == [(0, 5), (10, 4), (20, 3)]  # finished before
PY
rc=0
"$here/bench/swarm" --parts join --preset tiny >"$WORK/out" 2>"$WORK/err" || rc=$?
[ $rc -ne 5 ] || { echo "SKIPPED: no namespaces here: $(tail -n 1 "$WORK/err")"; exit 77; }
[ $rc -eq 0 ] || { echo "FAILED:"; cat "$WORK/out" "$WORK/err"; exit 1; }
python3 - "$here" "$WORK/swarm.json" <<'PY'
import json, sys
sys.path.insert(0, sys.argv[1] + "/bench/lib")
import pages
figures = json.load(open(sys.argv[2]))
assert figures["join"]["credited_s"] > 0 and figures["join"]["bytes"] > 0, figures
assert "first credited work, tiny" in pages.all_files({"swarm": figures})["performance.md"]
PY
echo passed
