"""PyTorch's optimizers as checkpoints and back: `save` and `load`. Needs torch and numpy.

Whatever an optimizer of PyTorch and a rule here both have goes over: options of every group, state, counts of steps.
What only one has is refused by name."""

import inspect

import numpy as np
import torch

import checkpoint


def _decay(kind):
    """Weight decay of one kind."""
    def to(group):
        return "none" if group["weight_decay"] == 0 else {kind: float(group["weight_decay"])}

    def back(value):
        if value == "none":
            return {"weight_decay": 0.0}
        if list(value) != [kind]:
            raise ValueError(f"weight_decay is {value}, must be none or {kind}")
        return {"weight_decay": value[kind]}

    return to, back


def _decoupled_or_l2():
    def to(group):
        return _decay("decoupled" if group["decoupled_weight_decay"] else "l2")[0](group)

    def back(value):
        decoupled = value != "none" and "decoupled" in value
        return {**_decay("decoupled" if decoupled else "l2")[1](value), "decoupled_weight_decay": decoupled}

    return to, back


def _choice(name, pairs):
    """An option that is one of a few, as `(PyTorch's, ours)`; the first of a value counts."""
    def to(group):
        return next(ours for theirs, ours in pairs if theirs == group[name])

    def back(value):
        for theirs, ours in pairs:
            if ours == value:
                return {name: theirs}
        raise ValueError(f"{name}: PyTorch has no {value}")

    return to, back


def _number(name):
    return lambda group: float(group[name]), lambda value: {name: value}


def _pair(name, place):
    return lambda group: float(group[name][place]), lambda value: {name: {place: value}}


def _betas():
    return {"beta1": _pair("betas", 0), "beta2": _pair("betas", 1)}


_LR = {"lr": _number("lr")}
_LR_EPS = {**_LR, "eps": _number("eps")}
_NESTEROV = _choice("nesterov", [(False, "off"), (True, "simplified")])
_AMSGRAD = _choice("amsgrad", [(False, "off"), (True, "raw")])
_MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}
# PyTorch's None stands for the epsilon of f32.
_EPS1 = (lambda group: float(group["eps"][0] or torch.finfo(torch.float32).eps), lambda value: {"eps": {0: value}})

