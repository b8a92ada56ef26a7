// The colours of docs/pictures: Okabe and Ito's, told apart by colour-blind readers, with grey in place of yellow, and
// wine of Tol's.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#000000", "#cc79a7", "#e69f00", "#56b4e9", "#808080", "#882255"];

/** The stroke of curve `i`: thinner, then dashed, once the colours start again. */
export function pen(i) {
    const round = Math.floor(i / COLOURS.length);
    return {
        colour: COLOURS[i % COLOURS.length],
        width: round === 0 ? 2.5 : 1.5,
        dash: round > 1 ? [5, 3] : [],
    };
}

const mix = (a, b, part) => a.map((x, i) => Math.round(x + (b[i] - x) * part));

/** A shade of blue for a number from 0 to 1, the darker the more. */
export function shade(part) {
    const [low, middle, high] = [
        [240, 243, 246],
        [86, 180, 233],
        [0, 52, 94],
    ];
    const [r, g, b] = part < 0.6 ? mix(low, middle, part / 0.6) : mix(middle, high, (part - 0.6) / 0.4);
    return `rgb(${r}, ${g}, ${b})`;
}

/** What has left the numbers. */
export const LOST = "#f2c9a8";
