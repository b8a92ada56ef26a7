// All rules at all rates: some hundred networks trained side by side, one step for all networks of a rule.
import { Optimizer } from "../package/index.js";
import { pen } from "../lib/colours.js";
import { Loop, Work } from "../lib/gpu.js";
import { curves, resized, short } from "../lib/plot.js";
import { follow } from "./follow.js";
import { Heat } from "./heat.js";
import { Models, RATES, school } from "./models.js";

/** Steps of a network, and steps from one measurement to the next. */
const STEPS = 64;
const EVERY = 8;

export async function open(device, root) {
    const at = (part) => root.querySelector(part);
    const shared = await school(device);
    const fresh = () => RATES.map(() => []);
    const rows = Optimizer.rules().map((rule) => ({ rule, curves: fresh() }));
    const heat = new Heat(at(".heat"), rows);
    let cursor;
    let followed;
    let again = false;
    let retrace = () => {};

    /** The row that is furthest behind goes on; a rule that takes no rate by group has no row of its own. */
    async function turn() {
        if (again) {
            for (const row of rows) {
                row.models?.destroy();
                Object.assign(row, { models: undefined, curves: fresh() });
            }
            again = false;
        }
        const open = rows.filter(({ refused, curves }) => !refused && curves[0].length <= STEPS / EVERY);
        const row = open.reduce((a, b) => (b.curves[0].length < a.curves[0].length ? b : a), open[0]);
        if (!row) return false;
        try {
            row.models ??= await Models.create(shared, row.rule, RATES);
        } catch (error) {
            row.refused = error.message;
            heat.draw(cursor);
            return true;
        }
        if (row.curves[0].length > 0) {
            const work = new Work(device);
            for (let step = 0; step < EVERY; step++) row.models.step(work);
            work.submit();
        }
        (await row.models.scores()).forEach((score, i) => row.curves[i].push(score));
        if (row.curves[0].length > STEPS / EVERY) {
            row.models.destroy();
            row.models = undefined;
        }
        heat.draw(cursor);
        tell();
        const taking = rows.filter(({ refused }) => !refused);
        const steps = taking.reduce((sum, { curves }) => sum + Math.max(0, curves[0].length - 1) * EVERY, 0);
        const done = Math.round((100 * steps) / (taking.length * STEPS));
        at(".status").textContent = `${taking.length * RATES.length} networks, ${done} % of their steps done`;
        return true;
    }
    const loop = new Loop(turn, (error) => {
        at(".status").textContent = error.message;
    });

    /** Says what is known of the cell under the cursor. */
    function tell() {
        if (!cursor) return;
        const { rule, curves: own, refused } = rows[cursor.row];
        const scores = own[cursor.column];
        const score = scores.at(-1);
        const result = score ? `, ${(100 * score.accuracy).toFixed(1)} % right` : "";
        at(".cell").textContent = refused
            ? `${rule}: ${refused}`
            : `${rule} at ${short(RATES[cursor.column])}${result}`;
        const losses = (column) => own[column].map(({ loss }) => loss);
        const others = own.map((_, i) => ({ values: losses(i), colour: "#e3e8ec", width: 1 }));
        const best = { values: losses(cursor.column), colour: pen(0).colour };
        // In the range of the cell's own curve, the others show where it stands.
        const near = others.filter(({ values }) => values.every((loss) => loss < 2 * Math.max(...best.values)));
        curves(at(".curve"), [...near, best], { until: STEPS, every: EVERY, name: "loss", logarithmic: true });
    }

    function point(cell) {
        if (!cell) return;
        cursor = cell;
        heat.draw(cursor);
        tell();
    }

    async function trace() {
        const { rule, refused } = rows[cursor.row];
        if (refused) return;
        const mine = (followed = {});
        const [pixel, digit] = [".pixel", ".digit"].map((part) => Number(at(part).value));
        const cell = { rule, rate: RATES[cursor.column], pixel, digit };
        at(".hint").textContent = `${rule} at ${short(cell.rate)}: pixel ${pixel} of digit ${digit} …`;
        try {
            const { names, draw } = await follow(shared, cell, at(".follow"), () => followed === mine);
            retrace = draw;
            const kept = names.slice(1, -1).join(", ");
            at(".hint").textContent = `${rule} at ${short(cell.rate)}: g → ${kept ? `${kept} → ` : ""}p`;
        } catch (error) {
            at(".hint").textContent = error.message;
        }
    }

    const canvas = at(".heat");
    canvas.addEventListener("pointermove", (event) => point(heat.at(event)));
    canvas.addEventListener("click", (event) => {
        point(heat.at(event));
        if (heat.at(event)) trace();
    });
    canvas.addEventListener("keydown", (event) => {
        const way = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
        if (event.key === "Enter" && cursor) trace();
        if (!way) return;
        event.preventDefault();
        const { row, column } = cursor ?? { row: 0, column: 0 };
        const within = (x, count) => Math.min(Math.max(x, 0), count - 1);
        point({ row: within(row + way[0], rows.length), column: within(column + way[1], RATES.length) });
    });
    at(".again").addEventListener("click", () => {
        again = true;
        loop.start();
    });
    resized(root, () => {
        heat.draw(cursor);
        tell();
        retrace();
    });
    return {
        async start() {
            heat.draw(cursor);
            loop.start();
        },
        stop() {
            loop.stop();
            followed = undefined;
        },
    };
}