# The class, the rule, its options (each a way to ours and a way back), and its slots by PyTorch's names.
RULES = [
    (torch.optim.AdamW, "adamw", {**_LR_EPS, **_betas(), "amsgrad": _AMSGRAD, "weight_decay": _decay("decoupled")},
     {**_MOMENTS, "vmax": "max_exp_avg_sq"}),
    (torch.optim.Adam, "adam", {**_LR_EPS, **_betas(), "amsgrad": _AMSGRAD, "weight_decay": _decoupled_or_l2()},
     {**_MOMENTS, "vmax": "max_exp_avg_sq"}),
    (torch.optim.NAdam, "nadam",
     {**_LR_EPS, **_betas(), "momentum_decay": _number("momentum_decay"), "weight_decay": _decoupled_or_l2()},
     _MOMENTS),
    (torch.optim.RAdam, "radam", {**_LR_EPS, **_betas(), "weight_decay": _decoupled_or_l2()}, _MOMENTS),
    (torch.optim.Adamax, "adamax", {**_LR_EPS, **_betas(), "weight_decay": _decay("l2")},
     {"m": "exp_avg", "u": "exp_inf"}),
    (torch.optim.Adadelta, "adadelta", {**_LR_EPS, "rho": _number("rho"), "weight_decay": _decay("l2")},
     {"s": "square_avg", "a": "acc_delta"}),
    (torch.optim.Adagrad, "adagrad",
     {**_LR_EPS, "lr_decay": _number("lr_decay"), "initial_accumulator": _number("initial_accumulator_value"),
      "weight_decay": _decay("l2")}, {"s": "sum"}),
    (torch.optim.Adafactor, "adafactor",
     {**_LR, "beta2_decay": _number("beta2_decay"), "eps1": _EPS1, "eps2": _pair("eps", 1), "d": _number("d"),
      "weight_decay": _decay("decoupled")}, {"row": "row_var", "col": "col_var", "v": "variance"}),
    (torch.optim.ASGD, "asgd",
     {**_LR, "lambd": _number("lambd"), "alpha": _number("alpha"), "t0": _number("t0"), "weight_decay": _decay("l2")},
     {"ax": "ax"}),
    (torch.optim.RMSprop, "rmsprop",
     {**_LR_EPS, "alpha": _number("alpha"), "momentum": _number("momentum"),
      "centered": _choice("centered", [(False, False), (True, True)]), "weight_decay": _decay("l2")},
     {"v": "square_avg", "a": "grad_avg", "b": "momentum_buffer"}),
    (torch.optim.Rprop, "rprop",
     {**_LR, "eta_minus": _pair("etas", 0), "eta_plus": _pair("etas", 1), "step_min": _pair("step_sizes", 0),
      "step_max": _pair("step_sizes", 1)}, {"prev": "prev", "step": "step_size"}),
    (torch.optim.SGD, "sgd",
     {**_LR, "momentum": _number("momentum"), "dampening": _number("dampening"), "nesterov": _NESTEROV,
      "weight_decay": _decay("l2")}, {"v": "momentum_buffer"}),
    (torch.optim.Muon, "muon",
     {**_LR_EPS, "momentum": _number("momentum"), "nesterov": _NESTEROV,
      "ns_coefficients": (lambda group: list(group["ns_coefficients"]),
                          lambda value: {"ns_coefficients": tuple(value)}),
      "ns_steps": (lambda group: group["ns_steps"], lambda value: {"ns_steps": value}),
      "adjust_lr": _choice("adjust_lr_fn", [(None, "original"), ("original", "original"),
                                            ("match_rms_adamw", "match_rms_adamw"),
                                            ("spectral_unclamped", "spectral_unclamped")]),
      "weight_decay": _decay("decoupled")}, {"m": "momentum_buffer"}),
    (torch.optim.LBFGS, "lbfgs",
     {**_LR, "history_size": (lambda group: group["history_size"], lambda value: {"history_size": value})}, {}),
]

# What our rules leave at its default where the other library has no choice.
_ADAM = {"eps_placement": "outside", "v_per": "element", "bias_correction": True, "update_rms_clip": None}
_DEFAULTS = {
    "adamw": {"amsgrad": "off", **_ADAM},
    "adam": _ADAM,
    "rmsprop": {"eps_placement": "outside", "initial_v": 0.0, "form": "accumulate", "nesterov": "off"},
    "sgd": {"form": "accumulate"},
    "adagrad": {"eps_placement": "outside"},
    "radam": {"eps_placement": "uncorrected", "threshold": 5.0, "unrectified": "sgd"},
    "adamax": {"eps_placement": "in_max"},
    "rprop": {"weight_decay": "none"},
    "muon": {"ns_safety": 1.0},
    "lbfgs": {"weight_decay": "none", "line_search": "none", "max_iter": 20, "max_eval": None, "tolerance_grad": 1e-7,
              "tolerance_change": 1e-9},
}

# What PyTorch's L-BFGS must be to take steps as ours does.
_ONE_DIRECTION = {"line_search_fn": None, "max_iter": 1, "tolerance_grad": 0, "tolerance_change": 0}


def _rule(optimizer, rules):
    for kind, rule, options, slots in rules:
        if type(optimizer) is kind:
            return rule, options, slots
    raise ValueError(f"{type(optimizer).__name__} has no rule here")


