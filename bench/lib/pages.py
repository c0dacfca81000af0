"""docs/performance.md and its plots, as texts, from figures."""
import plot

# The goals.
GEMM, STEP, TORCH, LINK, LINK_1, SPLIT = 0.95, {1: 0.80, 2: 0.75}, 1.15, 0.95, 0.85, {"TP=2": 0.80, "PP=2": 0.85}

INTRO = """# Performance

Every figure here is written by `bench/report` from JSON that the benchmarks left; none is typed by hand. `make bench`
measures anew (at most 15 minutes on two cores) and prints the same tables; `make bench-long` adds the loss curves;
`bench/report` then takes the new figures over into `docs/figures/` and this page. Peers run in the same run. In products and
steps they take turns with Atoll, so that a clock that drifts hits both, and each figure is a median of the turns; a round on
a slow link and a split are measured once, the peer after Atoll. Goals are those that were set before anything was written;
a goal that was missed says so.
"""


def goal(value, least):
    """The verdict on a figure that should be so much at least."""
    return f"≥ {least:g}: {'met' if value >= least else 'missed'}"


def machine(figures):
    m = figures["machine"]
    return f"{m['cpu']}, {m['cpus']} processors"


def table(head, rows, align=None):
    align = align or [":--"] + ["--:"] * (len(head) - 1)
    out = ["| " + " | ".join(map(str, r)) + " |" for r in (head, align, *rows)]
    return "\n".join(out) + "\n"


def threads(n):
    return f"{n} thread" + ("s" if n > 1 else "")


def noisy(figures):
    if figures.get("provisional"):
        return " **Provisional: measured while the machine was busy with other work.**"
    return ""


def versions(figures):
    told = "; ".join(f"{n} {v}" for n, v in figures.get("peers", {}).items())
    return f" ({told})" if told else ""


def gemm(f):
    out = ["## Matrix products of a training step\n",
           f"{machine(f)}. GFLOP/s; FMA peak is a register-only loop, measured between the products. Atoll's products have "
           f"the joins that fix the bits (chains, slots, grains); the peers compute plain ones{versions(f)}.{noisy(f)}\n"]
    rows = []
    for p in f["parts"]:
        names = [n for n in p["fraction"] if n != "Atoll"]
        rows.append([p["preset"], threads(p["threads"]), f"{p['peak_gflops']:.0f}", f"{p['fraction']['Atoll']:.2f}",
                     *(f"{p['ratio'][n]:.2f}" for n in names), goal(p["ratio"]["oneDNN"], GEMM) if "oneDNN" in names else "",
                     *(f"{p['ratio_step'][n]:.2f}" for n in names)])
    out.append(table(["geometric mean over the products", "", "peak", "Atoll / peak", *("Atoll / " + n for n in names),
                      "goal for / oneDNN", *(f"whole step, Atoll / {n}" for n in names)], rows))
    for p in f["parts"]:
        out.append(f"\n<details><summary>{p['preset']}, {threads(p['threads'])}: every product</summary>\n")
        rows = [[f"{q['weight']} {q['pass']}", q["op"], q["join"], f"{q['m']} × {q['n']} × {q['k']}",
                 *(f"{v:.1f}" for v in q["gflops"].values()),
                 *(f"{q['gflops']['Atoll'] / v:.2f}" for n, v in q["gflops"].items() if n != "Atoll")]
                for q in p["products"]]
        out.append(table(["product", "", "join", "m × n × k", *p["fraction"], *("/ " + n for n in names)], rows,
                         [":--", ":--", ":--"] + ["--:"] * (1 + 2 * len(names) + 1)))
        out.append("</details>\n")
    return "\n".join(out)


