//! The planner takes models of any size: 10^12 elements are planned within a second and 64 MiB.

use std::time::{Duration, Instant};

use crate::common::memory::peak_bytes;
use crate::common::say;
use wgpu_optim::backend::plan::{Bounds, Home, Item, Place, block_bytes, pack_state, place, plan};
use wgpu_optim::backend::storage::Room;
use wgpu_optim::backend::{Access, Formats};

const ELEMENTS: u64 = 1_000_000_000_000;

/// Cuts so many tensors of equal length with two slots of state, whose sums take four words a chunk, and returns how
/// many elements the dispatches walk over, and how many of them there are.
fn walk(tensors: u64, bounds: Bounds) -> [u64; 2] {
    let (len, room) = (ELEMENTS / tensors, Room::of_f32(2));
    let (states, pages) = pack_state(&vec![(len, room); tensors as usize], bounds);
    assert!(pages.iter().sum::<u64>() >= 8 * ELEMENTS);
    let item = |(tensor, state): (usize, Vec<Place>)| Item {
        tensor,
        len,
        variant: 0,
        stream: 0,
        access: Access::Vec4,
        formats: Formats::default(),
        room,
        state,
        lines: None,
        partial_words: 4,
        sums: true,
        measured: true,
        of_model: false,
        product: None,
        sides: None,
    };
    let items: Vec<Item> = states.into_iter().enumerate().map(item).collect();
    let plan = plan(&items, bounds, 0).unwrap();
    let home = |tensor: usize| {
        let [param, grad] = [0, 1].map(|buffer| Place { buffer: 2 * tensor + buffer, offset: 0 });
        Some(Home { param, grad: Some(grad), out: None })
    };
    let homes: Vec<_> = (0..tensors as usize).map(home).collect();
    let windows = place(&plan.chunks, &homes, &vec![4 * len; 2 * homes.len()], |_| 2, bounds);
    let walked = windows.iter().flat_map(|window| plan.dispatches(window.entries.clone(), 1, 28, bounds));
    let chunks: Vec<u64> = walked.map(|dispatch| dispatch.entries.len() as u64).collect();
    [chunks.iter().sum::<u64>() * bounds.chunk_len(), chunks.len() as u64]
}

#[test]
fn a_trillion_elements_are_planned_within_a_second_and_64_mib() {
    let slots = Room::of_f32(2);
    for (tensors, binding_bytes) in [(1, 128 << 20), (1, (2 << 30) - 256), (2000, 128 << 20), (2000, (2 << 30) - 256)] {
        let bounds = Bounds::new(binding_bytes, 65_535, 8, block_bytes(slots));
        let bounds = Bounds { dispatch_bytes: 1 << 30, ..bounds };
        let timed = || {
            let start = Instant::now();
            let walked = peak_bytes(|| walk(tensors, bounds));
            (start.elapsed(), walked)
        };
        // Several tries, since other tests run beside this one.
        let limit = Duration::from_secs(1);
        let mut tries = (0..8).map(|_| timed());
        let (took, ([elements, dispatches], peak)) = tries
            .find(|(took, _)| *took < limit)
            .unwrap_or_else(|| panic!("eight tries took more than {limit:?} each"));
        say(&format!(
            "{ELEMENTS} elements in {tensors} tensors, bindings of {binding_bytes} bytes: planned in {took:?} and {peak} \
             bytes, {dispatches} dispatches"
        ));
        // The last chunk of a tensor may be shorter than others.
        assert!((ELEMENTS..ELEMENTS + tensors * bounds.chunk_len()).contains(&elements), "{elements}");
        assert!(dispatches >= (28 * ELEMENTS) >> 30, "{dispatches}");
        assert!(peak < 64 << 20, "{peak} bytes");
    }
}
