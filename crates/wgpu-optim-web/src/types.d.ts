/** A tensor to be trained. */
export interface Tensor {
    /** Its name, by which groups, reports and errors know it. */
    name: string;
    /** Its dimensions. */
    shape: number[];
    /** How its gradients are stored; parameters are in f32. At first `"f32"`. */
    gradDType?: "f32" | "f16";
}

/** A part of a buffer: the values of one tensor. */
export interface BoundSlice {
    /** The buffer, with usage `STORAGE`. */
    buffer: GPUBuffer;
    /** The first byte, a multiple of 4. At first 0. */
    offset?: number;
    /** Bytes: 4 an element, 2 of a gradient in f16. At first as many as the tensor has. */
    size?: number;
}

/** The values of one tensor: a whole buffer, or a part of one. */
export type Slice = GPUBuffer | BoundSlice;

/** A move of the parameters outside a step. */
export type Move = "lookAhead" | "eval" | "train" | "swapEma" | "emaInto";

/** An optimizer, its options, and what is wrapped around it: the fields of wgpu-optim's JSON configuration. */
export interface Config {
    /** The optimizer's name, one of `Optimizer.rules()`. */
    optimizer: string;
    /** The learning rate. */
    lr?: number;
    /** The optimizer's other options, groups, schedules, clip, accumulation, loss scale and running mean. */
    [option: string]: unknown;
}

/** What became of a step. */
export interface StepReport {
    /** Its number, counted from 1 over all steps. */
    step: number;
    /** Whether it was applied; else it was skipped. */
    applied: boolean;
    /** The tensors that had no gradient. */
    withoutGradient: string[];
    /** The norm of all gradients before a clip, where norms are measured. */
    norm: number | null;
    /** What the gradients were divided by. */
    scale: number;
    /** The first tensor with a gradient that is no number to go by, and what that gradient holds. */
    culprit: { tensor: string; kind: "nan" | "infinite" | "tooLarge" } | null;
}
