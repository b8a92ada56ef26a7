"""PyTorch's optimizers on the bench's tensors. The bench starts this program, asks for one row a line, and reads the
median time of a step for each: nanoseconds, or null where PyTorch has no such optimizer. Needs torch.

    {"rule": "adamw", "shapes": [[768, 3072], [3072]], "format": "f32", "seconds": 3}
    {"ns": 1.5e7}
"""

import json
import statistics
import sys
import time

import torch
from torch import optim

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WARM_UP = 12  # fills the history of L-BFGS
HISTORY = 10  # as the bench has it


class Muon:
    """Matrices by Muon; tensors of another rank by AdamW, as the bench's own row has it."""

    def __init__(self, params):
        matrices = [torch.nn.Parameter(p.detach().flatten(1)) for p in params if p.dim() >= 2]
        for matrix, p in zip(matrices, (p for p in params if p.dim() >= 2)):
            matrix.grad = p.grad.flatten(1)
        others = [p for p in params if p.dim() < 2]
        self.parts = [optim.Muon(matrices)] + ([optim.AdamW(others, fused=True)] if others else [])

    def step(self):
        for part in self.parts:
            part.step()


class LBFGS(optim.LBFGS):
    """One iteration a step. The gradient is that of a bowl, so that each pair of the history is kept."""

    def __init__(self, params):
        super().__init__(params, lr=1e-3, max_iter=1, tolerance_grad=0, tolerance_change=0, history_size=HISTORY)
        self.tensors = params

    def prepare(self):
        for p in self.tensors:
            p.grad.copy_(p.detach())

    def step(self):
        super().step(lambda: 0.0)


class Scaled:
    """Adam behind a loss scale with its check, and behind a clip by the global norm, as training scripts call them."""

    def __init__(self, params, scales, clips):
        self.params, self.clips, self.adam = params, clips, optim.Adam(params, fused=True)
        self.scaler = torch.amp.GradScaler(DEVICE, init_scale=1.0, growth_interval=2**31 - 1) if scales else None

    def step(self):
        if self.scaler:
            self.scaler.scale(torch.zeros((), device=DEVICE))
            self.scaler.unscale_(self.adam)
        if self.clips:
            torch.nn.utils.clip_grad_norm_(self.params, 1.0, foreach=True)
        if self.scaler:
            self.scaler.step(self.adam)
            self.scaler.update()
        else:
            self.adam.step()


RULES = {
    "sgd": lambda p: optim.SGD(p, fused=True),
    "sgd momentum": lambda p: optim.SGD(p, momentum=0.9, fused=True),
    "adagrad": lambda p: optim.Adagrad(p, foreach=True),
    "rmsprop": lambda p: optim.RMSprop(p, foreach=True),
    "rmsprop momentum": lambda p: optim.RMSprop(p, momentum=0.9, foreach=True),
    "rmsprop centered": lambda p: optim.RMSprop(p, centered=True, foreach=True),
    "adadelta": lambda p: optim.Adadelta(p, foreach=True),
    "adam": lambda p: optim.Adam(p, fused=True),
    "adam amsgrad": lambda p: optim.Adam(p, amsgrad=True, fused=True),
    "adam +check": lambda p: Scaled(p, True, False),
    "adam +clip": lambda p: Scaled(p, False, True),
    "adam +scale+check+clip": lambda p: Scaled(p, True, True),
    "adamw": lambda p: optim.AdamW(p, fused=True),
    "adamw amsgrad": lambda p: optim.AdamW(p, amsgrad=True, fused=True),
    "adamw bf16 state bf16": lambda p: optim.AdamW(p, fused=True),
    "adamax": lambda p: optim.Adamax(p, foreach=True),
    "nadam": lambda p: optim.NAdam(p, foreach=True),
    "radam": lambda p: optim.RAdam(p, foreach=True),
    "rprop": lambda p: optim.Rprop(p, foreach=True),
    "asgd": lambda p: optim.ASGD(p, foreach=True),
    "adafactor": lambda p: optim.Adafactor(p, foreach=True),
    "muon": Muon,
    "lbfgs": LBFGS,
}
FORMATS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def timed(optimizer):
    """Nanoseconds of one step, by CUDA's events or by the wall clock."""
    getattr(optimizer, "prepare", lambda: None)()
    if DEVICE == "cpu":
        start = time.perf_counter_ns()
        optimizer.step()
        return time.perf_counter_ns() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    optimizer.step()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) * 1e6


def median_ns(make, shapes, dtype, seconds):
    params = [torch.nn.Parameter(torch.randn(shape, device=DEVICE, dtype=dtype)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p) * 1e-3
    optimizer = make(params)
    start = time.monotonic()
    for n in range(WARM_UP):
        timed(optimizer)
        # A rule without a history is warm after two steps.
        if make is not LBFGS and n > 0 and time.monotonic() > start + seconds:
            break
    times, end = [], time.monotonic() + seconds
    while len(times) < 3 or time.monotonic() < end:
        times.append(timed(optimizer))
    return statistics.median(times)


def answer(message):
    print(json.dumps(message), flush=True)


name = torch.cuda.get_device_name() if DEVICE == "cuda" else f"CPU, {torch.get_num_threads()} threads"
answer({"torch": f"{torch.__version__}, {name}", "rules": list(RULES)})
for line in sys.stdin:
    asked = json.loads(line)
    make = RULES.get(asked["rule"])
    answer({"ns": make and median_ns(make, asked["shapes"], FORMATS[asked["format"]], asked["seconds"])})
