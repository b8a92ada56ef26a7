export * from "./wgpu_optim_web.js";
