//! Where parameters and gradients lie changes no bit: in arenas, in buffers of their own, in pages, in one buffer for
//! all, moved from step to step, out of place, at offsets of 4 bytes, on devices that bind few buffers or small ones.

use crate::common::twin::{noise, tensors};
use crate::common::{create, device, gpu, read, say};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use wgpu_optim::{Arena, Config, DType, Gpu, Optimizer, Slice, TensorSpec, wgpu};

/// Lengths around vectors, blocks and chunks; the last needs several pieces where bindings hold 64 KiB.
const LENS: [usize; 12] = [5, 1, 1024, 300, 0, 1023, 4, 9001, 2, 16, 1025, 20_000];

const STEPS: usize = 4;

fn configs() -> Vec<Config> {
    [
        json!({"optimizer": "adamw", "lr": 0.05}),
        json!({"optimizer": "lamb", "lr": 0.05, "weight_decay": {"inside": 0.1}}),
        json!({"optimizer": "adafactor", "lr": 0.05}),
        json!({"optimizer": "sgd", "lr": 0.05, "lookahead": {"k": 2}, "clip": {"global_norm": 0.5}, "skip_nonfinite": true}),
    ]
    .map(|value| Config::from_value(value).unwrap())
    .into()
}

/// The tensors, in all pairs of formats, and every fourth a matrix.
fn list(lens: &[usize]) -> Vec<TensorSpec> {
    let shape = |(i, &len): (usize, &usize)| {
        let shape = if i % 4 == 3 && len % 4 == 0 { vec![len / 4, 4] } else { vec![len] };
        let [param, grad] = [i / 3, i].map(|n| DType::ALL[n % 3]);
        TensorSpec::f32(format!("t{i}"), shape).with_dtype(param).with_grad_dtype(grad)
    };
    lens.iter().enumerate().map(shape).collect()
}

/// What the caller lays out: where each parameter, gradient and output of a step starts.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// A buffer a tensor.
    Own,
    /// Everything in one buffer, parameters and gradients in turns.
    OneBuffer,
    /// Three pages for everything, in random order.
    Pages,
    /// The same, with gradients elsewhere in each step.
    Moved,
    /// The same, with the parameters in a page of their own, which no gradient meets.
    MovedApart,
    /// Offsets of 4 bytes, so that no tensor takes the vec4 kernel.
    Unaligned,
    /// Buffers that take turns as parameters and outputs.
    OutOfPlace,
    /// The same within one buffer.
    OutOfPlaceInOne,
}

const LAYOUTS: [Layout; 8] = [
    Layout::Own,
    Layout::OneBuffer,
    Layout::Pages,
    Layout::Moved,
    Layout::MovedApart,
    Layout::Unaligned,
    Layout::OutOfPlace,
    Layout::OutOfPlaceInOne,
];

/// The values of all steps.
struct Values {
    params: Vec<Vec<f32>>,
    grads: Vec<Vec<Vec<f32>>>,
}

impl Values {
    fn new(lens: &[usize]) -> Self {
        let rng = &mut StdRng::seed_from_u64(31);
        let params = lens.iter().map(|&len| noise(rng, len)).collect();
        let mut grads: Vec<Vec<Vec<f32>>> =
            (0..STEPS).map(|_| lens.iter().map(|&len| noise(rng, len)).collect()).collect();
        // The step before the last is skipped where steps are.
        grads[STEPS - 2][3][7] = f32::INFINITY;
        Self { params, grads }
    }
}

/// The parameters after all steps, as bits.
type Bits = Vec<Vec<u32>>;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn in_arenas(gpu: &Gpu, config: &Config, list: &[TensorSpec], values: &Values) -> Bits {
    let of_grads: Vec<_> = list.iter().map(TensorSpec::grad_spec).collect();
    let (params, grads) = (Arena::new(gpu, list).unwrap(), Arena::new(gpu, &of_grads).unwrap());
    let mut optimizer = Optimizer::new(gpu, list, config.clone()).unwrap();
    let write = |arena: &Arena, all: &[Vec<f32>]| {
        list.iter().zip(all).for_each(|(tensor, values)| arena.write(&tensor.name, values).unwrap());
    };
    write(&params, &values.params);
    for of_step in &values.grads {
        write(&grads, of_step);
        optimizer.step(&params, &grads).unwrap();
    }
    list.iter().map(|tensor| bits(&params.read_blocking(&tensor.name).unwrap())).collect()
}

/// Buffers that hand out room.
struct Rooms<'a> {
    gpu: &'a Gpu,
    buffers: Vec<wgpu::Buffer>,
    used: Vec<u64>,
    rng: StdRng,
}

