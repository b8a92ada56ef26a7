// What the package must do, each case on a device, buffers and encoders of the page's own.
import { Optimizer } from "/target/package/index.js";
import start, { Reference, fill, rules } from "/target/reference/reference.js";

await start();

/** A device of the browser's adapter, each of its own. */
const request = async () => (await navigator.gpu.requestAdapter()).requestDevice();

/** Bits of 32-bit floats. */
const bits = (values) => new Uint32Array(values.buffer, values.byteOffset, values.length);

function check(is, what) {
    if (!is) throw new Error(what);
}

/** Refuses values whose bits differ. */
function same(found, expected, what) {
    check(found.length === expected.length, `${what}: ${found.length} values, expected ${expected.length}`);
    const [a, b] = [bits(found), bits(expected)];
    const at = a.findIndex((word, i) => word !== b[i]);
    check(at < 0, `${what}[${at}] is ${found[at]}, expected ${expected[at]}`);
}

/** The text of the error that a call throws or rejects with. */
async function refusal(call) {
    try {
        await call();
    } catch (error) {
        check(error instanceof Error, `${error} is no Error`);
        return error.message;
    }
    throw new Error("nothing was refused");
}

async function refuses(call, ...parts) {
    const text = await refusal(call);
    for (const part of parts) check(text.includes(part), `"${text}" does not say "${part}"`);
}

/** Pseudo-random numbers of many sizes, the same in every run. */
function noise(seed) {
    let state = seed;
    const next = () => {
        state ^= state << 13;
        state ^= state >>> 17;
        state ^= state << 5;
        return (state >>> 8) / (1 << 23) - 1;
    };
    return (count) => Float32Array.from({ length: count }, () => next() * 2 ** (Math.floor(next() * 3) - 1));
}

const len = (tensor) => tensor.shape.reduce((product, dim) => product * dim, 1);

const shapes = [[1], [3], [4], [257], [1025], [5, 7], [20, 3, 3], [34, 70], [3, 60]];
const tensors = shapes.map((shape, i) => ({ name: `t${i}`, shape }));

const STORAGE = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

/**
 * Tensors in buffers of the page's. All lie in one buffer, on 256 bytes; or, spread, the first half, some at multiples
 * of 4 bytes alone, and each of the others in its own.
 */
class Values {
    constructor(device, list, { spread = false, bytesOf = (tensor) => 4 * len(tensor) } = {}) {
        this.device = device;
        let offset = 0;
        const shared = list.slice(0, spread ? list.length >> 1 : list.length).map((tensor, i) => {
            const place = { offset, size: bytesOf(tensor) };
            const end = offset + Math.ceil(place.size / 4) * 4;
            offset = spread ? end + (i % 2 ? 4 : 12) : Math.ceil(end / 256) * 256;
            return place;
        });
        const one = device.createBuffer({ size: Math.max(offset, 4), usage: STORAGE });
        const own = (tensor) => device.createBuffer({ size: Math.ceil(bytesOf(tensor) / 4) * 4, usage: STORAGE });
        const alone = (tensor) => ({ buffer: own(tensor), offset: 0, size: bytesOf(tensor) });
        this.slices = list.map((tensor, i) => (i < shared.length ? { buffer: one, ...shared[i] } : alone(tensor)));
    }

    /** Whole buffers as such, parts of buffers as parts. */
    get given() {
        return this.slices.map((slice) => (slice.size === slice.buffer.size ? slice.buffer : slice));
    }

    write(values) {
        this.slices.forEach(({ buffer, offset }, i) => this.device.queue.writeBuffer(buffer, offset, values[i]));
    }

    async read() {
        const size = this.slices.reduce((sum, slice) => sum + slice.size, 0);
        const staging = this.device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
        const encoder = this.device.createCommandEncoder();
        let to = 0;
        for (const { buffer, offset, size } of this.slices) {
            encoder.copyBufferToBuffer(buffer, offset, staging, to, size);
            to += size;
        }
        this.device.queue.submit([encoder.finish()]);
        await staging.mapAsync(GPUMapMode.READ);
        const all = new Float32Array(staging.getMappedRange().slice(0));
        staging.destroy();
        let from = 0;
        return this.slices.map(({ size }) => all.subarray(from, (from += size / 4)));
    }
}

