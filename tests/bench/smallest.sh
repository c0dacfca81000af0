#!/bin/sh
# Every benchmark once, as small as it goes: does it run, and does its JSON say what the report needs? Peers take part
# where they are installed. ATOLL: the program.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
command -v python3 >/dev/null 2>&1 || { echo "no python3: the benchmarks are not tested"; exit 77; }
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
ATOLL_BENCH_OUT=$WORK
PYTHONDONTWRITEBYTECODE=1
export ATOLL_BENCH_OUT PYTHONDONTWRITEBYTECODE

fail() { echo "FAILED: $*"; exit 1; }

# field FILE EXPRESSION: prints the value of a Python expression over the JSON in `v`.
field() { python3 -c 'import json, sys; v = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$1" "$2"; }

"$here/bench/gemm" --presets tiny --threads 1 --turns 1 >"$WORK/out"
[ "$(field "$WORK/gemm.json" 'len(v["parts"])')" = 1 ] || fail "gemm: not one part"
[ "$(field "$WORK/gemm.json" 'all(p["gflops"]["Atoll"] > 0 for p in v["parts"][0]["products"])')" = True ] ||
    fail "gemm: a product without a speed"
# What it times is what the model does: the products' FLOPs are those that a step is said to have, less attention.
"$ATOLL" bench train --preset tiny --list --json >"$WORK/shape.json"
[ "$(field "$WORK/gemm.json" 'sum(2 * p["m"] * p["n"] * p["k"] * p["per_step"] for p in v["parts"][0]["products"])')" = \
    "$(field "$WORK/shape.json" 'v["batch"] * v["seq_len"] * (v["flops_per_token"] - 6 * v["layers"] * v["seq_len"] * v["heads"] * v["head_size"])')" ] ||
    fail "gemm: the products are not those of a step"

"$here/bench/train" --presets tiny --threads 1 --turns 1 >"$WORK/out"
[ "$(field "$WORK/train.json" 'v["parts"][0]["tokens_per_s"]["Atoll"] > 0')" = True ] || fail "train: no speed"

# Splits end in one root (the benchmark fails otherwise) and say what they held.
"$here/bench/splits" --preset tiny --batch 4 --microbatches 2 >"$WORK/out"
[ "$(field "$WORK/splits.json" 'len(v["runs"]) == 3 and all(r["memory_bytes"] > 0 for r in v["runs"])')" = True ] ||
    fail "splits: $(cat "$WORK/splits.json")"

# Two nodes on a link, where the kernel lets us make one (exit code 5: it does not).
rc=0
"$here/bench/scaling" --preset tiny --no-peer --rates unlimited,100 --steps 4 >"$WORK/out" 2>"$WORK/err" || rc=$?
case $rc in
0) [ "$(field "$WORK/scaling.json" '[r["link"] for r in v["runs"]] == ["unlimited", "100 Mbit/s"] and v["runs"][0]["tokens_per_s"] > 0')" = True ] ||
    fail "scaling: $(cat "$WORK/scaling.json")" ;;
5) echo "no slow link here: $(tail -n 1 "$WORK/err")" ;;
*) fail "scaling: $(tail -n 1 "$WORK/err")" ;;
esac

# Loss at equal tokens: every method, as short as it goes, ends with the tokens that all of them have; the goals are
# judged; the page can be written. On a short text, not the corpus.
head -c 20000 "$here/data/moby-dick.txt" >"$WORK/text.txt"
python3 - "$here" "$WORK" <<'EOF' || fail "loss"
import importlib.machinery, importlib.util, json, sys
here, work = sys.argv[1:]
sys.path.insert(0, here + "/bench/lib")
loader = importlib.machinery.SourceFileLoader("loss", here + "/bench/loss")
loss = importlib.util.module_from_spec(importlib.util.spec_from_loader("loss", loader))
loader.exec_module(loss)
import pages
shape = json.load(open(work + "/shape.json"))
corpus = {"sha256": "0", "bytes": 20000, "parts": [{"name": "a text", "licence": "public domain"}]}
todo = loss.runs(shape, 1, [2], corpus)
assert len({r["name"] for r in todo}) == len(todo) and not any(map(loss.finished, todo))
problems = [loss.perform(r, work + "/text.txt") for r in todo]
assert not any(problems), problems
there = [loss.finished(r) for r in todo]
assert all(there) and len({r["tokens"] for r in there}) == 1
reached = loss.goals(there)
assert [g["codec"] for g in reached] == ["int4", "sparse"], reached
whole = {r["method"]: r["loss"] for r in there}
assert reached[0]["ratio"] == min(whole["diloco"], whole["diloco-long"]) / whole["synchronous"]
assert all(g["met"] == (g["ratio"] <= g["limit"]) for g in reached)
far = [{**r, "loss": 9.0} if r["method"] == "sparse" else r for r in there]
assert not loss.goals(far)[1]["met"]
made = pages.all_files({"loss": {"machine": {"cpu": "a", "cpus": 1}, "preset": "tiny", "tokens": there[0]["tokens"],
                                 "corpus": corpus, "goals": loss.goals(far), "runs": far}})
assert "Goal for sparse: at most +2 %; missed" in made["performance.md"] and "loss-2.svg" in made
EOF

# Synchronous training learns: one number a line of the curve, the last below the first.
"$ATOLL" bench sync --preset tiny --data "$here/data/moby-dick.txt" --steps 12 --every 6 --json >"$WORK/sync.json" 2>"$WORK/err"
[ "$(field "$WORK/sync.json" '[t for t, _ in v["curve"]] == [0, 6 * 64, 12 * 64] and v["curve"][2][1] < v["curve"][0][1]')" = True ] ||
    fail "sync: $(cat "$WORK/sync.json")"

# A line that is no request ends the program with an error that names it.
if echo nonsense | "$ATOLL" bench train --preset tiny --lines >"$WORK/out" 2>"$WORK/err"; then fail "nonsense was taken"; fi
grep -q "nonsense" "$WORK/err" || fail "the error does not name the line: $(cat "$WORK/err")"

# The page in docs/ is what its figures say.
"$here/bench/report" --check || fail "docs/performance.md and docs/figures differ"
echo passed
