//! Steps of several optimizers that share one norm and one decision.

use crate::error::{Error, Result};
use crate::gpu::{Buffers, Grads, Part};
use crate::optimizer::{EncodedStep, Optimizer, Ready, Role};
use crate::words::{OTHERS_MOST, control, measured};

/// One optimizer's part of a step that several optimizers take together: see [`encode_together`].
#[derive(Debug)]
pub struct Together<'a> {
    optimizer: &'a mut Optimizer,
    params: Buffers<'a>,
    grads: Buffers<'a>,
}

impl<'a> Together<'a> {
    /// The step that this optimizer would take with these buffers.
    pub fn new(optimizer: &'a mut Optimizer, params: impl Into<Buffers<'a>>, grads: impl Into<Buffers<'a>>) -> Self {
        Self { optimizer, params: params.into(), grads: grads.into() }
    }
}

/// Encodes the steps of several optimizers as one step of a model, whose matrices one rule may train and whose other
/// tensors another rule.
///
/// Their global norm is the norm of the gradients of all optimizers. A gradient that no step can use skips the steps of
/// all. The loss scale of the first optimizer is the loss scale of all. Each optimizer gets an [`EncodedStep`] and a
/// report of its own; the culprit that a report names is a tensor of the report's optimizer.
///
/// # Errors
/// [`Error::Config`] where one optimizer does not measure its gradients or accumulates micro-batches, or where they
/// differ in what skips a step or in the loss scale; [`Error::Count`] for no optimizer, or for more than seven;
/// [`Error::OtherGpu`]; and the errors of [`Optimizer::encode`]. Nothing is encoded then.
pub fn encode_together(encoder: &mut wgpu::CommandEncoder, steps: &mut [Together<'_>]) -> Result<Vec<EncodedStep>> {
    check(steps)?;
    let others = steps.len() as u32 - 1;
    let prepare = |(i, step): (usize, &mut Together<'_>)| {
        let role = if i == 0 { Role::Leads { others } } else { Role::Follows };
        let encoding = step.optimizer.prepare(&step.params, &Grads::new(step.grads.clone()), None, role)?;
        step.optimizer.reserve(encoding)
    };
    let ready = steps.iter_mut().enumerate().map(prepare).collect::<Result<Vec<Ready>>>()?;
    let first = &*steps[0].optimizer;
    for step in &steps[1..] {
        // The gradients of all are measured at the first one's loss scale: the scale, one over it, and its age.
        step.optimizer.copy_control(encoder, first, control::SCALE..control::SKIPPED, control::SCALE);
    }
    for ready in &ready {
        ready.encode(encoder, Part::Measures);
    }
    for (i, step) in steps[1..].iter().enumerate() {
        // The first one learns what the others measured.
        let to = control::OTHERS + measured::LEN * i;
        first.copy_control(encoder, step.optimizer, control::ALL..control::ALL + measured::LEN, to);
    }
    ready[0].encode(encoder, Part::Updates);
    for (step, ready) in steps.iter().zip(&ready).skip(1) {
        // The others learn what the first one decided.
        step.optimizer.copy_control(encoder, first, control::SCALE..control::SEQUENCE, control::SCALE);
        ready.encode(encoder, Part::Updates);
    }
    Ok(steps.iter_mut().zip(ready).map(|(step, ready)| step.optimizer.note(encoder, ready)).collect())
}

/// Refuses optimizers that cannot step together.
fn check(steps: &[Together<'_>]) -> Result<()> {
    const MOST: usize = OTHERS_MOST + 1;
    let count = steps.len();
    if count == 0 || count > MOST {
        let expected = count.clamp(1, MOST);
        return Err(Error::Count { what: "optimizers that step together", found: count, expected });
    }
    let first = &steps[0].optimizer;
    if steps.iter().any(|step| !step.optimizer.gpu().same(first.gpu())) {
        return Err(Error::OtherGpu { what: "an optimizer" });
    }
    for step in steps {
        let (wrappers, of_first) = (step.optimizer.wrappers(), first.wrappers());
        let refuse = |path: &str, message: &str| Err(Error::Config { path: path.into(), message: message.into() });
        if !wrappers.measures() {
            return refuse("norms", "are not measured; optimizers that step together need them");
        }
        if wrappers.batches() > 1 {
            return refuse("accumulate", "must be 1 where optimizers step together");
        }
        if (wrappers.skips(), wrappers.loss_scale()) != (of_first.skips(), of_first.loss_scale()) {
            return refuse("loss_scale", "and skip_nonfinite must be the same where optimizers step together");
        }
    }
    Ok(())
}
