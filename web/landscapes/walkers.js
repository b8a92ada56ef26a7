// Optimizers on their way down landscapes, on the GPU.
import { Optimizer } from "../package/index.js";
import { Kernel, Work, load, read, storage, upload } from "../lib/gpu.js";

/** Bytes of a point: x, y, the number of its landscape, and one that is not used. */
const ROW = 16;

/** The kernel that measures heights and slopes. */
export async function surveyor(device) {
    const kernel = new Kernel(device, await load(device, "landscapes.wgsl"), "measure");
    /** Heights of points `[x, y, ground, 0]`, which lie one behind the other. */
    const heights = async (points) => {
        const [places, slopes] = [upload(device, points), storage(device, points.byteLength)];
        const work = new Work(device);
        kernel.dispatch(work.encoder, [kernel.bind({ 0: places, 1: slopes })], Math.ceil(points.length / 4 / 64));
        work.submit();
        const found = new Float32Array(await read(device, { buffer: slopes, size: slopes.size }));
        places.destroy();
        slopes.destroy();
        return found.filter((_, i) => i % 4 === 2);
    };
    return { device, kernel, heights };
}

/** An optimizer of walkers, a tensor each; of matrices where the rule takes those alone. */
async function optimizer(device, config, walkers) {
    const groups = walkers.map(({ lr }, i) => ({ tensors: [`walker${i}`], lr }));
    const rates = walkers.length > 1 ? { groups } : { lr: walkers[0].lr };
    const make = (shape) => {
        const tensors = walkers.map((_, i) => ({ name: `walker${i}`, shape }));
        return Optimizer.create(device, tensors, { ...config, ...rates });
    };
    return make([2]).catch((error) => {
        if (!error.message.includes("rows and columns")) throw error;
        return make([1, 2]);
    });
}

/**
 * Walkers of one rule, `{ ground, start, lr }` each. A walker is a tensor of two numbers, in a group of its own for its
 * rate: however many there are, a step is one dispatch for all gradients and, for most rules, one for all updates. A
 * rule that takes one rate for all groups needs an optimizer for each walker: `apart`.
 */
export class Walkers {
    static async create(survey, config, walkers, apart = false) {
        const crews = apart ? walkers.map((walker) => [walker]) : [walkers];
        const optimizers = await Promise.all(crews.map((crew) => optimizer(survey.device, config, crew)));
        return new Walkers(survey, optimizers, walkers);
    }

    constructor({ device, kernel }, optimizers, walkers) {
        Object.assign(this, { device, kernel, count: walkers.length });
        this.places = upload(device, new Float32Array(walkers.flatMap(({ ground, start }) => [...start, ground, 0])));
        this.slopes = storage(device, this.places.size);
        const slices = (buffer) => walkers.map((_, i) => ({ buffer, offset: i * ROW, size: 8 }));
        const [params, grads] = [slices(this.places), slices(this.slopes)];
        const own = (list, i) => (optimizers.length > 1 ? [list[i]] : list);
        this.crews = optimizers.map((optimizer, i) => ({ optimizer, params: own(params, i), grads: own(grads, i) }));
        this.bound = kernel.bind({ 0: this.places, 1: this.slopes });
    }

    /** One step of all. */
    step(work) {
        for (const { optimizer, params } of this.crews) work.lookAhead(optimizer, params);
        this.kernel.dispatch(work.encoder, [this.bound], Math.ceil(this.count / 64));
        for (const { optimizer, params, grads } of this.crews) work.step(optimizer, params, grads);
    }

    /** Copies where they are to a place in a buffer. */
    record(work, buffer, offset) {
        const copy = () => work.encoder.copyBufferToBuffer(this.places, 0, buffer, offset, this.places.size);
        this.crews.reduceRight(
            (use, { optimizer, params }) =>
                () =>
                    work.judged(optimizer, params, use),
            copy,
        )();
    }

    destroy() {
        for (const { optimizer } of this.crews) optimizer.destroy();
        this.places.destroy();
        this.slopes.destroy();
    }
}

/** The paths of walkers over so many steps: for each the places `[x, y, height]`, its start first. */
export async function descend(survey, config, walkers, steps) {
    const { device, heights } = survey;
    const all = await Walkers.create(survey, config, walkers);
    const trace = storage(device, (steps + 1) * all.places.size);
    // A submit holds some dozens of steps, and the browser tells in between of those that are done.
    for (let step = 0; step <= steps;) {
        const work = new Work(device);
        for (const end = Math.min(step + 50, steps + 1); step < end; step++) {
            if (step > 0) all.step(work);
            all.record(work, trace, step * all.places.size);
        }
        work.submit();
        await device.queue.onSubmittedWorkDone();
    }
    const points = new Float32Array(await read(device, { buffer: trace, size: trace.size }));
    trace.destroy();
    all.destroy();
    const high = await heights(points);
    const place = (i) => [points[4 * i], points[4 * i + 1], high[i]];
    const path = (_, i) => Array.from({ length: steps + 1 }, (_, step) => place(step * walkers.length + i));
    return walkers.map(path);
}
