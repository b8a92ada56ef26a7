//! Early stopping gives the right verdicts, and keeps the best parameters on the GPU.

use serde_json::json;
use wgpu_optim::{EarlyStopping, Mode, Result, Verdict};

fn text<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.expect_err("should be refused").to_string()
}

#[test]
fn metrics_are_judged_by_mode_and_delta() {
    use Verdict::{Improved, Stop, Worse};
    let cases: [(EarlyStopping, &[(f64, Verdict)]); 4] = [
        (
            EarlyStopping { patience: 3, ..EarlyStopping::default() },
            &[
                (2.0, Improved),
                (2.0, Worse(1)),
                (3.0, Worse(2)),
                (1.9, Improved),
                (2.0, Worse(1)),
                (f64::INFINITY, Worse(2)),
                (1.9, Stop),
                (1.9, Stop),
                (1.8, Improved),
            ],
        ),
        (
            EarlyStopping { patience: 2, min_delta: 0.5, mode: Mode::Min },
            &[(-1.0, Improved), (-1.5, Worse(1)), (-1.75, Improved), (-2.0, Worse(1)), (-2.25, Stop)],
        ),
        (
            EarlyStopping { patience: 2, min_delta: 0.5, mode: Mode::Max },
            &[(0.0, Improved), (0.5, Worse(1)), (0.75, Improved), (-3.0, Worse(1)), (1.25, Stop)],
        ),
        (
            EarlyStopping { patience: 1, ..EarlyStopping::default() },
            &[(f64::INFINITY, Stop), (1.0, Improved), (1.0, Stop)],
        ),
    ];
    for (stopping, metrics) in cases {
        // Whole, and resumed after each metric.
        let mut whole = stopping.clone().monitor().unwrap();
        for &(metric, verdict) in metrics {
            let mut resumed = stopping.clone().monitor().unwrap();
            resumed.resume(whole.best(), whole.worse()).unwrap();
            assert_eq!(whole.feed(metric), Ok(verdict), "{stopping:?}: {metric}");
            assert_eq!(resumed.feed(metric), Ok(verdict), "{stopping:?}: {metric}, resumed");
            assert_eq!(resumed, whole);
        }
    }
}

#[test]
fn json_and_defaults() {
    let read = |json: serde_json::Value| wgpu_optim::read::read::<EarlyStopping>(&json);
    let default = EarlyStopping { patience: 10, min_delta: 0.0, mode: Mode::Min };
    assert_eq!(read(json!({})).unwrap(), default);
    let all = json!({"patience": 10, "min_delta": 0.0, "mode": "min"});
    assert_eq!(serde_json::to_value(&default).unwrap(), all);
    assert_eq!(read(all).unwrap(), default);
    for (json, error) in [
        (json!({"patience": 1.5}), "patience: invalid type: floating point `1.5`, expected u64"),
        (json!({"patience": -1}), "patience: invalid value: integer `-1`, expected u64"),
        (json!({"min_delta": "no"}), "min_delta: invalid type: string \"no\", expected f64"),
        (json!({"mode": "least"}), "mode: unknown variant `least`, expected `min` or `max`"),
        (json!({"delta": 1}), "delta: unknown field `delta`, expected one of `patience`, `min_delta`, `mode`"),
    ] {
        let found = read(json).expect_err("should be refused");
        assert_eq!(found.to_string(), error);
    }
}

#[test]
fn bad_options_and_metrics_are_refused() {
    for (patience, min_delta, error) in [
        (0, 0.0, "patience is 0, must be at least 1"),
        (1, -0.1, "min_delta is -0.1, must be at least 0 and finite"),
        (1, f64::NAN, "min_delta is NaN, must be at least 0 and finite"),
        (1, f64::INFINITY, "min_delta is inf, must be at least 0 and finite"),
    ] {
        let stopping = EarlyStopping { patience, min_delta, mode: Mode::Min };
        assert_eq!(text(stopping.check()), error);
        assert_eq!(text(stopping.monitor()), error);
    }
    for (mode, metric, error) in [
        (Mode::Min, f64::NAN, "metric is NaN, must be a number"),
        (Mode::Min, f64::NEG_INFINITY, "metric is -inf, must be above -inf with mode min"),
        (Mode::Max, f64::INFINITY, "metric is inf, must be below inf with mode max"),
    ] {
        let mut monitor = EarlyStopping { mode, ..EarlyStopping::default() }.monitor().unwrap();
        monitor.feed(1.0).unwrap();
        let before = monitor.clone();
        assert_eq!(text(monitor.feed(metric)), error);
        assert_eq!(text(monitor.resume(Some(metric), 3)), error);
        assert_eq!(monitor, before);
    }
}

