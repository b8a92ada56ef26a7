// A recorded run on this device, and the time of a step.
import { Optimizer } from "../package/index.js";
import { read, storage, upload } from "../lib/gpu.js";
import { CONFIGS } from "./recording.js";

/** Behind one another, the parameters that each of the configurations arrives at. */
export async function replay(device, tensors) {
    const ends = [];
    for (const config of CONFIGS) {
        const specs = tensors.map(({ name, shape }) => ({ name, shape }));
        const optimizer = await Optimizer.create(device, specs, config);
        const params = tensors.map(({ start }) => upload(device, start));
        const grads = tensors.map(({ start }) => storage(device, start.byteLength));
        for (let step = 0; step < tensors[0].grads.length; step++) {
            grads.forEach((buffer, i) => device.queue.writeBuffer(buffer, 0, tensors[i].grads[step]));
            optimizer.step(params, grads);
        }
        await optimizer.settle();
        ends.push(new Float32Array(await read(device, ...params.map((buffer) => ({ buffer, size: buffer.size })))));
        optimizer.destroy();
        for (const buffer of [...params, ...grads]) buffer.destroy();
    }
    const all = new Float32Array(ends.reduce((sum, end) => sum + end.length, 0));
    ends.reduce((at, end) => {
        all.set(end, at);
        return at + end.length;
    }, 0);
    return all;
}

/** Milliseconds of one step of AdamW over this many parameters in one tensor. */
export async function stepTime(device, count) {
    const optimizer = await Optimizer.create(device, [{ name: "all", shape: [count] }], { optimizer: "adamw" });
    const [params, grads] = [[storage(device, 4 * count)], [storage(device, 4 * count)]];
    await optimizer.warmUp(params, grads);
    const steps = 20;
    const times = [];
    for (let turn = 0; turn < 5; turn++) {
        const start = performance.now();
        for (let step = 0; step < steps; step++) optimizer.step(params, grads);
        await optimizer.settle();
        times.push((performance.now() - start) / steps);
    }
    optimizer.destroy();
    params[0].destroy();
    grads[0].destroy();
    return Math.min(...times);
}
