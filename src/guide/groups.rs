//! Parameter groups, frozen tensors, and tensors that are added later.
//!
//! A group gives some tensors other options than the top level has. It lists names, or patterns in which `*` stands for
//! any text. Each name or pattern must match a tensor, and a tensor is in one group at most; the tensors that no group
//! lists take the options of the top level. A group holds what differs, and takes the rest from the top level.
//!
//! ```
//! use wgpu_optim::{AdamW, Config, Group, Reference, TensorSpec, WeightDecay};
//!
//! let json = r#"{
//!     "optimizer": "adamw", "preset": "keras", "lr": 0.001,
//!     "weight_decay": {"decoupled": 0.05},
//!     "groups": [{"tensors": ["*.bias", "ln*"], "weight_decay": "none"}, {"tensors": ["head.w"], "lr": 0.01}]
//! }"#;
//! let tensors =
//!     ["body.w", "body.bias", "ln.gain", "head.w", "head.bias"].map(|name| TensorSpec::f32(name, [4]));
//! let from_json = Reference::<f32>::new(&Config::from_json(json)?, &tensors)?;
//!
//! let rule = AdamW { weight_decay: WeightDecay::Decoupled(0.05), ..AdamW::keras() };
//! let config = Config::from(rule)
//!     .group(Group::new(["*.bias", "ln*"]).set("weight_decay", WeightDecay::None))
//!     .group(Group::new(["head.w"]).set("lr", 0.01));
//! let from_rust = Reference::<f32>::new(&config, &tensors)?;
//! assert_eq!(from_json.group_value(1, "lr")?, from_rust.group_value(1, "lr")?);
//! assert_eq!(from_rust.rule("ln.gain")?.weight_decay(), WeightDecay::None);
//!
//! let misspelt = Config::from(AdamW::default()).group(Group::new(["bais"]).set("lr", 0.1));
//! let error = Reference::<f32>::new(&misspelt, &tensors).unwrap_err();
//! assert_eq!(error.to_string(), "groups[0]: pattern bais matches none of the 5 tensors");
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! All groups share one dispatch as long as one pipeline serves them: groups may differ in every number, and in whether
//! they maximize. Groups that differ in a choice, such as `amsgrad`, take a pipeline each.
//!
//! A group may have a `schedule` and `schedules` of its own ([`Group::schedule`](crate::Group::schedule)), which
//! replace those of the top level for the same option.
//!
//! # Freezing
//!
//! [`Optimizer::freeze`](crate::Optimizer::freeze) takes a name or a pattern. From the next step on, the optimizer
//! leaves these tensors alone, whether you give gradients for them or not: parameter, state and count of steps stay as
//! they are until [`unfreeze`](crate::Optimizer::unfreeze).
//!
//! ```
//! use ndarray::ArrayD;
//! use wgpu_optim::{Config, Reference, Sgd, TensorSpec};
//!
//! let tensors = [TensorSpec::f32("embed.w", [2]), TensorSpec::f32("head.w", [2])];
//! let config = Config::from(Sgd { lr: 0.5, ..Sgd::default() });
//! let mut optimizer = Reference::<f32>::new(&config, &tensors)?;
//! let mut params = [ArrayD::zeros(vec![2]), ArrayD::zeros(vec![2])];
//! let grads = [Some(ArrayD::ones(vec![2])), Some(ArrayD::ones(vec![2]))];
//!
//! optimizer.freeze("embed.*")?;
//! optimizer.step(&mut params, &grads)?;
//! assert_eq!([params[0][0], params[1][0]], [0.0, -0.5]);
//! assert_eq!([optimizer.t("embed.w")?, optimizer.t("head.w")?], [0, 1]);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```
//!
//! # Tensors that are added later
//!
//! [`Optimizer::add`](crate::Optimizer::add) gives a running optimizer more tensors, and
//! [`add_group`](crate::Optimizer::add_group) a group of more tensors. The new tensors start at `t = 0` with the
//! options of now; the state of the others stays. From then on parameters and gradients are those of all tensors. Ask
//! again for every buffer that the optimizer named before, such as
//! [`loss_scale_buffer`](crate::Optimizer::loss_scale_buffer): the optimizer has moved it.