const wraps = {
    plain: {},
    decided: { clip: { global_norm: 1 }, skip_nonfinite: true, loss_scale: { init: 1024 } },
    averaged: { ema: { decay: 0.9 }, lookahead: { k: 3, alpha: 0.5 } },
};

/** Trains on the GPU and by the reference, and compares every bit of parameters and state. */
async function parity(device, config, { steps = 8, list = tensors, half = false, spread = true } = {}) {
    const random = noise(0x9e3779b9);
    const start = list.map((tensor) => random(len(tensor)));
    const params = new Values(device, list, { spread });
    params.write(start);
    const of = half ? list.map((tensor) => ({ ...tensor, gradDType: "f16" })) : list;
    const bytesOf = (tensor) => (half ? 2 : 4) * len(tensor);
    const grads = new Values(device, list, { spread, bytesOf });
    const optimizer = await Optimizer.create(device, of, config);
    const reference = new Reference(JSON.stringify(config), list, start);
    await optimizer.warmUp(params.given, grads.given);
    const scale = config.loss_scale?.init ?? 1;
    const batches = config.accumulate ?? 1;
    for (let step = 0; step < steps * batches; step++) {
        const values = list.map((tensor) => random(len(tensor)));
        // Eighths below 2^6 are the same in both formats.
        const exact = half ? values.map((all) => all.map((x) => Math.round(x * 8) / 8)) : values;
        const scaled = exact.map((all) => all.map((x) => x * scale));
        grads.write(half ? scaled.map(halves) : scaled);
        if (optimizer.needsLookAhead) optimizer.move("lookAhead", params.given);
        optimizer.step(params.given, grads.given);
        reference.step(scaled);
        if (step % 4 === 3) await optimizer.settle();
    }
    await optimizer.settle();
    const found = await params.read();
    let moved = 0;
    for (const [i, tensor] of list.entries()) {
        same(found[i], reference.param(i), `parameter ${tensor.name}`);
        moved += start[i].reduce((count, x, k) => count + (x !== found[i][k]), 0);
        check(String(optimizer.slots(tensor.name)) === String(reference.slots(tensor.name)), `slots of ${tensor.name}`);
        for (const slot of optimizer.slots(tensor.name)) {
            const state = await optimizer.state(tensor.name, slot);
            same(state, reference.state(tensor.name, slot), `${slot} of ${tensor.name}`);
        }
    }
    const all = list.reduce((sum, tensor) => sum + len(tensor), 0);
    check(moved > all / 2, `only ${moved} of ${all} parameters moved`);
    const reports = optimizer.reports();
    check(reports.length === steps, `${reports.length} reports of ${steps} steps`);
    check(reports.every((report) => report.applied), "a step was skipped");
    optimizer.destroy();
    reference.free();
}

/** Halves of numbers that they hold. */
function halves(values) {
    const words = new Uint16Array(Math.ceil(values.length / 2) * 2);
    values.forEach((x, i) => {
        const word = new Uint32Array(new Float32Array([x]).buffer)[0];
        const exponent = ((word >>> 23) & 255) - 112;
        words[i] = ((word >>> 16) & 0x8000) | (x === 0 ? 0 : (exponent << 10) | ((word >>> 13) & 1023));
    });
    return words;
}

/** One tensor of 64 elements, its buffers, and an optimizer of it. */
async function small(device, config = { optimizer: "adamw" }) {
    const list = [{ name: "w", shape: [64] }];
    const [params, grads] = [new Values(device, list), new Values(device, list)];
    params.write([noise(7)(64)]);
    grads.write([noise(8)(64)]);
    return { list, params, grads, optimizer: await Optimizer.create(device, list, config) };
}