/// A place in one of the buffers.
#[derive(Clone, Copy, Debug)]
struct Room {
    buffer: usize,
    offset: u64,
    size: u64,
}

impl<'a> Rooms<'a> {
    fn new(gpu: &'a Gpu, pages: usize, page_bytes: u64) -> Self {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffers: Vec<_> = (0..pages).map(|_| create(gpu, page_bytes, usage)).collect();
        for buffer in &buffers {
            let canaries = vec![f32::NAN; page_bytes as usize / 4];
            gpu.queue().write_buffer(buffer, 0, bytemuck::cast_slice(&canaries));
        }
        Self { gpu, used: vec![0; pages], buffers, rng: StdRng::seed_from_u64(8) }
    }

    fn take(&mut self, buffer: usize, size: u64, align: u64, behind: u64) -> Room {
        let offset = self.used[buffer].next_multiple_of(align) + behind;
        self.used[buffer] = offset + size.next_multiple_of(4);
        assert!(self.used[buffer] + 16 <= self.buffers[buffer].size(), "the test's page is too small");
        Room { buffer, offset, size }
    }

    fn slice(&self, room: Room) -> Slice<'_> {
        Slice::new(&self.buffers[room.buffer], room.offset, room.size)
    }

    /// Writes values in their format, and no byte beside them.
    fn write(&self, room: Room, dtype: DType, values: &[f32]) {
        let mut bytes = dtype.encode(values);
        bytes.resize(bytes.len().next_multiple_of(4), 0xff);
        if !bytes.is_empty() {
            self.gpu.queue().write_buffer(&self.buffers[room.buffer], room.offset, &bytes);
        }
    }
}

fn laid_out(gpu: &Gpu, config: &Config, list: &[TensorSpec], values: &Values, layout: Layout) -> Bits {
    let pages = match layout {
        Layout::Own => 2 * list.len(),
        Layout::OneBuffer | Layout::OutOfPlaceInOne => 1,
        Layout::Pages | Layout::Moved | Layout::MovedApart => 3,
        Layout::Unaligned => 2,
        Layout::OutOfPlace => 3 * list.len(),
    };
    let sizes = list.iter().map(|tensor| tensor.size_bytes() + 1024).sum::<u64>() * 8;
    let page_bytes = if pages > 3 { 20_000 * 4 + 4096 } else { sizes };
    let mut rooms = Rooms::new(gpu, pages, page_bytes);
    let (align, behind) = if matches!(layout, Layout::Unaligned) { (4, 4) } else { (256, 0) };
    let choose = |rooms: &mut Rooms, kind: usize, i: usize| match layout {
        Layout::Own | Layout::OutOfPlace => kind * list.len() + i,
        Layout::OneBuffer | Layout::OutOfPlaceInOne => 0,
        Layout::Pages | Layout::Moved => rooms.rng.random_range(0..3),
        Layout::MovedApart if kind == 0 => 0,
        Layout::MovedApart => rooms.rng.random_range(1..3),
        Layout::Unaligned => kind,
    };
    let all = |rooms: &mut Rooms, kind: usize| -> Vec<Room> {
        let mut some = vec![];
        for (i, tensor) in list.iter().enumerate() {
            let size = if kind == 1 { tensor.grad_size_bytes() } else { tensor.size_bytes() };
            let buffer = choose(rooms, kind, i);
            some.push(rooms.take(buffer, size, align, behind));
        }
        some
    };
    let mut params = all(&mut rooms, 0);
    let mut grads = all(&mut rooms, 1);
    let is_out = matches!(layout, Layout::OutOfPlace | Layout::OutOfPlaceInOne);
    let mut outs = if is_out { all(&mut rooms, 2) } else { vec![] };
    let mut optimizer = Optimizer::new(gpu, list, config.clone()).unwrap();
    let write = |rooms: &Rooms, places: &[Room], all: &[Vec<f32>], grads: bool| {
        for ((tensor, &room), values) in list.iter().zip(places).zip(all) {
            rooms.write(room, if grads { tensor.grad_dtype } else { tensor.dtype }, values);
        }
    };
    write(&rooms, &params, &values.params, false);
    for of_step in &values.grads {
        if matches!(layout, Layout::Moved | Layout::MovedApart) {
            grads = all(&mut rooms, 1);
        }
        write(&rooms, &grads, of_step, true);
        let slices = |places: &[Room]| places.iter().map(|&room| rooms.slice(room)).collect::<Vec<_>>();
        if is_out {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            optimizer.encode_into(&mut encoder, &slices(&params), &slices(&grads), &slices(&outs)).unwrap();
            gpu.queue().submit([encoder.finish()]);
            std::mem::swap(&mut params, &mut outs);
        } else {
            optimizer.step(&slices(&params), &slices(&grads)).unwrap();
        }
    }
    let words: Vec<Vec<f32>> = rooms.buffers.iter().map(|buffer| read(gpu, Slice::all(buffer))).collect();
    let of = |(tensor, room): (&TensorSpec, &Room)| {
        let bytes: &[u8] = bytemuck::cast_slice(&words[room.buffer]);
        bits(&tensor.dtype.decode(&bytes[room.offset as usize..][..room.size as usize]))
    };
    list.iter().zip(&params).map(of).collect()
}