def save(path, optimizer, params, steps=None, shapes=None, rules=RULES, read=lambda state: state.detach().numpy()):
    """Writes an optimizer and its parameters, a dict of named tensors, as a checkpoint. `steps` is the count of steps
    for optimizers that keep none, SGD and Muon; `shapes` are those of tensors that PyTorch's Muon has as matrices; `read`
    makes numbers of a tensor of the state."""
    rule, options, slots = _rule(optimizer, rules)
    for name, value in _ONE_DIRECTION.items() if rule == "lbfgs" else ():
        if optimizer.param_groups[0][name] != value:
            raise ValueError(f"{name} is {optimizer.param_groups[0][name]}, must be {value}")
    groups = [{name: to(group) for name, (to, _) in options.items()} for group in optimizer.param_groups]
    maximize = {group.get("maximize", False) for group in optimizer.param_groups}
    if len(maximize) > 1:
        raise ValueError("maximize differs between groups, which this program does not do")
    group_of = {id(param): i for i, group in enumerate(optimizer.param_groups) for param in group["params"]}
    tensors, values = [], {}
    for name, param in params.items():
        state = optimizer.state[param]
        t = int(state["step"]) if "step" in state else steps if steps is not None else 0
        shape = list((shapes or {}).get(name, param.shape))
        tensor = {"name": name, "shape": shape, "group": group_of[id(param)], "t": t}
        if rule == "nadam":
            tensor["carried"] = float(state["mu_product"]), 0.0
        if rule == "asgd":
            tensor["carried"] = float(state["eta"]), float(state["mu"])
        tensors.append(tensor)
        values[f"param.{name}"] = param.detach().numpy().reshape(shape)
        for slot, key in slots.items():
            if state.get(key) is not None:
                value = read(state[key])
                values[f"state.{name}.{slot}"] = value.reshape(shape) if value.size == param.numel() else value
    if rule == "lbfgs":
        _save_history(optimizer, tensors, values)
    checkpoint.write(path, checkpoint.training(rule, groups, tensors, maximize.pop()), values)


def load(path, rules=RULES, step=lambda t: torch.tensor(float(t))):
    """Returns an optimizer and its parameters, a dict of named tensors, from a checkpoint. `step` makes of a count of
    steps what the optimizer's state holds."""
    training, values = checkpoint.read(path)
    groups = training["groups"]
    rule = groups["optimizer"]
    found = [(kind, options, slots) for kind, name, options, slots in rules if name == rule]
    if not found:
        raise ValueError(f"there is no {rule} among {', '.join(kind.__name__ for kind, *_ in rules)}")
    refused = {name: training[name] for name in ("micro_batches", "looked", "moved") if training[name]}
    refused |= groups["wrappers"]
    if refused:
        raise ValueError(f"PyTorch has no {', '.join(refused)}")
    (kind, options, slots), params, kept = found[0], {}, []
    # PyTorch's Muon takes matrices alone.
    taken = (lambda value: value.reshape(len(value), -1)) if kind is torch.optim.Muon else lambda value: value
    for tensor in training["tensors"]:
        params[tensor["name"]] = torch.nn.Parameter(torch.from_numpy(taken(values[f"param.{tensor['name']}"])))
    for place, group in enumerate(groups["groups"]):
        of_group = {"params": [params[t["name"]] for t in training["tensors"] if t["group"] == place]}
        if "maximize" in inspect.signature(kind).parameters:
            of_group["maximize"] = group["maximize"]
        elif group["maximize"]:
            raise ValueError(f"{kind.__name__} has no maximize")
        for name, value in group["options"].items():
            if name in options:
                for key, part in options[name][1](value).items():
                    of_group[key] = {**of_group.get(key, {}), **part} if isinstance(part, dict) else part
            elif name not in _DEFAULTS.get(rule, {}) or value != _DEFAULTS[rule][name]:
                raise ValueError(f"{name} is {value}, which {kind.__name__} does not do")
        pairs = {key: (part[0], part[1]) for key, part in of_group.items() if isinstance(part, dict)}
        of_group.update(pairs)
        if of_group["params"] or place == 0:
            kept.append(of_group)
    top = {key: value for key, value in kept[0].items() if key != "params"}
    if rule == "lbfgs":
        optimizer = kind(kept[0]["params"], **_ONE_DIRECTION, **top)
        _load_history(optimizer, training, values)
        return optimizer, params
    # The top level may have no tensors of its own, which PyTorch refuses.
    optimizer = kind([group for group in kept if group["params"]], **top)
    for tensor in training["tensors"]:
        state, t = {}, tensor["t"]
        if t == 0:
            continue
        for slot, key in slots.items():
            if (name := f"state.{tensor['name']}.{slot}") in values:
                state[key] = torch.from_numpy(taken(values[name]))
        if rule not in ("sgd", "muon"):
            state["step"] = step(t)
        if rule == "nadam":
            state["mu_product"] = torch.tensor(checkpoint.number(tensor["carried"][0]))
        if rule == "asgd":
            state["eta"], state["mu"] = (torch.tensor(checkpoint.number(text)) for text in tensor["carried"])
        optimizer.state[params[tensor["name"]]] = state
    return optimizer, params


