// Puts the page together in target/web, static files that any host can serve. The package is built before it.
import fs from "node:fs";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "..");
const out = path.join(root, "target/web");

/** What comes from elsewhere in the repository: kernels, data, and a recorded run. */
const BORROWED = {
    package: "crates/wgpu-optim-web/target/package",
    "landscapes.wgsl": "crates/pictures/src/bin/landscapes/landscapes.wgsl",
    "softmax.wgsl": "crates/pictures/src/bin/compare/softmax.wgsl",
    "mlp.wgsl": "examples/train_digits/mlp.wgsl",
    "digits.csv": "examples/data/digits.csv",
    "recording.safetensors": "tests/golden/recording.safetensors",
};
/** What only builds or tests the page. */
const ASIDE = ["build.mjs", "serve.mjs", "package.json", "README.md", "tests"];

fs.rmSync(out, { recursive: true, force: true });
const kept = (file) => !ASIDE.includes(path.relative(import.meta.dirname, file));
fs.cpSync(import.meta.dirname, out, { recursive: true, filter: kept });
for (const [name, source] of Object.entries(BORROWED)) {
    fs.cpSync(path.join(root, source), path.join(out, name), { recursive: true });
}
console.log(`built ${out}`);
