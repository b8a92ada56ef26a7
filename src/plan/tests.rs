//! Plans as arithmetic, with limits far smaller than those of any device.

use super::*;
use crate::codecs::DType;
use crate::tensor::Pages;
use crate::words::{Chunk, ENTRY_WORDS, Entry, LinesOfMatrix, SUM_WORDS, Tile, row};

const BOUNDS: Bounds =
    Bounds { binding_bytes: 128 << 20, workgroups: 65_535, chunk_blocks: 8, dispatch_bytes: u64::MAX };

fn items(lens: &[u64], slots: u64, bounds: Bounds) -> Vec<Item> {
    let (states, pages) = pack_state(&lens.iter().map(|&len| (len, Room::of_f32(slots))).collect::<Vec<_>>(), bounds);
    assert!(pages.iter().all(|&page| page <= bounds.binding_bytes), "{pages:?}");
    let item = |(tensor, state): (usize, Vec<Place>)| Item {
        tensor,
        len: lens[tensor],
        variant: 0,
        stream: 7,
        access: Access::Vec4,
        formats: Formats::default(),
        room: Room::of_f32(slots),
        state,
        lines: None,
        partial_words: SUM_WORDS,
        sums: true,
        measured: false,
        of_model: false,
        product: None,
        sides: None,
    };
    states.into_iter().enumerate().map(item).collect()
}

/// Parameters in buffer 0, gradients in buffer 1, one tensor behind the other, and the sizes of both.
fn homes(items: &[Item], grads_from: u64) -> (Vec<Option<Home>>, Vec<u64>) {
    let mut offset = 0;
    let mut homes = Vec::new();
    for item in items {
        let grad = Place { buffer: 1, offset: offset + grads_from };
        homes.push(Some(Home { param: Place { buffer: 0, offset }, grad: Some(grad), out: None }));
        offset = (offset + 4 * item.len).next_multiple_of(ALIGNMENT);
    }
    (homes, vec![offset + ALIGNMENT; 2])
}

fn of_entries<E: Entry>(plan: &Plan, dispatch: &Dispatch) -> Vec<E> {
    let start = dispatch.offset as usize / 4;
    let words = plan.table.words();
    let words = &words[start + dispatch.entries.start as usize * ENTRY_WORDS..];
    words.chunks(ENTRY_WORDS).take(dispatch.entries.len()).map(|words| E::read(words.try_into().unwrap())).collect()
}

/// Every element of every tensor is in exactly one chunk, and each chunk lies within what its window binds.
fn check(plan: &Plan, items: &[Item], (homes, sizes): &(Vec<Option<Home>>, Vec<u64>), bounds: Bounds) -> Vec<Window> {
    let windows = place(&plan.chunks, homes, sizes, |_| 2, bounds);
    let mut seen: Vec<u64> = vec![0; items.len()];
    for window in &windows {
        for span in &window.spans {
            assert!(span.size <= bounds.binding_bytes && span.offset % ALIGNMENT == 0, "{span:?}");
        }
        for dispatch in plan.dispatches(window.entries.clone(), 1, 1, bounds) {
            assert!(dispatch.x <= bounds.workgroups && dispatch.y <= bounds.workgroups);
            assert!(u64::from(dispatch.entries.end) * 4 * ENTRY_WORDS as u64 <= plan.table_bytes);
            for chunk in of_entries::<Chunk>(plan, &dispatch) {
                let item = &items[chunk.tensor as usize];
                let home = homes[item.tensor].unwrap();
                let (first, row) = (seen[item.tensor], window.rows[chunk.piece as usize - window.first]);
                for (place, at, page, size) in [
                    (home.param, row::PARAM, row::PARAM_PAGE, 4),
                    (home.grad.unwrap(), row::GRAD, row::GRAD_PAGE, item.formats.grad.size_bytes()),
                    (home.out.unwrap_or(home.param), row::OUT, row::OUT_PAGE, 4),
                ] {
                    let span = window.spans[row[page] as usize];
                    let element = u64::from(row[at].wrapping_add(chunk.first as u32));
                    assert_eq!(
                        (span.buffer, span.offset + size * element),
                        (place.buffer, place.offset + size * first)
                    );
                    assert!(size * (element + chunk.len) <= span.size && span.size % 4 == 0, "{span:?}");
                }
                let piece = &plan.chunks[chunk.piece as usize];
                if !item.room.is_empty() {
                    let place = item.state[(piece.first / bounds.piece_len(item.room)) as usize];
                    assert_eq!(16 * chunk.state, place.offset + item.room.bytes(first - piece.first));
                    assert_eq!(window.like.state, Some(place.buffer));
                }
                seen[item.tensor] += chunk.len;
            }
        }
    }
    for item in items {
        assert_eq!(seen[item.tensor], item.len, "tensor {}", item.tensor);
    }
    windows
}

