// A tensor's partials combined in a binary tree over their index. Leaves it in the first.

fn combine_partials(row: Row, lane: u32) {
    let count = row.param;
    let step = row.grad;
    for (var stride = 1u; stride < count; stride *= 2u) {
        for (var i = 2u * stride * lane; i + stride < count; i += 2u * stride * LANES) {
            let at = row.partial + step * i;
            store_partial(at, combine(load_partial(at), load_partial(at + step * stride)));
        }
        storageBarrier();
    }
}
