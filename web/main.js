// The page: asks for the device, and shows the view that the address names.
import * as landscapes from "./landscapes/view.js";
import * as rates from "./rates/view.js";
import * as digits from "./digits/view.js";
import * as here from "./device/view.js";

const views = { landscapes, rates, digits, device: here };
const opened = {};
let device;
let current;

function tell(text) {
    const trouble = document.getElementById("trouble");
    trouble.textContent = text;
    trouble.hidden = false;
}

async function request() {
    if (!navigator.gpu) {
        throw new Error(
            "This browser has no WebGPU. Chrome and Edge from 113 on have it, Safari from 26, Firefox from 141.",
        );
    }
    const adapter = await navigator.gpu.requestAdapter();
    if (!adapter)
        throw new Error("The browser has WebGPU, but gives no adapter: it may not trust this graphics driver.");
    const device = await adapter.requestDevice();
    device.lost.then(({ message }) => tell(`The device is lost: ${message}. Load the page again to go on.`));
    device.addEventListener("uncapturederror", ({ error }) => tell(error.message));
    return device;
}

/** Shows one view, which starts or goes on, and stops the one before. */
async function show() {
    const name = location.hash.slice(1) in views ? location.hash.slice(1) : "landscapes";
    current?.stop();
    current = undefined;
    for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
    for (const link of document.querySelectorAll("nav a")) {
        if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
    }
    opened[name] ??= views[name].open(device, document.getElementById(name));
    const view = await opened[name];
    if (location.hash.slice(1) !== name && location.hash !== "") return;
    current = view;
    await view.start();
}

const safely = (work) => work().catch((error) => tell(error.message));

await safely(async () => {
    device = await request();
    addEventListener("hashchange", () => safely(show));
    await show();
});
