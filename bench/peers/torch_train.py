"""PyTorch as a program that takes turns with `atoll bench train --lines`: every line on standard input is answered with
the tokens a second of whole training steps (forward, backward, clip, AdamW) over at least 0.4 s.

  torch_train.py SHAPE.json THREADS"""
import json
import math
import sys
import time

import torch

from llama_torch import Trainer


def measure(trainer):
    steps, start = 0, time.monotonic()
    while True:
        loss = trainer.step()
        steps += 1
        spent = time.monotonic() - start
        if spent >= 0.4:
            break
    if not math.isfinite(loss.item()):
        sys.exit("the loss is not finite")
    return steps * trainer.tokens / spent


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        shape = json.load(f)
    torch.set_num_threads(int(sys.argv[2]))
    trainer = Trainer(shape)
    for line in sys.stdin:
        if line.strip() == "quit":
            break
        print(f"{measure(trainer):.6g}", flush=True)


if __name__ == "__main__":
    main()
