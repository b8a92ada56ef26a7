//! Naming an optimizer and its options, and changing them.
//!
//! A [`Config`](crate::Config) holds a rule with its options, the parameter groups, the schedules, and the wrappers:
//! what the optimizer does around the rule. You make one from a rule, or from JSON. Both ways give the same optimizer.
//!
//! ```
//! use wgpu_optim::{AdamW, Config, WeightDecay};
//!
//! let from_json = Config::from_json(r#"{
//!     "optimizer": "adamw", "preset": "keras", "lr": 0.002, "weight_decay": {"decoupled": 0.05}
//! }"#)?;
//! let from_rust: Config = AdamW { lr: 0.002, weight_decay: WeightDecay::Decoupled(0.05), ..AdamW::keras() }.into();
//! assert_eq!(from_json.to_json()?, from_rust.to_json()?); // `to_json` writes every option with its value
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! Each option has its formula, bounds, default and source at its field in the documentation of the rule's type, for
//! example [`AdamW`](crate::AdamW). A preset is a set of options: the defaults of another library, or those of the
//! course notes that some of the formulas come from. Fields beside `"preset"` replace the preset's.
//!
//! An unknown field, a wrong type and a value outside its bounds are errors. They name the field, the value and the
//! bound:
//!
//! ```
//! use wgpu_optim::Config;
//!
//! let error = Config::from_json(r#"{"optimizer": "adam", "beta2": 1.5}"#).unwrap_err();
//! assert_eq!(error.to_string(), "beta2 is 1.5, must be at least 0 and below 1");
//! ```
//!
//! # The fields around the rule
//!
//! | JSON | in Rust | page |
//! |---|---|---|
//! | `groups` | [`Config::group`] | [groups](super::groups) |
//! | `others` | [`Config::others`] | [below](#matrices) |
//! | `schedule`, `schedules` | [`Config::schedule`] | [schedules](super::schedules) |
//! | `clip` | [`Config::wrap`] with a [`Clip`] | [clipping](super::clipping_and_mixed_precision) |
//! | `skip_nonfinite` | with [`SkipNonfinite`] | the same |
//! | `loss_scale` | with a [`LossScale`] | the same |
//! | `norms` | [`Config::norms`] | the same |
//! | `on_device` | [`Config::on_device`] | the same |
//! | `accumulate` | with [`Accumulate`] | [micro-batches](super::micro_batches) |
//! | `ema` | with an [`Ema`] | [ema](super::ema) |
//! | `lookahead` | with a [`Lookahead`] | the same |
//! | `cautious_update` | with a [`CautiousUpdate`] | [below](#cautious-updates) |
//! | `param_rounding`, `seed` | with a [`ParamRounding`]; [`Config::seed`] | [formats](super::formats) |
//! | `state_format`, `min_elements` | with a [`StateFormat`]; [`Config::min_elements`] | the same |
//! | `maximize` | [`Config::maximize`] | a step ascends: the rule sees `-g` |
//!
//! [`Config::group`]: crate::Config::group
//! [`Config::others`]: crate::Config::others
//! [`Config::schedule`]: crate::Config::schedule
//! [`Config::wrap`]: crate::Config::wrap
//! [`Config::norms`]: crate::Config::norms
//! [`Config::on_device`]: crate::Config::on_device
//! [`Config::maximize`]: crate::Config::maximize
//! [`Clip`]: crate::Clip
//! [`SkipNonfinite`]: crate::SkipNonfinite
//! [`LossScale`]: crate::LossScale
//! [`Accumulate`]: crate::Accumulate
//! [`CautiousUpdate`]: crate::CautiousUpdate
//! [`Ema`]: crate::Ema
//! [`Lookahead`]: crate::Lookahead
//! [`ParamRounding`]: crate::ParamRounding
//! [`Config::seed`]: crate::Config::seed
//! [`StateFormat`]: crate::StateFormat
//! [`Config::min_elements`]: crate::Config::min_elements
//!
//! # Cautious updates
//!
//! With `"cautious_update"` an element moves only where its update has the sign of its gradient (Liang et al. 2024).
//! `"count"` is the paper's formula, `"mean"` that of the authors' AdamW; [`CautiousUpdate`] has both. It goes around
//! every rule but `asgd`, `prodigy` and `lbfgs`, which refuse it by name.
//!
//! ```
//! use wgpu_optim::{CautiousUpdate, Config, Lion};
//!
//! let config = Config::from(Lion::default()).wrap(CautiousUpdate::Mean);
//! let same = Config::from_json(r#"{"optimizer": "lion", "cautious_update": "mean"}"#)?;
//! assert_eq!(config.to_json()?, same.to_json()?);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! # Matrices
//!
//! [`Muon`](crate::Muon) and [`NorMuon`](crate::NorMuon) make the momentum of a matrix nearly orthogonal. A tensor of
//! rank 2 or more is a matrix, a row for each index of its first dimension; others they refuse. A second rule,
//! `"others"`, takes biases and gains, and by a group the embeddings and the last layer. It has options and schedules
//! of its own, and shares all that is around a rule: one step, one norm, one decision to skip.
//!
//! ```
//! use wgpu_optim::{AdamW, Config, Group, Muon, Reference, TensorSpec};
//!
//! let tensors = [("embed.w", vec![100, 16]), ("hidden.w", vec![64, 16]), ("hidden.b", vec![64])];
//! let tensors = tensors.map(|(name, shape)| TensorSpec::f32(name, shape));
//! let from_json = Config::from_json(r#"{
//!     "optimizer": "muon", "preset": "match_rms", "lr": 0.001,
//!     "others": {"optimizer": "adamw", "lr": 0.0003},
//!     "groups": [{"tensors": ["embed.*"], "others": true}]
//! }"#)?;
//! let from_rust = Config::from(Muon::match_rms())
//!     .others(AdamW { lr: 3e-4, ..AdamW::default() })
//!     .group(Group::new(["embed.*"]).set("others", true));
//! assert_eq!(from_json.to_json()?, from_rust.to_json()?);
//!
//! let optimizer = Reference::<f32>::new(&from_json, &tensors)?;
//! assert_eq!(optimizer.slots("hidden.w")?, ["m"]);
//! assert_eq!(optimizer.slots("hidden.b")?, ["m", "v"]);
//! assert_eq!(optimizer.slots("embed.w")?, ["m", "v"]);
//!
//! let error = Reference::<f32>::new(&Muon::default().into(), &tensors).unwrap_err();
//! assert_eq!(error.to_string(), "shape of tensor hidden.b has [64], expected rows and columns, for this rule");
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! [`Soap`](crate::Soap) takes tensors of any rank. It is Adam in a basis for each dimension of at most
//! `max_precondition_dim`, which follows the gradients' Gram matrix. A larger dimension has no basis, so groups with
//! that option say where the state of a step shall be smaller. The first step only finds the bases, and takes much
//! longer than others where a dimension is large: [`Optimizer::plan`](crate::Optimizer::plan) says how many dispatches
//! the coming step has. A tensor whose matrices exceed a binding of the device is refused by name.
//!
//! ```
//! use wgpu_optim::{Config, Group, Reference, Soap, TensorSpec};
//!
//! let tensors = [("embed.w", vec![100, 16]), ("hidden.w", vec![64, 16]), ("hidden.b", vec![64])];
//! let tensors = tensors.map(|(name, shape)| TensorSpec::f32(name, shape));
//! let config = Config::from(Soap::default()).group(Group::new(["embed.*"]).set("max_precondition_dim", 16));
//!
//! let optimizer = Reference::<f32>::new(&config, &tensors)?;
//! assert_eq!(optimizer.slots("hidden.w")?, ["m", "v", "gram", "basis"]);
//! assert_eq!(optimizer.state("hidden.w", "gram")?.len(), 64 * 64 + 16 * 16);
//! assert_eq!(optimizer.state("embed.w", "gram")?.len(), 16 * 16);
//! assert_eq!(optimizer.state("hidden.b", "gram")?.len(), 0);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! # No learning rate
//!
//! [`Prodigy`](crate::Prodigy) estimates from all gradients how far the solution is, and steps accordingly: leave its
//! `lr` at 1, perhaps with a schedule. Its estimate is of the whole model, so groups set no `lr`.
//!
//! ```
//! use ndarray::arr1;
//! use wgpu_optim::{Config, Prodigy, Reference, TensorSpec};
//!
//! let tensors = [TensorSpec::f32("w", [2]), TensorSpec::f32("b", [1])];
//! let mut prodigy = Reference::<f64>::new(&Config::from(Prodigy::default()), &tensors)?;
//! let mut params = [arr1(&[3.0, -1.0]).into_dyn(), arr1(&[2.0]).into_dyn()];
//! for _ in 0..500 {
//!     let grads = [Some(params[0].clone()), Some(params[1].clone())]; // of half the sum of squares
//!     prodigy.step(&mut params, &grads)?;
//! }
//! assert!(params.iter().flatten().all(|p| p.abs() < 0.1), "{params:?}");
//! assert!(prodigy.state("b", "d")?.sum() > 1e-6); // the estimate has grown; it is the same for all tensors
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! # Less state
//!
//! Adam keeps two numbers an element. With `v_per: row` a matrix keeps one mean square for each index of its first
//! dimension, so that its state is little more than half; Adafactor keeps no mean at all.
//!
//! ```
//! use wgpu_optim::{Config, Reference, TensorSpec};
//!
//! let config = Config::from_json(r#"{"optimizer": "adam", "v_per": "row"}"#)?;
//! let adam = Reference::<f32>::new(&config, &[TensorSpec::f32("w", [64, 10]), TensorSpec::f32("b", [10])])?;
//! assert_eq!(adam.state("w", "v")?.shape(), [64, 1]);
//! assert_eq!(adam.state("b", "v")?.shape(), [10]);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! # Changing an option between steps
//!
//! The optimizer takes a changed option from the next encoded step on. It rebuilds nothing, so you may change options
//! in every step. You cannot change options that only say where state starts, such as `initial_v`.
//!
//! ```
//! use wgpu_optim::{AdamW, Config, Group, Reference, TensorSpec};
//!
//! let tensors = [TensorSpec::f32("head.w", [2, 3]), TensorSpec::f32("body.w", [3, 3])];
//! let config = Config::from(AdamW::default()).group(Group::new(["head.*"]).set("lr", 0.01));
//! let mut optimizer = Reference::<f32>::new(&config, &tensors)?;
//!
//! optimizer.set_lr(5e-4)?; // half of the default rate: the group, which has ten times that rate, keeps its ratio
//! assert_eq!(optimizer.group_value(0, "lr")?, 0.005);
//! optimizer.set("beta1", 0.85)?; // at the top level, and in every group without a value of its own
//! optimizer.set_group(0, "lr", 1e-4)?; // in one group, counted from 0
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