def train(f):
    rows = []
    for p in f["parts"]:
        for n, v in p["tokens_per_s"].items():
            rows.append([p["preset"], p["batch"], p["threads"], n, f"{v:,.0f}", f"{100 * p['fraction'][n]:.0f} %",
                         goal(p["fraction"][n], STEP[p["threads"]]) if n == "Atoll" and p["threads"] in STEP else "",
                         f"{p['ratio']:.2f}" if n == "PyTorch" else "", goal(p["ratio"], TORCH) if n == "PyTorch" else "",
                         f"{p['memory_bytes'][n] / 1e6:,.0f} MB"])
    return ("## Training steps\n\n"
            f"{machine(f)}. Whole steps (forward, backward, clip, AdamW) in binary32; PyTorch runs the same model. FLOPs are "
            "tokens × (6 × matmul parameters + 6 × layers × T × heads × head size); memory is the most a process held. "
            "Where a step's time goes, and what the goals lack: [ADR 0028](adr/0028-where-a-step-goes.md)."
            f"{noisy(f)}\n\n"
            + table(["model", "batch", "threads", "program", "tok/s", "of FMA peak", "goal", "Atoll / PyTorch", "goal", "memory"],
                    rows, [":--", "--:", "--:", ":--", "--:", "--:", ":--", "--:", ":--", "--:"]))


def scaling(f):
    rows = []
    for r in f["runs"]:
        ours = r["program"].startswith("Atoll")
        least = LINK if r["mbit_per_s"] is None or r["mbit_per_s"] > 1 else LINK_1
        rows.append([r["link"], r["program"], f"{r['tokens_per_s']:,.0f}", f"{r['efficiency']:.3f}",
                     goal(r["efficiency"], least) if ours else "", f"{r['efficiency_busy']:.3f}",
                     f"{r['bytes_sent'] / 1e6:,.2f} MB"])
    return ("## Two nodes on a slow link\n\n"
            f"{machine(f)}. Two nodes of one thread each, {f['preset']}, {f['steps']} inner steps a round, network namespaces "
            "joined by a veth pair with `tc tbf` in both directions. Efficiency: tokens/s of both in whole rounds ÷ (2 × the inner "
            f"steps of one node alone, {f['atoll_one_node']:,.0f} tok/s); “linked / unlinked”: the same against two nodes that know nothing of each other, which leaves the cost of the "
            f"link alone. Bytes: sent per node per 30 steps, all headers included.{noisy(f)}\n\n"
            "![Efficiency of two nodes](scaling.svg)\n\n"
            + table(["link", "program", "tok/s of both", "efficiency", "goal", "linked / unlinked", "bytes sent"], rows,
                    [":--", ":--", "--:", "--:", ":--", "--:", "--:"])
            + "\nAgain: `bench/scaling`, as root or where the kernel lets users make network namespaces.\n")


def scaling_plot(f):
    links = list(dict.fromkeys(r["link"] for r in f["runs"]))
    names = list(dict.fromkeys(r["program"] for r in f["runs"]))
    value = {(r["program"], r["link"]): r["efficiency"] for r in f["runs"]}
    return plot.bars(f"Two nodes, {f['preset']}, {f['steps']} steps a round",
                     "tokens/s of both ÷ (2 × tokens/s of one node alone)", "efficiency", links,
                     [(n, [value.get((n, link)) for link in links]) for n in names])


def splits(f):
    rows = []
    for r in f["runs"]:
        split = next((least for kind, least in SPLIT.items() if r["name"].startswith(kind)), None)
        rows.append([r["name"], f"{r['tokens_per_s']:,.1f}", f"{r['ratio']:.2f}" if r["ranks"] > 1 else "",
                     goal(r["ratio"], split) if split else "", f"{r['memory_bytes'] / 1e6:,.0f} MB",
                     f"{r['memory_ratio']:.2f}" if r["ranks"] > 1 else ""])
    return ("## One model over two processes\n\n"
            f"{machine(f)}. {f['preset']}, batch {f['batch']}; split runs have one thread per rank and TLS links over "
            "loopback. The same state root in all of them. Memory: the most that any one process held."
            f"{noisy(f)}\n\n"
            + table(["split", "tok/s", "÷ one process", "goal", "memory per process", "÷ one process, goal ≤ 0.6"], rows,
                    [":--", "--:", "--:", ":--", "--:", "--:"])
            + "\nAgain: `bench/splits`.\n")


