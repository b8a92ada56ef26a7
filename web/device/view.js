// This device: what it is, how fast it steps, and whether it computes the same bits as those of the repository.
import { short } from "../lib/plot.js";
import { recording, sha256 } from "./recording.js";
import { replay, stepTime } from "./replay.js";

const COUNT = 2 ** 20;

export async function open(device, root) {
    const recorded = await (await fetch("device/recorded.json")).json();
    const facts = root.querySelector(".facts");
    const fact = (name) => {
        const [term, value] = [document.createElement("dt"), document.createElement("dd")];
        term.textContent = name;
        value.textContent = "…";
        facts.append(term, value);
        return value;
    };
    const [name, time, hash, equal] = ["device", `a step of AdamW, ${COUNT} parameters`, "SHA-256", "equal to"].map(
        fact,
    );
    hash.className = "hash";
    const { vendor, architecture, device: model, description } = device.adapterInfo;
    name.textContent =
        [description, vendor, architecture, model].filter(Boolean).join(", ") || "the browser does not tell";

    const rows = recorded.map((entry) => {
        const cells = [entry.device, entry.sha256, ""].map((text, i) => {
            const cell = document.createElement("td");
            cell.textContent = text;
            if (i === 1) cell.className = "hash";
            return cell;
        });
        const row = document.createElement("tr");
        row.append(...cells);
        root.querySelector("tbody").append(row);
        return { ...entry, verdict: cells[2] };
    });

    let done = false;
    return {
        async start() {
            if (done) return;
            const tensors = recording(await (await fetch("recording.safetensors")).arrayBuffer());
            const mine = await sha256(await replay(device, tensors));
            hash.textContent = mine;
            for (const { sha256, verdict } of rows) verdict.textContent = sha256 === mine ? "equal" : "differs";
            const same = rows.filter(({ sha256 }) => sha256 === mine).map(({ device }) => device);
            equal.textContent = same.join("; ") || "none of those recorded";
            time.textContent = `${short(await stepTime(device, COUNT))} ms`;
            done = true;
        },
        stop: () => {},
    };
}
