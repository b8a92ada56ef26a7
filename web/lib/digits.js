// The handwritten digits: 8 x 8 pixels each, in an order that is the same in every run.

/** Pixels of an image. */
export const PIXELS = 64;
/** A pixel that is all ink. */
export const INK = 16;
/** How many images there are to learn from; the others test. */
export const TRAIN = 1437;

/** Numbers from 0 up to 1, the same in every run. */
export function random(seed) {
    let state = seed;
    return () => {
        state ^= state << 13;
        state ^= state >>> 17;
        state ^= state << 5;
        return (state >>> 0) / 2 ** 32;
    };
}

/** Puts a list into a random order. */
export function shuffle(list, next) {
    for (let i = list.length - 1; i > 0; i--) {
        const j = Math.floor(next() * (i + 1));
        [list[i], list[j]] = [list[j], list[i]];
    }
    return list;
}

let loading;

/** The images, `{ pixels, label }` each. The file has them by writer, so they are put out of order first. */
export function digits() {
    loading ??= (async () => {
        const lines = (await (await fetch("digits.csv")).text()).trim().split("\n").slice(1);
        const image = (line) => {
            const numbers = line.split(",").map(Number);
            return { pixels: numbers.slice(0, PIXELS), label: numbers[PIXELS] };
        };
        return shuffle(lines.map(image), random(1));
    })();
    return loading;
}
