"""PyTorch's DistributedDataParallel over gloo: the naive way to train together, an all-reduce of all gradients in every
step. One rank; prints one JSON object: the seconds of each step after the first, and the tokens of one step.

  torch_ddp.py SHAPE.json RANK RANKS ADDRESS PORT INTERFACE STEPS [THREADS]"""
import json
import os
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from llama_torch import Trainer


def main():
    shape_path, rank, ranks, address, port, interface, steps = sys.argv[1:8]
    torch.set_num_threads(int(sys.argv[8]) if len(sys.argv) > 8 else 1)
    with open(shape_path, encoding="utf-8") as f:
        shape = json.load(f)
    if int(ranks) > 1:
        os.environ.update(MASTER_ADDR=address, MASTER_PORT=port, GLOO_SOCKET_IFNAME=interface)
        dist.init_process_group("gloo", rank=int(rank), world_size=int(ranks))
    trainer = Trainer(shape, (lambda m: DistributedDataParallel(m)) if int(ranks) > 1 else (lambda m: m))
    seconds = []
    for _ in range(1 + int(steps)):
        start = time.monotonic()
        trainer.step()
        seconds.append(time.monotonic() - start)
    print(json.dumps({"seconds": seconds[1:], "tokens_per_step": trainer.tokens}), flush=True)
    if int(ranks) > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
