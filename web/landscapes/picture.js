// A landscape's picture: lines of equal height, two a decade, and paths over it.
import { FONT, fit, short } from "../lib/plot.js";

const SHADES = ["#a3b8cb", "#b4c5d4", "#c4d0dc", "#d3dbe3", "#dfe5e9", "#e9edef", "#f1f3f2", "#fcfcf9"];

/** The band of a height: even ones lie between lines of equal height, two a decade. */
const band = (height) =>
    Math.min(Math.max(Math.floor(2 * Math.log10(Math.max(height, 1e-9))) + 4, 0), SHADES.length - 1);

export class Picture {
    /** On a canvas; `heights` measures points. */
    constructor(canvas, ground, index, heights) {
        Object.assign(this, { canvas, ground, index, heights });
    }

    /** Measures the ground, which is done once a size. */
    async survey() {
        const box = this.canvas.getBoundingClientRect();
        const [columns, rows] = [box.width, box.height].map((side) => Math.round(side * devicePixelRatio));
        if (columns === 0) return;
        const { x, y } = this.ground;
        const points = new Float32Array(columns * rows * 4);
        for (let j = 0, i = 0; j < rows; j++) {
            for (let k = 0; k < columns; k++, i += 4) {
                points[i] = x[0] + ((x[1] - x[0]) * (k + 0.5)) / columns;
                points[i + 1] = y[1] + ((y[0] - y[1]) * (j + 0.5)) / rows;
                points[i + 2] = this.index;
            }
        }
        const bands = Array.from(await this.heights(points), band);
        const image = new ImageData(columns, rows);
        bands.forEach((own, i) => {
            const right = i % columns < columns - 1 ? bands[i + 1] : own;
            const edge = own !== right || own !== (bands[i + columns] ?? own);
            const colour = parseInt((edge ? "#b9c5d0" : SHADES[own]).slice(1), 16);
            image.data.set([colour >> 16, (colour >> 8) & 255, colour & 255, 255], 4 * i);
        });
        this.back = image;
        const { width, height } = fit(this.canvas);
        Object.assign(this, { width, height });
    }

    /** From a place to units of the canvas. */
    at([a, b]) {
        const { x, y } = this.ground;
        return [(this.width * (a - x[0])) / (x[1] - x[0]), (this.height * (y[1] - b)) / (y[1] - y[0])];
    }

    /** The place under a mouse or a finger. */
    place(event) {
        const box = this.canvas.getBoundingClientRect();
        const { x, y } = this.ground;
        const part = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
        return [x[0] + part[0] * (x[1] - x[0]), y[1] - part[1] * (y[1] - y[0])];
    }

    /** Draws paths `{ places, colour, width, dash }`, the faint ones first. */
    draw(paths, start) {
        if (!this.back) return;
        const context = this.canvas.getContext("2d");
        context.putImageData(this.back, 0, 0);
        context.lineJoin = "round";
        const disc = ([x, y], radius, fill, edge, width) => {
            context.beginPath();
            context.arc(x, y, radius, 0, 7);
            Object.assign(context, { fillStyle: fill, strokeStyle: edge, lineWidth: width });
            context.fill();
            context.stroke();
        };
        for (const { places, colour, width, dash, faint } of [...paths].sort((a, b) => b.faint - a.faint)) {
            context.globalAlpha = faint ? 0.15 : 1;
            context.beginPath();
            for (const place of places) context.lineTo(...this.at(place));
            Object.assign(context, { strokeStyle: colour, lineWidth: width });
            context.setLineDash(dash);
            context.stroke();
            context.setLineDash([]);
            disc(this.at(places.at(-1)), 4, colour, "#fff", 1.2);
        }
        context.globalAlpha = 1;
        disc(this.at(start), 4.5, "#fff", "#000", 2);
        for (const minimum of this.ground.minima) {
            const [x, y] = this.at(minimum);
            context.beginPath();
            for (const turn of [-1, 1]) {
                context.moveTo(x - 6, y - 6 * turn);
                context.lineTo(x + 6, y + 6 * turn);
            }
            Object.assign(context, { strokeStyle: "#000", lineWidth: 2 });
            context.stroke();
        }
        const { x, y } = this.ground;
        Object.assign(context, { font: FONT, fillStyle: "#5a6570" });
        context.fillText(`(${short(x[0])}, ${short(y[0])})`, 5, this.height - 6);
        const corner = `(${short(x[1])}, ${short(y[1])})`;
        context.fillText(corner, this.width - 5 - context.measureText(corner).width, 15);
    }
}
