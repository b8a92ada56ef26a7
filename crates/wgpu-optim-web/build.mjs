// Builds the package into target/package, and what the tests compare with into target/reference; then checks the size.
// `node build.mjs [--record]`: with --record the sizes found become the recorded ones.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import zlib from "node:zlib";

const here = import.meta.dirname;
const target = "wasm32-unknown-unknown";

const run = (command, args, env = process.env) => execFileSync(command, args, { cwd: here, env, stdio: "inherit" });

// The standard library is built along, for size: no text of panics, no file and line, no fields of derived `Debug`.
const buildStd = ["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"];
const flags = "-Zunstable-options -Cpanic=immediate-abort -Zlocation-detail=none -Zfmt-debug=shallow";
const env = { ...process.env, RUSTC_BOOTSTRAP: "1", RUSTFLAGS: flags };

/** A wasm file of this workspace, with its glue, in a folder. */
function pack(crate, folder) {
    run("cargo", ["build", "--locked", "--release", "--package", crate, "--target", target, ...buildStd], env);
    const name = crate.replaceAll("-", "_");
    const file = path.join(here, "target", target, "release", `${name}.wasm`);
    fs.rmSync(path.join(here, folder), { recursive: true, force: true });
    run(path.join(here, "target/debug/bindgen"), [file, path.join(here, folder)]);
    return path.join(here, folder, name);
}

run("cargo", ["build", "--locked", "--package", "bindgen"]);
const built = pack("wgpu-optim-web", "target/package");
pack("reference", "target/reference");
for (const file of ["package.json", "README.md", "index.js", "index.d.ts"]) {
    fs.copyFileSync(path.join(here, file), path.join(here, "target/package", file));
}

const wasm = `${built}_bg.wasm`;
const optimizer = path.join(here, "node_modules/.bin/wasm-opt");
run(optimizer, ["-Oz", "--strip-debug", "--strip-producers", wasm, "-o", wasm]);

/** Takes comments and indentation out of shaders: spaces at their ends instead take no room once compressed. */
function minified(bytes) {
    const shaders = path.join(here, "../../shaders");
    for (const file of fs.readdirSync(shaders, { recursive: true }).filter((file) => file.endsWith(".wgsl"))) {
        const text = fs.readFileSync(path.join(shaders, file), "latin1");
        const at = bytes.indexOf(text, "latin1");
        if (at < 0) continue; // one that the package has no use for
        const short = text.replace(/\/\/.*/g, "").replace(/\s*\n\s*/g, "\n").trim();
        bytes.write(short.padEnd(text.length - 1) + "\n", at, "latin1");
    }
    return bytes;
}
fs.writeFileSync(wasm, minified(fs.readFileSync(wasm)));

// Comments on what JavaScript sees stand in the types.
const glue = fs.readFileSync(`${built}.js`, "utf8");
fs.writeFileSync(`${built}.js`, glue.replace(/^ *(\/\*\*[^]*?\*\/|\/\/.*)\n/gm, ""));

const gzipped = (file) => zlib.gzipSync(fs.readFileSync(file), { level: 9 }).length;
const found = { wasm: gzipped(wasm), glue: gzipped(`${built}.js`) };
const recorded = JSON.parse(fs.readFileSync(path.join(here, "size.json"), "utf8"));
const sum = ({ wasm, glue }) => wasm + glue;
const most = Math.floor(1.02 * sum(recorded));
console.log(`gzipped: wasm ${found.wasm}, glue ${found.glue}, together ${sum(found)} bytes of at most ${most}`);
console.log(`to the goal of ${recorded.goal} bytes: ${Math.max(sum(found) - recorded.goal, 0)}`);
if (process.argv.includes("--record")) {
    fs.writeFileSync(path.join(here, "size.json"), `${JSON.stringify({ ...recorded, ...found }, null, 4)}\n`);
} else if (sum(found) > most) {
    console.error("the package has outgrown size.json; see README.md, Size");
    process.exitCode = 1;
}
