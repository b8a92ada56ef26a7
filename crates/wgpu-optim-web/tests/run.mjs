// Runs tests/cases.js in headless Chromium, on WebGPU in software: `node tests/run.mjs [PART OF A NAME]`.
import path from "node:path";
import { serve } from "../../../web/serve.mjs";
import { browse } from "./chromium.mjs";

const root = path.resolve(import.meta.dirname, "..");
const server = await serve(root);
try {
    await browse(async (page, complaints) => {
        await page.goto(`http://127.0.0.1:${server.address().port}/tests/page.html`);
        const run = async (part) => (await import("/tests/cases.js")).run(part);
        const failed = await page.evaluate(run, process.argv[2] ?? "");
        // What a case provokes on purpose it says so.
        const unexpected = complaints.filter((text) => !text.startsWith("expected: "));
        unexpected.forEach((text) => console.log(`COMPLAINT ${text}`));
        process.exitCode = failed.length + unexpected.length > 0 ? 1 : 0;
    });
} finally {
    server.close();
}
