// A recorded run: first parameters and the gradients of each step, and what is replayed of it.

/** What is replayed: a rule of one pass, one with sums over tensors, and a step that the GPU decides on. */
export const CONFIGS = [
    { optimizer: "adamw", lr: 0.01 },
    { optimizer: "novograd", lr: 0.01 },
    { optimizer: "lion", lr: 0.001, clip: { global_norm: 1 }, skip_nonfinite: true, loss_scale: { init: 1024 } },
];

/** The values in a file of safetensors, by name: `{ shape, values }`. */
export function parse(bytes) {
    const length = Number(new DataView(bytes).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length)));
    delete header.__metadata__;
    const values = ({ shape, data_offsets: [from, to] }) => ({
        shape,
        values: new Float32Array(bytes.slice(8 + length + from, 8 + length + to)),
    });
    return Object.fromEntries(Object.entries(header).map(([name, entry]) => [name, values(entry)]));
}

/** Its tensors, `{ name, shape, start, grads }`; `grads` are those of each step. */
export function recording(bytes) {
    const all = parse(bytes);
    const names = Object.keys(all).filter((name) => name.startsWith("param."));
    return names.sort().map((key) => {
        const name = key.slice("param.".length);
        const { shape, values: start } = all[key];
        const {
            shape: [steps],
            values,
        } = all[`grad.${name}`];
        const grads = Array.from({ length: steps }, (_, i) =>
            values.subarray(i * start.length, (i + 1) * start.length),
        );
        return { name, shape, start, grads };
    });
}

/** SHA-256 of values, as text. */
export async function sha256(values) {
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", values));
    return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
