#!/usr/bin/env python3
"""A run of real processes that is killed, paused, cut off, slowed down, filled up and set to a wrong time on a schedule made
from a seed, and what must be true of it afterwards: it ends, all members hold one state root, every ledger verifies and is
the same, every sample counts once (reckoned here from the log's OPEN, RECEIPT and CLOSE), and the whole run computed again
from the ledger alone (`atoll ledger replay`) has that root.

  chaos.py [--members N] [--seconds S] [--seed X] [--preset P] [--kinds A,B,...]

The seed decides what is done to whom and when; the processes' own timing is not part of it, so the root differs from run to
run. ATOLL, CHAOS_RELAY, CHAOS_CLOCK_LIB: the programs (CMakeLists.txt sets them). Exit code 77: not possible here."""
import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import world
from world import call, fail, must, skip

PATIENCE_S = 120  # for what takes seconds on a quiet machine
HOUR_MS = 3600 * 1000
DISK_MIB = 256  # far more than a folder of these models takes
KINDS = ("kill", "kill-founder", "pause", "pause-long", "cut", "cut-in", "cut-out", "cut-pair", "slow", "clock", "disk")


def schedule(rng, members, seconds, kinds):
    """[(second, kind, victim, other, length, jump)]: every kind once in a shuffled order, and then again until the time is
    over. Each node is in at most one trouble at a time; a kind whose turn finds nobody free waits."""
    events, at, order = [], 0.5, []
    busy = [0.0] * members
    while at < seconds or order:
        if not order:
            order = list(kinds)
            rng.shuffle(order)
        kind = order.pop()
        free = [i for i in range(members) if busy[i] <= at]
        able = [i for i in free if (i == 0) == (kind == "kill-founder") and (kind != "disk" or i == 1)]
        able = able or ([i for i in free if kind in ("slow", "clock")])
        if able and not (kind == "cut-pair" and len(able) < 2):
            victim = rng.choice(able)
            length = {"pause": rng.uniform(0.5, 2), "pause-long": rng.uniform(6.5, 8), "cut": rng.uniform(2, 8),
                      "cut-in": rng.uniform(2, 8), "cut-out": rng.uniform(2, 8), "cut-pair": rng.uniform(2, 8),
                      "slow": rng.uniform(3, 6), "disk": rng.uniform(4, 7)}.get(kind, rng.uniform(0.2, 2.5))
            other = rng.choice([i for i in able if i != victim]) if kind == "cut-pair" else None
            jump = rng.choice((-24, -1, 1, 24)) * HOUR_MS
            events.append((at, kind, victim, other, length, jump))
            busy[victim] = at + length + 0.5
            if other is not None:
                busy[other] = at + length + 0.5
            at += rng.uniform(0.3, 0.9) * 8 / members
        else:
            order.insert(0, kind)
            at += 0.3
    return events


class Chaos:
    def __init__(self, w, log, mbit):
        self.w, self.say, self.done, self.mbit = w, log, {}, mbit
        self.full = None  # the node whose disk is full

    def begin(self, kind, victim, other, length, jump):
        """Does it, and returns what ends it."""
        node, w = self.w.nodes[victim], self.w
        self.done[kind] = self.done.get(kind, 0) + 1
        if kind in ("kill", "kill-founder"):
            node.kill()
            return node.run
        if kind in ("pause", "pause-long"):
            node.pause()
            return node.go_on
        if kind == "slow":
            node.limit(1)
            return lambda: node.limit(self.mbit)
        if kind == "clock":
            node.move_clock(jump)
            return lambda: None  # it stays wrong
        if kind == "disk":
            node.fill_disk()
            self.full = node
            return lambda: self.after_full_disk(node)
        ways = {"cut": [(node, None), (None, node)], "cut-in": [(None, node)], "cut-out": [(node, None)],
                "cut-pair": [(node, w.nodes[other] if other is not None else None),
                             (w.nodes[other] if other is not None else None, node)]}[kind]
        for a, b in ways:
            w.cut(a, b)
        return lambda: [w.mend(a, b) for a, b in ways]

    def after_full_disk(self, node):
        node.empty_disk()
        self.full = None

    def play(self, events):
        start, ends = time.monotonic(), []
        queue = list(events)
        while queue or ends:
            now = time.monotonic() - start
            for due in [e for e in ends if e[0] <= now]:
                ends.remove(due)
                due[1]()
            while queue and queue[0][0] <= now:
                at, kind, victim, other, length, jump = queue.pop(0)
                self.say(f"{now:6.1f} s  round {self.w.round() + 1:3}  {kind:12} {self.w.nodes[victim].name}"
                         + (f" and {self.w.nodes[other].name}" if other is not None else "") + f" for {length:.1f} s")
                ends.append((at + length, self.begin(kind, victim, other, length, jump)))
            self.look_after()
            time.sleep(0.05)

    def look_after(self):
        """Nobody may end by himself, but once on each full disk, with the code for it; then it starts again when there is
        room."""
        for node in self.w.nodes:
            code = node.process.poll()
            if code in (None, -9) or (code == 5 and node is self.full):
                continue
            self.done["disk-ended"] = self.done.get("disk-ended", 0) + 1
            if code == 5 and "the disk is full" in node.log() and self.done["disk-ended"] <= self.done.get("disk", 0):
                node.run()
                continue
            self.w.tell_logs()
            fail(f"{node.name} ended by itself with exit code {code}")


