"""optax's states as checkpoints and back. Needs jax and optax.

optax keeps no options in its state, so a transformation is made of a checkpoint's options, and a state is saved into a
checkpoint that has the options: one from before the first step, as `interchange --until 0` writes it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import checkpoint

CASES = ["adam_inside", "adabelief", "lion", "lamb", "yogi"]


def _betas(options):
    return {"b1": options["beta1"], "b2": options["beta2"]}


def _decay(options, kind):
    value = options["weight_decay"]
    if value == "none":
        return 0.0
    if list(value) != [kind]:
        raise ValueError(f"weight_decay is {value}, must be none or {kind}")
    return value[kind]


def _adam(options):
    inside = options["eps_placement"] == "inside"
    eps = {"eps": 0.0, "eps_root": options["eps"]} if inside else {"eps": options["eps"]}
    return optax.adamw(options["lr"], **_betas(options), **eps, weight_decay=_decay(options, "decoupled"))


# The transformation of a rule's options, and the fields of its state that slots are.
RULES = {
    "adam": (_adam, {"m": "mu", "v": "nu"}),
    "adamw": (_adam, {"m": "mu", "v": "nu"}),
    "adabelief": (
        lambda options: optax.adabelief(options["lr"], **_betas(options), eps=options["eps"],
                                        eps_root=options["eps_root"]),
        {"m": "mu", "s": "nu"}),
    "lion": (
        lambda options: optax.lion(options["lr"], **_betas(options), weight_decay=_decay(options, "decoupled")),
        {"m": "mu"}),
    "lamb": (
        lambda options: optax.lamb(options["lr"], **_betas(options), eps=options["eps"],
                                   weight_decay=_decay(options, "inside")),
        {"m": "mu", "v": "nu"}),
    "yogi": (
        lambda options: optax.yogi(options["lr"], **_betas(options), eps=options["eps"]),
        {"m": "mu", "v": "nu"}),
}


def _transformation(training):
    groups = training["groups"]["groups"]
    if len(groups) > 1 or training["groups"]["wrappers"]:
        raise ValueError("only one group without wrappers goes over")
    make, slots = RULES[training["groups"]["optimizer"]]
    return make(groups[0]["options"]), slots


def load(path):
    """Returns a transformation, its state and the parameters, from a checkpoint."""
    training, values = checkpoint.read(path)
    transformation, slots = _transformation(training)
    names = [tensor["name"] for tensor in training["tensors"]]
    params = {name: jnp.asarray(values[f"param.{name}"]) for name in names}
    counts = {tensor["t"] for tensor in training["tensors"]}
    if len(counts) != 1:
        raise ValueError(f"optax has one count for all tensors, the checkpoint has {sorted(counts)}")

    def fill(state):
        if not hasattr(state, "mu"):
            return state
        fields = {field: {name: jnp.asarray(values[f"state.{name}.{slot}"]) for name in names}
                  for slot, field in slots.items()}
        return state._replace(count=jnp.asarray(counts.pop(), jnp.int32), **fields)

    state = tuple(fill(part) for part in transformation.init(params))
    return transformation, state, params


def save(path, template, state, params):
    """Writes a state and its parameters as a checkpoint with the options of the checkpoint `template`."""
    training, _ = checkpoint.read(template)
    _, slots = _transformation(training)
    (found,) = [part for part in state if hasattr(part, "mu")]
    values = {f"param.{name}": np.asarray(param) for name, param in params.items()}
    for slot, field in slots.items():
        for name, value in getattr(found, field).items():
            values[f"state.{name}.{slot}"] = np.asarray(value)
    for tensor in training["tensors"]:
        tensor["t"] = int(found.count)
    training["steps"] = training["attempts"] = int(found.count)
    checkpoint.write(path, training, values)


def _steps(case, transformation, state, params, steps):
    update = jax.jit(transformation.update)
    for step in steps:
        grads = {name: jnp.asarray(case.grad(name, step)) for name in params}
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return state, params


def check(case, program, folder):
    """Half of a golden run here and half there, both ways round: how far each ends from the whole, by the bound."""
    half, end, start = (folder / f"{name}.safetensors" for name in ("half", "end", "start"))
    program(case, half, "--config", case.config, "--until", 12)
    _, params = _steps(case, *load(half), range(12, case.steps))
    there = case.worst({name: np.asarray(param) for name, param in params.items()})
    program(case, start, "--config", case.config, "--until", 0)
    state, params = _steps(case, *load(start), range(12))
    save(half, start, state, params)
    program(case, end, "--load", half)
    _, values = checkpoint.read(end)
    return there, case.worst({name: values[f"param.{name}"] for name in params})
