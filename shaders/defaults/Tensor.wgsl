// WGSL has no empty struct.
struct Tensor { unused: f32 }
