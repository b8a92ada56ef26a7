//! The GPU gives the f32 reference's parameters and state: every element, for every rule and case and every size.

use crate::common::twin::{Parity, Worst, all_tensors, fitting, fours, parity, tensors};
use crate::common::{default_of, gpu, say, say_share, share};
use wgpu_optim::rules::ALL;
use wgpu_optim::{Config, DType, Group, TensorSpec, wrappers};

#[test]
fn every_case_matches_the_reference() {
    let cases: Vec<_> =
        ALL.iter().flat_map(|row| (row.cases)().into_iter().map(|(case, rule)| (row.name, case, rule))).collect();
    let Some(gpu) = gpu("parity", cases.len()) else { return };
    for (name, case, rule) in cases {
        let config = Config::from(rule);
        let what = format!("{name}/{case}");
        let worst = parity(&what, &gpu, &config);
        say(&format!("parity {what}: worst {} ulp", worst.ulps));
    }
}

/// Gradients and parameters of other formats, by the vec4 and the scalar kernel.
#[test]
fn every_format_matches() {
    let pairs = [(DType::F32, DType::F16), (DType::F16, DType::Bf16), (DType::Bf16, DType::F32)];
    let Some(gpu) = gpu("formats", pairs.len() * ALL.len()) else { return };
    let all: Vec<_> = ALL.iter().flat_map(|row| pairs.map(|pair| (row, pair))).collect();
    let tried = share(all.clone(), 5, 0);
    say_share("formats", tried.len(), all.len());
    for (row, (param, grad)) in tried {
        let store = |tensors: Vec<TensorSpec>| {
            tensors.into_iter().map(|tensor| tensor.with_dtype(param).with_grad_dtype(grad)).collect::<Vec<_>>()
        };
        let (all, fours) = (store(all_tensors()), store(fours()));
        let loud = (row.cases)().into_iter().rev().find(|(case, _)| *case != "default").expect("one is loud");
        for (case, rule) in [("default", default_of(row)), loud] {
            let config = Config::from(rule);
            let mut worst = Worst::default();
            let what = format!("{}/{case} with parameters in {param} and gradients in {grad}", row.name);
            worst.join(Parity::new(&gpu, &config, &all, 8).run(&what, 2));
            let mut odd = Parity::new(&gpu, &config, &all, 9).midway(1000).at_odd_words();
            assert_eq!(odd.count_scalar(), all.len(), "{what}");
            worst.join(odd.run(&what, 2));
            worst.join(Parity::new(&gpu, &config, &fours, 10).midway(10).run(&what, 2));
            say(&format!("parity {what}: worst {} ulp", worst.ulps));
        }
    }
}

#[test]
fn all_formats_match_in_one_optimizer() {
    let Some(gpu) = gpu("mixed formats", ALL.len()) else { return };
    let tensors: Vec<_> = all_tensors().into_iter().enumerate().map(of_all_formats).collect();
    let rows = share(ALL.iter().collect(), 2, 0);
    say_share("mixed formats", rows.len(), ALL.len());
    for row in rows {
        let mut worst = Worst::default();
        let what = format!("{} with tensors of all formats", row.name);
        let config = Config::from(default_of(row));
        worst.join(Parity::new(&gpu, &config, &tensors, 11).run(&what, 2));
        worst.join(Parity::new(&gpu, &config, &tensors, 12).at_odd_words().run(&what, 1));
        say(&format!("parity {what}: worst {} ulp", worst.ulps));
    }
}

/// A tensor with one of the pairs of formats, by its place.
fn of_all_formats((i, tensor): (usize, TensorSpec)) -> TensorSpec {
    tensor.with_dtype(DType::ALL[i % 3]).with_grad_dtype(DType::ALL[(i + i / 3) % 3])
}