/// As `items` makes them, with rows and columns.
fn matrices(shapes: &[[u64; 3]], bounds: Bounds) -> Vec<Item> {
    let lens: Vec<u64> = shapes.iter().map(|shape| shape.iter().product()).collect();
    let mut place = Place { buffer: 0, offset: 0 };
    let mut items = items(&lens, 0, bounds);
    for (item, &[matrices, rows, columns]) in items.iter_mut().zip(shapes) {
        let lines = Lines { matrices, rows, columns, has_columns: true };
        item.lines = Some((place, lines));
        place.offset += (4 * lines.words()).next_multiple_of(16);
    }
    items
}

#[test]
fn tiles_cover_each_element_once_and_lines_each_row_and_column() {
    let shapes = [[1, 1, 1], [300, 3, 3], [3, 40, 31], [1, 3, 2100], [2, 34, 270], [1, 2500, 2], [1, 70, 300]];
    for (format, bounds) in
        [(DType::F32, BOUNDS), (DType::F16, Bounds::new(56 << 10, 7, 4, block_bytes(Room::of_f32(0))))]
    {
        let mut items = matrices(&shapes, bounds);
        items.iter_mut().for_each(|item| item.formats.grad = format);
        items.iter_mut().filter(|_| format == DType::F16).for_each(|item| item.access = Access::Scalar);
        let places = homes(&items, if format == DType::F16 { 4 } else { 0 });
        let plan = plan(&items, bounds, 5).unwrap();
        check(&plan, &items, &places, bounds);
        let mut seen: Vec<Vec<u32>> = items.iter().map(|item| vec![0; item.len as usize]).collect();
        for window in place(&plan.tiles, &places.0, &places.1, |_| 2, bounds) {
            assert!(window.spans.iter().all(|span| span.size <= bounds.binding_bytes));
            let dispatches = plan.dispatches(window.entries.clone(), 1, 1, bounds);
            for tile in dispatches.iter().flat_map(|dispatch| of_entries::<Tile>(&plan, dispatch)) {
                let (item, home) = (&items[tile.tensor as usize], places.0[tile.tensor as usize].unwrap());
                let row = window.rows[tile.piece as usize - window.first];
                let byte = |at: usize, page: usize, size: u64| {
                    window.spans[row[page] as usize].offset + size * u64::from(row[at].wrapping_add(tile.first as u32))
                };
                let first = (byte(row::PARAM, row::PARAM_PAGE, 4) - home.param.offset) / 4;
                let size = format.size_bytes();
                assert_eq!(byte(row::GRAD, row::GRAD_PAGE, size), home.grad.unwrap().offset + size * first);
                for i in 0..tile.len {
                    seen[item.tensor][(first + i / tile.width * tile.columns + i % tile.width) as usize] += 1;
                }
            }
        }
        assert!(seen.iter().flatten().all(|&count| count == 1));
        let mut words: Vec<Vec<u32>> =
            items.iter().map(|item| vec![0; item.lines.unwrap().1.words() as usize]).collect();
        for (_, _, entries) in &plan.lines {
            let dispatches = plan.dispatches(entries.clone(), 1, 1, bounds);
            for some in dispatches.iter().flat_map(|dispatch| of_entries::<LinesOfMatrix>(&plan, dispatch)) {
                let (place, lines) = items[some.tensor as usize].lines.unwrap();
                let first = (4 * some.numbers - place.offset) / 4;
                assert!(!lines.is_small());
                let of_tensor = &mut words[some.tensor as usize];
                (first..first + some.len).for_each(|word| of_tensor[word as usize] += 1);
            }
        }
        for (item, words) in items.iter().zip(words) {
            let lines = item.lines.unwrap().1;
            let [rows, columns] = lines.counts();
            let once = u32::from(!lines.is_small());
            assert!(words[..(rows + columns) as usize].iter().all(|&count| count == once), "{lines:?}");
        }
    }
}

#[test]
fn lines_that_no_binding_holds_are_refused_with_their_numbers() {
    let bounds = Bounds::new(64 << 10, 7, 4, block_bytes(Room::of_f32(0)));
    let error = plan(&matrices(&[[20_000, 1, 1]], bounds), bounds, 0).unwrap_err();
    assert_eq!(error.to_string(), "the device's max_storage_buffer_binding_size is 65536, needed are 240512");
}

