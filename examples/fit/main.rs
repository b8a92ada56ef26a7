//! Three peaks are fitted to a measured curve: L-BFGS with its line search beside Adam, by evaluations of loss and
//! gradient. `cargo xtask pictures` draws the same.

mod curve;

use curve::{Fit, Result, Spectrum};
use wgpu_optim::{Adam, Gpu, Lbfgs, LineSearch};

/// Evaluations that Adam may make.
const STEPS: usize = 5000;

fn main() -> Result<()> {
    let spectrum = Spectrum::new(&Gpu::request_blocking()?);
    let rule = Lbfgs {
        line_search: LineSearch::StrongWolfe,
        history_size: 10,
        max_iter: 200,
        tolerance_grad: 1e-6,
        ..Lbfgs::default()
    };
    let (lbfgs, found) = spectrum.search(rule, STEPS)?;
    let rates = [0.001, 0.01, 0.1];
    let adam = rates.map(|lr| spectrum.descend(Adam { lr, ..Adam::default() }, STEPS));
    println!("least loss of so many evaluations");
    println!("evaluations       L-BFGS{}", rates.map(|lr| format!("   Adam {lr:<5}")).concat());
    for evaluations in [1, 10, 20, 50, 100, 200, 500, 1000, 2000, STEPS] {
        print!("{evaluations:>11}   {:.4e}", best(&lbfgs, evaluations));
        for fit in &adam {
            print!("   {:.4e}", best(fit.as_ref().map_err(ToString::to_string)?, evaluations));
        }
        println!();
    }
    println!("L-BFGS stopped after {} evaluations: {:?}", found.evaluations, found.stop);
    println!("its peaks: {:.3?}", lbfgs.model[..9].chunks(3).collect::<Vec<_>>());
    Ok(())
}

/// The least loss of so many evaluations.
fn best(fit: &Fit, evaluations: usize) -> f32 {
    fit.losses.iter().take(evaluations).fold(f32::INFINITY, |best, &loss| best.min(loss))
}