def _save_history(optimizer, tensors, values):
    """L-BFGS's: PyTorch has a list of pairs of vectors over all tensors, here they stand in a ring for each tensor."""
    group, state = optimizer.param_groups[0], optimizer.state[optimizer.param_groups[0]["params"][0]]
    most, pairs = group["history_size"], len(state.get("old_stps", []))
    # Movements and changes of the gradient by place.
    ring = torch.zeros(2, most, sum(param.numel() for param in group["params"]))
    for place in range(pairs):
        ring[0, place], ring[1, place] = state["old_stps"][place], state["old_dirs"][place]
    at = 0
    for tensor in tensors:
        tensor["t"] = state.get("n_iter", 0)
        name, shape = tensor["name"], list(tensor["shape"])
        size = int(np.prod(shape))
        for slot, key in (("g_prev", "prev_flat_grad"), ("d", "d")):
            part = state[key][at:at + size] if state.get(key) is not None else torch.zeros(size)
            values[f"state.{name}.{slot}"] = part.reshape(shape).numpy()
        for slot, vectors in zip("sy", ring):
            values[f"state.{name}.{slot}"] = vectors[:, at:at + size].reshape([most, *shape]).numpy()
        at += size
    numbers = {
        "scale": float(state.get("H_diag", 1.0)), "step": float(state.get("t", 0.0)), "pairs": pairs,
        "next": pairs % most, "started": float(state.get("n_iter", 0) > 0), "slope": 0.0,
    }
    values.update({f"optimizer.{name}": np.float32(number) for name, number in numbers.items()})
    moved, change = ring.double()
    values["optimizer.products"] = torch.stack([moved @ change.T, change @ change.T]).float().numpy()


def _load_history(optimizer, training, values):
    tensors, number = training["tensors"], lambda name: float(values[f"optimizer.{name}"])
    if not tensors or number("started") == 0:
        return
    flat = lambda slot: torch.cat([torch.from_numpy(values[f"state.{t['name']}.{slot}"]).flatten() for t in tensors])
    most, pairs = training["groups"]["groups"][0]["options"]["history_size"], int(number("pairs"))
    places = [(int(number("next")) + most - pairs + age) % most for age in range(pairs)]
    of_place = lambda slot, place: torch.cat(
        [torch.from_numpy(values[f"state.{t['name']}.{slot}"][place]).flatten() for t in tensors])
    moved, change = ([of_place(slot, place) for place in places] for slot in "sy")
    optimizer.state[optimizer.param_groups[0]["params"][0]].update(
        func_evals=tensors[0]["t"], n_iter=tensors[0]["t"], d=flat("d"), t=number("step"), old_dirs=change,
        old_stps=moved, ro=[1.0 / y.dot(s) for s, y in zip(moved, change)], H_diag=torch.tensor(number("scale")),
        prev_flat_grad=flat("g_prev"), prev_loss=0.0, al=[None] * most)
