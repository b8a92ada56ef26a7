// Headless Chromium with WebGPU in software.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

/** Opens a page, hands it and its list of complaints to a function, and returns what that returns. */
export async function browse(use, options = {}) {
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
        ...options,
    });
    const page = await context.newPage();
    const complaints = [];
    page.on("console", (message) => {
        console.log(message.text());
        if (["error", "warning"].includes(message.type())) complaints.push(message.text());
    });
    page.on("pageerror", (error) => complaints.push(String(error)));
    try {
        return await use(page, complaints);
    } finally {
        await context.close();
        fs.rmSync(profile, { recursive: true, force: true });
    }
}
