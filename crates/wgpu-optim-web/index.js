// The package: loads the wasm file beside it, and hands out what it holds.
import init from "./wgpu_optim_web.js";

await init();

export { EncodedStep, Optimizer } from "./wgpu_optim_web.js";