/** The tensors that an optimizer takes: all of them, or the matrices alone. */
function fitting(config) {
    const values = tensors.map((tensor) => new Float32Array(len(tensor)));
    try {
        new Reference(JSON.stringify(config), tensors, values).free();
        return tensors;
    } catch (error) {
        check(error.message.includes("expected rows and columns"), error.message);
        return tensors.filter(({ shape }) => shape.length > 1);
    }
}

const cases = {};

for (const rule of rules()) {
    for (const [name, wrap] of Object.entries(wraps)) {
        // Where buffers are spread, there are more kernels to compile, which takes software some seconds a rule.
        const spread = name === "plain";
        const config = { optimizer: rule, ...wrap };
        cases[`parity/${rule}/${name}`] = (device) => parity(device, config, { list: fitting(config), spread });
    }
}

cases["parity/halves"] = (device) =>
    parity(device, { optimizer: "adamw", ...wraps.decided, loss_scale: { init: 4 } }, { half: true });

cases["parity/micro-batches"] = (device) => parity(device, { optimizer: "adam", accumulate: 3 }, { steps: 4 });

cases["parity/groups and schedules"] = (device) =>
    parity(device, {
        optimizer: "adamw",
        lr: 0.01,
        schedule: { cosine: { total: 20, end: 0.1 } },
        groups: [{ tensors: ["t0"], lr: 0.5 }],
    });

cases["your encoder"] = async (device) => {
    const { params, grads, optimizer } = await small(device);
    const twin = await small(device);
    // One that is thrown away, and taken back.
    const dropped = optimizer.encode(device.createCommandEncoder(), params.given, grads.given);
    await refuses(() => optimizer.encode({}, params.given, grads.given), "encoder is {}");
    dropped.undo();
    await refuses(() => dropped.submitted(), "told of already");
    // Two in one encoder.
    const encoder = device.createCommandEncoder();
    const steps = [0, 1].map(() => optimizer.encode(encoder, params.given, grads.given));
    device.queue.submit([encoder.finish()]);
    steps.forEach((step) => step.submitted());
    for (let step = 0; step < 2; step++) twin.optimizer.step(twin.params.given, twin.grads.given);
    await Promise.all([optimizer.settle(), twin.optimizer.settle()]);
    same((await params.read())[0], (await twin.params.read())[0], "parameters");
    check(optimizer.t("w") === 2, `t is ${optimizer.t("w")}`);
    await refuses(() => steps[1].undo(), "run");
};

cases["reports come by themselves"] = async (device) => {
    const { params, grads, optimizer } = await small(device, { optimizer: "adamw", skip_nonfinite: true });
    const reports = [];
    for (let step = 1; step <= 40; step++) {
        const values = noise(step)(64);
        if (step % 10 === 3) values[7] = NaN;
        if (step % 10 === 6) values[8] = Infinity;
        grads.write([values]);
        optimizer.step(params.given, grads.given);
        await new Promise((go) => setTimeout(go));
        reports.push(...optimizer.reports());
    }
    for (let wait = 0; wait < 200 && reports.length < 40; wait++) {
        await new Promise((go) => setTimeout(go, 10));
        reports.push(...optimizer.reports());
    }
    check(reports.length === 40, `${reports.length} reports came`);
    for (const { step, applied, culprit } of reports) {
        const kind = { 3: "nan", 6: "infinite" }[step % 10];
        check(applied === !kind, `step ${step}: applied is ${applied}`);
        check(culprit?.kind === kind && (!kind || culprit.tensor === "w"), `step ${step}: ${JSON.stringify(culprit)}`);
    }
    check(optimizer.t("w") === 32, `t is ${optimizer.t("w")}`);
};