#[cfg(feature = "gpu")]
mod snapshot {
    use super::*;
    use wgpu_optim::wgpu::{self, Buffer, BufferUsages};
    use wgpu_optim::{AdamW, Arena, BestParams, Buffers, Gpu, Optimizer, Slice, TensorSpec};

    fn tensors() -> [TensorSpec; 4] {
        [
            TensorSpec::f32("w", [3, 5]),
            TensorSpec::f32("none", [0]),
            TensorSpec::f32("b", [7]),
            TensorSpec::f32("long", [3000]),
        ]
    }

    fn gpu(cases: usize) -> Option<Gpu> {
        crate::common::gpu("early_stopping", cases)
    }

    /// Each tensor's values, all different from those of another seed.
    fn values(seed: usize) -> Vec<Vec<f32>> {
        let numbers =
            |tensor: usize, len: u64| (0..len).map(move |i| (seed * 100_000 + tensor * 10_000) as f32 + i as f32);
        tensors().iter().enumerate().map(|(i, tensor)| numbers(i, tensor.len_elements()).collect()).collect()
    }

    fn write(arena: &Arena, seed: usize) {
        for (tensor, values) in tensors().iter().zip(values(seed)) {
            arena.write(&tensor.name, &values).unwrap();
        }
    }

    fn read(arena: &Arena) -> Vec<Vec<f32>> {
        tensors().iter().map(|tensor| arena.read_blocking(&tensor.name).unwrap()).collect()
    }

    fn best(gpu: &Gpu) -> BestParams {
        BestParams::new(gpu, &tensors(), EarlyStopping { patience: 2, ..EarlyStopping::default() }).unwrap()
    }

    fn buffer(gpu: &Gpu, size: u64, usage: BufferUsages) -> Buffer {
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        gpu.device().create_buffer(&descriptor)
    }

    #[test]
    fn the_best_of_an_arena_comes_back() {
        let Some(gpu) = gpu(1) else { return };
        let (params, mut best) = (Arena::new(&gpu, &tensors()).unwrap(), best(&gpu));
        let verdicts = [(1, 3.0), (2, 1.0), (3, 2.0), (4, 1.0)].map(|(seed, loss)| {
            write(&params, seed);
            best.feed(loss, &params).unwrap()
        });
        assert_eq!(verdicts, [Verdict::Improved, Verdict::Improved, Verdict::Worse(1), Verdict::Stop]);
        assert_eq!(best.monitor().best(), Some(1.0));
        assert_eq!(read(&params), values(4));
        assert_eq!(read(best.params()), values(2));
        best.restore(&params).unwrap();
        assert_eq!(read(&params), values(2));
        // A second time, and into another arena.
        let other = Arena::new(&gpu, &tensors()).unwrap();
        write(&params, 5);
        best.restore(&params).unwrap();
        best.restore(&other).unwrap();
        assert_eq!((read(&params), read(&other)), (values(2), values(2)));
    }

    #[test]
    fn what_was_submitted_before_is_kept() {
        let Some(gpu) = gpu(1) else { return };
        let tensors = [TensorSpec::f32("w", [5000])];
        let arenas = [(), ()].map(|()| Arena::new(&gpu, &tensors).unwrap());
        let [params, grads] = &arenas;
        grads.write("w", &[1.0; 5000]).unwrap();
        let mut optimizer = Optimizer::new(&gpu, &tensors, AdamW::default()).unwrap();
        let mut best = BestParams::new(&gpu, &tensors, EarlyStopping::default()).unwrap();
        optimizer.step(params, grads).unwrap();
        best.feed(1.0, params).unwrap();
        optimizer.step(params, grads).unwrap();
        let [kept, now] = [best.params(), params].map(|arena| arena.read_blocking("w").unwrap());
        assert!(kept.iter().all(|&p| (p + 1e-3).abs() < 1e-6), "one step");
        assert!(now.iter().all(|&p| (p + 2e-3).abs() < 1e-6), "two steps");
        best.restore(params).unwrap();
        optimizer.step(params, grads).unwrap();
        assert!(params.read_blocking("w").unwrap().iter().all(|&p| (p + 2e-3).abs() < 1e-6), "one and one");
    }

