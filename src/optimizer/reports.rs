//! What became of steps: the reports of the device, taken in when they come.

use super::Optimizer;
use crate::control::{Measured, NonFinite};
use crate::error::{Error, Result};
use crate::gpu::{News, Receipt, StepState};
use crate::report::StepReport;
use crate::words::{OUT_OF_TURN, control};

/// A step whose report has not come.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) step: u64,
    /// Places of tensors.
    pub(super) without_gradient: Vec<usize>,
    pub(super) from: Source,
}

/// Where the news of a step comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// The device decides.
    Device(Receipt),
    /// It is applied, once it has run.
    Host(StepState),
}

impl Optimizer {
    /// What became of steps, the oldest first: of those alone whose news has come, each once. Waits for nothing, and
    /// asks the device for nothing: wgpu brings news during later submits, and where the caller polls the device. The
    /// last 1024 are kept.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], or [`Error::Order`] where encoders were submitted in another order than they were encoded
    /// in and steps may be skipped: no step can be taken then.
    pub fn reports(&mut self) -> Result<Vec<StepReport>> {
        let news = self.take_news();
        let arrived = self.arrived.drain(..).collect();
        news.map(|()| arrived)
    }

    /// Waits until all steps that were submitted have run, so that their [reports](Self::reports) are there.
    ///
    /// # Errors
    /// As [`reports`](Self::reports), and [`Error::Wgpu`].
    pub async fn settle(&mut self) -> Result<()> {
        self.settle_with(false).await
    }

    /// [`settle`](Self::settle), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn settle_blocking(&mut self) -> Result<()> {
        pollster::block_on(self.settle_with(true))
    }

    pub(super) async fn settle_with(&mut self, wait: bool) -> Result<()> {
        self.engine.idle(wait).await?;
        self.gpu().late_error()?;
        self.take_news()
    }

    /// Takes in the news that has come, and refuses to go on where steps were lost.
    pub(super) fn take_reports(&mut self) -> Result<()> {
        self.gpu().late_error()?;
        self.take_news()?;
        let wrappers = self.session.groups.wrappers();
        if (wrappers.skips() || wrappers.batches() > 1)
            && self.session.counts.undo.iter().any(|undo| undo.state.is_dropped())
        {
            let message = "the encoder of an encoding was dropped; undo it".into();
            return Err(Error::Order { what: "step", message });
        }
        Ok(())
    }

    fn take_news(&mut self) -> Result<()> {
        const KEPT: usize = 1024;
        while let Some(waiting) = self.waiting.front() {
            let words = match &waiting.from {
                Source::Host(state) if state.is_done() => None,
                Source::Host(state) if state.is_dropped() => {
                    self.waiting.pop_front();
                    continue;
                }
                Source::Host(_) => break,
                Source::Device(receipt) => match receipt.look()? {
                    News::Words(words) => Some(words),
                    News::Dropped if !self.session.groups.wrappers().skips() => {
                        if let Some(Waiting { from: Source::Device(receipt), .. }) = self.waiting.pop_front() {
                            receipt.finish();
                        }
                        continue;
                    }
                    News::None | News::Dropped => break,
                },
            };
            let read = |word: usize| words.map_or(0, |words| words[word]);
            if read(control::SKIPPED) == OUT_OF_TURN {
                let message = format!("step {} ran out of the order of encoding; nothing fits any more", waiting.step);
                return Err(Error::Order { what: "step", message });
            }
            let applied = read(control::SKIPPED) == 0;
            let name = |&i: &usize| self.session.tensors[i].name.clone();
            let float = |word: u32| f64::from(f32::from_bits(word));
            let (measures, scales) =
                (self.session.groups.wrappers().measures(), self.session.groups.wrappers().loss_scale().is_some());
            let culprit = NonFinite::read(read(control::CULPRIT_KIND))
                .map(|kind| (name(&(read(control::CULPRIT) as usize)), kind));
            let all = words.filter(|_| measures).map(|words| Measured::<f32>::read(&words[control::ALL..]));
            let report = StepReport {
                step: waiting.step,
                applied,
                without_gradient: waiting.without_gradient.iter().map(name).collect(),
                norm: all.map(Measured::norm),
                scale: if scales { float(read(control::SCALE_USED)) } else { 1.0 },
                culprit,
            };
            if self.session.groups.wrappers().skips() {
                self.session.counts.course.report(applied);
            }
            if let Some(Waiting { from: Source::Device(receipt), .. }) = self.waiting.pop_front() {
                receipt.finish();
            }
            if self.arrived.len() == KEPT {
                self.arrived.pop_front();
            }
            self.arrived.push_back(report);
        }
        Ok(())
    }
}