def plan_check(f):
    rows = [[f"TP {r['tp']}, PP {r['pp']}", f"{r['gflops']:.0f}", f"{r['predicted_tokens_per_s']:,.0f}", f"{r['measured_tokens_per_s']:,.0f}",
             f"{r['ratio']:.2f}", "0.8 to 1.2: " + ("met" if 0.8 <= r["ratio"] <= 1.2 else "missed")] for r in f["runs"]]
    return ("## What the planner predicts\n\n"
            f"{machine(f)}. {f['preset']}, batch {f['batch']}, {f['microbatches']} microbatches, one thread a rank, TLS over loopback; "
            f"from the speed of each rank while all of them compute, and the link's, as measured in the same run.{noisy(f)}\n\n"
            + table(["split", "GFLOP/s a rank", "predicted tok/s", "measured tok/s", "predicted ÷ measured", "goal"], rows,
                    [":--", "--:", "--:", "--:", "--:", ":--"])
            + "\nAgain: `bench/plan_check`.\n")


def loss(f):
    out = ["## Loss at equal tokens\n",
           f"{machine(f)}. {f['preset']}, {f['tokens'] / 1e6:.1f} M tokens of {f['corpus']['bytes'] / 1e6:.1f} MB of English ("
           + ", ".join(f"{p['name']}: {p['licence']}" for p in f["corpus"]["parts"])
           + "; `bench/corpus` builds it). Held-out loss in nats a byte; the yardstick is one process with one optimizer and "
           f"the batch of all replicas together.{noisy(f)}\n"]
    for n in sorted({r["replicas"] for r in f["runs"]}):
        runs = [r for r in f["runs"] if r["replicas"] == n]
        sync = next((r for r in runs if r["method"] == "synchronous"), None)
        rows = []
        for r in runs:
            gap = "" if sync is None or r is sync else f"{100 * (r['loss'] / sync['loss'] - 1):+.2f} %"
            rows.append([r["label"], r["rounds"] or "", r["k"] or "", f"{r['loss']:.4f}", gap])
        out.append(f"\n![Loss at equal tokens, {n} replicas](loss-{n}.svg)\n")
        out.append(table([f"{n} replicas", "H", "k", "held-out loss", "against synchronous"], rows))
        for g in f["goals"]:
            if g["replicas"] == n:
                out.append(f"Goal for {g['codec']}: at most {100 * (g['limit'] - 1):+.0f} %; "
                           f"{'met' if g['met'] else 'missed'} with {100 * (g['ratio'] - 1):+.2f} %.\n")
    out.append("\nAgain: `make bench-long`.\n")
    return "\n".join(out)


