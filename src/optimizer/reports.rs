//! What became of steps: the reports of the device, taken in when they come.

use super::Optimizer;
use super::history::Leaves;
use crate::control::{Measured, NonFinite};
use crate::error::{Error, Result};
use crate::gpu::News;
use crate::report::{Fault, StepReport};
use crate::words::{OUT_OF_TURN, REPORT_WORDS, control};

/// Milliseconds that a callback may be late by.
#[cfg(not(target_arch = "wasm32"))]
const CALLBACK_MS: u32 = 20;

/// Reports that are kept.
const KEPT: usize = 1024;

impl Optimizer {
    /// Returns what became of the steps whose news has come, each once, the oldest first. The call neither waits nor
    /// polls the device: wgpu brings news during later submits, and where the caller polls. The last 1024 reports are
    /// kept.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], or [`Error::Order`] where an encoding never ran on which later ones have built: the last
    /// checkpoint is to be loaded then.
    pub fn reports(&mut self) -> Result<Vec<StepReport>> {
        let news = self.take_news();
        let arrived = self.arrived.drain(..).collect();
        news.map(|()| arrived)
    }

    /// Waits until all steps that were submitted have run, so that their [reports](Self::reports) are there.
    ///
    /// # Errors
    /// As [`reports`](Self::reports), [`Error::Wgpu`] and [`Error::Deadline`].
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
        self.take_news()?;
        // Another thread that polls the device may have taken a report's callback and not called it yet. What was
        // never submitted has none, so this ends.
        #[cfg(not(target_arch = "wasm32"))]
        for _ in 0..CALLBACK_MS {
            if !wait || self.session.counts.encodings.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
            self.take_news()?;
        }
        Ok(())
    }

    /// Takes in the news that has come, and refuses to go on where nothing can be right any more.
    pub(super) fn take_reports(&mut self) -> Result<()> {
        self.gpu().late_error()?;
        self.gpu().check_alive()?;
        self.take_news()
    }

    pub(super) fn take_news(&mut self) -> Result<()> {
        self.take_back_the_latest();
        while let Some(front) = self.session.counts.encodings.front() {
            let fault = match front.receipt.look() {
                _ if front.taken_back => front.fault(),
                News::None => break,
                News::Ran(words) => {
                    (self.has_control() && words[control::SKIPPED] == OUT_OF_TURN).then_some(Fault::OutOfTurn)
                }
                _ => front.fault(),
            };
            if fault == Some(Fault::DeviceLost) {
                return Err(self.gpu().lost("a report was not delivered"));
            }
            match fault {
                Some(fault) => self.lose_oldest(fault)?,
                None => self.note_oldest(),
            }
        }
        match &self.session.counts.broken {
            Some(message) => Err(Error::Order { what: "step", message: message.clone() }),
            None => Ok(()),
        }
    }

    /// Takes back encodings that never ran, as long as no other was encoded behind them.
    fn take_back_the_latest(&mut self) {
        while let Some(at) = self.session.counts.encodings.iter().rposition(|encoded| !encoded.taken_back) {
            let latest = &self.session.counts.encodings[at];
            if !matches!(latest.fault(), Some(Fault::Dropped | Fault::Refused)) {
                break;
            }
            // The number of a step that never ran goes to no other step.
            let attempts = self.session.counts.attempts;
            self.take_back(at);
            self.session.counts.attempts = attempts;
            self.session.counts.encodings[at].taken_back = true;
        }
    }

    /// Whether reports hold words of control.
    fn has_control(&self) -> bool {
        self.session.groups.wrappers().is_controlled()
    }

    /// Takes in that the oldest encoding never ran, or did nothing.
    fn lose_oldest(&mut self, fault: Fault) -> Result<()> {
        let oldest = &self.session.counts.encodings[0];
        let (sequence, is_back) = (oldest.sequence, oldest.taken_back);
        if !is_back {
            let later = self.session.counts.encodings.iter().skip(1).filter(|later| !later.taken_back);
            match oldest.leaves {
                Leaves::Update => {}
                // A window whose step is not encoded yet begins anew. Those that were added meanwhile are not used.
                Leaves::Sums if later.clone().all(|later| later.leaves == Leaves::Sums && later.step.is_none()) => {
                    self.session.drop_micro_batches();
                }
                Leaves::Sums | Leaves::Moved => {
                    let what = if oldest.leaves == Leaves::Sums { "a micro-batch" } else { "a move of the parameters" };
                    let message = format!(
                        "{what} never ran ({fault}), and later encodings have built on it; load the last \
                        checkpoint"
                    );
                    self.session.counts.broken = Some(message);
                }
            }
            self.session.counts.recount(&self.session.groups, 0)?;
        }
        let step = self.session.counts.encodings.pop_front().and_then(|oldest| oldest.step);
        self.session.counts.remember(sequence);
        let Some(step) = step else { return Ok(()) };
        if self.session.groups.wrappers().skips() && !is_back {
            self.session.counts.report(false);
        }
        self.arrive(StepReport {
            step: step.number,
            applied: false,
            without_gradient: self.names_without(step.present.as_deref()),
            norm: None,
            scale: 1.0,
            culprit: None,
            fault: Some(fault),
        });
        Ok(())
    }

    /// Takes in that the oldest encoding has run.
    fn note_oldest(&mut self) {
        let Some(oldest) = self.session.counts.encodings.pop_front() else { return };
        let (News::Ran(words), Some(step)) = (oldest.receipt.look(), oldest.step) else { return };
        let words = if self.has_control() { words } else { [0; REPORT_WORDS] };
        let wrappers = self.session.groups.wrappers();
        let applied = words[control::SKIPPED] == 0;
        let culprit = NonFinite::read(words[control::CULPRIT_KIND])
            .map(|kind| (self.session.tensors[words[control::CULPRIT] as usize].name.clone(), kind));
        let norm = wrappers.measures().then(|| Measured::<f32>::read(&words[control::ALL..]).norm());
        let scale = match wrappers.loss_scale() {
            Some(_) => f64::from(f32::from_bits(words[control::SCALE_USED])),
            None => 1.0,
        };
        if wrappers.skips() {
            self.session.counts.report(applied);
        }
        let without_gradient = self.names_without(step.present.as_deref());
        self.arrive(StepReport { step: step.number, applied, without_gradient, norm, scale, culprit, fault: None });
    }

    fn names_without(&self, present: Option<&[bool]>) -> Vec<String> {
        let Some(present) = present else { return vec![] };
        let absent = self.session.tensors.iter().zip(present).filter(|(_, present)| !**present);
        absent.map(|(tensor, _)| tensor.name.clone()).collect()
    }

    fn arrive(&mut self, report: StepReport) {
        if self.arrived.len() == KEPT {
            self.arrived.pop_front();
        }
        self.arrived.push_back(report);
    }
}
