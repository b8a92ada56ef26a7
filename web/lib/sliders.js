// Sliders for an optimizer's options.
import { short } from "./plot.js";

/** From 0 to 1 to a number and back: along digits, along the distance from 1, or evenly. */
function scale(name, usual) {
    if (/beta|momentum|alpha|rho|dampening/.test(name) && usual >= 0 && usual < 1) {
        return { to: (part) => 1 - 10 ** (-4 * part), from: (x) => -Math.log10(1 - x) / 4 };
    }
    if (usual > 0) {
        return {
            to: (part) => usual * 100 ** (2 * part - 1),
            from: (x) => (Math.log(x / usual) / Math.log(100) + 1) / 2,
        };
    }
    return { to: (part) => part, from: (x) => x };
}

/** Puts a slider for each of `options` into an element, from the values it has, and tells of each change. */
export function sliders(root, options, changed) {
    const slider = ([name, usual]) => {
        const { to, from } = scale(name, usual);
        const label = document.createElement("label");
        const [output, input] = [document.createElement("output"), document.createElement("input")];
        Object.assign(input, { type: "range", min: 0, max: 1, step: 0.005, value: from(usual), name });
        output.textContent = short(usual);
        input.addEventListener("input", () => {
            const value = Number(to(Number(input.value)).toPrecision(4));
            output.textContent = short(value);
            changed(name, value);
        });
        label.append(name.replaceAll("_", " "), output, input);
        return label;
    };
    root.replaceChildren(...Object.entries(options).map(slider));
}