/// Devices that bind so many buffers at once, as far as the adapter does.
fn devices(gpu: &Gpu, counts: &[u32]) -> Vec<(String, Gpu)> {
    let most = adapter_limits(gpu).max_storage_buffers_per_shader_stage;
    let mut all = vec![];
    for &count in counts {
        if count > most {
            say(&format!("skipped: placements with {count} bindings: the adapter has {most}"));
            continue;
        }
        let (device, queue) = device(gpu, |limits| limits.max_storage_buffers_per_shader_stage = count);
        all.push((format!("{count} bindings"), Gpu::new(&device, &queue)));
    }
    all
}

/// A device whose bindings hold 64 KiB.
fn narrow(gpu: &Gpu) -> (String, Gpu) {
    let (device, queue) = device(gpu, |limits| {
        limits.max_storage_buffer_binding_size = 64 << 10;
        limits.max_compute_workgroups_per_dimension = 7;
    });
    ("64 KiB bindings".into(), Gpu::new(&device, &queue))
}

/// What the adapter itself has.
fn adapter_limits(gpu: &Gpu) -> wgpu::Limits {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let info = gpu.adapter_info();
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    adapters.into_iter().find(|adapter| adapter.get_info().name == info.name).expect("it is there still").limits()
}

#[test]
fn every_placement_has_the_arenas_bits() {
    let Some(gpu) = gpu("placements", 7) else { return };
    let mut devices = devices(&gpu, &[8, 16]);
    devices.push(narrow(&gpu));
    // An empty tensor has nothing that could be bound, so with it all that moved is checked again.
    let full: Vec<usize> = LENS.into_iter().filter(|&len| len > 0).collect();
    for (lens, layouts) in [(&LENS[..], &LAYOUTS[..]), (&full, &[Layout::MovedApart])] {
        let (list, values) = (list(lens), Values::new(lens));
        for config in configs() {
            let expected = in_arenas(&gpu, &config, &list, &values);
            for (name, device) in &devices {
                // More bindings matter only where there are more buffers than eight bindings hold.
                let is_wide = name == "16 bindings";
                for &layout in layouts {
                    if is_wide && !matches!(layout, Layout::Own | Layout::Moved) {
                        continue;
                    }
                    let found = laid_out(device, &config, &list, &values, layout);
                    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        assert!(found == expected, "{}, {name}, {layout:?}: tensor t{i} of {}", config.name(), lens[i]);
                    }
                }
            }
        }
    }
}

#[test]
fn buffers_of_their_own_share_dispatches() {
    let Some(gpu) = gpu("dispatches of own buffers", 2) else { return };
    let list = tensors(&[256; 128]);
    let matrices: Vec<_> = (0..128).map(|i| TensorSpec::f32(format!("t{i}"), [16, 16])).collect();
    for (name, device) in &devices(&gpu, &[8, 16, 32, 64]) {
        let count = device.device().limits().max_storage_buffers_per_shader_stage as usize;
        for (config, list, besides, passes) in
            [(json!({"optimizer": "adam"}), &list, 3, 1), (json!({"optimizer": "adafactor"}), &matrices, 4, 2)]
        {
            let config = Config::from_value(config).unwrap();
            let usage = wgpu::BufferUsages::STORAGE;
            let buffers: Vec<_> = (0..256).map(|_| create(device, 1024, usage)).collect();
            let (params, grads) = buffers.split_at(128);
            let params: Vec<_> = params.iter().map(Slice::all).collect();
            let grads: Vec<_> = grads.iter().map(Slice::all).collect();
            let mut optimizer = Optimizer::new(device, list, config.clone()).unwrap();
            let plan = optimizer.plan(&params, &grads).unwrap();
            let pairs = 1 << ((count - besides) / 2).ilog2();
            say(&format!(
                "{} with {name}: {} windows of {pairs} pairs, {} dispatches",
                config.name(),
                plan.windows,
                plan.dispatches
            ));
            assert!(plan.windows <= 128usize.div_ceil(pairs), "{plan:?}");
            assert!(plan.dispatches >= passes * plan.windows, "{plan:?}");
        }
    }
}

