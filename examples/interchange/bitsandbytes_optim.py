"""bitsandbytes' optimizers as checkpoints and back: `save` and `load` of those with state in 32 bits; of those with state
in 8 bits `save_codes` and `load_codes`, with a second file for the state, which the example reads and writes
(`codes.rs`). Needs torch, numpy, safetensors and bitsandbytes."""

import functools

import bitsandbytes as bnb
import numpy as np
import torch
from safetensors.torch import load_file, save_file

import torch_optim
from torch_optim import _LR, _LR_EPS, _betas, _decay

_DECAY = {"weight_decay": _decay("decoupled")}
_ADAMW = "adamw", {**_LR_EPS, **_betas(), **_DECAY}, {"m": "state1", "v": "state2"}
_LION = "lion", {**_LR, **_betas(), **_DECAY}, {"m": "state1"}

RULES = [(bnb.optim.AdamW32bit, *_ADAMW), (bnb.optim.Lion32bit, *_LION)]
RULES_OF_CODES = [(bnb.optim.AdamW8bit, *_ADAMW), (bnb.optim.Lion8bit, *_LION)]
CASES = ["adamw", "lion"]

save = functools.partial(torch_optim.save, rules=RULES)
load = functools.partial(torch_optim.load, rules=RULES, step=int)


def _slots(optimizer):
    """The slots by bitsandbytes' names; the map of second moments is the unsigned one."""
    _, _, slots = torch_optim._rule(optimizer, RULES_OF_CODES)
    return {slot: (key, key[-1], key == "state1") for slot, key in slots.items()}


def save_codes(path, codes, optimizer, params):
    """Writes a checkpoint whose state is 0, and the state's codes and scales."""
    torch_optim.save(path, optimizer, params, rules=RULES_OF_CODES, read=lambda state: np.zeros(state.shape, "<f4"))
    parts = {}
    for name, param in params.items():
        for slot, (key, number, _) in _slots(optimizer).items():
            parts[f"codes.{name}.{slot}"] = optimizer.state[param][key].contiguous()
            parts[f"scales.{name}.{slot}"] = optimizer.state[param][f"absmax{number}"]
    save_file(parts, codes)


def load_codes(path, codes=None):
    """Returns an optimizer and its parameters, a dict of named tensors, from a checkpoint and the state's codes. Before
    the first step there are none."""
    optimizer, params = torch_optim.load(path, rules=RULES_OF_CODES, step=int)
    # Small tensors have codes, too.
    optimizer.args.min_8bit_size = 0
    parts = load_file(codes) if codes else {}
    for name, param in params.items() if codes else ():
        for slot, (key, number, signed) in _slots(optimizer).items():
            optimizer.state[param].update({
                key: parts[f"codes.{name}.{slot}"], f"absmax{number}": parts[f"scales.{name}.{slot}"],
                f"qmap{number}": bnb.functional.create_dynamic_map(signed=signed),
            })
    return optimizer, params


def numbers(optimizer, param):
    """The state of a parameter by slot, as bitsandbytes decodes it, and the codes that it encodes this to."""
    found = {}
    for slot, (key, number, signed) in _slots(optimizer).items():
        state, qmap = optimizer.state[param], bnb.functional.create_dynamic_map(signed=signed)
        decoded = bnb.functional.dequantize_blockwise(
            state[key], absmax=state[f"absmax{number}"], code=qmap, blocksize=256)
        codes, _ = bnb.functional.quantize_blockwise(decoded, code=qmap, blocksize=256)
        found[slot] = decoded.numpy(), codes.numpy(), qmap.numpy()
    return found