#[test]
fn many_short_tensors_come_first_and_share_workgroups() {
    let walked = |count: usize| {
        let lens: Vec<u64> = (0..count).flat_map(|i| [1025, 1 + i as u64 % SHORT]).collect();
        let items = items(&lens, 2, BOUNDS);
        let plan = plan(&items, BOUNDS, 0).unwrap();
        let windows = check(&plan, &items, &homes(&items, 0), BOUNDS);
        assert_eq!(windows.len(), 1);
        let dispatches = |(entries, of_group)| plan.dispatches(entries, of_group, 1, BOUNDS);
        let dispatches: Vec<_> = windows[0].walked().into_iter().flat_map(dispatches).collect();
        (dispatches.iter().map(|dispatch| (dispatch.entries.len(), dispatch.x)).collect::<Vec<_>>(), plan, dispatches)
    };
    let (counts, plan, dispatches) = walked(100);
    assert_eq!(counts, [(200, 200), (100, 13), (100, 100)]);
    let lens = |dispatch| of_entries::<Chunk>(&plan, dispatch).into_iter().map(|chunk| chunk.len);
    assert!(lens(&dispatches[1]).all(|len| len <= SHORT) && lens(&dispatches[2]).all(|len| len > SHORT));
    assert_eq!(walked(SHORT_LEAST - 1).0.len(), 1);
}

#[test]
fn a_thousand_tensors_in_one_pair_of_arenas_are_one_dispatch() {
    let items = items(&[1024; 1000], 2, BOUNDS);
    let plan = plan(&items, BOUNDS, 0).unwrap();
    let windows = check(&plan, &items, &homes(&items, 0), BOUNDS);
    assert_eq!((windows.len(), windows[0].pages), (1, Pages::Apart));
    let dispatches = plan.dispatches(windows[0].entries.clone(), 1, 1, BOUNDS);
    assert_eq!(dispatches, [Dispatch { offset: 0, entries: 0..1000, x: 1000, y: 1 }]);
}

#[test]
fn small_limits_make_more_windows_and_dispatches() {
    for slots in 0..=3 {
        let bounds = Bounds::new(64 << 10, 7, 8, block_bytes(Room::of_f32(slots)));
        let items = items(&[0, 1, 5, 1023, 1024, 1025, 70_001, 3], slots, bounds);
        let plan = plan(&items, bounds, 6).unwrap();
        assert!(check(&plan, &items, &homes(&items, 0), bounds).len() > 4);
        assert_eq!(plan.finishes.len(), 1);
    }
}

#[test]
fn buffers_share_a_dispatch_as_far_as_bindings_go() {
    let items = items(&[300; 128], 2, BOUNDS);
    let own = |i: usize| {
        let [param, grad] = [2 * i, 2 * i + 1].map(|buffer| Place { buffer, offset: 0 });
        Some(Home { param, grad: Some(grad), out: None })
    };
    let (of_own, sizes): (Vec<_>, _) = ((0..128).map(own).collect(), vec![1200; 256]);
    let plan = plan(&items, BOUNDS, 0).unwrap();
    for most in [2, 4, 8, 16, 32, 64] {
        let windows = place(&plan.chunks, &of_own, &sizes, |_| most, BOUNDS);
        let pages = if most == 2 { Pages::Apart } else { Pages::Many(most as u32) };
        assert!(windows.iter().all(|window| window.pages == pages), "{windows:?}");
        assert_eq!(windows.len(), 256 / most);
    }
    let one = |i: usize| {
        let [param, grad] = [0, 1 << 20].map(|from| Place { buffer: 0, offset: from + 1280 * i as u64 });
        Some(Home { param, grad: Some(grad), out: None })
    };
    let windows = place(&plan.chunks, &(0..128).map(one).collect::<Vec<_>>(), &[2 << 20], |_| 2, BOUNDS);
    assert_eq!((windows.len(), windows[0].pages), (1, Pages::Shared));
}

#[test]
fn an_update_out_of_place_binds_three_buffers() {
    let items = items(&[300, 0, 70], 2, BOUNDS);
    let place_of = |buffer: usize, i: usize| Place { buffer, offset: 1280 * i as u64 };
    let home = |i: usize| Home { param: place_of(0, i), grad: Some(place_of(1, i)), out: Some(place_of(2, i)) };
    let homes = (0..3).map(|i| (i < 2).then(|| home(i))).collect::<Vec<_>>();
    let plan = plan(&items, BOUNDS, 0).unwrap();
    let windows = place(&plan.chunks, &homes, &[4096; 3], |_| 2, BOUNDS);
    assert_eq!((windows.len(), windows[0].pages, windows[0].copies), (1, Pages::Many(3), true));
    assert_eq!(windows[0].rows, [[0, 0, 0, 0, 1, 2]], "the tensor that sits out has no row");
}

