//! The bench's lists of tensors are those of the models that they are named after.

#[path = "../../benches/step/shapes.rs"]
mod shapes;

use std::collections::HashSet;

#[test]
fn lists_have_the_sizes_of_their_models() {
    let want = [
        ("one_16m", 1, 16_777_216),
        ("gpt2", 148, 124_439_808),
        ("resnet50", 161, 25_557_032),
        ("convs126", 126, 28_846_080),
        ("many_small", 1000, 1_024_000),
        ("many_tiny", 1000, 64_000),
        ("one_1m", 1, 1_024_000),
        ("ragged", 1000, 2_048_005),
    ];
    let have = shapes::LISTS.map(|list| {
        let (name, list) = (list.name, (list.shapes)());
        (name, list.len(), list.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum())
    });
    assert_eq!(have, want);
}

#[test]
fn names_are_unique_and_ragged_lengths_span_1_to_4096() {
    for shapes::List { name, shapes } in shapes::LISTS {
        let list = shapes();
        let names: HashSet<&String> = list.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), list.len(), "{name}");
        if name == "ragged" {
            let lengths: Vec<usize> = list.iter().map(|(_, shape)| shape[0]).collect();
            assert_eq!((lengths.iter().min(), lengths.iter().max()), (Some(&1), Some(&4096)));
            assert!((0..4).all(|rest| lengths.iter().filter(|&len| len % 4 == rest).count() > 200));
        }
    }
}