#[test]
fn gradients_that_move_within_known_pages_make_nothing() {
    let Some(gpu) = gpu("moved gradients", 1) else { return };
    let list = tensors(&[1000; 128]);
    let mut rooms = Rooms::new(&gpu, 4, 128 * 4096 + 4096);
    let params: Vec<_> = (0..128).map(|_| rooms.take(0, 4000, 256, 0)).collect();
    let mut optimizer = Optimizer::new(&gpu, &list, configs()[0].clone()).unwrap();
    let mut place = |round: usize| {
        rooms.used[1..].fill(0);
        (0..128).map(|i| rooms.take(1 + (i * 7 + round) % 3, 4000, 256, 0)).collect::<Vec<_>>()
    };
    let rounds: Vec<Vec<Room>> = (0..6).map(&mut place).collect();
    let slices = |places: &[Room]| places.iter().map(|&room| rooms.slice(room)).collect::<Vec<_>>();
    optimizer.step(&slices(&params), &slices(&rounds[0])).unwrap();
    let before = gpu.counts();
    for round in &rounds[1..] {
        // More steps in flight than before would need more room.
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        optimizer.step(&slices(&params), &slices(round)).unwrap();
    }
    let after = gpu.counts();
    assert_eq!((after.bind_groups, after.pipelines), (before.bind_groups, before.pipelines));
}

#[test]
fn gradients_that_were_dropped_are_let_go() {
    let Some(gpu) = gpu("dropped gradients", 1) else { return };
    let list = tensors(&[1 << 20]);
    let params = Arena::new(&gpu, &list).unwrap();
    let mut optimizer = Optimizer::new(&gpu, &list, configs()[0].clone()).unwrap();
    let held = || gpu.device().get_internal_counters().hal.buffer_memory.read();
    let mut after = vec![];
    for _ in 0..12 {
        let grads = create(&gpu, 4 << 20, wgpu::BufferUsages::STORAGE);
        optimizer.step(&params, &[Slice::all(&grads)]).unwrap();
        drop(grads);
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        after.push(held());
    }
    let sets = (after[11] - after[0]) / (4 << 20);
    assert!(sets <= 1, "{sets} sets of gradients are held beside the last one: {after:?}");
}

#[test]
fn gradients_that_move_to_a_bad_place_are_refused_and_those_that_moved_off_the_grid_are_right() {
    let Some(gpu) = gpu("gradients that move badly", 1) else { return };
    let list = tensors(&[1000, 24]);
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let [params, grads] = [(); 2].map(|()| create(&gpu, 8192, usage));
    let at = |buffer, [a, b]: [u64; 2]| [Slice::new(buffer, a, 4000), Slice::new(buffer, b, 96)];
    let params = at(&params, [0, 4096]);
    let values = |slice: &Slice, from: f32| {
        let values: Vec<f32> = (0..slice.size / 4).map(|i| (from + i as f32).sin()).collect();
        gpu.queue().write_buffer(slice.buffer, slice.offset, bytemuck::cast_slice(&values));
        values
    };
    let config = || Config::from_json(r#"{"optimizer": "sgd", "lr": 0.5}"#).unwrap();
    let mut expected: Vec<Vec<f32>> = params.iter().map(|slice| values(slice, 0.5)).collect();
    let mut optimizer = Optimizer::new(&gpu, &list, config()).unwrap();
    // The fourth place is none that the vec4 kernel can read; the last is one of before.
    for offsets in [[0, 4096], [256, 5000 / 16 * 16], [4096, 0], [4, 8192 - 96], [0, 4096]] {
        let grads = at(&grads, offsets);
        for (expected, slice) in expected.iter_mut().zip(&grads) {
            let grads = values(slice, offsets[0] as f32);
            expected.iter_mut().zip(grads).for_each(|(p, g)| *p -= 0.5 * g);
        }
        optimizer.step(&params, &grads).unwrap();
    }
    let found: Vec<Vec<f32>> = params.iter().map(|&slice| read(&gpu, slice)).collect();
    assert_eq!(found, expected);
    for (slices, text) in [
        (at(&grads, [0, 8192]), "gradient of tensor t1: 96 bytes at 8192 end behind the buffer's 8192"),
        (at(&grads, [0, u64::MAX - 15]), "gradient of tensor t1: 96 bytes at 18446744073709551600 end behind"),
        (at(&grads, [2, 4096]), "gradient of tensor t0: offset is 2, must be a multiple of 4 bytes"),
        (at(params[0].buffer, [4096, 0]), "gradient t1 and parameter t0 overlap"),
    ] {
        let error = optimizer.step(&params, &slices).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(params.iter().map(|&slice| read(&gpu, slice)).collect::<Vec<_>>(), expected);
}
