// Train the digits: a network that learns while it reads what is drawn.
import { Optimizer } from "../package/index.js";
import { pen } from "../lib/colours.js";
import { TRAIN, digits } from "../lib/digits.js";
import { Loop } from "../lib/gpu.js";
import { curves, resized } from "../lib/plot.js";
import { sliders } from "../lib/sliders.js";
import { Network } from "./network.js";
import { Pad } from "./pad.js";

/** Steps of a frame, and how many there are in all; an epoch has 44. */
const TURN = 4;
const STEPS = 440;
/** Turns from one test with unseen images to the next. */
const TESTED = 6;

export async function open(device, root) {
    const at = (part) => root.querySelector(part);
    const images = await digits();
    let network;
    let stale = true;
    let paused = false;
    let options = {};
    let losses = [];
    let skipped = 0;
    let last = 0;
    let sample = TRAIN;

    const bars = Array.from({ length: 10 }, (_, digit) => {
        const bar = document.createElement("div");
        bar.append(document.createElement("i"), String(digit));
        return bar;
    });
    at(".guess").append(...bars);
    const pad = new Pad(at(".pad"), () => {
        network?.see(pad.pixels);
        loop.start();
    });

    async function fresh() {
        network?.destroy();
        network = undefined;
        [losses, skipped, stale] = [[], 0, false];
        // What overflows f16 is skipped, and the scale goes down.
        const scale = at(".scale").checked ? { loss_scale: { init: 65536 }, skip_nonfinite: true } : {};
        network = await Network.create(
            device,
            { ...options, optimizer: at("select").value, ...scale },
            at(".half").checked,
        );
        network.see(pad.pixels);
    }

    function draw() {
        const curve = { values: losses, colour: pen(0).colour };
        curves(at(".curve"), [curve], { until: STEPS, every: TURN, name: "loss", logarithmic: true });
    }

    async function turn() {
        if (stale) await fresh();
        if (!network) return false;
        const learning = !paused && network.steps < STEPS;
        if (learning) losses.push(await network.train(TURN));
        const tested = losses.length % TESTED === 1 || network.steps >= STEPS;
        const { accuracy = last, probabilities } = await network.judge(tested);
        last = accuracy;
        skipped += network.optimizer.reports().filter(({ applied }) => !applied).length;
        const best = Math.max(...probabilities);
        bars.forEach((bar, digit) => {
            bar.classList.toggle("best", probabilities[digit] === best);
            bar.firstChild.style.height = `${Math.round(100 * probabilities[digit])}%`;
        });
        at(".guess").setAttribute("aria-label", `Recognised as ${probabilities.indexOf(best)}`);
        draw();
        const scale = at(".scale").checked
            ? `, loss scale ${await network.optimizer.lossScale()}, ${skipped} skipped`
            : "";
        const right = (100 * accuracy).toFixed(1);
        at(".status").textContent = `step ${network.steps} of ${STEPS}: ${right} % of unseen digits right${scale}`;
        at(".status").classList.remove("error");
        return learning || stale;
    }
    const loop = new Loop(turn, (error) => {
        at(".status").textContent = error.message;
        at(".status").classList.add("error");
    });
    const again = () => {
        stale = true;
        loop.start();
    };

    const choice = at("select");
    choice.append(...Optimizer.rules().map((rule) => new Option(rule, rule)));
    choice.value = "adamw";
    const choose = () => {
        const { lr } = Optimizer.options(choice.value);
        options = {};
        sliders(at(".sliders"), lr === undefined ? {} : { lr }, (name, value) => {
            options[name] = value;
            again();
        });
        again();
    };
    choice.addEventListener("change", choose);
    for (const part of [".half", ".scale"]) at(part).addEventListener("change", again);
    at(".again").addEventListener("click", again);
    at(".pause").addEventListener("click", () => {
        paused = !paused;
        at(".pause").textContent = paused ? "go on" : "pause";
        loop.start();
    });
    at(".clear").addEventListener("click", () => pad.clear());
    at(".sample").addEventListener("click", () => {
        sample = sample + 1 < images.length ? sample + 1 : TRAIN;
        pad.show(images[sample].pixels);
    });
    choose();
    loop.stop();
    resized(root, () => {
        pad.draw();
        draw();
    });
    return {
        async start() {
            pad.given ??= images[sample].pixels;
            pad.draw();
            network?.see(pad.pixels);
            loop.start();
        },
        stop: () => loop.stop(),
    };
}