cases["save and load"] = async (device) => {
    const config = { optimizer: "adamw", ...wraps.decided, lr: 0.01 };
    const { list, params, grads, optimizer } = await small(device, config);
    for (let step = 0; step < 3; step++) optimizer.step(params.given, grads.given);
    optimizer.set("lr", 0.02);
    const bytes = await optimizer.save();
    const copy = new Values(device, list);
    copy.write(await params.read());
    const loaded = await Optimizer.load(device, list, bytes);
    check(loaded.value("lr") === 0.02, `lr is ${loaded.value("lr")}`);
    optimizer.step(params.given, grads.given);
    loaded.step(copy.given, grads.given);
    same((await copy.read())[0], (await params.read())[0], "parameters");
    await refuses(() => Optimizer.load(device, list, bytes.slice(0, -1)), "cut short");
    await refuses(() => Optimizer.load(device, [{ name: "w", shape: [63] }], bytes), "tensor w", "[64]", "[63]");
};

cases["evaluation and running mean"] = async (device) => {
    const { params, grads, optimizer } = await small(device, { optimizer: "schedule_free" });
    check(optimizer.hasEval, "hasEval");
    for (let step = 0; step < 3; step++) optimizer.step(params.given, grads.given);
    const before = (await params.read())[0];
    optimizer.move("eval", params.given);
    const there = (await params.read())[0];
    check(bits(there).some((word, i) => word !== bits(before)[i]), "evaluation moved nothing");
    await refuses(() => optimizer.step(params.given, grads.given), "evaluation");
    optimizer.move("train", params.given);
    optimizer.step(params.given, grads.given);
    const mean = await small(device, { optimizer: "adam", ema: { decay: 0.5 } });
    mean.optimizer.step(mean.params.given, mean.grads.given);
    const state = await mean.optimizer.state("w", "ema");
    mean.optimizer.move("swapEma", mean.params.given);
    same((await mean.params.read())[0], state, "the mean");
    mean.optimizer.move("swapEma", mean.params.given);
};

cases["initial values"] = async (device) => {
    const { list, params, optimizer } = await small(device);
    const drawn = [{ uniform: { low: -1, high: 1 } }, { normal: { mean: 0, std: 1 } }];
    for (const init of ["zeros", { constant: 0.5 }, ...drawn]) {
        optimizer.init("w", params.given[0], init, 42);
        same((await params.read())[0], fill(JSON.stringify(init), list[0].name, 64, 42), JSON.stringify(init));
    }
    await refuses(() => optimizer.init("v", params.given[0], "zeros", 0), "v", "w");
    await refuses(() => optimizer.init("w", params.given[0], "zeros", -1), "seed is -1");
};

cases["bad input is named, and nothing changes"] = async (device) => {
    const { list, params, grads, optimizer } = await small(device);
    const [p, g] = [params.given, grads.given];
    await refuses(() => Optimizer.create({}, list, { optimizer: "adam" }), "device is {}");
    await refuses(() => Optimizer.create(device, list, { optimizer: "adamq" }), "adamq");
    await refuses(() => Optimizer.create(device, list, { optimizer: "adamw", lrr: 1 }), "lrr");
    await refuses(() => Optimizer.create(device, list, { optimizer: "adamw", lr: -1 }), "lr is -1");
    await refuses(() => Optimizer.create(device, [{ name: "w", shape: [1.5] }], {}), "tensors[0].shape is 1.5");
    await refuses(() => Optimizer.create(device, [{ name: "w", shape: [1], dtype: "f16" }], {}), "tensors[0]", "dtype");
    await refuses(() => Optimizer.create(device, [list[0], list[0]], { optimizer: "adam" }), "w");
    const buffer = (size, usage) => device.createBuffer({ size, usage });
    await refuses(() => optimizer.step(p, []), "gradients", "0", "1");
    await refuses(() => optimizer.step(p, [{}]), "gradient of tensor w is {}");
    await refuses(() => optimizer.step(p, [7]), "gradient of tensor w is 7");
    await refuses(() => optimizer.step(p, [{ buffer: g[0], ofset: 0 }]), "gradient of tensor w", "ofset");
    await refuses(() => optimizer.step(p, [{ buffer: g[0], offset: -4 }]), "gradient of tensor w: offset is -4");
    await refuses(() => optimizer.step([null], g), "parameter", "w");
    await refuses(() => optimizer.step(p, [buffer(256, GPUBufferUsage.COPY_DST)]), "gradient", "w", "STORAGE");
    await refuses(() => optimizer.step(p, [buffer(128, STORAGE)]), "w", "128 bytes", "256 bytes");
    await refuses(() => optimizer.step(p, [{ buffer: buffer(260, STORAGE), offset: 2 }]), "w", "offset is 2");
    await refuses(() => optimizer.step(p, [{ buffer: buffer(260, STORAGE), offset: 8 }]), "w", "260");
    await refuses(() => optimizer.step(p, p), "w", "0..256");
    await refuses(() => optimizer.set("lr", NaN), "lr", "NaN");
    await refuses(() => optimizer.state("v", "m"), "v", "w");
    await refuses(() => optimizer.move("home", p), "home", "swapEma");
    check(optimizer.steps === 0 && optimizer.t("w") === 0, "a refused step counts");
    optimizer.step(p, g);
    optimizer.destroy();
    await refuses(() => optimizer.step(p, g), "destroyed");
    await refuses(() => optimizer.settle(), "destroyed");
};

