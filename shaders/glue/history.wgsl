// Where the numbers of a history stand in scratch, behind the rule's numbers of the model. A pair is known by its place
// in the history, which is a ring.

// Of the movement of one pair with the change of another.
fn at_moved_change(moved: u32, change: u32) -> u32 {
    return MEMORY + HISTORY * moved + change;
}

// Of the changes of two pairs.
fn at_changes(a: u32, b: u32) -> u32 {
    return MEMORY + HISTORY * (HISTORY + a) + b;
}

// Of a pair's change in the direction, subtracted.
fn at_change_factor(pair: u32) -> u32 {
    return MEMORY + 2u * HISTORY * HISTORY + pair;
}

// Of a pair's movement in the direction.
fn at_moved_factor(pair: u32) -> u32 {
    return at_change_factor(HISTORY + pair);
}

// Of a pair's movement with what the direction is so far.
fn at_along_moved(pair: u32) -> u32 {
    return at_change_factor(2u * HISTORY + pair);
}

// Of a pair's change with what the direction is so far; behind all pairs, of the gradient.
fn at_along_change(pair: u32) -> u32 {
    return at_change_factor(3u * HISTORY + pair);
}

// Of a pair's movement with the gradient.
fn at_moved_grad(pair: u32) -> u32 {
    return at_change_factor(4u * HISTORY + 1u + pair);
}

// Of a pair's change with the gradient.
fn at_change_grad(pair: u32) -> u32 {
    return at_change_factor(5u * HISTORY + 1u + pair);
}

fn load_number(at: u32) -> f32 {
    return bitcast<f32>(scratch[at]);
}

fn store_number(at: u32, number: f32) {
    scratch[at] = bitcast<u32>(number);
}

// The place in the ring of the pair that `age` pairs are older than, where there are `pairs` pairs.
fn pair_at(age: u32, pairs: u32, next: u32) -> u32 {
    return (next + HISTORY - pairs + age) % HISTORY;
}
