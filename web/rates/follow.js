// One weight of one network, step by step: its gradient, what the optimizer keeps of it, and the weight itself.
import { pen } from "../lib/colours.js";
import { Work, frame, read } from "../lib/gpu.js";
import { curves } from "../lib/plot.js";
import { Models, SHAPE } from "./models.js";

const STEPS = 40;

/** Where the number of a weight lies in a state slot: slots hold one an element, a row, a column, or one in all. */
function place(length, row, column) {
    const [rows, columns] = SHAPE;
    const places = { [rows * columns]: row * columns + column, [rows]: row, [columns]: column, 1: 0 };
    return places[length];
}

/** Trains a network of a rule at a rate again, and draws what becomes of a weight into an element while it does. */
export async function follow(school, { rule, rate, pixel, digit }, root, wanted) {
    const models = await Models.create(school, rule, [rate]);
    const { optimizer, params, grads } = models;
    const slots = optimizer.slots("network0");
    const lines = Object.fromEntries(["g", ...slots, "p"].map((name) => [name, []]));
    const offset = 4 * place(SHAPE[0] * SHAPE[1], pixel, digit);
    const draw = () => {
        const own = Object.entries(lines).filter(([, values]) => values.length > 0);
        while (root.children.length < own.length) root.append(document.createElement("canvas"));
        own.forEach(([name, values], i) => {
            const canvas = root.children[i];
            canvas.setAttribute("role", "img");
            canvas.setAttribute("aria-label", `${name} by step`);
            curves(canvas, [{ values, colour: pen(i).colour }], { until: STEPS - 1, name });
        });
    };
    root.replaceChildren();
    try {
        for (let step = 0; step < STEPS && wanted(); step++) {
            const work = new Work(school.device);
            models.step(work);
            work.submit();
            const part = ({ buffer }) => ({ buffer, offset, size: 4 });
            const [g, p] = new Float32Array(await read(school.device, part(grads[0]), part(params[0])));
            lines.g.push(g);
            lines.p.push(p);
            for (const slot of slots) {
                const values = await optimizer.state("network0", slot);
                const at = place(values.length, pixel, digit);
                if (at !== undefined) lines[slot].push(values[at]);
            }
            if (step % 4 === 3) {
                draw();
                await frame();
            }
        }
        return { names: Object.keys(lines).filter((name) => lines[name].length > 0), draw };
    } finally {
        models.destroy();
    }
}