def exactly_once(records, unit):
    """The samples that counted, as a plain set: none twice, and whatever is missing below the last one was given out in a
    round that did not count it."""
    counted, given, receipts, counts, units = set(), set(), {}, set(), 0
    for rec in records:
        if rec["kind"] == "OPEN":
            receipts = {}
        elif rec["kind"] == "RECEIPT":
            receipts[rec["replica"]] = range(rec["start"], rec["start"] + rec["samples"])
        elif rec["kind"] == "CLOSE":
            for replica, samples in receipts.items():
                given.update(samples)
                if replica not in rec["included_list"]:
                    continue
                if not counted.isdisjoint(samples):
                    fail(f"round {rec['round']} replica {replica}: samples from {samples.start} on count twice")
                counted.update(samples)
                units += 1
            if not set(rec["included_list"]) <= set(receipts):
                fail(f"round {rec['round']} counts a replica that handed in nothing")
    if len(counted) != units * unit:
        fail(f"{units} units of {unit} samples count, but {len(counted)} samples do")
    return counted


def check(w, say, unit):
    """What must be true once everybody has ended."""
    roots = {must(w.atoll, "root", n.folder).strip() for n in w.nodes}
    if len(roots) != 1:
        fail(f"{len(roots)} different roots: {roots}")
    heads = set()
    for n in w.nodes:
        told = json.loads(must(w.atoll, "ledger", "verify", n.folder, "--json"))
        heads.add((told["head"], told["records"]))
    if len(heads) != 1:
        fail(f"{len(heads)} different ledgers: {heads}")
    records = json.loads(must(w.atoll, "ledger", "show", w.founder.folder, "--count", "1000000000", "--json"))["records"]
    counted = exactly_once(records, unit)
    replay = call(w.atoll, "ledger", "replay", w.nodes[-1].folder, "--json")
    if replay.returncode != 0:
        fail(f"the replay: {replay.stderr.strip()[-300:]}")
    told = json.loads(replay.stdout)
    if told["state_root"] not in roots or not told["data_exactly_once"] or told["samples_counted"] != len(counted):
        fail(f"the replay differs: {told}, root {roots}, {len(counted)} samples")
    say(f"one root {told['state_root'][:16]} at {len(w.nodes)} members; {told['records']} records verify; "
        f"{told['rounds']} rounds, {told['units']} units, {len(counted)} samples, each once; computed again from the ledger "
        f"in {told['seconds']:.1f} s: the same root")
    return records


def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--members", type=int, default=8)
    ask.add_argument("--seconds", type=float, default=60)
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--preset", default="nano")
    ask.add_argument("--steps", type=int, default=4)
    ask.add_argument("--kinds", default=",".join(KINDS), help="of trouble; each comes at least once")
    ask.add_argument("--mbit", type=float, default=20, help="every link's rate, so that rounds are not all arithmetic")
    args = ask.parse_args()
    world.enter()
    again = ("python3 tests/chaos/chaos.py " + " ".join(sys.argv[1:]))
    print(f"again: {again} (with ATOLL, CHAOS_RELAY and CHAOS_CLOCK_LIB set)", flush=True)
    folder = tempfile.mkdtemp(prefix="atoll-chaos-")

    def say(text):
        print(text, flush=True)

    w = world.World(folder, args.members)
    try:
        text = os.path.join(folder, "text.txt")
        with open(os.environ["DATA"], "rb") as f, open(text, "wb") as g:
            g.write(f.read(12000))
        kinds = [k for k in args.kinds.split(",") if k != "clock" or w.clock]
        if not w.clock and "clock" in args.kinds:
            say("no clock jumps: a sanitizer's runtime would answer before the preloaded clock")
        w.found("--preset", args.preset, "--data", text, "--rounds", "100000", "--steps", str(args.steps), "--min-members",
                str(args.members), "--seed", str(args.seed), "--round-ms", "30000")
        w.nodes[1].small_disk(DISK_MIB)
        w.gather(PATIENCE_S)
        w.until(PATIENCE_S, "the first round ends", lambda: w.round() >= 1)
        for n in w.nodes:
            n.limit(args.mbit)
        chaos = Chaos(w, say, args.mbit)
        rng = random.Random(args.seed)
        chaos.play(schedule(rng, args.members, args.seconds, kinds))
        for n in w.nodes:
            n.limit(None)
        say("done to them: " + ", ".join(f"{k} {v}" for k, v in sorted(chaos.done.items())) + "; now nothing more")
        healed = w.round()
        w.until(PATIENCE_S, "two rounds in which everybody's work counts",
                lambda: all_counted_since(w, healed) and chaos.look_after() is None, 0.5)
        must(w.atoll, "finish", "--dir", w.founder.folder)
        for n in w.nodes:
            w.until(PATIENCE_S, f"{n.name} ends", lambda: not n.alive())
            if n.process.returncode != 0:
                w.tell_logs()
                fail(f"{n.name} ended with exit code {n.process.returncode}")
        shape = json.loads(must(w.atoll, "bench", "train", "--list", "--preset", args.preset, "--json"))
        records = check(w, say, args.steps * shape["batch"])
        if "clock" in chaos.done:
            jumped = [r for a, r in zip(records, records[1:]) if abs(r["time_ms"] - a["time_ms"]) > HOUR_MS // 2]
            if not jumped:
                fail("the clocks were moved, and no record shows it")
    finally:
        w.close()
        call("umount", w.nodes[1].folder)
        shutil.rmtree(folder, ignore_errors=True)
    say(f"passed; again: {again}")


def all_counted_since(w, round_before):
    """Two rounds after that one have closed with everybody."""
    done = call(w.atoll, "ledger", "show", w.founder.folder, "--count", "1000000000", "--json")
    if done.returncode != 0:
        return False
    closes = [r for r in json.loads(done.stdout)["records"] if r["kind"] == "CLOSE" and r["round"] > round_before]
    return sum(r["included"] == len(w.nodes) for r in closes) >= 2


if __name__ == "__main__":
    if not os.environ.get("ATOLL"):
        fail("ATOLL is not set: the program under test")
    main()
