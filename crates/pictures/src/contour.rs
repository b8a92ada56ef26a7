//! Contour lines by marching squares.

use std::collections::HashMap;

/// A side of a cell: its lower or left end, and whether it goes up.
type Side = (usize, usize, bool);

/// The outlines of the region below `level` of heights on a grid of `n` x `n` points, row by row from below: closed
/// lines, in units of the grid. Where the region reaches the grid's edge, they follow the edge.
pub fn outlines(heights: &[f32], n: usize, level: f32) -> Vec<Vec<(f64, f64)>> {
    // A frame of points above any level, in the same place as the edge, closes every line.
    let height = |i: usize, j: usize| match (i.wrapping_sub(1), j.wrapping_sub(1)) {
        (i, j) if i < n && j < n => heights[j * n + i],
        _ => f32::INFINITY,
    };
    let below = |i, j| height(i, j) < level;
    // From where a line enters a cell to where it leaves it, the region to its left.
    let mut next: HashMap<Side, Side> = HashMap::new();
    for (j, i) in (0..=n).flat_map(|j| (0..=n).map(move |i| (j, i))) {
        let corners = [below(i, j), below(i + 1, j), below(i + 1, j + 1), below(i, j + 1)];
        let sides: [Side; 4] = [(i, j, false), (i + 1, j, true), (i, j + 1, false), (i, j, true)];
        for side in 0..4 {
            // Around the cell, side k lies between corners k and k+1; a line enters where the region begins.
            if !corners[side] && corners[(side + 1) % 4] {
                let leave = (1..4).map(|k| (side + k) % 4).find(|&k| corners[k] && !corners[(k + 1) % 4]);
                next.extend(leave.map(|leave| (sides[leave], sides[side])));
            }
        }
    }
    let point = |(i, j, up): Side| {
        let (a, b) = (height(i, j), if up { height(i, j + 1) } else { height(i + 1, j) });
        let share = match (a.is_finite(), b.is_finite()) {
            (true, true) => f64::from((level - a) / (b - a)),
            (inside, _) => f64::from(u8::from(!inside)),
        };
        let (x, y) = if up { (i as f64, j as f64 + share) } else { (i as f64 + share, j as f64) };
        let edge = |x: f64| (x - 1.0).clamp(0.0, (n - 1) as f64);
        (edge(x), edge(y))
    };
    let mut lines = Vec::new();
    while let Some(&first) = next.keys().min() {
        let mut line = vec![point(first)];
        let mut side = first;
        while let Some(then) = next.remove(&side) {
            line.push(point(then));
            side = then;
        }
        lines.push(line);
    }
    lines
}
