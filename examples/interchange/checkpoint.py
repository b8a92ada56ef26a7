"""The file of a checkpoint, read and written: `wgpu_optim::guide::checkpoints` describes it. Needs numpy alone."""

import json
import struct

import numpy as np

FORMAT = "wgpu-optim.checkpoint/"
VERSION = 2


def _table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _table()


def crc32c(data):
    """The CRC-32C of bytes. A loop over bytes in Python takes a second for 10 MB; the package `crc32c` does not."""
    try:
        import crc32c

        return crc32c.crc32c(data)
    except ImportError:
        pass
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def bits(number):
    """An f64 as the training's JSON holds it: the 16 hexadecimal digits of its bits."""
    return struct.pack(">d", float(number)).hex()


def number(text):
    """The f64 of 16 hexadecimal digits."""
    return struct.unpack(">d", bytes.fromhex(text))[0]


def read(path):
    """Returns the training (what is not values of tensors) and the values by name, with every checksum checked."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    metadata = header.pop("__metadata__")
    version = metadata.get("format", "").removeprefix(FORMAT)
    if version not in ("1", "2"):
        raise ValueError(f"{path}: format is {metadata.get('format')}, must be {FORMAT}{VERSION} or an earlier version")
    texts = (metadata["training"] + metadata["crc32c"]).encode()
    if f"{crc32c(texts):08x}" != metadata["crc32c_of_metadata"]:
        raise ValueError(f"{path}: metadata have another checksum")
    sums, values = json.loads(metadata["crc32c"]), {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        if f"{crc32c(data[start:end]):08x}" != sums[name]:
            raise ValueError(f"{path}: {name} has another checksum")
        dtype = {"F32": "<f4", "F64": "<f8"}[entry["dtype"]]
        values[name] = np.frombuffer(data[start:end], dtype).reshape(entry["shape"]).copy()
    return json.loads(metadata["training"]), values


def write(path, training, values):
    """Writes a checkpoint: values are arrays of f32 by name."""
    header, sums, data = {}, {}, b""
    for name in sorted(values):
        array = np.ascontiguousarray(values[name], dtype="<f4").reshape(np.shape(values[name]))
        raw = array.tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        sums[name] = f"{crc32c(raw):08x}"
        data += raw
    texts = json.dumps(training), json.dumps(sums)
    header["__metadata__"] = {
        "format": f"{FORMAT}{VERSION}",
        "training": texts[0],
        "crc32c": texts[1],
        "crc32c_of_metadata": f"{crc32c((texts[0] + texts[1]).encode()):08x}",
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def training(rule, groups, tensors, maximize=False):
    """The training of a rule: `groups` are the options of each, the top level's first; `tensors` are dicts with name,
    shape, t, and perhaps group, carried and started. All else is as in a training without wrappers and schedules."""
    top = groups[0].get("lr", 0.0)

    def group(place, options):
        own = {} if place == 0 else options
        lr = options.get("lr", 0.0)
        ratio = 1.0 if place == 0 or "lr" not in own else lr / top if top else float("inf")
        names = [] if place == 0 else [tensor["name"] for tensor in tensors if tensor.get("group", 0) == place]
        return {
            "tensors": names, "optimizer": rule, "options": options, "maximize": maximize, "lr_initial": bits(lr),
            "own": own, "ratio": bits(ratio), "schedules": [],
        }

    def saved(tensor):
        return {
            "name": tensor["name"], "shape": list(tensor["shape"]), "dtype": "f32", "group": tensor.get("group", 0),
            "frozen": False, "t": tensor["t"], "carried": [bits(carried) for carried in tensor.get("carried", (0, 0))],
            "started": tensor.get("started", False), "averaged_from": None, "begun": False, "looked": False,
        }

    steps = max((tensor["t"] for tensor in tensors), default=0)
    return {
        "version": VERSION, "crate_version": "interchange",
        "groups": {
            "optimizer": rule, "wrappers": {}, "norms": False, "on_device": [], "seed": 0,
            "groups": [group(place, options) for place, options in enumerate(groups)], "others": None,
        },
        "tensors": [saved(tensor) for tensor in tensors],
        "steps": steps, "attempts": steps, "micro_batches": 0, "scale": bits(1.0), "good": 0, "on_device": [],
        "looked": False, "moved": None,
    }
