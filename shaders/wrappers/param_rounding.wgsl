// How new parameters of 16 bits are rounded: what the kinds share.
// Twin: src/wrappers/param_rounding.rs

// The key of the step in three parts, of 22, 22 and 20 bits, which f32 holds.
struct ParamRoundingNumbers {
    low: f32,
    middle: f32,
    high: f32,
}
