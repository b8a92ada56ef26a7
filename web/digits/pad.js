// A pad to draw a digit on, and what the digits' authors made of such drawings: 8 x 8 counts of ink.
import { INK } from "../lib/digits.js";
import { fit } from "../lib/plot.js";

/** Dots of the pad's side, and of the side of one pixel. */
const SIDE = 32;
const BLOCK = 4;
const PEN = 2.6;

export class Pad {
    /** On a canvas; `changed` is called after each stroke. */
    constructor(canvas, changed) {
        Object.assign(this, { canvas, changed, dots: new Uint8Array(SIDE * SIDE), cursor: [16, 16] });
        let last;
        const place = (event) => {
            const box = canvas.getBoundingClientRect();
            return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map(
                (x) => x * SIDE,
            );
        };
        canvas.addEventListener("pointerdown", (event) => {
            canvas.setPointerCapture(event.pointerId);
            if (this.given) this.clear();
            this.#stroke((last = place(event)), last);
        });
        canvas.addEventListener("pointermove", (event) => {
            if (last) this.#stroke(last, (last = place(event)));
        });
        for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = undefined));
        canvas.addEventListener("keydown", (event) => {
            const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
            if (!way && event.key !== " ") return;
            event.preventDefault();
            const before = this.cursor;
            this.shown = true;
            if (way) this.cursor = before.map((x, axis) => Math.min(Math.max(x + 2 * way[axis], 1), SIDE - 1));
            this.pressed = event.key === " " ? !this.pressed : this.pressed;
            if (this.pressed) this.#stroke(before, this.cursor);
            else this.draw();
        });
        canvas.addEventListener("blur", () => {
            Object.assign(this, { pressed: false, shown: false });
            this.draw();
        });
    }

    #stroke([a, b], [c, d]) {
        const steps = Math.ceil(Math.hypot(c - a, d - b) * 2) + 1;
        for (let i = 0; i <= steps; i++) {
            const [x, y] = [a + ((c - a) * i) / steps, b + ((d - b) * i) / steps];
            for (let dot = 0; dot < this.dots.length; dot++) {
                if (Math.hypot((dot % SIDE) + 0.5 - x, Math.floor(dot / SIDE) + 0.5 - y) < PEN) this.dots[dot] = 1;
            }
        }
        this.given = undefined;
        this.draw();
        this.changed();
    }

    clear() {
        this.dots.fill(0);
        this.given = undefined;
        this.draw();
        this.changed();
    }

    /** Shows an image of 8 x 8 in place of a drawing. */
    show(pixels) {
        this.dots.fill(0);
        this.given = pixels;
        this.draw();
        this.changed();
    }

    /** The ink of 8 x 8 pixels: the drawing, as high as the pad, in its middle. */
    get pixels() {
        if (this.given) return this.given;
        const inked = [...this.dots.keys()].filter((dot) => this.dots[dot]);
        if (inked.length === 0) return new Array(64).fill(0);
        const [xs, ys] = [inked.map((dot) => dot % SIDE), inked.map((dot) => Math.floor(dot / SIDE))];
        const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
        const size = Math.max(right - left + 1, bottom - top + 1) / SIDE;
        const [x, y] = [(left + right + 1) / 2, (top + bottom + 1) / 2];
        const pixels = new Array(64).fill(0);
        for (let dot = 0; dot < this.dots.length; dot++) {
            const [column, row] = [dot % SIDE, Math.floor(dot / SIDE)];
            const from = [x + (column + 0.5 - SIDE / 2) * size, y + (row + 0.5 - SIDE / 2) * size].map(Math.floor);
            if (from.some((place) => place < 0 || place >= SIDE)) continue;
            const pixel = Math.floor(row / BLOCK) * 8 + Math.floor(column / BLOCK);
            pixels[pixel] += (this.dots[from[1] * SIDE + from[0]] * INK) / BLOCK ** 2;
        }
        return pixels;
    }

    draw() {
        const { context, width } = fit(this.canvas);
        const dot = width / SIDE;
        const grey = (ink) => `rgba(0, 52, 94, ${ink})`;
        if (this.given) {
            this.given.forEach((ink, i) => {
                context.fillStyle = grey(ink / INK);
                context.fillRect((i % 8) * BLOCK * dot, Math.floor(i / 8) * BLOCK * dot, BLOCK * dot, BLOCK * dot);
            });
        }
        context.fillStyle = grey(1);
        this.dots.forEach((ink, i) => {
            if (ink) context.fillRect((i % SIDE) * dot, Math.floor(i / SIDE) * dot, dot + 0.5, dot + 0.5);
        });
        context.strokeStyle = "rgba(0, 0, 0, 0.06)";
        for (let i = 1; i < 8; i++) {
            const at = i * BLOCK * dot;
            context.beginPath();
            for (const [a, b] of [
                [
                    [at, 0],
                    [at, width],
                ],
                [
                    [0, at],
                    [width, at],
                ],
            ]) {
                context.moveTo(...a);
                context.lineTo(...b);
            }
            context.stroke();
        }
        if (this.shown) {
            Object.assign(context, { strokeStyle: this.pressed ? "#d55e00" : "#5a6570", lineWidth: 2 });
            context.beginPath();
            context.arc(this.cursor[0] * dot, this.cursor[1] * dot, PEN * dot, 0, 7);
            context.stroke();
        }
    }
}
