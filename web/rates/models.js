// Networks that differ in their learning rate alone, side by side on the GPU: softmax.wgsl.
import { Optimizer } from "../package/index.js";
import { INK, PIXELS, TRAIN, digits, random } from "../lib/digits.js";
import { Kernel, Work, load, read, storage, upload } from "../lib/gpu.js";

/** Weights of a network: a row of ten for each pixel, and the biases. */
export const SHAPE = [PIXELS + 1, 10];
const WEIGHTS = SHAPE[0] * SHAPE[1];
/** Bytes from one network's weights to the next. */
const STRIDE = 4 * 652;
const BATCH = 64;
/** Networks of a rule at most. */
const MOST = 32;

/** The rates of a row: 32 from 10^-5 to 10. */
export const RATES = Array.from({ length: MOST }, (_, i) => 10 ** (-5 + (6 * i) / (MOST - 1)));

/** What all networks share: images, kernels, and room for what passes between kernels. */
export async function school(device) {
    const images = await digits();
    const row = ({ pixels, label }) => [...pixels.map((pixel) => (2 * pixel) / INK - 1), label];
    const [module, data] = [await load(device, "softmax.wgsl"), upload(device, new Float32Array(images.flatMap(row)))];
    const range = (first, count) => ({ count, buffer: upload(device, new Uint32Array([first, count])) });
    const tests = images.length - TRAIN;
    const next = random(7);
    const bound = Math.sqrt(3 / PIXELS);
    const first = Float32Array.from({ length: STRIDE / 4 }, (_, i) => (i < 10 * PIXELS ? bound * (2 * next() - 1) : 0));
    const kernel = (entry) => new Kernel(device, module, entry);
    return {
        device,
        first,
        images: data,
        batches: Array.from({ length: Math.floor(TRAIN / BATCH) }, (_, i) => range(i * BATCH, BATCH)),
        tests: range(TRAIN, tests),
        residuals: storage(device, 4 * MOST * tests * 10),
        outcomes: storage(device, 8 * MOST * tests),
        forward: kernel("forward"),
        backward: kernel("backward"),
        average: kernel("average"),
    };
}

/** One network for each rate: a tensor each, in a group of its own for its rate. */
export class Models {
    static async create(school, rule, rates) {
        const tensors = rates.map((_, i) => ({ name: `network${i}`, shape: SHAPE }));
        const groups = rates.map((lr, i) => ({ tensors: [`network${i}`], lr }));
        return new Models(
            school,
            await Optimizer.create(school.device, tensors, { optimizer: rule, groups }),
            rates.length,
        );
    }

    constructor(school, optimizer, count) {
        Object.assign(this, { school, optimizer, count, iteration: 0 });
        const { device, first, images, batches, tests, residuals, outcomes, forward, backward, average } = school;
        this.values = storage(device, count * STRIDE);
        for (let i = 0; i < count; i++) device.queue.writeBuffer(this.values, i * STRIDE, first);
        this.slopes = storage(device, count * STRIDE);
        this.means = storage(device, count * 8);
        const slices = (buffer) =>
            Array.from({ length: count }, (_, i) => ({ buffer, offset: i * STRIDE, size: 4 * WEIGHTS }));
        this.params = slices(this.values);
        this.grads = slices(this.slopes);
        this.bound = [...batches, tests].map(({ count, buffer }) => ({
            count,
            forward: forward.bind({ 0: buffer, 1: images, 2: this.values, 4: residuals, 5: outcomes }),
            backward: backward.bind({ 0: buffer, 1: images, 3: this.slopes, 4: residuals }),
        }));
        this.averaged = average.bind({ 0: tests.buffer, 5: outcomes, 6: this.means });
    }

    #forward(work, range) {
        const { forward, count } = this.bound.at(range);
        this.school.forward.dispatch(work.encoder, [forward], Math.ceil(count / 64), this.count);
    }

    /** One step of all networks, by the next batch. */
    step(work) {
        const batch = this.iteration++ % (this.bound.length - 1);
        work.lookAhead(this.optimizer, this.params);
        this.#forward(work, batch);
        this.school.backward.dispatch(work.encoder, [this.bound[batch].backward], Math.ceil(WEIGHTS / 64), this.count);
        work.step(this.optimizer, this.params, this.grads);
    }

    /** Loss and accuracy of each over the test images. */
    async scores() {
        const work = new Work(this.school.device);
        work.judged(this.optimizer, this.params, () => this.#forward(work, -1));
        this.school.average.dispatch(work.encoder, [this.averaged], Math.ceil(this.count / 64));
        work.submit();
        const found = new Float32Array(await read(this.school.device, { buffer: this.means, size: this.means.size }));
        return Array.from({ length: this.count }, (_, i) => ({ loss: found[2 * i], accuracy: found[2 * i + 1] }));
    }

    destroy() {
        this.optimizer.destroy();
        for (const buffer of [this.values, this.slopes, this.means]) buffer.destroy();
    }
}
