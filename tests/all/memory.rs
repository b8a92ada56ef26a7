//! What an optimizer allocates against what is said without a device: every rule, every way of the example `memory`.

use crate::common::twin::{fitting, tensors};
use crate::common::{default_of, gpu};
use wgpu_optim::rules::ALL;
use wgpu_optim::{Accumulate, Clip, Config, Memory, Optimizer, ParamRounding, TensorSpec};

#[path = "../../examples/memory/models.rs"]
mod models;

use models::{models, stored, takes, takes_on, ways};

#[test]
fn what_is_said_is_what_is_allocated() {
    let Some(gpu) = gpu("memory", ALL.len()) else { return };
    let (limits, tuning) = (gpu.device().limits(), gpu.tuning());
    for row in ALL {
        let config: Config = default_of(row).into();
        let list = fitting(&config, &tensors(&[5, 1030, 9001, 0, 1]));
        for config in [config.clone(), config.clone().wrap(Accumulate(2)), config.wrap(Clip::GlobalNorm(1.0))] {
            let said = Memory::of(&config, &list, &limits, tuning).unwrap();
            let held = Optimizer::new(&gpu, &list, config).unwrap().memory();
            assert_eq!(said, held, "{}", row.name);
            assert_eq!((said.tables, said.steps), (0, 0), "{}", row.name);
        }
    }
    // A model of odd tensors, some below and some above the bound of coded state.
    let list = [
        TensorSpec::f32("w", [131, 77]),
        TensorSpec::f32("b", [77]),
        TensorSpec::f32("v", [9001]),
        TensorSpec::f32("x", [1]),
    ];
    for way in ways() {
        let takes = takes_on(&limits, tuning, &list, &way).unwrap();
        let mut optimizer = Optimizer::new(&gpu, &stored(&list, way.format), way.config.clone()).unwrap();
        let held = optimizer.memory().total();
        assert_eq!(takes.stored(), takes.params + takes.grads + held, "{}", way.name);
        let keeps = way.config.wrappers().get::<ParamRounding>().is_some_and(|kind| *kind != ParamRounding::Stochastic);
        assert_eq!(takes.kept > 0, keeps, "{}", way.name);
        // The plan of a second step counts the same bytes.
        let all = stored(&list, way.format);
        let of_grads: Vec<_> = all.iter().map(TensorSpec::grad_spec).collect();
        let [params, grads] = [&all, &of_grads].map(|list| wgpu_optim::Arena::new(&gpu, list).unwrap());
        optimizer.step(&params, &grads).unwrap();
        assert_eq!(optimizer.plan(&params, &grads).unwrap().bytes, takes.moved, "{}", way.name);
    }
}

#[test]
fn large_models_are_counted_without_a_device() {
    let found = models().map(|model| (model.name, model.tensors.len(), model.len()));
    let known = [("GPT-2 124M", 148, 124_439_808), ("Llama 7B", 291, 6_738_415_616), ("3 M splats", 6, 177_000_000)];
    assert_eq!(found, known);
    for model in models() {
        let bytes = |name: &str| {
            let way = ways().into_iter().find(|way| way.name == name).expect("a way of this name");
            let takes = takes(&model.tensors, &way).unwrap();
            [takes.stored(), takes.moved].map(|bytes| bytes as f64 / model.len() as f64)
        };
        for (name, [stored, moved]) in [
            ("f32", [16.0, 28.0]),
            ("bf16, f32 master", [16.0, 28.0]),
            ("bf16 and remainder", [14.0, 26.0]),
            ("bf16, stochastic", [12.0, 22.0]),
            ("bf16, stochastic, q8", [6.125, 10.25]),
            ("bf16, stochastic, q4", [5.125, 8.25]),
        ] {
            let found = bytes(name);
            // Small tensors keep their state in f32, and blocks end on whole vectors of four.
            let near = |found: f64, expected: f64| found >= expected && found < 1.003 * expected;
            assert!(near(found[0], stored) && near(found[1], moved), "{} in {name}: {found:?}", model.name);
        }
    }
}
