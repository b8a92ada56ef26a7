// Drives each view of the built page in headless Chromium: `node web/tests/run.mjs [VIEW] [--record]`. Screenshots go
// to target/web-screenshots. With --record, device/recorded.json gets what this browser and the CPU reference computed.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { browse } from "../../crates/wgpu-optim-web/tests/chromium.mjs";
import { serve } from "../serve.mjs";
import * as views from "./views.mjs";

const root = path.resolve(import.meta.dirname, "../..");
const shots = path.join(root, "target/web-screenshots");
const [only] = process.argv.slice(2).filter((arg) => !arg.startsWith("--"));
const record = process.argv.includes("--record");
fs.mkdirSync(shots, { recursive: true });

const SIZES = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };

const server = await serve(path.join(root, "target/web"));
const home = `http://127.0.0.1:${server.address().port}/`;
let failed = 0;
try {
    await browse(async (page, complaints) => {
        page.setDefaultTimeout(120_000); // software takes its time
        // The page asks its own host alone.
        await page.route("**", (route) => {
            const url = route.request().url();
            if (!url.startsWith(home) && !url.startsWith("data:")) complaints.push(`a request to ${url}`);
            return route.continue();
        });
        for (const [name, drive] of Object.entries(views)) {
            if (only && name !== only) continue;
            const start = performance.now();
            complaints.length = 0;
            try {
                await page.setViewportSize(SIZES.desktop);
                await page.goto(`${home}#${name}`);
                await page.reload();
                await drive(page, { record, root });
                for (const [size, viewport] of Object.entries(SIZES)) {
                    await page.setViewportSize(viewport);
                    await page.waitForTimeout(1500); // what is drawn anew after a change of size
                    await page.screenshot({
                        path: path.join(shots, `${name}-${size}.png`),
                        fullPage: true,
                        timeout: 120_000,
                    });
                    const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
                    assert(!wide, `${size}: the page is wider than the screen`);
                }
                const trouble = await page.textContent("#trouble");
                assert.equal(trouble, "");
                assert.deepEqual(complaints, []);
                console.log(`ok ${name}, ${Math.round(performance.now() - start)} ms`);
            } catch (error) {
                failed++;
                console.log(`FAILED ${name}: ${error.message}\n${complaints.join("\n")}`);
                const shot = { path: path.join(shots, `${name}-failed.png`), fullPage: true, timeout: 120_000 };
                await page.screenshot(shot).catch(() => {});
            }
        }
    });
} finally {
    server.close();
}
process.exitCode = failed > 0 ? 1 : 0;