def loss_plot(f, n):
    runs = [r for r in f["runs"] if r["replicas"] == n]
    last = [y for r in runs for _, y in r["curve"][len(r["curve"]) // 4:]]
    low, high = min(last), max(last)
    top = high + 0.15
    series = [(r["label"], [(x, y) for x, y in r["curve"] if y <= top]) for r in runs]
    return plot.lines(f"Loss at equal tokens, {f['preset']}, {n} replicas", "", "tokens of all replicas",
                      "held-out loss, nats a byte", series, (low - 0.05 * (high - low) - 0.005, top))


def swarm_rows(f):
    """What was measured, the goal that was set for it, and what it is."""
    if "join" in f:
        j = f["join"]
        yield (f"join mid-run → first credited work, {j['preset']}", "≤ 10 s on a LAN",
               f"{j['credited_s']:.1f} s (member {j['joined_s']:.1f} s, state {j['state_s']:.1f} s; a round takes {j['round_s']:.1f} s)",
               j["load"])
        yield "bytes that a newcomer fetched", "", f"{j['bytes'] / 1e6:.1f} MB", j["load"]
    if "back" in f:
        b = f["back"]
        of = f" of {b['others']} other{'s' if b['others'] != 1 else ''}, `--outer {b['outer']}`" if "outer" in b else ""
        yield (f"return after 5 missed rounds{of}, {b['preset']}: bytes", "≤ 2 % of the model's",
               f"{b['bytes'] / 1e6:.2f} MB = {100 * b['ratio']:.2f} %"
               + (f"; {b['rounds_replayed']} rounds' updates until it was ready" if "rounds_replayed" in b else ""), b["load"])
        yield "the same: time until ready for the running round", "≤ 5 s", f"{b['seconds']:.1f} s", b["load"]
    if "evict" in f:
        e = f["evict"]
        yield "a killed member counts as gone after", "at once", f"{e['killed_s']:.2f} s", e["load"]
        yield "a silent one, on a LAN", "≤ 6 s", f"{e['silent_s']:.1f} s", e["load"]
        rtt = f"{e['slow_rtt_ms']:.0f} ms round trip"
        yield f"a silent one, 5 % loss and {rtt}", "≤ 13 s", f"{e['slow_silent_s']:.1f} s", e["load"]
        yield (f"members taken for dead falsely there, in {e['slow_watched_s']:.0f} s", "none in an hour", e["slow_false"],
               e["load"])
    if "goodput" in f:
        g = f["goodput"]
        links = f", links of {g['mbit_per_s']:.0f} Mbit/s" if "mbit_per_s" in g else ""
        yield (f"goodput, one of {g['nodes']} nodes killed per minute ({g['kills']} in {g['seconds']:.0f} s){links}", "≥ 90 %",
               f"{100 * g['ratio']:.0f} %: {g['tokens_per_s']:,.0f} tok/s; without, "
               f"{g['tokens_per_s_without'][0]:,.0f} before and {g['tokens_per_s_without'][1]:,.0f} after", g["load"])
    if "control" in f:
        c = f["control"]
        yield (f"messages' share of the bytes sent at 1 Mbit/s, {c['nodes']} nodes, {c['preset']}", "≤ 1 %",
               f"{100 * c['share']:.2f} %", c["load"])
        if "loop_of_processor" in c:
            yield ("there: processor time of the thread that sends and takes everything, of one processor", "≤ 2 %",
                   f"{100 * c['loop_of_processor']:.2f} % ({100 * c['loop_of_process']:.0f} % of what the process takes)", c["load"])
    if "loss" in f:
        c = f["loss"]
        yield (f"held-out loss of rounds of {c['left']} against rounds of {c['members']}, as when three of ten die in each, "
               f"{c['preset']}, at {c['tokens']:,} tokens", "at most +1 %",
               f"{c['heldout_at_tokens']:.4f} against {c['heldout_without']:.4f}: {100 * c['gap_at_tokens']:+.2f} %", c["load"])
        yield (f"the same after as many rounds ({c['rounds']}), so with fewer tokens", "",
               f"{c['heldout_at_rounds']:.4f}: {100 * c['gap_at_rounds']:+.2f} %", c["load"])
    if "churn" in f:
        c = f["churn"]
        yield (f"held-out loss, three of ten members dying in each round ({c['kills']} deaths in {c['rounds']} rounds, "
               f"{100 * c['units_counted']:.0f} % of the units counted), {c['preset']}, against none dying, at {c['tokens']:,} tokens",
               "at most +1 %", f"{c['heldout']:.4f} against {c['heldout_without']:.4f}: {100 * c['gap']:+.2f} %", c["load"])


def swarm(f):
    rows = [[what, goal, value, f"{load[0]:.0f} to {load[1]:.0f}"] for what, goal, value, load in swarm_rows(f)]
    return ("## Members that come, die and come back\n\n"
            f"{machine(f)}. Real processes, each in a network namespace of its own; delay and loss by a user-space bridge below "
            "TCP. All nodes share these processors, and whatever else ran (load: waiting and running threads, before and after): "
            "times of arithmetic are those of so many nodes on so few processors, and goodput says what rounds lose to a death, "
            f"not what a machine less costs.{noisy(f)}\n\n"
            + table(["", "goal", "measured", "load"], rows, [":--", ":--", ":--", "--:"])
            + "\nAgain: `bench/swarm`, as root or where the kernel lets users make network namespaces.\n")


def all_files(figures):
    """name in docs/ -> text"""
    made, parts = {}, [INTRO]
    for name, write in (("gemm", gemm), ("train", train), ("scaling", scaling), ("splits", splits), ("plan_check", plan_check),
                        ("loss", loss),
                        ("swarm", swarm)):
        if name in figures:
            parts.append(write(figures[name]))
    if "scaling" in figures:
        made["scaling.svg"] = scaling_plot(figures["scaling"])
    if "loss" in figures:
        for n in sorted({r["replicas"] for r in figures["loss"]["runs"]}):
            made[f"loss-{n}.svg"] = loss_plot(figures["loss"], n)
    made["performance.md"] = "\n".join(parts)
    return made