    #[test]
    fn slices_are_copied_and_nothing_beside_them() {
        let Some(gpu) = gpu(1) else { return };
        // Two buffers, places that are multiples of 4 alone, seven numbers between.
        let usage = BufferUsages::COPY_SRC | BufferUsages::COPY_DST | BufferUsages::STORAGE;
        let sizes = tensors().map(|tensor| tensor.size_bytes());
        let buffers = [(), ()].map(|()| buffer(&gpu, 20_000, usage));
        let places = [(0, 4), (1, 8), (0, 4 + sizes[0] + 28), (1, 36)];
        let slices: Vec<_> =
            places.iter().zip(sizes).map(|(&(n, at), size)| Slice::new(&buffers[n], at, size)).collect();
        let fill = |seed: usize| {
            buffers.iter().for_each(|buffer| gpu.queue().write_buffer(buffer, 0, &[seed as u8; 20_000]));
            for (slice, values) in slices.iter().zip(values(seed)) {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                gpu.queue().write_buffer(slice.buffer, slice.offset, &bytes);
            }
        };
        let mut best = best(&gpu);
        fill(1);
        assert_eq!(best.feed(1.0, &slices), Ok(Verdict::Improved));
        assert_eq!(read(best.params()), values(1));
        fill(2);
        best.restore(&slices).unwrap();
        for (n, buffer) in buffers.iter().enumerate() {
            let mut expected = [2; 20_000];
            for ((&(of, at), size), values) in places.iter().zip(sizes).zip(values(1)) {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                if of == n {
                    expected[at as usize..(at + size) as usize].copy_from_slice(&bytes);
                }
            }
            assert!(bytes(&gpu, buffer) == expected, "buffer {n}");
        }
    }

    fn bytes(gpu: &Gpu, buffer: &Buffer) -> Vec<u8> {
        let staging = self::buffer(gpu, buffer.size(), BufferUsages::MAP_READ | BufferUsages::COPY_DST);
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
        gpu.queue().submit([encoder.finish()]);
        staging.slice(..).map_async(wgpu::MapMode::Read, |result| result.unwrap());
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        staging.slice(..).get_mapped_range().unwrap().to_vec()
    }

