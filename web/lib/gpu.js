// What the views share on the GPU: buffers, kernels, and submits that hold steps of optimizers.

const { STORAGE, UNIFORM, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;

/** A buffer that kernels read and write, of so many bytes. */
export const storage = (device, size) => device.createBuffer({ size, usage: STORAGE | COPY_SRC | COPY_DST });

/** A buffer with these values, for kernels to read. */
export function upload(device, values, usage = STORAGE) {
    const buffer = device.createBuffer({ size: values.byteLength, usage: usage | COPY_SRC | COPY_DST });
    device.queue.writeBuffer(buffer, 0, values);
    return buffer;
}

/** The same, for uniforms. */
export const uniform = (device, values) => upload(device, values, UNIFORM);

/** The shader module in a file of this folder. */
export async function load(device, file) {
    const answer = await fetch(file);
    if (!answer.ok) throw new Error(`${file}: ${answer.status} ${answer.statusText}`);
    return device.createShaderModule({ code: await answer.text(), label: file });
}

/** An entry point of a module. */
export class Kernel {
    constructor(device, module, entryPoint, constants) {
        this.device = device;
        this.pipeline = device.createComputePipeline({ layout: "auto", compute: { module, entryPoint, constants } });
    }

    /** Buffers by their binding. */
    bind(buffers, group = 0) {
        const entry = ([binding, it]) => ({
            binding: Number(binding),
            resource: it instanceof GPUBuffer ? { buffer: it } : it,
        });
        const entries = Object.entries(buffers).map(entry);
        return this.device.createBindGroup({ layout: this.pipeline.getBindGroupLayout(group), entries });
    }

    dispatch(encoder, groups, x, y = 1) {
        const pass = encoder.beginComputePass();
        pass.setPipeline(this.pipeline);
        groups.forEach((group, i) => pass.setBindGroup(i, group));
        pass.dispatchWorkgroups(x, y);
        pass.end();
    }
}

/** Commands of the page and steps of optimizers, submitted together. */
export class Work {
    constructor(device) {
        this.device = device;
        this.encoder = device.createCommandEncoder();
        this.steps = [];
    }

    step(optimizer, params, grads) {
        this.steps.push(optimizer.encode(this.encoder, params, grads));
    }

    /** Before the gradients: some rules want them ahead of the parameters. */
    lookAhead(optimizer, params) {
        if (optimizer.needsLookAhead) this.steps.push(optimizer.encodeMove(this.encoder, "lookAhead", params));
    }

    /** Does something where the model is judged, which for some rules is elsewhere than where it trains. */
    judged(optimizer, params, use) {
        const elsewhere = optimizer.hasEval && optimizer.steps > 0;
        if (elsewhere) this.steps.push(optimizer.encodeMove(this.encoder, "eval", params));
        use();
        if (elsewhere) this.steps.push(optimizer.encodeMove(this.encoder, "train", params));
    }

    submit() {
        this.device.queue.submit([this.encoder.finish()]);
        for (const step of this.steps) step.submitted();
    }
}

/** The bytes of parts of buffers, one behind the other, once what was submitted is done. */
export async function read(device, ...parts) {
    const size = parts.reduce((sum, part) => sum + part.size, 0);
    const staging = device.createBuffer({ size, usage: MAP_READ | COPY_DST });
    const encoder = device.createCommandEncoder();
    let to = 0;
    for (const { buffer, offset = 0, size } of parts) {
        encoder.copyBufferToBuffer(buffer, offset, staging, to, size);
        to += size;
    }
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const bytes = staging.getMappedRange().slice(0);
    staging.destroy();
    return bytes;
}

/** The browser's next frame, or soon where it draws none, as in a hidden tab. */
export const frame = () =>
    new Promise((go) => {
        const late = setTimeout(go, 100);
        requestAnimationFrame(() => {
            clearTimeout(late);
            go();
        });
    });

/** Work that repeats until it is stopped, or a turn of it says that nothing is left to do. */
export class Loop {
    constructor(turn, failed) {
        this.turn = turn;
        this.failed = failed;
    }

    start() {
        this.stop();
        const running = (this.running = {});
        const go = async () => {
            await this.last;
            while (this.running === running && (await this.turn())) await frame();
        };
        this.last = go().catch(this.failed);
    }

    stop() {
        this.running = undefined;
    }
}
