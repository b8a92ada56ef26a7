// What the walks over gradients combine: what is known of the gradients of a tensor, or of a part of one.
// Twin: `Measured` in src/control.rs

struct Node {
    // Four sums of squares. The first is of gradients below 2^32, each multiplied by 2^15; the second is of the others,
    // each multiplied by 2^-80. The third and fourth are the same of parameters. So the squares of 2^30 of f32's
    // largest numbers do not overflow.
    squares: vec4<f32>,
    kind: u32, // the worst: 0 none, 1 of 2^63 or more, 2 infinite, 3 NaN
}

fn combine(a: Node, b: Node) -> Node {
    return Node(a.squares + b.squares, max(a.kind, b.kind));
}
