// The heat map: a row for each rule, a column for each rate.
import { LOST, shade } from "../lib/colours.js";
import { FONT, fit } from "../lib/plot.js";
import { RATES } from "./models.js";

const ROW = 19;
const LEFT = 128;
const BOTTOM = 26;

export class Heat {
    /** `rows` are `{ rule, curves }`, the curves one a rate, of scores `{ loss, accuracy }`. */
    constructor(canvas, rows) {
        Object.assign(this, { canvas, rows });
        canvas.style.height = `${rows.length * ROW + BOTTOM}px`;
    }

    draw(cursor) {
        const { context, width } = fit(this.canvas);
        const cell = (width - LEFT) / RATES.length;
        Object.assign(context, { font: FONT, textAlign: "right", fillStyle: "#1b1f24" });
        this.rows.forEach(({ rule, curves, refused }, i) => {
            context.fillStyle = refused ? "#9aa4ae" : "#1b1f24";
            context.fillText(rule, LEFT - 8, i * ROW + 14);
            curves.forEach((curve, j) => {
                const score = curve.at(-1);
                if (!score && refused) return;
                const lost = score && !Number.isFinite(score.loss);
                // A guess has one in ten right. The power tells good networks from very good ones.
                const part = score ? Math.max(0, (score.accuracy - 0.1) / 0.9) ** 3 : 0;
                context.fillStyle = lost ? LOST : shade(part);
                context.fillRect(LEFT + j * cell, i * ROW + 1, cell - 1, ROW - 2);
            });
        });
        context.textAlign = "center";
        context.fillStyle = "#5a6570";
        for (let power = -4; power <= 0; power++) {
            const x = LEFT + ((power + 5) / 6) * (RATES.length - 1) * cell + cell / 2;
            context.fillText(power === 0 ? "1" : power === -1 ? "0.1" : `1e${power}`, x, this.rows.length * ROW + 17);
        }
        if (cursor) {
            Object.assign(context, { strokeStyle: "#d55e00", lineWidth: 2 });
            context.strokeRect(LEFT + cursor.column * cell - 1, cursor.row * ROW, cell + 1, ROW);
        }
    }

    /** The cell under a mouse or a finger. */
    at(event) {
        const box = this.canvas.getBoundingClientRect();
        const column = Math.floor(((event.clientX - box.left - LEFT) / (box.width - LEFT)) * RATES.length);
        const row = Math.floor((event.clientY - box.top) / ROW);
        return this.rows[row] && RATES[column] ? { row, column } : undefined;
    }
}
