// Landscapes, live: every optimizer at once on four of them.
import { Optimizer } from "../package/index.js";
import { pen } from "../lib/colours.js";
import { Loop, Work, read, storage } from "../lib/gpu.js";
import { resized } from "../lib/plot.js";
import { sliders } from "../lib/sliders.js";
import { grounds, soonest, tries } from "./grounds.js";
import { Picture } from "./picture.js";
import { Walkers, descend, surveyor } from "./walkers.js";

/** Steps that rates are judged by, and steps of a path. */
const TRIED = 100;
const STEPS = 300;
/** Steps of all optimizers a frame. */
const TURN = 4;
/** What stands out at first, in the order of the colours. */
const FEW = ["sgd", "adan", "adagrad", "rmsprop", "adam", "novograd", "lion", "schedule_free", "radam"];

/** Weights that decay would make another place the lowest. */
const still = (rule) => ("weight_decay" in Optimizer.options(rule) ? { weight_decay: "none" } : {});

/** An optimizer in the race: its options, its rates, and where it has been. */
class Runner {
    constructor(rule, i) {
        Object.assign(this, { rule, ...pen(i), out: true, options: {}, factor: 1 });
        this.restart();
    }

    get config() {
        return { optimizer: this.rule, ...still(this.rule), ...this.options };
    }

    restart() {
        this.walkers?.destroy();
        this.walkers = undefined;
        this.paths = undefined;
    }

    /** Makes what it runs with, at the best rates of those tried, or at its own where it takes one rate for all. */
    async ready(survey, starts) {
        this.rates ??= await descend(survey, this.config, tries, TRIED).then(soonest, (error) => {
            if (!error.message.includes("must be left to the top level")) throw error;
            this.apart = true;
            return grounds.map(() => Optimizer.options(this.rule).lr);
        });
        const walkers = grounds.map((_, i) => ({ ground: i, start: starts[i], lr: this.rates[i] * this.factor }));
        this.walkers = await Walkers.create(survey, this.config, walkers, this.apart);
        this.paths = starts.map((start) => [start]);
    }
}

