"""bitsandbytes' optimizers with state in 32 bits as checkpoints and back: `save` and `load`. Needs torch, numpy and
bitsandbytes. State in 8 bits is another number, and does not go over."""

import functools

import bitsandbytes as bnb

import torch_optim
from torch_optim import _LR, _LR_EPS, _betas, _decay

_DECAY = {"weight_decay": _decay("decoupled")}

RULES = [
    (bnb.optim.AdamW32bit, "adamw", {**_LR_EPS, **_betas(), **_DECAY}, {"m": "state1", "v": "state2"}),
    (bnb.optim.Lion32bit, "lion", {**_LR, **_betas(), **_DECAY}, {"m": "state1"}),
]
CASES = ["adamw", "lion"]

save = functools.partial(torch_optim.save, rules=RULES)
load = functools.partial(torch_optim.load, rules=RULES, step=int)
