"""Atoll for bench/scaling: two replicas, one a node, linked by TLS over the limited link; and nodes that train alone.

Rounds are timed by the lines that rank 0 writes at their ends. The text is small on purpose: a held-out loss, which is
no part of training, then costs next to nothing. The yardstick, nodes alone, is inner steps and nothing else: what a round
costs beside them is the linked nodes' loss."""
import concurrent.futures
import json
import os
import secrets
import tempfile
import threading
import time

import common
import net

PORT = 29610
TEXT_BYTES = 16000
WAIT_S = 3600
ALONE_TURNS = 5


def small_text(folder):
    """A text with a handful of held-out windows."""
    path = os.path.join(folder, "text.txt")
    with open(os.path.join(common.ROOT, "data", "moby-dick.txt"), encoding="utf-8") as f:
        text = f.read(TEXT_BYTES)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


class Lines(threading.Thread):
    """Reads a process's error stream and remembers when each line about a round came; tells `on_round` at once."""

    def __init__(self, process, on_round=lambda number: None):
        super().__init__(daemon=True)
        self.process, self.on_round = process, on_round
        self.ends, self.last = [], ""
        self.start()

    def run(self):
        for line in self.process.stderr:
            now = time.monotonic()
            if line.strip():
                self.last = line.strip()
            words = line.split()
            if line.startswith("held-out loss before") or (words[:1] == ["round"] and "held-out" in line):
                self.ends.append(now)
                self.on_round(len(self.ends) - 1)

    def seconds(self):
        """Of each round."""
        return [b - a for a, b in zip(self.ends, self.ends[1:])]


def finish(process, lines, what):
    out = process.stdout.read()
    process.wait()
    lines.join(10)
    process.stdout.close()
    process.stderr.close()
    if process.returncode != 0:
        common.die(f"{what} failed: {lines.last}", 1)
    return json.loads(out) if out.strip() else {}


class Swarm:
    def __init__(self, nodes, options, shape):
        self.nodes, self.options = nodes, options
        self.tokens = options.steps * shape["batch"] * shape["seq_len"]  # of a replica's round
        self.shape = shape
        self.folder = tempfile.mkdtemp(prefix="atoll-bench-")
        self.text = small_text(self.folder)
        self.secret = os.path.join(self.folder, "secret")
        with open(os.open(self.secret, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as f:
            f.write(secrets.token_bytes(32))
        self.plan = os.path.join(self.folder, "plan.json")
        with open(self.plan, "w", encoding="utf-8") as f:
            json.dump(plan_of_two(shape), f)

    def command(self, *more):
        return [common.atoll_path(), "train", "--preset", self.options.preset, "--data", self.text, "--batch",
                str(self.shape["batch"]), "--threads", "1", "--json", *more]

    # ---- alone ----

    def unlinked(self, count):
        """Tokens/s of so many nodes together that step at the same time: the sum of their medians."""
        programs = [common.Turns("atoll bench train", [*self.nodes.prefix[i], common.atoll_path(), "bench", "train", "--lines",
                                                       "--preset", self.options.preset, "--batch", str(self.shape["batch"]),
                                                       "--threads", "1"]) for i in range(count)]
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            speeds = list(pool.map(lambda p: [p.ask("0") for _ in range(1 + ALONE_TURNS)][1:], programs))
        for p in programs:
            p.close()
        return sum(common.median(s) for s in speeds)

    def alone_and_pair(self):
        return self.unlinked(1), self.unlinked(2)

    # ---- linked ----

    def linked(self, outer, rounds, on_round):
        """One run; on_round(n) is called when round n has ended (0: before the first). Seconds of each round."""
        more = ["--outer", outer, "--rounds", str(rounds), "--steps", str(self.options.steps), "--plan", self.plan,
                "--secret", self.secret]
        if self.options.tau:
            more += ["--tau", str(self.options.tau)]
        address = f"{net.ADDRESS[0]}:{PORT}"
        first = self.nodes.start(0, self.command(*more, "--node", "a", "--listen", address))
        lines = Lines(first, on_round)
        second = self.nodes.start(1, self.command(*more, "--node", "b", "--join", address))
        other = Lines(second)
        answer = finish(first, lines, "atoll train (rank 0)")
        finish(second, other, "atoll train (rank 1)")
        return lines.seconds(), answer

    def train(self, outer, rates):
        """Rates one after the other in one run: the link's limit changes when a round has ended. The first round is not
        counted: a run of sparse updates begins with larger ones. With overlap an update travels while the next round is
        under way, and auto chooses rounds by the link that it sees: then each rate gets a run of its own."""
        if outer == "auto":
            for rate in rates:
                yield self.train_whole(outer, rate)
        elif self.options.tau:
            for rate in rates:
                yield from self.train_rounds(outer, [rate])
        else:
            yield from self.train_rounds(outer, rates)

    def answer(self, outer, rate, spent, tokens, sent, more):
        return {"program": f"Atoll {outer}", "link": net.link_name(rate), "mbit_per_s": rate, "outer": outer,
                "tau": self.options.tau, "seconds": spent, "tokens_per_s": tokens / spent, "bytes_sent": sent, **more}

    def train_rounds(self, outer, rates):
        each, sent = self.options.rounds, []

        def on_round(ended):
            sent.append(self.nodes.sent_bytes())
            if ended >= 1 and (ended - 1) % each == 0 and (ended - 1) // each < len(rates):
                self.nodes.limit(rates[(ended - 1) // each])

        self.nodes.limit(rates[0] if self.options.tau else None)
        seconds, answer = self.linked(outer, 1 + each * len(rates), on_round)
        self.nodes.limit(None)
        for i, rate in enumerate(rates):
            part = slice(1 + i * each, 1 + (i + 1) * each)
            bytes_each = [max(b[n] - a[n] for n in (0, 1)) for a, b in zip(sent[part], sent[1:][part])]
            spent = common.median(seconds[part])
            yield self.answer(outer, rate, spent, 2 * self.tokens, common.median(bytes_each),
                              {"round_seconds": seconds[part], "state_root": answer["state_root"]})

    def train_whole(self, outer, rate):
        """A whole run, its first rounds counted; bytes per round of --steps steps."""
        sent = []
        self.nodes.limit(rate)
        seconds, answer = self.linked(outer, 1 + self.options.rounds, lambda _: sent.append(self.nodes.sent_bytes()))
        self.nodes.limit(None)
        sent_most = max(sent[-1][n] - sent[0][n] for n in (0, 1))
        return self.answer(outer, rate, sum(seconds), answer["tokens"], sent_most * 2 * self.tokens / answer["tokens"],
                           {"round_seconds": seconds, "state_root": answer["state_root"]})


def plan_of_two(shape):
    """A plan file (docs/plan.md): two replicas of one rank each, the first on node a, the second on node b. One
    microbatch, as `atoll plan` has it where there is no pipeline to fill."""
    stage = {"layer_first": 0, "layers": shape["layers"]}
    return {"plan": 2, "model": shape["preset"], "microbatches": 1, "recompute": False,
            "replicas": [{"stages": [{**stage, "ranks": [{"node": n}]}]} for n in ("a", "b")]}
