// Serves a folder on loopback: `node web/serve.mjs [FOLDER] [PORT]`.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";

const TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
};

/** A server of a folder's files; port 0 is any that is free. */
export async function serve(folder, port = 0) {
    const server = http.createServer((request, response) => {
        const name = path.normalize(decodeURIComponent(new URL(request.url, "http://loopback").pathname));
        const file = path.join(folder, name.endsWith("/") ? `${name}index.html` : name);
        if (!fs.statSync(file, { throwIfNoEntry: false })?.isFile()) {
            response.writeHead(404).end();
            return;
        }
        response.writeHead(200, { "content-type": TYPES[path.extname(file)] ?? "application/octet-stream" });
        fs.createReadStream(file).pipe(response);
    });
    await new Promise((ready, failed) => server.once("error", failed).listen(port, "127.0.0.1", ready));
    return server;
}

if (process.argv[1] === import.meta.filename) {
    const folder = process.argv[2] ?? path.join(import.meta.dirname, "../target/web");
    const server = await serve(folder, Number(process.argv[3] ?? 8000));
    console.log(`http://127.0.0.1:${server.address().port}/`);
}
