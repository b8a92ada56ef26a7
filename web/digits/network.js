// The network of mlp.wgsl, 64 - 128 - 10, the images that it learns, and a drawing that it reads.
import { Optimizer } from "../package/index.js";
import { INK, PIXELS, TRAIN, digits, random, shuffle } from "../lib/digits.js";
import { Kernel, Work, load, read, storage, uniform, upload } from "../lib/gpu.js";

const HIDDEN = 128;
const CLASSES = 10;
const BATCH = 32;
/** Bytes that one image leaves for the gradients. */
const TRACE = 4 * (2 * HIDDEN + CLASSES);
/** Words of an image: four pixels each, and its label. */
const WORDS = PIXELS / 4 + 1;

const shapes = { w1: [PIXELS, HIDDEN], b1: [HIDDEN], w2: [HIDDEN, CLASSES], b2: [CLASSES] };
const len = (shape) => shape.reduce((product, dim) => product * dim, 1);

/** The words of an image. */
function words({ pixels, label }) {
    const own = new Uint32Array(WORDS);
    pixels.forEach((pixel, i) => (own[i >> 2] |= pixel << (8 * (i & 3))));
    own[WORDS - 1] = label;
    return own;
}

export class Network {
    /** Of a configuration; with gradients in f16 where `half` is true. */
    static async create(device, config, half) {
        const images = await digits();
        const module = await load(device, "mlp.wgsl");
        const tensors = Object.entries(shapes).map(([name, shape]) => ({
            name,
            shape,
            gradDType: half ? "f16" : "f32",
        }));
        const optimizer = await Optimizer.create(device, tensors, config);
        return new Network(device, module, images, optimizer, { half, scaled: config.loss_scale !== undefined });
    }

    constructor(device, module, images, optimizer, { half, scaled }) {
        Object.assign(this, { device, optimizer, count: images.length, steps: 0, next: random(3) });
        this.order = Array.from({ length: TRAIN }, (_, i) => i);
        const all = Object.values(shapes);
        this.params = all.map((shape) => storage(device, 4 * len(shape)));
        this.grads = all.map((shape) => storage(device, (half ? 2 : 4) * len(shape)));
        // Biases start at 0, as buffers do.
        optimizer.init("w1", this.params[0], { he_uniform: {} }, 1);
        optimizer.init("w2", this.params[2], { glorot_uniform: {} }, 1);

        // Behind the images stands the drawing, ten times, once with each label: what the network makes of it is told
        // by the ten losses, each of which is minus the logarithm of a probability.
        const data = new Uint32Array((this.count + CLASSES) * WORDS);
        images.forEach((image, i) => data.set(words(image), i * WORDS));
        const places = Uint32Array.from({ length: this.count + CLASSES }, (_, i) => i);
        this.data = upload(device, data);
        this.places = upload(device, places);
        const traces = storage(device, TRACE * BATCH);
        this.outcomes = storage(device, 8 * places.length);
        const scale = scaled ? optimizer.lossScaleBuffer : upload(device, new Float32Array([1]));

        const constants = { inputs: PIXELS, pixel_scale: 2 / INK };
        const sample = new Kernel(device, module, "sample", constants);
        const gradients = new Kernel(device, module, "gradients", { ...constants, half_grads: half });
        const [w1, b1, w2, b2] = this.params;
        const [gw1, gb1, gw2, gb2] = this.grads;
        const shared = { 1: this.data, 2: this.places, 3: traces };
        const scaling = gradients.bind({ 0: scale }, 1);
        const range = (first, count, train) => {
            const own = { 0: uniform(device, new Uint32Array([first, count, train])), ...shared };
            const forward = sample.bind({ ...own, 4: this.outcomes, 6: w1, 7: b1, 8: w2, 9: b2 });
            const backward = () => [gradients.bind({ ...own, 10: gw1, 11: gb1, 12: gw2, 13: gb2 }), scaling];
            return { first, count, forward: [forward], backward: train ? backward() : [] };
        };
        const batches = Math.floor(TRAIN / BATCH);
        this.batches = Array.from({ length: batches }, (_, i) => range(i * BATCH, BATCH, 1));
        this.tests = range(TRAIN, this.count - TRAIN, 0);
        this.drawn = range(this.count, CLASSES, 0);
        Object.assign(this, { sample, gradients, rows: PIXELS / 4 + 1 + CLASSES / 2 + 1 });
    }

    /** So many steps, and the mean loss of the images that they saw. */
    async train(steps) {
        const work = new Work(this.device);
        const seen = [];
        for (let i = 0; i < steps; i++, this.steps++) {
            const at = this.steps % this.batches.length;
            // A new order counts for the whole submit: epochs are whole turns.
            if (at === 0)
                this.device.queue.writeBuffer(this.places, 0, Uint32Array.from(shuffle(this.order, this.next)));
            const batch = this.batches[at];
            work.lookAhead(this.optimizer, this.params);
            this.sample.dispatch(work.encoder, batch.forward, batch.count);
            this.gradients.dispatch(work.encoder, batch.backward, this.rows);
            work.step(this.optimizer, this.params, this.grads);
            seen.push({ buffer: this.outcomes, offset: 8 * batch.first, size: 8 * batch.count });
        }
        work.submit();
        const outcomes = new Float32Array(await read(this.device, ...seen));
        return outcomes.filter((_, i) => i % 2 === 0).reduce((sum, loss) => sum + loss, 0) / (outcomes.length / 2);
    }

    /** Puts a drawing where the network reads it. */
    see(pixels) {
        const data = new Uint32Array(CLASSES * WORDS);
        for (let label = 0; label < CLASSES; label++) data.set(words({ pixels, label }), label * WORDS);
        this.device.queue.writeBuffer(this.data, 4 * this.count * WORDS, data);
    }

    /** The probability of each digit for the drawing; where `tested`, the share of unseen images that it reads. */
    async judge(tested) {
        const ranges = tested ? [this.drawn, this.tests] : [this.drawn];
        const work = new Work(this.device);
        work.judged(this.optimizer, this.params, () => {
            for (const { forward, count } of ranges) this.sample.dispatch(work.encoder, forward, count);
        });
        work.submit();
        const parts = ranges.map(({ first, count }) => ({ buffer: this.outcomes, offset: 8 * first, size: 8 * count }));
        const outcomes = new Float32Array(await read(this.device, ...parts));
        const losses = outcomes.subarray(0, 2 * CLASSES).filter((_, i) => i % 2 === 0);
        const right = outcomes.subarray(2 * CLASSES).filter((_, i) => i % 2 === 1);
        return {
            accuracy: tested ? right.reduce((sum, one) => sum + one, 0) / right.length : undefined,
            probabilities: Array.from(losses, (loss) => Math.exp(-loss)),
        };
    }

    destroy() {
        this.optimizer.destroy();
        for (const buffer of [...this.params, ...this.grads, this.data, this.places, this.outcomes]) buffer.destroy();
    }
}
