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

/**
 * Walkers of one optimizer, `{ ground, start, lr }` each. A walker is a tensor of two numbers, in a group of its own for
 * its rate: however many there are, a step is one dispatch for all gradients and, for most rules, one for all updates.
 */
export class Walkers {
    static async create(survey, config, walkers) {
        const groups = walkers.map(({ lr }, i) => ({ tensors: [`walker${i}`], lr }));
        const make = (shape) => {
            const tensors = walkers.map((_, i) => ({ name: `walker${i}`, shape }));
            return Optimizer.create(survey.device, tensors, { ...config, groups });
        };
        // Some rules take matrices alone.
        const optimizer = await make([2]).catch((error) => {
            if (!error.message.includes("rows and columns")) throw error;
            return make([1, 2]);
        });
        return new Walkers(survey, optimizer, walkers);
    }

    constructor({ device, kernel }, optimizer, walkers) {
        Object.assign(this, { device, kernel, optimizer, count: walkers.length });
        this.places = upload(device, new Float32Array(walkers.flatMap(({ ground, start }) => [...start, ground, 0])));
        this.slopes = storage(device, this.places.size);
        const slices = (buffer) => walkers.map((_, i) => ({ buffer, offset: i * ROW, size: 8 }));
        this.params = slices(this.places);
        this.grads = slices(this.slopes);
        this.bound = kernel.bind({ 0: this.places, 1: this.slopes });
    }

    /** One step of all. */
    step(work) {
        work.lookAhead(this.optimizer, this.params);
        this.kernel.dispatch(work.encoder, [this.bound], Math.ceil(this.count / 64));
        work.step(this.optimizer, this.params, this.grads);
    }

    /** Copies where they are to a place in a buffer. */
    record(work, buffer, offset) {
        const copy = () => work.encoder.copyBufferToBuffer(this.places, 0, buffer, offset, this.places.size);
        work.judged(this.optimizer, this.params, copy);
    }

    destroy() {
        this.optimizer.destroy();
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
    for (let step = 0; step <= steps; ) {
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
