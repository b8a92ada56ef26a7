//! Short tensors, several of which share a workgroup in walks of sums and norms.

use crate::common::{default_of, gpu, say};
use wgpu_optim::proof::{Parity, bound, tensors};
use wgpu_optim::rule::{Pass, RuleEntry};
use wgpu_optim::rules::ALL;
use wgpu_optim::{Clip, Config, Gpu, SkipNonfinite, TensorSpec, Tuning};

/// Short tensors of every length that may matter, so many that the last workgroup lacks some; and longer ones.
fn list() -> Vec<TensorSpec> {
    let short = [0, 1, 2, 3, 4, 5, 31, 32, 33, 34, 35, 63, 64, 65, 127, 128, 129, 252, 253, 254, 255, 256];
    let sizes: Vec<usize> = short.into_iter().chain([257, 1024, 9001]).cycle().take(111).collect();
    tensors(&sizes)
}

/// Steps of all tensors, of some, and one with a bad gradient give the numbers of the reference.
fn agrees(what: &str, gpu: &Gpu, config: &Config) {
    let mut twin = Parity::new(gpu, config, &list(), 21).midway(6);
    let skips = config.wrappers().skips();
    for step in 0..4 {
        let absent: &[&str] = if step == 1 { &["t3", "t30", "t31"] } else { &[] };
        let worst = twin.step_changed(absent, |tensor, values| {
            if step == 2 && tensor == 40 && skips {
                *values.last_mut().expect("it has elements") = f32::NAN;
            }
        });
        assert!(worst.ulps <= bound(gpu), "{what}, step {step}: {}", worst.text);
        assert!(twin.agrees(), "{what}, step {step}: the reports differ");
    }
}

fn with_lanes(gpu: &Gpu) -> Vec<Gpu> {
    let tuned = |lanes| Gpu::with_tuning(gpu.device(), gpu.queue(), Tuning { lanes, ..gpu.tuning() });
    [8, 64, 256].map(|lanes| tuned(lanes).expect("every device has 256 lanes")).into()
}

#[test]
fn short_tensors_side_by_side_are_the_references() {
    let Some(gpu) = gpu("short tensors", 3 * ALL.len()) else { return };
    let gpus = with_lanes(&gpu);
    let sums = |row: &&RuleEntry| {
        let passes = default_of(row).passes();
        passes.iter().any(|pass| matches!(pass, Pass::Sums(_))) && !default_of(row).has_products()
    };
    let rules: Vec<_> = ALL.iter().filter(sums).collect();
    for (row, gpu) in rules.iter().flat_map(|row| gpus.iter().map(move |gpu| (row, gpu))) {
        agrees(row.name, gpu, &Config::from(default_of(row)));
    }
    let clipped = Config::from(default_of(&ALL[0])).wrap(SkipNonfinite(true)).wrap(Clip::GlobalNorm(0.5)).norms(true);
    gpus.iter().for_each(|gpu| agrees("global norm", gpu, &clipped));
    say(&format!("short tensors: {} rules of sums are the reference's", rules.len()));
}