#[test]
fn formats_of_gradients_share_no_dispatch() {
    for (access, offset) in [(Access::Vec4, 8), (Access::Scalar, 4)] {
        let halves = |bounds: Bounds| {
            let mut items = items(&[0, 1, 5, 1023, 1024, 1025, 70_001, 3, 20_000], 1, bounds);
            for item in &mut items[3..] {
                item.formats.grad = DType::F16;
                item.access = access;
            }
            items
        };
        let windows = |bounds: Bounds| {
            let items = halves(bounds);
            let mut places = homes(&items, 0);
            places.0[3..]
                .iter_mut()
                .flatten()
                .filter_map(|home| home.grad.as_mut())
                .for_each(|grad| grad.offset += offset);
            check(&plan(&items, bounds, 0).unwrap(), &items, &places, bounds).len()
        };
        assert_eq!(windows(BOUNDS), 2);
        assert!(windows(Bounds::new(64 << 10, 7, 8, block_bytes(Room::of_f32(1)))) > 2);
    }
}

#[test]
fn more_than_65535_workgroups_take_a_second_dimension() {
    let items = items(&[1; 70_000], 1, BOUNDS);
    let plan = plan(&items, BOUNDS, 0).unwrap();
    let windows = check(&plan, &items, &homes(&items, 0), BOUNDS);
    let dispatches = plan.dispatches(windows[0].entries.clone(), 1, 1, BOUNDS);
    assert_eq!(dispatches, [Dispatch { offset: 0, entries: 0..70_000, x: 35_000, y: 2 }]);
}

#[test]
fn a_table_larger_than_a_binding_is_bound_in_parts() {
    let bounds = Bounds { binding_bytes: 64 << 10, workgroups: 100, chunk_blocks: 1, dispatch_bytes: u64::MAX };
    let items = items(&[1; 5000], 1, bounds);
    let plan = plan(&items, bounds, 0).unwrap();
    assert!(plan.table_bytes <= bounds.binding_bytes && plan.table.size_bytes() > 2 * plan.table_bytes);
    check(&plan, &items, &homes(&items, 0), bounds);
}

#[test]
fn no_dispatch_asks_for_more_bytes_than_it_may() {
    let bounds = Bounds { dispatch_bytes: 1 << 20, ..BOUNDS };
    let items = items(&[1 << 20, 5], 1, bounds);
    let plan = plan(&items, bounds, 0).unwrap();
    let windows = check(&plan, &items, &homes(&items, 0), bounds);
    let dispatches = plan.dispatches(windows[0].entries.clone(), 1, 4 * 5, bounds);
    assert_eq!((dispatches.len(), dispatches[0].entries.len()), (22, 6), "6 chunks of 160 KiB are below 1 MiB");
}

#[test]
fn elements_beyond_32_bits_of_bytes_are_reached() {
    let bounds = Bounds::new((1 << 31) - 256, 65_535, 8, block_bytes(Room::of_f32(2)));
    let items = items(&[600_000_000, 600_000_000], 2, bounds);
    let plan = plan(&items, bounds, 0).unwrap();
    let windows = check(&plan, &items, &homes(&items, 0), bounds);
    assert!(windows.len() >= 5, "9.6 GB of state in windows below 2 GiB: {}", windows.len());
}

#[test]
fn a_table_holds_what_was_pushed() {
    let entry = |first, len| Chunk { first, len, ..Chunk::default() };
    let mut table = Table::default();
    let mut pushed = vec![entry(0, 4), entry(4, 4), entry(8, 4), entry(12, 1), entry(20, 9), entry(3, 17)];
    pushed.iter().for_each(|&entry| table.push(entry));
    table.push_evenly([entry(u64::from(u32::MAX), 2), entry(1 << 32, 2)], 5);
    pushed.extend((0..5).map(|i| entry(u64::from(u32::MAX.wrapping_add(i)), 2)));
    table.push_evenly([entry(7, 1), entry(7, 1)], 0);
    table.push(entry(2, 2));
    pushed.push(entry(2, 2));
    assert_eq!(table.words(), pushed.iter().flat_map(|entry| entry.words()).collect::<Vec<_>>());
    for (from, elements) in (0..=pushed.len()).flat_map(|from| (0..60).map(move |elements| (from, elements))) {
        let mut sum = 0;
        let within = |entry: &&Chunk| {
            sum += entry.len;
            sum <= elements
        };
        let counted = pushed[from..].iter().take_while(within).count();
        assert_eq!(table.count_within(from..pushed.len(), elements), counted, "{from}, {elements}");
    }
}

#[test]
fn a_binding_smaller_than_a_block_is_refused_with_its_numbers() {
    let bounds = Bounds::new(4096, 65_535, 8, block_bytes(Room::of_f32(2)));
    let error = plan(&items(&[5], 2, bounds), bounds, 0).unwrap_err();
    assert_eq!(error.to_string(), "the device's max_storage_buffer_binding_size is 4096, needed are 8448");
}

#[test]
fn a_tensor_larger_than_a_page_is_refused_with_both_sizes() {
    let error = pack(&[TensorSpec::f32("w", [100])], "values", |_| 400, 256, 256).unwrap_err();
    assert_eq!(error.to_string(), "tensor w: its values take 400 bytes, a buffer holds at most 256");
}