export async function open(device, root) {
    const at = (part) => root.querySelector(part);
    const survey = await surveyor(device);
    const runners = [...new Set([...FEW, ...Optimizer.rules()])].map((rule, i) => new Runner(rule, i));
    const starts = grounds.map(({ start }) => [...start]);
    const trace = storage(device, runners.length * TURN * grounds.length * 16);
    let alone;

    const pictures = grounds.map((ground, i) => {
        const figure = document.createElement("figure");
        const [caption, canvas] = [document.createElement("figcaption"), document.createElement("canvas")];
        caption.textContent = ground.name;
        canvas.tabIndex = 0;
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", `${ground.name}: arrow keys move the start`);
        figure.append(caption, canvas);
        at(".grounds").append(figure);
        const picture = new Picture(canvas, ground, i, survey.heights);
        canvas.addEventListener("click", (event) => move(i, picture.place(event)));
        canvas.addEventListener("keydown", (event) => {
            const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
            if (!way) return;
            event.preventDefault();
            const moved = ([low, high], axis) => starts[i][axis] + 0.03 * way[axis] * (high - low);
            move(i, [ground.x, ground.y].map(moved));
        });
        return picture;
    });

    function move(i, place) {
        starts[i] = place;
        restart();
    }

    function restart(list = runners) {
        for (const runner of list) runner.stale = true;
        loop.start();
    }

    function draw() {
        const seen = runners.filter(({ paths }) => paths);
        const faint = (runner) => (alone ? alone !== runner : !runner.out);
        pictures.forEach((picture, i) => {
            const path = (runner) => ({ ...runner, places: runner.paths[i], faint: faint(runner) });
            picture.draw(seen.map(path), starts[i]);
        });
        const steps = Math.min(...seen.map(({ paths }) => paths[0].length - 1));
        const done = seen.length > 0 ? `, step ${steps} of ${STEPS}` : "";
        at(".status").textContent = `${seen.length} of ${runners.length} optimizers on their way${done}`;
    }

    /** Some steps of every optimizer, in one submit; and one more optimizer made ready. */
    async function turn() {
        for (const runner of runners.filter(({ stale }) => stale)) {
            runner.restart();
            runner.stale = false;
        }
        const next = runners.find(({ walkers, refused }) => !walkers && !refused);
        if (next) {
            try {
                await next.ready(survey, starts);
                fault("");
            } catch (error) {
                next.refused = true;
                next.chip.disabled = true;
                next.chip.title = error.message;
                fault(`${next.rule}: ${error.message}`);
            }
        }
        const moving = runners.filter(({ walkers, paths }) => walkers && paths[0].length <= STEPS);
        if (moving.length > 0) {
            const work = new Work(device);
            const size = grounds.length * 16;
            moving.forEach(({ walkers }, i) => {
                for (let step = 0; step < TURN; step++) {
                    walkers.step(work);
                    walkers.record(work, trace, (i * TURN + step) * size);
                }
            });
            work.submit();
            const places = new Float32Array(await read(device, { buffer: trace, size: moving.length * TURN * size }));
            moving.forEach(({ paths }, i) => {
                for (let step = 0; step < TURN; step++) {
                    const row = (ground) => 4 * ((i * TURN + step) * grounds.length + ground);
                    paths.forEach((path, ground) => path.push([...places.subarray(row(ground), row(ground) + 2)]));
                }
            });
        }
        draw();
        return next !== undefined || moving.length > 0;
    }
    const fault = (text) => {
        at(".fault").textContent = text;
    };
    const loop = new Loop(turn, (error) => fault(error.message));

    const chip = (runner) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = runner.rule;
        button.style.setProperty("--colour", runner.colour);
        button.style.setProperty("--width", `${runner.width + 1}px`);
        button.style.setProperty("--dash", runner.dash.length > 0 ? "dashed" : "solid");
        const show = (out) => {
            runner.out = out;
            button.setAttribute("aria-pressed", String(out));
        };
        const single = (which) => () => {
            alone = which;
            draw();
        };
        button.addEventListener("click", () => {
            show(!runner.out);
            draw();
        });
        for (const event of ["pointerenter", "focus"]) button.addEventListener(event, single(runner));
        for (const event of ["pointerleave", "blur"]) button.addEventListener(event, single(undefined));
        Object.assign(runner, { chip: button, show });
        show(FEW.includes(runner.rule));
        return button;
    };
    at(".chips").append(...runners.map(chip));
    const shown = (which) => () => {
        for (const runner of runners) runner.show(which(runner));
        draw();
    };
    at(".all").addEventListener(
        "click",
        shown(() => true),
    );
    at(".few").addEventListener(
        "click",
        shown(({ rule }) => FEW.includes(rule)),
    );
    at(".again").addEventListener("click", () => restart());

    const choice = at("select");
    choice.append(...runners.map(({ rule }) => new Option(rule, rule)));
    choice.value = "adam";
    const choose = () => {
        const runner = runners.find(({ rule }) => rule === choice.value);
        const { lr, weight_decay: _, ...options } = Optimizer.options(runner.rule);
        const changed = (name, value) => {
            if (name === "times its rates") runner.factor = value;
            else runner.options[name] = value;
            runner.refused = false;
            runner.chip.disabled = false;
            runner.show(true);
            restart([runner]);
        };
        sliders(at(".sliders"), { "times its rates": runner.factor, ...options, ...runner.options }, changed);
    };
    choice.addEventListener("change", choose);
    choose();

    const resize = async () => {
        for (const picture of pictures) await picture.survey();
        draw();
    };
    resized(root, resize);
    return {
        async start() {
            await resize();
            loop.start();
        },
        stop: () => loop.stop(),
    };
}
