//! What the memory of a GPU must hold for a training with AdamW, and what a step moves: of three models, for each way
//! to store parameters, gradients and state. The numbers come from the arithmetic that allocates.
//!
//! `cargo run --release --example memory`

mod models;

use models::{Takes, models, takes, ways};

fn main() -> wgpu_optim::Result<()> {
    for model in models() {
        let (len, tensors) = (model.len(), &model.tensors);
        println!("\n{}: {} tensors, {len} parameters\n", model.name, tensors.len());
        println!("| GB of | parameters | gradients | state | master, remainder | partial sums | all | a step moves |");
        println!("|---|---|---|---|---|---|---|---|");
        for way in ways() {
            let all = takes(tensors, &way)?;
            let Takes { params, grads, state, kept, scratch, moved } = all;
            let cells = [params, grads, state, kept, scratch].map(|bytes| format!("{:.3}", bytes as f64 / 1e9));
            let each = [all.stored(), moved]
                .map(|bytes| format!("{:.3} ({:.2} B each)", bytes as f64 / 1e9, bytes as f64 / len as f64));
            println!("| {} | {} | {} |", way.name, cells.join(" | "), each.join(" | "));
        }
    }
    Ok(())
}
