// Combines a tensor's partial results in a binary tree over their places, and leaves the result in the first one.

fn combine_partials(sums: TensorSums, lane: u32) {
    let count = sums.partials;
    let step = sums.stride;
    for (var stride = 1u; stride < count; stride *= 2u) {
        for (var i = 2u * stride * lane; i + stride < count; i += 2u * stride * LANES) {
            let at = sums.partial + step * i;
            store_partial(at, combine(load_partial(at), load_partial(at + step * stride)));
        }
        storageBarrier();
    }
}
