// Has Dawn, which compiles the shaders of Chromium, check every composed shader, without a browser or a driver:
//
//     SHADERS=$PWD/target/shaders.jsonl cargo test --test all expansion::constants
//     node crates/wgpu-optim-web/tests/shaders.mjs target/shaders.jsonl [--all]
//
// The file has a text a line, with the sets of constants that its pipelines may get. Of these the first and the last
// are tried, no switch on and all of them; with --all, every one.
import assert from "node:assert/strict";
import fs from "node:fs";
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);
const shaders = fs
    .readFileSync(process.argv[2], "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
assert(shaders.length > 1000, `${process.argv[2]} has ${shaders.length} shaders`);
const whole = process.argv.includes("--all");
const gpu = create(["backend=null"]); // held, since its devices die with it
const adapter = await gpu.requestAdapter();
const device = await adapter.requestDevice();

/** What Dawn says against a pipeline. */
async function complaint(module, entryPoint, constants) {
    device.pushErrorScope("validation");
    device.createComputePipeline({ layout: "auto", compute: { module, entryPoint, constants } });
    return (await device.popErrorScope())?.message;
}

const complaints = [];
let pipelines = 0;
for (const { name, text, entry, constants } of shaders) {
    const module = device.createShaderModule({ code: text });
    const { messages } = await module.getCompilationInfo();
    complaints.push(...messages.map(({ type, message }) => `${name}: ${type}: ${message}`));
    for (const set of whole ? constants : new Set([constants[0], constants.at(-1)])) {
        const message = await complaint(module, entry, set);
        if (message) complaints.push(`${name}, ${JSON.stringify(set)}: ${message}`);
        pipelines++;
    }
}
console.log(`${shaders.length} texts, ${pipelines} pipelines, ${complaints.length} complaints`);
for (const text of complaints.slice(0, 20)) console.log(text);

// It does complain of what is wrong.
const { text, entry, constants } = shaders[0];
const module = device.createShaderModule({ code: text });
assert(await complaint(module, entry, { ...constants[0], NO_SUCH_CONSTANT: 1 }), "an unknown constant passed");
assert(await complaint(module, "no_such_entry", constants[0]), "an unknown entry point passed");
device.pushErrorScope("validation");
const { messages } = await device.createShaderModule({ code: text.replace("fn ", "fun ") }).getCompilationInfo();
await device.popErrorScope();
assert(messages.length > 0, "a text that is no WGSL passed");
process.exit(complaints.length > 0 ? 1 : 0);
