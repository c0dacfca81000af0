"""The naive peer of bench/scaling: PyTorch DDP over gloo on two nodes."""
import json
import os
import tempfile

import common
import net

SLOWEST_MBIT_PER_S = 10  # below, one step takes minutes: 43 MB go through the link
STEPS = {None: 2, 100: 2}


class Rank:
    def __init__(self, nodes, node, torch, shape_file, rank, ranks):
        command = [torch, os.path.join(common.PEERS, "torch_ddp.py"), shape_file, str(rank), str(ranks), net.ADDRESS[0],
                   "29517", net.INTERFACE[node]]
        self.process = nodes.start(node, command, {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}, talk=True)

    def line(self):
        text = self.process.stdout.readline().strip()
        if not text:
            _, err = self.process.communicate()
            words = err.strip().splitlines()
            common.die(f"PyTorch stopped: {words[-1] if words else 'no message'}", 1)
        return text

    def ask(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


class Ddp:
    def __init__(self, nodes, torch, shape):
        self.nodes, self.torch, self.tokens = nodes, torch, shape["batch"] * shape["seq_len"]
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as f:
            json.dump(shape, f)
        self.shape_file = f.name
        self.ranks = []

    def start(self, linked, count=2):
        ranks = [Rank(self.nodes, i, self.torch, self.shape_file, i if linked else 0, 2 if linked else 1)
                 for i in range(count)]
        for r in ranks:
            r.line()
        return ranks

    def seconds(self, ranks, steps):
        for r in ranks:
            r.ask(steps)
        return [float(r.line()) for r in ranks]

    def unlinked(self, count):
        ranks = self.start(False, count)
        steps = STEPS[None]
        speed = sum(self.tokens * steps / s for s in self.seconds(ranks, steps))
        for r in ranks:
            r.close()
        return speed

    def alone(self):
        return self.unlinked(1)

    def pair(self):
        return self.unlinked(2)

    def __enter__(self):
        self.nodes.limit(None)
        self.ranks = self.start(True)
        return self

    def __exit__(self, *_):
        self.nodes.limit(None)
        for r in self.ranks:
            r.close()
        os.unlink(self.shape_file)

    def train(self, rate):
        """None where it would take too long."""
        if rate is not None and rate < SLOWEST_MBIT_PER_S:
            return None
        steps = STEPS.get(rate, 1)
        self.nodes.limit(rate)
        before = self.nodes.sent_bytes()
        spent = max(self.seconds(self.ranks, steps))
        sent = [b - a for a, b in zip(before, self.nodes.sent_bytes())]
        return {"program": "PyTorch DDP + gloo", "link": net.link_name(rate), "mbit_per_s": rate, "steps": steps,
                "seconds": spent, "tokens_per_s": 2 * self.tokens * steps / spent, "bytes_sent": max(sent) / steps}
