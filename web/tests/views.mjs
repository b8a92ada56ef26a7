// What each view must show, one function a view.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { CONFIGS, recording, sha256 } from "../device/recording.js";

/** Waits until a text on the page matches, and returns it. */
async function text(page, part, pattern, timeout = 120_000) {
    const wait = ([part, source]) => new RegExp(source).test(document.querySelector(part)?.textContent ?? "");
    try {
        await page.waitForFunction(wait, [part, pattern.source], { timeout, polling: 50 });
    } catch {
        assert.fail(`${part} is "${await page.textContent(part)}", expected ${pattern}`);
    }
    return page.textContent(part);
}

/** How many pixels of a canvas have one of its colours. */
const coloured = (page, part, colour) =>
    page.evaluate(
        ([part, colour]) => {
            const canvas = document.querySelector(part);
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {
                willReadFrequently: true,
            });
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let i = 0; i < data.length; i += 4) count += colour.every((value, k) => data[i + k] === value);
            return count;
        },
        [part, colour],
    );

const BLUE = [0, 114, 178];
const PINK = [204, 121, 167];

export async function landscapes(page) {
    const told = await text(page, "#landscapes .status", /^(\d+) of \1 .*step ([3-9]\d|\d{3}) of/, 400_000);
    // A file may hold several optimizers.
    const files = fs.readdirSync(new URL("../../src/rules", import.meta.url)).length;
    assert(parseInt(told) >= files, `${told}, with ${files} files of optimizers`);
    // sgd has left a blue path on Beale's function.
    const canvas = "#landscapes canvas";
    const before = await coloured(page, canvas, BLUE);
    assert(before > 100, `${before} blue pixels`);
    // Another start gives another path.
    await page.click(canvas, { position: { x: 60, y: 300 } });
    await text(page, "#landscapes .status", /step \d of/);
    await text(page, "#landscapes .status", /step ([3-9]\d|\d{3}) of/, 400_000);
    assert.notEqual(await coloured(page, canvas, BLUE), before);
    // No optimizer refused its options, and another option gives adam, in pink, another path.
    assert.equal(await page.textContent("#landscapes .fault"), "");
    const pink = await coloured(page, canvas, PINK);
    await page.locator("#landscapes .sliders input[name='beta1']").fill("0.05");
    await text(page, "#landscapes .status", /step \d of/);
    await text(page, "#landscapes .status", /step ([3-9]\d|\d{3}) of/, 400_000);
    assert.notEqual(await coloured(page, canvas, PINK), pink);
}

export async function rates(page) {
    const share = /^(\d+) networks/;
    // A quarter of the steps tells enough.
    const status = await text(page, "#rates .status", /networks, (2[5-9]|[3-9]\d|100) %/, 400_000);
    assert(Number(status.match(share)[1]) >= 700, status);
    // adam at a rate of about 0.01 reads most digits.
    const row = await page.evaluate(async () => {
        const { Optimizer } = await import("/package/index.js");
        return Optimizer.rules().indexOf("adam");
    });
    const box = await page.locator("#rates .heat").boundingBox();
    const x = 128 + ((box.width - 128) * (16 + 0.5)) / 32;
    await page.mouse.move(box.x + x, box.y + 19 * row + 9);
    const cell = await text(page, "#rates .cell", /^adam at 0\.0\d+, (\d+)/);
    assert(Number(cell.match(/, ([\d.]+) %/)[1]) > 60, cell);
    await page.mouse.click(box.x + x, box.y + 19 * row + 9);
    await text(page, "#rates .hint", /^adam at .*: g → m, v → p$/, 400_000);
    assert.equal(await page.locator("#rates .follow canvas").count(), 4);
    // Keys move on.
    await page.keyboard.press("ArrowRight");
    assert.notEqual(await page.textContent("#rates .cell"), cell);
}

export async function digits(page) {
    await text(page, "#digits .status", /step [1-9]\d of/);
    await page.click("#digits .sample");
    await text(page, "#digits .status", /step 440 of 440: 9\d/, 240_000);
    // The bar that stands out is that of the digit shown: the second unseen one.
    const label = await page.evaluate(async () => {
        const { TRAIN, digits } = await import("/lib/digits.js");
        return (await digits())[TRAIN + 1].label;
    });
    assert.equal(await page.textContent("#digits .guess .best"), String(label));
    await page.check("#digits .half");
    await page.check("#digits .scale");
    await text(page, "#digits .status", /step [1-9]\d of .*loss scale \d+/);
    await text(page, "#digits .status", /step 440 of 440: 9\d/, 240_000);
    // A 1 is drawn: a line from the top to the bottom.
    const pad = await page.locator("#digits .pad").boundingBox();
    await page.mouse.move(pad.x + pad.width / 2, pad.y + 20);
    await page.mouse.down();
    for (let part = 0; part <= 1; part += 0.1) {
        await page.mouse.move(pad.x + pad.width / 2, pad.y + 20 + part * (pad.height - 40));
    }
    await page.mouse.up();
    await text(page, "#digits .guess .best", /^1$/, 10_000);
}

export async function device(page, { record, root }) {
    const mine = await text(page, "#device .facts .hash", /^[0-9a-f]{64}$/);
    const reference = await onCpu(root);
    assert.equal(mine, reference);
    await text(page, "#device .facts", /\d ms|\d+ ms/);
    if (record) {
        const agent = await page.evaluate(() => navigator.userAgent);
        const list = [
            { device: "the crate's CPU reference", sha256: reference },
            { device: `SwiftShader in Chromium ${agent.match(/Chrome\/(\d+)/)[1]}`, sha256: mine },
        ];
        fs.writeFileSync(path.join(root, "web/device/recorded.json"), `${JSON.stringify(list, null, 4)}\n`);
        return;
    }
    assert.match(await page.textContent("#device .recorded"), /equal/);
    assert.doesNotMatch(await page.textContent("#device .recorded"), /differs/);
}

/** What the crate's CPU reference makes of the recorded run. */
async function onCpu(root) {
    const folder = path.join(root, "crates/wgpu-optim-web/target/reference");
    const { Reference, initSync } = await import(path.join(folder, "reference.js"));
    initSync({ module: fs.readFileSync(path.join(folder, "reference_bg.wasm")) });
    const file = fs.readFileSync(path.join(root, "tests/golden/recording.safetensors"));
    const tensors = recording(file.buffer.slice(file.byteOffset, file.byteOffset + file.length));
    const ends = CONFIGS.flatMap((config) => {
        const start = tensors.map(({ start }) => start);
        const reference = new Reference(JSON.stringify(config), tensors, start);
        for (let step = 0; step < tensors[0].grads.length; step++) {
            reference.step(tensors.map(({ grads }) => grads[step]));
        }
        return tensors.flatMap((_, i) => [...reference.param(i)]);
    });
    return sha256(Float32Array.from(ends));
}