cases["what the browser refuses comes back"] = async (device) => {
    const { list, params, grads, optimizer } = await small(device);
    const other = await request();
    const foreign = new Values(other, list);
    await refuses(() => optimizer.warmUp(params.given, foreign.given), "gradient of tensor w", "cannot be bound");
    const dead = new Values(device, list);
    dead.given[0].destroy();
    optimizer.step(params.given, dead.given);
    await refuses(() => optimizer.settle(), "refused", "estroyed");
    const tooLarge = [{ name: "w", shape: [device.limits.maxBufferSize / 4 + 4] }];
    await refuses(() => Optimizer.create(device, tooLarge, { optimizer: "adam" }), "w", "bytes");
    other.destroy();
};

cases["a loop that never yields"] = async (device) => {
    const { params, grads, optimizer } = await small(device, { optimizer: "sgd", skip_nonfinite: true });
    await refuses(() => {
        for (let step = 0; step < 2000; step++) optimizer.step(params.given, grads.given);
    }, "512 steps", "settle()");
    await optimizer.settle();
    check(optimizer.reports().length === 512, "reports");
    optimizer.step(params.given, grads.given);
};

cases["a lost device"] = async () => {
    const device = await request();
    const { params, grads, optimizer } = await small(device);
    optimizer.step(params.given, grads.given);
    device.destroy();
    await device.lost;
    await refuses(() => optimizer.settle(), "lost");
    await refuses(() => optimizer.step(params.given, grads.given), "lost", "destroyed");
    await refuses(() => optimizer.state("w", "m"), "lost");
};

/** Runs the cases whose name contains this, and returns the names of those that failed. */
export async function run(part) {
    const failed = [];
    let passed = 0;
    // What no rule changes is compiled once for all cases of parity, as long as an optimizer uses the device.
    const shared = await request();
    const { optimizer: anchor } = await small(shared);
    for (const [name, test] of Object.entries(cases).filter(([name]) => name.includes(part))) {
        const device = name.startsWith("parity/") ? shared : await request();
        const strays = [];
        device.onuncapturederror = (event) => {
            event.preventDefault();
            strays.push(event.error.message);
        };
        const begin = performance.now();
        try {
            await test(device);
            check(strays.length === 0, `an error reached nobody: ${strays[0]}`);
            passed++;
            console.log(`ok ${name} (${Math.round(performance.now() - begin)} ms)`);
        } catch (error) {
            failed.push(name);
            console.log(`FAILED ${name}: ${error.stack}`);
        }
        if (device !== shared) device.destroy();
    }
    anchor.destroy();
    shared.destroy();
    console.log(`${passed} passed, ${failed.length} failed`);
    return failed;
}
