// The landscapes of landscapes.wgsl, in its order: which part is shown, where paths start, and the lowest places.
export const grounds = [
    { name: "Beale's function", x: [-0.2, 4], y: [-1.2, 2], start: [1.7, 1.6], minima: [[3, 0.5]] },
    { name: "long valley", x: [-7, 1.8], y: [-2.2, 2.2], start: [-6.2, 1.6], minima: [[0, 0]] },
    {
        name: "saddle",
        x: [-1.6, 1.6],
        y: [-1.5, 1.5],
        start: [1.3, 0.005],
        minima: [
            [0, 1],
            [0, -1],
        ],
    },
    { name: "Rosenbrock", x: [-1.8, 1.6], y: [-0.8, 2.6], start: [-0.5, 1.6], minima: [[1, 1]] },
];

/** Rates that are tried: 24 from 10^-4 to 10. */
const RATES = Array.from({ length: 24 }, (_, i) => 10 ** (-4 + (5 * i) / 23));

/** Every ground at every rate, rates of a ground side by side. */
export const tries = grounds.flatMap(({ start }, ground) => RATES.map((lr) => ({ ground, start, lr })));

/**
 * The smaller, the sooner a path came down: the mean logarithm of its heights. Infinite where it left the picture, or
 * leapt over more than a twelfth of it at once.
 */
function slowness({ x, y }, path) {
    let sum = 0;
    for (const [i, [a, b, height]] of path.entries()) {
        const [c, d] = path[Math.max(i - 1, 0)];
        const leap = Math.hypot((a - c) / (x[1] - x[0]), (b - d) / (y[1] - y[0]));
        if (!(a > x[0] && a < x[1] && b > y[0] && b < y[1] && leap < 0.08)) return Infinity;
        sum += Math.log(Math.max(height, 1e-6));
    }
    return sum / path.length;
}

/** The rate that comes down soonest on each ground, of the paths of all `tries`; the smallest where none stays. */
export function soonest(paths) {
    return grounds.map((ground, i) => {
        const own = paths.slice(i * RATES.length, (i + 1) * RATES.length).map((path) => slowness(ground, path));
        return RATES[own.indexOf(Math.min(...own))];
    });
}
