"""Half of each golden run here and half there, both ways round, against the whole.

    cargo build --release --example interchange
    python3 examples/interchange/check.py target/release/examples/interchange

Needs torch, numpy and safetensors; where optax or bitsandbytes are installed, their cases run, too. The bounds are
those of the golden runs (`examples/replay/recording.rs`)."""

import functools
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file

import torch_optim

GOLDEN = pathlib.Path(__file__).parents[2] / "tests" / "golden"
HALF = 12
EPSILON = float(np.finfo(np.float32).eps)

TORCH = """
    adadelta adafactor adagrad adagrad_all adam adam_l2_amsgrad adamax adamw adamw_maximize asgd nadam nadam_decoupled
    radam radam_decoupled rmsprop rmsprop_centered rmsprop_momentum_l2 rprop sgd_dampening_l2 sgd_maximize sgd_momentum
    sgd_nesterov_l2 sgd_plain matrices/muon matrices/muon_match_rms matrices/muon_spectral quadratic/lbfgs
    quadratic/lbfgs_maximize
""".split()


class Case:
    """A golden case: its recording, what is expected of it, and how far a run may be from that."""

    def __init__(self, name):
        self.name, self.config = name, GOLDEN / f"{name}.json"
        self.recording = GOLDEN / pathlib.PurePath(name).parent / "recording.safetensors"
        self.expected = load_file(GOLDEN / f"{name}.expected.safetensors")
        recorded = load_file(self.recording)
        self.first = {key[6:]: value for key, value in recorded.items() if key.startswith("param.")}
        self.grads = {key[5:]: value for key, value in recorded.items() if key.startswith("grad.")}
        self.steps = len(next(iter(self.grads.values())))

    def grad(self, tensor, step):
        return self.grads[tensor][step]

    def worst(self, params):
        """The largest error after the last step, as a share of the bound. Where a rounding turns a sign, as rprop's,
        one element in 500 may be outside."""
        worst = 0.0
        for tensor, first in self.first.items():
            (kept,) = np.flatnonzero(self.expected["steps"] == self.steps)
            expected = self.expected[f"param.{tensor}"][kept]
            own = 0.0
            if f"f32.{tensor}" in self.expected:
                own = np.abs(self.expected[f"f32.{tensor}"][kept] - expected).max(initial=0.0)
            rounding = self.steps * EPSILON / 2 * np.abs(expected).max(initial=0.0)
            bound = max(3.0 * own, rounding + 2e-6 * np.abs(expected - first).max(initial=0.0))
            errors = np.sort(np.abs(params[tensor].astype(np.float64) - expected), axis=None)
            if self.name in ("rprop", "lion", "signum"):
                errors = errors[:errors.size - max(errors.size // 500, 1)]
            worst = max(worst, float(errors.max(initial=0.0)) / bound)
        return worst


class Program:
    """The example beside this file."""

    def __init__(self, path):
        self.path = path

    def __call__(self, case, save, *args):
        command = [self.path, case.recording, "--save", save, *args]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def torch_steps(case, optimizer, params, steps):
    for step in steps:
        for name, param in params.items():
            param.grad = torch.from_numpy(case.grad(name, step).copy()).reshape(param.shape)
        # The loss is for line searches alone.
        optimizer.step((lambda: torch.tensor(0.0)) if isinstance(optimizer, torch.optim.LBFGS) else None)


def check_torch(case, program, folder, library=torch_optim):
    # The golden runs of Muon are without its cast to bfloat16.
    cast, torch.bfloat16 = torch.bfloat16, torch.float32
    try:
        half, end = folder / "half.safetensors", folder / "end.safetensors"
        # Here, then there.
        program(case, half, "--config", case.config, "--until", HALF)
        optimizer, params = library.load(half)
        torch_steps(case, optimizer, params, range(HALF, case.steps))
        shapes = {name: value.shape for name, value in case.first.items()}
        there = case.worst({name: param.detach().numpy().reshape(shapes[name]) for name, param in params.items()})
        # There, then here. The configuration is that of a checkpoint before the first step.
        program(case, half, "--config", case.config, "--until", 0)
        optimizer, params = library.load(half)
        torch_steps(case, optimizer, params, range(HALF))
        library.save(half, optimizer, params, steps=HALF, shapes=shapes)
        program(case, end, "--load", half)
        _, values = torch_optim.checkpoint.read(end)
        here = case.worst({name: values[f"param.{name}"] for name in params})
    finally:
        torch.bfloat16 = cast
    return there, here


def check_codes(case, program, folder):
    """The same with state of 8 bits, whose runs are far from the golden one: the bound is one and a half times
    how far a run is that bitsandbytes makes alone. All codes are compared, too."""
    import bitsandbytes_optim

    first, half, end = (folder / f"{name}.safetensors" for name in ("first", "half", "end"))
    codes, again = folder / "codes.safetensors", folder / "again.safetensors"
    numbers = lambda params: {name: param.detach().numpy() for name, param in params.items()}
    program(case, first, "--config", case.config, "--until", 0)
    optimizer, params = bitsandbytes_optim.load_codes(first)
    torch_steps(case, optimizer, params, range(case.steps))
    bound = 1.5 * case.worst(numbers(params))
    # Here, then there.
    program(case, half, "--config", case.config, "--until", HALF, "--save-codes", codes)
    optimizer, params = bitsandbytes_optim.load_codes(half, codes)
    torch_steps(case, optimizer, params, range(HALF, case.steps))
    there = case.worst(numbers(params)) / bound
    # There, then here.
    optimizer, params = bitsandbytes_optim.load_codes(first)
    torch_steps(case, optimizer, params, range(HALF))
    bitsandbytes_optim.save_codes(half, codes, optimizer, params)
    program(case, end, "--load", half, "--load-codes", codes, "--until", HALF, "--save-codes", again)
    _, read = torch_optim.checkpoint.read(end)
    written = load_file(again)
    for name, param in params.items():
        for slot, (decoded, encoded, qmap) in bitsandbytes_optim.numbers(optimizer, param).items():
            np.testing.assert_allclose(read[f"state.{name}.{slot}"], decoded, rtol=2 * EPSILON, atol=0)
            # bitsandbytes takes 0 for what is positive and far below the scale.
            same = (written[f"codes.{name}.{slot}"] == encoded) | (qmap[encoded] == 0)
            assert same.all(), f"{case.name} {name} {slot}: {np.count_nonzero(~same)} of {same.size} codes"
    program(case, end, "--load", half, "--load-codes", codes)
    _, values = torch_optim.checkpoint.read(end)
    return there, case.worst({name: values[f"param.{name}"] for name in params}) / bound


def main():
    program = Program(sys.argv[1])
    failed, counts = [], {}
    checks = [("PyTorch", case, check_torch) for case in TORCH]
    if importlib.util.find_spec("optax"):
        import optax_state

        checks += [("optax", case, optax_state.check) for case in optax_state.CASES]
    else:
        print("skipped: optax's cases, optax is not installed")
    if importlib.util.find_spec("bitsandbytes"):
        import bitsandbytes_optim

        check_bitsandbytes = functools.partial(check_torch, library=bitsandbytes_optim)
        checks += [("bitsandbytes", case, check_bitsandbytes) for case in bitsandbytes_optim.CASES]
        checks += [("of 8 bits", case, check_codes) for case in bitsandbytes_optim.CASES]
    else:
        print("skipped: bitsandbytes' cases, bitsandbytes is not installed")
    with tempfile.TemporaryDirectory() as folder:
        for library, name, check in checks:
            there, here = check(Case(name), program, pathlib.Path(folder))
            print(f"{library:12} {name:28} of the bound: {there:.3f} ends there, {here:.3f} ends here")
            counts[library] = counts.get(library, 0) + 1
            if not max(there, here) <= 1.0:
                failed.append(f"{library} {name}")
    print("runs in two halves:", json.dumps(counts), "outside the bound:", ", ".join(failed) or "none")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
