// Curves on a canvas.

/** A canvas with as many pixels as the screen gives it, and its size in units of CSS. */
export function fit(canvas) {
    const { width, height } = canvas.getBoundingClientRect();
    const ratio = devicePixelRatio;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    return { context, width, height };
}

/** A number in few letters. */
export function short(x) {
    if (x === 0) return "0";
    const size = Math.abs(x);
    if (size < 1e-3 || size >= 1e5) return x.toExponential(size < 1e-99 ? 0 : 1).replace("e+", "e");
    return String(Number(x.toPrecision(3)));
}

export const FONT = "12px system-ui, 'DejaVu Sans', sans-serif";

/** Draws again after each change of the window's size, unless a part of the page is hidden. */
export function resized(root, draw) {
    let soon;
    addEventListener("resize", () => {
        clearTimeout(soon);
        soon = setTimeout(() => !root.hidden && draw(), 200);
    });
}

/**
 * Draws curves over the same steps, `{ values, colour, width? }` each, and their ends' values on the left. From one
 * value to the next are `every` steps; `until` is the last step that there will be.
 */
export function curves(canvas, list, { until, every = 1, name = "", logarithmic = false }) {
    const { context, width, height } = fit(canvas);
    const seen = list.flatMap(({ values }) => values).filter(Number.isFinite);
    let [low, high] = seen.length > 0 ? [Math.min(...seen), Math.max(...seen)] : [0, 1];
    if (logarithmic) low = Math.max(low, high * 1e-6, Number.MIN_VALUE);
    if (low === high) [low, high] = [low - 0.5 * Math.abs(low || 1), high + 0.5 * Math.abs(high || 1)];
    const scale = logarithmic ? (y) => Math.log(Math.max(y, low)) : (y) => y;
    const [left, right, top, bottom] = [64, width - 8, 8, height - 20];
    const x = (step) => left + ((right - left) * step) / Math.max(until, 1);
    const y = (value) => bottom - ((bottom - top) * (scale(value) - scale(low))) / (scale(high) - scale(low));

    context.font = FONT;
    context.fillStyle = "#5a6570";
    context.strokeStyle = "#d5dbe1";
    context.strokeRect(left, top, right - left, bottom - top);
    context.textAlign = "right";
    context.fillText(short(high), left - 6, top + 9);
    context.fillText(short(low), left - 6, bottom);
    context.fillText(String(until), right, height - 5);
    context.textAlign = "left";
    context.fillText("step 0", left, height - 5);
    context.fillStyle = "#1b1f24";
    context.fillText(name, 4, (top + bottom) / 2 + 4);
    for (const { values, colour, width = 2 } of list) {
        context.beginPath();
        values.forEach((value, i) => Number.isFinite(value) && context.lineTo(x(i * every), y(value)));
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.lineJoin = "round";
        context.stroke();
    }
}
