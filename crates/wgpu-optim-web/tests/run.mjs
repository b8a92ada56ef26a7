// Runs tests/cases.js in headless Chromium, on WebGPU in software: `node tests/run.mjs [PART OF A NAME]`.
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

const root = path.resolve(import.meta.dirname, "..");
const folders = { tests: "tests", package: "target/package", reference: "target/reference" };
const types = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };
const server = http.createServer((request, response) => {
    const [, folder, ...rest] = path.normalize(request.url.split("?")[0]).split("/");
    const file = path.join(root, folders[folder] ?? "", ...rest);
    if (!fs.statSync(file, { throwIfNoEntry: false })?.isFile()) {
        response.writeHead(404).end();
        return;
    }
    response.writeHead(200, { "content-type": types[path.extname(file)] ?? "text/plain" });
    fs.createReadStream(file).pipe(response);
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));

const profile = fs.mkdtempSync(path.join(os.tmpdir(), "wgpu-optim-web-"));
const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: [
        "--headless=new",
        "--no-sandbox", // continuous integration runs as root
        "--enable-unsafe-webgpu",
        "--enable-features=Vulkan,WebGPU",
        "--use-webgpu-adapter=swiftshader",
        "--use-angle=swiftshader",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ],
});
const page = await context.newPage();
const complaints = [];
page.on("console", (message) => {
    console.log(message.text());
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
});
page.on("pageerror", (error) => complaints.push(String(error)));

let failed;
try {
    await page.goto(`http://127.0.0.1:${server.address().port}/tests/page.html`);
    failed = await page.evaluate(async (part) => (await import("/tests/cases.js")).run(part), process.argv[2] ?? "");
} finally {
    await context.close();
    server.close();
    fs.rmSync(profile, { recursive: true, force: true });
}
// What a case provokes on purpose it says so.
const unexpected = complaints.filter((text) => !text.startsWith("expected: "));
unexpected.forEach((text) => console.log(`COMPLAINT ${text}`));
process.exitCode = failed.length + unexpected.length > 0 ? 1 : 0;