    #[test]
    fn bad_buffers_are_named_and_change_nothing() {
        let Some(gpu) = gpu(12) else { return };
        let all = BufferUsages::COPY_SRC | BufferUsages::COPY_DST | BufferUsages::STORAGE;
        let sizes = tensors().map(|tensor| tensor.size_bytes());
        let [good, no_src, no_dst] =
            [all, all - BufferUsages::COPY_SRC, all - BufferUsages::COPY_DST].map(|usage| buffer(&gpu, 12_000, usage));
        let with = |third| {
            let [w, none, _, long] = sizes.map(|size| Some(Slice::new(&good, 0, size)));
            [w, none, third, long]
        };
        let arena = Arena::new(&gpu, &tensors()).unwrap();
        write(&arena, 1);
        let part = arena.without(&["b"]).unwrap();
        let other_gpu = Gpu::new(gpu.device(), gpu.queue());
        let foreign = Arena::new(&other_gpu, &tensors()).unwrap();
        let renamed = tensors().map(|tensor| TensorSpec { name: tensor.name.replace('b', "c"), ..tensor });
        let renamed = Arena::new(&gpu, &renamed).unwrap();
        let fewer = Arena::new(&gpu, &tensors()[..3]).unwrap();
        let missing = "parameter of tensor b: is missing";
        let count = "parameters are 3, expected 4: one a tensor, in the order given at creation";
        let both: Vec<(Buffers, &str)> = vec![
            ((&with(None)).into(), missing),
            ((&part).into(), missing),
            ((&with(Some(Slice::new(&good, 0, 24)))).into(), "parameter of tensor b has 24 bytes, expected 28 bytes"),
            (
                (&with(Some(Slice::new(&good, 11_976, 28)))).into(),
                "parameter of tensor b: 28 bytes at 11976 end behind the buffer's 12000",
            ),
            (
                (&with(Some(Slice::new(&good, u64::MAX, 28)))).into(),
                "parameter of tensor b: 28 bytes at 18446744073709551615 end behind the buffer's 12000",
            ),
            (
                (&with(Some(Slice::new(&good, 6, 28)))).into(),
                "parameter of tensor b: offset is 6, must be a multiple of 4 bytes",
            ),
            ((&foreign).into(), "the arena belongs to another Gpu; clone one Gpu for everything on a device"),
            ((&renamed).into(), "parameter of tensor b has c [7] of f32, expected b [7] of f32"),
            ((&fewer).into(), count),
            (Buffers::Slices(with(None)[..3].to_vec()), count),
        ];
        let keep = (
            (&with(Some(Slice::new(&no_src, 0, 28)))).into(),
            "parameter of tensor b: buffer usage is BufferUsages(COPY_DST | STORAGE), must contain COPY_SRC",
        );
        let restore = (
            (&with(Some(Slice::new(&no_dst, 0, 28)))).into(),
            "parameter of tensor b: buffer usage is BufferUsages(COPY_SRC | STORAGE), must contain COPY_DST",
        );

        let mut best = best(&gpu);
        assert_eq!(text(best.restore(&arena)), "the snapshot is empty, must be filled by a metric that improved");
        assert_eq!(best.feed(1.0, &arena), Ok(Verdict::Improved));
        let before = best.monitor().clone();
        // A better metric does not count, a worse one neither.
        for (buffers, error) in both.iter().chain([&keep]) {
            assert_eq!(text(best.feed(0.5, buffers.clone())), *error);
            assert_eq!(text(best.feed(1.5, buffers.clone())), *error);
        }
        for (buffers, error) in both.iter().chain([&restore]) {
            assert_eq!(text(best.restore(buffers.clone())), *error);
        }
        // Each lacks what the other way needs alone.
        best.restore(keep.0).unwrap();
        assert_eq!(best.monitor(), &before);
        assert_eq!(read(best.params()), values(1));
        assert_eq!(best.feed(0.5, restore.0), Ok(Verdict::Improved));
    }

    #[test]
    fn what_wgpu_refuses_is_an_error() {
        let Some(gpu) = gpu(2) else { return };
        let (arena, mut best) = (Arena::new(&gpu, &tensors()).unwrap(), best(&gpu));
        write(&arena, 1);
        best.feed(1.0, &arena).unwrap();
        let before = best.monitor().clone();
        let usage = BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let gone = buffer(&gpu, 12_000, usage);
        gone.destroy();
        let slices = tensors().map(|tensor| Slice::new(&gone, 0, tensor.size_bytes()));
        assert!(text(best.feed(0.5, &slices)).starts_with("wgpu: "));
        assert!(text(best.restore(&slices)).starts_with("wgpu: "));
        assert_eq!(best.monitor(), &before);
        assert_eq!(read(best.params()), values(1));
    }

    #[test]
    fn a_bad_metric_keeps_nothing() {
        let Some(gpu) = gpu(1) else { return };
        let (arena, mut best) = (Arena::new(&gpu, &tensors()).unwrap(), best(&gpu));
        write(&arena, 1);
        // Infinitely bad is no improvement: there is still nothing to restore.
        assert_eq!(best.feed(f64::INFINITY, &arena), Ok(Verdict::Worse(1)));
        assert_eq!(text(best.restore(&arena)), "the snapshot is empty, must be filled by a metric that improved");
        best.feed(1.0, &arena).unwrap();
        let before = best.monitor().clone();
        write(&arena, 2);
        assert_eq!(text(best.feed(f64::NAN, &arena)), "metric is NaN, must be a number");
        assert_eq!(best.monitor(), &before);
        assert_eq!(read(best.params()), values(1));
        let none = EarlyStopping { patience: 0, ..EarlyStopping::default() };
        assert_eq!(text(BestParams::new(&gpu, &tensors(), none)), "patience is 0, must be at least 1");
    }

    #[test]
    fn a_training_resumes() {
        let Some(gpu) = gpu(1) else { return };
        let (arena, mut best) = (Arena::new(&gpu, &tensors()).unwrap(), best(&gpu));
        write(best.params(), 3);
        best.resume(Some(1.0), 1).unwrap();
        assert_eq!(best.feed(2.0, &arena), Ok(Verdict::Stop));
        best.restore(&arena).unwrap();
        assert_eq!(read(&arena), values(3));
    }
}
