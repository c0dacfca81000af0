"""PyTorch's DistributedDataParallel over gloo: the naive way to train together, an all-reduce of all gradients in every
step. One rank. It sets itself up and does one step that is not counted, prints "ready", and then answers every line
"STEPS" on standard input with the seconds of so many steps (a line with one number). Ranks must be sent the same lines.

  torch_ddp.py SHAPE.json RANK RANKS ADDRESS PORT INTERFACE"""
import json
import os
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from llama_torch import Trainer


def main():
    shape_path, rank, ranks, address, port, interface = sys.argv[1:7]
    torch.set_num_threads(1)
    with open(shape_path, encoding="utf-8") as f:
        shape = json.load(f)
    wrap = lambda m: m
    if int(ranks) > 1:
        os.environ.update(MASTER_ADDR=address, MASTER_PORT=port, GLOO_SOCKET_IFNAME=interface)
        dist.init_process_group("gloo", rank=int(rank), world_size=int(ranks))
        wrap = DistributedDataParallel
    trainer = Trainer(shape, wrap)
    trainer.step()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.monotonic()
        for _ in range(int(line)):
            trainer.step()
        print(time.monotonic() - start, flush=True)
    if int(ranks) > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