#[test]
fn every_wrapper_matches_around_every_rule() {
    let cases: Vec<_> =
        wrappers::ALL.iter().flat_map(|entry| (entry.cases)().into_iter().map(|case| (entry.name, case))).collect();
    let all = cases.len() * ALL.len();
    let Some(gpu) = gpu("wrappers", all) else { return };
    let mut tried = 0;
    let list = tensors(&[1, 5, 1030, 9001]);
    let formats = [(DType::Bf16, DType::Bf16), (DType::F16, DType::F32), (DType::Bf16, DType::F16)];
    let mixed = || list.iter().zip(formats).map(|(t, (p, g))| t.clone().with_dtype(p).with_grad_dtype(g));
    let mixed: Vec<_> = mixed().chain([list[3].clone()]).collect();
    for (turn, (name, (case, wrapper))) in cases.into_iter().enumerate() {
        let (mut worst, mut refused) = (Worst::default(), vec![]);
        let rows = share(ALL.iter().collect(), 4, turn);
        tried += rows.len();
        for row in &rows {
            let config = Config::from(default_of(row)).wrap(wrapper.clone());
            if config.groups(&fitting(&config, &mixed)).is_err() {
                refused.push(row.name);
                continue;
            }
            let what = format!("{} in {name} {case}", row.name);
            // What is of 16 bits alone does nothing around f32, and is refused there.
            if config.groups(&fitting(&config, &list)).is_ok() {
                worst.join(Parity::new(&gpu, &config, &list, 6).run(&what, 6));
                worst.join(Parity::new(&gpu, &config, &list, 7).midway(1000).run(&what, 3));
            }
            let what = format!("{what}, all formats");
            worst.join(Parity::new(&gpu, &config, &mixed, 8).run(&what, 6));
            worst.join(Parity::new(&gpu, &config, &mixed, 9).midway(1000).run(&what, 3));
        }
        say(&format!(
            "parity of {name} {case} around {} rules: worst {} ulp; refused: {refused:?}",
            rows.len(),
            worst.ulps
        ));
    }
    say_share("wrappers around rules", tried, all);
}

/// A rule whose update reads no gradient would have nothing to compare with, and would stand still on both sides.
#[test]
fn an_update_that_is_masked_still_moves_the_parameters() {
    let counting = wrappers::ALL.iter().flat_map(|entry| (entry.cases)()).filter(|(_, wrapper)| wrapper.counts());
    let counting: Vec<_> = counting.collect();
    let Some(gpu) = gpu("masked updates", counting.len() * ALL.len()) else { return };
    let list = tensors(&[1030]);
    let mut moved = 0;
    for (row, (case, wrapper)) in ALL.iter().flat_map(|row| counting.iter().map(move |case| (row, case))) {
        let config = Config::from(default_of(row)).wrap(wrapper.clone());
        if config.groups(&fitting(&config, &list)).is_err() {
            continue;
        }
        let mut twin = Parity::new(&gpu, &config, &list, 9);
        let before = twin.params.read_blocking("t0").expect("a readback");
        (0..3).for_each(|_| drop(twin.step()));
        let after = twin.params.read_blocking("t0").expect("a readback");
        assert!(
            before.iter().zip(&after).any(|(before, after)| before != after),
            "{} in {case} stands still",
            row.name
        );
        moved += 1;
    }
    say(&format!("masked updates: {moved} of {} pairs move, the others are refused", counting.len() * ALL.len()));
}

#[test]
fn every_decay_and_direction_match_in_one_dispatch() {
    let Some(gpu) = gpu("decays in groups", ALL.len()) else { return };
    let sizes = [100, 1000, 3000, 5, 8200, 2, 77, 12, 9];
    let flat = tensors(&sizes);
    let matrices: Vec<_> = flat.iter().zip(sizes).map(|(flat, size)| TensorSpec::f32(&flat.name, [size, 3])).collect();
    for (row, tensors) in ALL.iter().flat_map(|row| [(row, &flat), (row, &matrices)]) {
        let has_rates = !default_of(row).model_fields().contains(&"lr");
        let with_rate = |group: Group, lr: f64| if has_rates { group.set("lr", lr) } else { group };
        let mut config = Config::from(default_of(row));
        for (i, &kind) in row.decays.iter().enumerate() {
            let decay = if kind == "none" { "none".into() } else { serde_json::json!({ kind: 0.1 * (i + 1) as f64 }) };
            config = config.group(with_rate(Group::new([format!("t{i}")]).set("weight_decay", decay), 0.1));
        }
        let up = with_rate(Group::new([format!("t{}", row.decays.len())]).set("maximize", true), 0.2);
        let mut twin = Parity::new(&gpu, &config.group(up), tensors, 3).midway(7);
        let report = twin.optimizer.plan(&twin.params, &twin.grads).unwrap();
        assert_eq!((report.variants, report.windows), (1, 1), "{}", row.name);
        let worst = twin.run(&format!("{} in groups", row.name), 2);
        say(&format!("parity {} in groups of rank {}: worst {} ulp", row.name, tensors[0].shape.len(), worst.ulps));
    }
}
