fn of_shape(h: Hyper, rows: f32, columns: f32, k: ptr<function, Tensor>) {}
