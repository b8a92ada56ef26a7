//! Steps of several optimizers that share one norm and one decision.

use crate::course::Task;
use crate::error::{Error, Result};
use crate::gpu::{Buffers, Slot};
use crate::optimizer::{EncodedStep, Encoding, Optimizer};
use crate::words::{OTHERS_MOST, stage};

/// One optimizer's part of a step that several take together.
#[derive(Debug)]
pub struct Joint<'a> {
    optimizer: &'a mut Optimizer,
    params: Buffers<'a>,
    grads: Buffers<'a>,
}

/// What is encoded of it.
struct Part {
    work: Encoding,
    measures: Slot,
    decides: Slot,
    receipt: wgpu::Buffer,
}

impl<'a> Joint<'a> {
    /// The step that this optimizer would take with these buffers.
    pub fn new(optimizer: &'a mut Optimizer, params: impl Into<Buffers<'a>>, grads: impl Into<Buffers<'a>>) -> Self {
        Self { optimizer, params: params.into(), grads: grads.into() }
    }

    /// Encodes the steps of all of them, as of matrices with one rule and of the rest with another: their global norm
    /// is that of all gradients, one that no step can use skips all, and the first one's loss scale is that of all.
    /// Each has a token and a report of its own; a report's culprit is a tensor of its optimizer.
    ///
    /// # Errors
    /// [`Error::Config`] where one does not measure its gradients or accumulates micro-batches, or where they differ in
    /// what skips a step or in the loss scale; [`Error::Count`] for none, or for more than seven; [`Error::OtherGpu`];
    /// else as [`Optimizer::encode`]. Nothing is encoded then.
    pub fn encode(encoder: &mut wgpu::CommandEncoder, steps: &mut [Joint<'_>]) -> Result<Vec<EncodedStep>> {
        const MOST: usize = OTHERS_MOST + 1;
        if steps.is_empty() || steps.len() > MOST {
            return Err(Error::Count { what: "optimizers that step together", found: steps.len(), expected: MOST });
        }
        if steps.iter().any(|step| !step.optimizer.gpu().same(steps[0].optimizer.gpu())) {
            return Err(Error::OtherGpu { what: "an optimizer" });
        }
        let first = steps[0].optimizer.wrappers().clone();
        for step in steps.iter() {
            let wrappers = step.optimizer.wrappers();
            let refuse = |path: &str, message: &str| Err(Error::Config { path: path.into(), message: message.into() });
            if !wrappers.measures() {
                return refuse("norms", "are not measured; optimizers that step together need them");
            }
            if wrappers.batches() > 1 {
                return refuse("accumulate", "must be 1 where optimizers step together");
            }
            if (wrappers.skips(), wrappers.loss_scale()) != (first.skips(), first.loss_scale()) {
                return refuse("loss_scale", "and skip_nonfinite must be the same where optimizers step together");
            }
        }
        let others = steps.len() as u32 - 1;
        let prepare = |(i, step): (usize, &mut Joint<'_>)| {
            let mut work = step.optimizer.prepare(&step.params, &step.grads)?;
            let decides = if i == 0 { stage::DECIDE } else { 0 };
            let words = &mut work.words[0];
            Task::set(words, stage::MEASURE, 0);
            let measures = step.optimizer.write(words)?;
            Task::set(words, decides | stage::SELECT | stage::ADVANCE, if i == 0 { others } else { 0 });
            let decides = step.optimizer.write(words)?;
            Ok(Part { work, measures, decides, receipt: step.optimizer.reserve_receipt()? })
        };
        let parts = steps.iter_mut().enumerate().map(prepare).collect::<Result<Vec<_>>>()?;
        for step in steps.iter().skip(1) {
            step.optimizer.take_scale(encoder, steps[0].optimizer);
        }
        for (step, part) in steps.iter().zip(&parts) {
            step.optimizer.encode_stage(encoder, &part.measures, true);
        }
        for (i, step) in steps.iter().skip(1).enumerate() {
            step.optimizer.tell(encoder, steps[0].optimizer, i);
        }
        steps[0].optimizer.encode_stage(encoder, &parts[0].decides, false);
        for (step, part) in steps.iter().zip(&parts).skip(1) {
            step.optimizer.follow(encoder, steps[0].optimizer);
            step.optimizer.encode_stage(encoder, &part.decides, false);
        }
        let note = |(step, part): (&mut Joint<'_>, Part)| {
            let guards = vec![part.measures.guard, part.decides.guard];
            step.optimizer.note(encoder, part.work, guards, Some(part.receipt))
        };
        Ok(steps.iter_mut().zip(parts).map(note).collect())
    }
}
