//! Fits without noise: L-BFGS.
//!
//! Where each gradient is of all data, as in a fit, a calibration or a physics-informed network, successive gradients
//! say how the function bends. [`Lbfgs`](crate::Lbfgs) keeps the last `history_size` pairs of a movement and the change
//! of the gradient that came of it, and its steps are close to Newton's. On gradients of changing batches it learns
//! nothing.
//!
//! ```
//! use ndarray::arr1;
//! use wgpu_optim::{Lbfgs, Reference, TensorSpec};
//!
//! // A valley: 50 x^2 + y^2/2.
//! let tensors = [TensorSpec::f32("xy", [2])];
//! let mut lbfgs = Reference::<f64>::new(&Lbfgs::default().into(), &tensors)?;
//! let mut params = [arr1(&[1.0, 10.0]).into_dyn()];
//! for _ in 0..10 {
//!     let [x, y] = [params[0][0], params[0][1]];
//!     lbfgs.step(&mut params, &[Some(arr1(&[100.0 * x, y]).into_dyn())])?;
//! }
//! assert!(params[0].iter().all(|x| x.abs() < 1e-3), "{}", params[0]);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! # What a step costs
//!
//! A step reads the history twice and writes one pair. It has five dispatches, however many tensors and pairs there
//! are, and reads nothing back: inner products, their sums and the recursion's coefficients stay on the device. The
//! state takes `8*history_size + 8` bytes a parameter, so a history of 100 pairs, PyTorch's default, takes 808; 5 to
//! 20 pairs are enough for most fits.
//!
//! # What is the whole model's
//!
//! All tensors are one vector, whose products go over all groups; so `lr` and `history_size` are the top level's alone.
//! A tensor without a gradient counts as one whose gradient is 0, and moves along the history. To leave a tensor as it
//! is, [freeze](super::groups) it.
//!
//! # With a line search
//!
//! With `line_search: "strong_wolfe"` each step looks for its length: [`minimize`](crate::Optimizer::minimize)
//! evaluates the loss and its gradient along the direction until the loss has fallen enough and its slope is flat. It
//! takes the place of steps, and stops by `max_iter`, `max_eval`, `tolerance_grad` and `tolerance_change`, as PyTorch's
//! `LBFGS` does. The caller encodes the evaluations; the gradient and all products stay on the device, and a few
//! numbers come back from each.
//!
//! ```
//! use wgpu_optim::wgpu::{self, BufferUsages, util::DeviceExt};
//! use wgpu_optim::{Gpu, Lbfgs, LineSearch, Optimizer, Slice, Stop, TensorSpec};
//!
//! // Rosenbrock's valley.
//! const LOSS: &str = "
//!     @group(0) @binding(0) var<storage> p: vec2f;
//!     @group(0) @binding(1) var<storage, read_write> grad: vec2f;
//!     @group(0) @binding(2) var<storage, read_write> loss: f32;
//!
//!     @compute @workgroup_size(1)
//!     fn loss_and_gradient() {
//!         let bend = p.y - p.x * p.x;
//!         loss = 100.0 * bend * bend + (1.0 - p.x) * (1.0 - p.x);
//!         grad = vec2f(-400.0 * bend * p.x - 2.0 * (1.0 - p.x), 200.0 * bend);
//!     }
//! ";
//!
//! let Ok(gpu) = Gpu::request_blocking() else { return Ok(()) };
//! let device = gpu.device();
//! let source = wgpu::ShaderSource::Wgsl(LOSS.into());
//! let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
//! let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
//!     label: None,
//!     layout: None,
//!     module: &module,
//!     entry_point: None,
//!     compilation_options: Default::default(),
//!     cache: None,
//! });
//! let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
//! let buffers = [&[-1.2f32, 1.0][..], &[0.0; 2], &[0.0]].map(|values| {
//!     let contents = bytemuck::cast_slice(values);
//!     device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents, usage })
//! });
//! let [params, grads, loss] = &buffers;
//! let entry = |i: usize| wgpu::BindGroupEntry { binding: i as u32, resource: buffers[i].as_entire_binding() };
//! let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
//!     label: None,
//!     layout: &pipeline.get_bind_group_layout(0),
//!     entries: &[0, 1, 2].map(entry),
//! });
//!
//! let rule = Lbfgs { line_search: LineSearch::StrongWolfe, max_iter: 100, tolerance_grad: 1e-4, ..Lbfgs::default() };
//! let mut lbfgs = Optimizer::new(&gpu, &[TensorSpec::f32("xy", [2])], rule)?;
//! let (params, grads) = ([Slice::all(params)], [Slice::all(grads)]);
//! let found = lbfgs.minimize_blocking(&params, &grads, Slice::all(loss), |encoder| {
//!     let mut pass = encoder.begin_compute_pass(&Default::default());
//!     pass.set_pipeline(&pipeline);
//!     pass.set_bind_group(0, &group, &[]);
//!     pass.dispatch_workgroups(1, 1, 1);
//! })?;
//! assert!(matches!(found.stop, Stop::GradientSmall | Stop::ChangeSmall), "{found:?}");
//! assert!(found.loss < 1e-7 && found.evaluations < 60, "{found:?}");
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! A trial whose loss is not a finite number counts as too far. Where the loss is such a number at the start or
//! everywhere along a direction, the minimisation [stops](crate::Stop::NotFinite), and the parameters are those of the
//! last loss that was one. What else changes the loss, the gradient or the length of a step does not go with a line
//! search and is refused: decay, which belongs into the loss, ascent, schedules, clips and other wrappers.
//! `examples/fit` fits a curve this way.
//!
//! # Without a line search
//!
//! The first step moves the parameters by at most `lr` in all, and each later step takes the whole direction times
//! `lr`. Far from a minimum that may go too far: choose an `lr` below 1, as 0.1 to 0.5, until the loss falls, or come
//! close with Adam first.
