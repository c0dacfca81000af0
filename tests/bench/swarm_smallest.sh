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
