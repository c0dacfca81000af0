"""The model that Atoll trains, in PyTorch: RMSNorm, rotary positions (half-split), grouped-query attention, SwiGLU, tied
or untied head; AdamW with decay on matrices only, global norm clipped; binary32. Projections that Atoll fuses (q, k, v;
gate, up) are fused here too. Used by the peers beside this file.

A shape is what `atoll bench train --list --json` prints."""
import torch
import torch.nn.functional as F
from torch import nn


class Norm(nn.Module):
    def __init__(self, d, eps):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.gain


def rotate(x, cos, sin):
    """x(B,H,T,size)"""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


class Layer(nn.Module):
    def __init__(self, s):
        super().__init__()
        d, self.heads, self.kv, self.size, self.ff = s["d_model"], s["heads"], s["kv_heads"], s["head_size"], s["d_ff"]
        self.norm1, self.norm2 = Norm(d, s["norm_eps"]), Norm(d, s["norm_eps"])
        self.qkv = nn.Linear(d, (self.heads + 2 * self.kv) * self.size, bias=False)
        self.o = nn.Linear(self.heads * self.size, d, bias=False)
        self.gate_up = nn.Linear(d, 2 * self.ff, bias=False)
        self.down = nn.Linear(self.ff, d, bias=False)

    def attention(self, x, cos, sin, mask):
        B, T, _ = x.shape
        q, k, v = self.qkv(x).split([self.heads * self.size, self.kv * self.size, self.kv * self.size], -1)
        q = rotate(q.view(B, T, self.heads, self.size).transpose(1, 2), cos, sin)
        k = rotate(k.view(B, T, self.kv, self.size).transpose(1, 2), cos, sin)
        v = v.view(B, T, self.kv, self.size).transpose(1, 2)
        if self.kv != self.heads:
            k = k.repeat_interleave(self.heads // self.kv, 1)
            v = v.repeat_interleave(self.heads // self.kv, 1)
        score = (q @ k.transpose(-2, -1)) * self.size ** -0.5 + mask
        mixed = torch.softmax(score, -1) @ v
        return self.o(mixed.transpose(1, 2).reshape(B, T, self.heads * self.size))

    def forward(self, x, cos, sin, mask):
        x = x + self.attention(self.norm1(x), cos, sin, mask)
        gate, up = self.gate_up(self.norm2(x)).split(self.ff, -1)
        return x + self.down(F.silu(gate) * up)


class Llama(nn.Module):
    def __init__(self, s):
        super().__init__()
        T, half = s["seq_len"], s["head_size"] // 2
        self.embedding = nn.Embedding(s["vocab"], s["d_model"])
        self.layers = nn.ModuleList(Layer(s) for _ in range(s["layers"]))
        self.norm = Norm(s["d_model"], s["norm_eps"])
        self.head = nn.Linear(s["d_model"], s["vocab"], bias=False)
        angle = torch.outer(torch.arange(T, dtype=torch.float64),
                            s["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half))
        self.register_buffer("cos", angle.cos().float())
        self.register_buffer("sin", angle.sin().float())
        self.register_buffer("mask", torch.full((T, T), float("-inf")).triu(1))
        self.start(s)
        if s["tied"]:
            self.head.weight = self.embedding.weight

    def start(self, s):
        """Atoll's initial values, in distribution."""
        for name, p in self.named_parameters():
            if p.dim() == 1:
                continue
            std = p.shape[1] ** -0.5
            if name.endswith(("o.weight", "down.weight")):
                std /= (2 * s["layers"]) ** 0.5
            if name.startswith("embedding"):
                std = 0.02 if s["tied"] else 0.1
            if name.startswith("head"):
                std = 0.02
            nn.init.normal_(p, std=std)

    def forward(self, token, target):
        x = self.embedding(token)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin, self.mask)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), target.flatten())


def optimizer(model, s):
    matrices = [p for p in model.parameters() if p.dim() > 1]
    gains = [p for p in model.parameters() if p.dim() == 1]
    # One tensor after the other: on this kind of machine faster than foreach=True by a third.
    return torch.optim.AdamW([{"params": matrices, "weight_decay": s["weight_decay"]},
                              {"params": gains, "weight_decay": 0.0}],
                             lr=s["lr_peak"], betas=(s["beta1"], s["beta2"]), eps=s["adam_eps"], foreach=False)


class Trainer:
    """One training step at a time, on random tokens; `model` may be wrapped (DDP)."""

    def __init__(self, s, wrap=lambda m: m, seed=1):
        torch.manual_seed(seed)
        self.inner = Llama(s)
        self.model = wrap(self.inner)
        self.optimizer = optimizer(self.inner, s)
        self.clip = s["clip_norm"]
        self.tokens = s["batch"] * s["seq_len"]
        self.token, self.target = torch.randint(0, s["vocab"], (2, s["batch"], s["seq_len"]))

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model(self.token, self.target)
        loss.backward()
        nn.utils.clip_grad_norm_(self.inner.parameters(), self.clip)
        self.optimizer.step()
        return loss
