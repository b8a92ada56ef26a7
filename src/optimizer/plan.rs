//! What a step does and what an optimizer holds, told or made ready before the first step.

use super::Optimizer;
use crate::config::Config;
use crate::course::{Choices, Task};
use crate::error::Result;
use crate::gpu::{Buffers, Grads, Sizes, Tuning, Work};
use crate::rule::Move;
use crate::tensor::TensorSpec;
use crate::traffic;
use crate::wrappers::{Ema, Moving};

/// What a step of certain buffers does.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPlan {
    /// How many passes over the tensors the step takes: 1, or 3 with norms, or 5 with rows and columns.
    pub passes: usize,
    /// How many windows one pass has: sets of tensors that are bound together.
    pub windows: usize,
    /// How many dispatches the coming step takes. One that renews bases, as [`Soap`](crate::Soap)'s first step does,
    /// takes more.
    pub dispatches: usize,
    /// How many kinds of pipeline the groups need.
    pub variants: usize,
    /// Bytes of elements that the coming step reads and writes.
    pub bytes: u64,
    /// Bytes of the numbers of rows, columns and tensors, and of sums, that the step reads and writes beside them.
    pub line_bytes: u64,
    /// Tensors whose slices take the scalar kernel.
    pub scalar_tensors: Vec<String>,
}

/// Bytes of the device's memory that an optimizer holds.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// State: `4 * slots * elements`, where each tensor's last block is padded to 4 elements, and 4 for each number of
    /// a row or column.
    pub state: u64,
    /// Sums of micro-batches, each tensor on 256 bytes.
    pub accumulated: u64,
    /// Numbers of the tensors, what elements see of their rows, partial sums, and what is decided on the device.
    pub scratch: u64,
    /// Chunk tables of the placements in use.
    pub tables: u64,
    /// Slots of per-step data.
    pub steps: u64,
}

impl Memory {
    /// What an optimizer of these tensors holds before its first step, on any device with these limits: what
    /// [`Optimizer::new`] allocates, by the same arithmetic. Tables and steps are still 0.
    ///
    /// ```
    /// use wgpu_optim::{AdamW, Memory, TensorSpec, Tuning, wgpu};
    ///
    /// let tensors = [TensorSpec::f32("w", [1000, 1000])];
    /// let (lanes, chunk_blocks, dispatch_bytes) = (256, 4, 1 << 30);
    /// let tuning = Tuning { lanes, chunk_blocks, shader_checks: false, dispatch_bytes, placements: 2 };
    /// let memory = Memory::of(&AdamW::default().into(), &tensors, &wgpu::Limits::default(), tuning)?;
    /// assert_eq!(memory.state, 8_000_000);
    /// # Ok::<(), wgpu_optim::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Optimizer::new`].
    pub fn of(config: &Config, tensors: &[TensorSpec], limits: &wgpu::Limits, tuning: Tuning) -> Result<Self> {
        let [state, accumulated, scratch] = Sizes::of(limits, tuning, tensors, &config.groups(tensors)?)?.memory();
        Ok(Self { state, accumulated, scratch, tables: 0, steps: 0 })
    }

    /// The sum of all these.
    pub fn total(&self) -> u64 {
        self.state + self.accumulated + self.scratch + self.tables + self.steps
    }
}

impl Optimizer {
    /// Says what a step with these buffers does. Makes its pipelines and tables, as [`warm_up`](Self::warm_up) does.
    ///
    /// # Errors
    /// Buffers as in [`encode`](Self::encode).
    pub fn plan<'a>(&mut self, params: impl Into<Buffers<'a>>, grads: impl Into<Buffers<'a>>) -> Result<StepPlan> {
        let (params, grads) = (params.into(), Grads::new(grads.into()));
        let present = self.present(&grads);
        let mut accumulates = (0, 0);
        let sums = self.engine.accumulated();
        let of_step = sums.as_ref().map_or(grads.clone(), |sums| Grads::new(Buffers::Arena(sums)));
        if let Some(sums) = &sums {
            let bound = self.engine.bind(&Buffers::Arena(sums), Work::Accumulate(&grads))?;
            accumulates = (1, bound.dispatches(&[]));
        }
        let (variants, tensors) = (self.engine.variants(), &self.session.tensors);
        let bound = self.engine.bind(&params, Work::Step(&of_step, None))?;
        let renewals = match bound.renews() {
            true => self.renewals(&bound, &self.coming(present.as_deref())?),
            false => vec![],
        };
        let stepped = || (0..tensors.len()).filter(|&i| present.as_ref().is_none_or(|present| present[i]));
        let with_lines = stepped().filter(|&i| self.session.groups.rule_of(i).has_lines());
        let line_bytes =
            with_lines.filter_map(|i| self.session.groups.lines_of(i)).map(|lines| traffic::line_bytes(&lines));
        let bytes = stepped().map(|i| {
            let (clock, rule) = (self.session.counts.course.hoped().clock(i), self.session.groups.rule_of(i));
            let (t, first) = (clock.t.saturating_add(1), !clock.started);
            let wrappers = self.session.groups.wrappers_of(i);
            traffic::step_bytes(rule, wrappers, tensors[i].formats(), tensors[i].len_elements(), t, first)
        });
        Ok(StepPlan {
            passes: bound.passes + accumulates.0,
            windows: bound.windows,
            dispatches: bound.dispatches(&renewals) + accumulates.1,
            variants,
            bytes: bytes.sum(),
            line_bytes: line_bytes.sum(),
            scalar_tensors: bound.scalar.iter().map(|&i| tensors[i].name.clone()).collect(),
        })
    }

    /// Makes every pipeline, table and bind group that steps with these buffers need, so that the first step is as
    /// fast as the second.
    ///
    /// # Errors
    /// Buffers as in [`encode`](Self::encode).
    pub fn warm_up<'a>(&mut self, params: impl Into<Buffers<'a>>, grads: impl Into<Buffers<'a>>) -> Result<()> {
        let (params, grads) = (params.into(), Grads::new(grads.into()));
        for to in [Move::LookAhead, Move::Evaluation, Move::Training, Move::Trial] {
            if self.session.groups.have_move(to) {
                self.engine.bind(&params, Work::Move(Moving::Rule(to)))?;
            }
        }
        if self.session.check_search().is_ok() {
            self.engine.bind(&params, Work::Probe(&grads))?;
        }
        if self.session.check_swap().is_ok() {
            self.engine.bind(&params, Work::Move(Moving::Wrapper("ema", Ema::SWAP)))?;
        }
        let sums = self.engine.accumulated();
        let of_step = sums.as_ref().map_or(grads.clone(), |sums| Grads::new(Buffers::Arena(sums)));
        if let Some(sums) = &sums {
            self.engine.bind(&Buffers::Arena(sums), Work::Accumulate(&grads))?;
        }
        let bound = self.engine.bind(&params, Work::Step(&of_step, None))?;
        // A report for each encoding of a step.
        let encodings = 1 + usize::from(self.session.groups.have_move(Move::LookAhead));
        let made = (0..encodings).map(|_| self.reports.reserve(self.engine.gpu())).collect::<Result<Vec<_>>>()?;
        made.into_iter().for_each(|buffer| self.reports.give_back(buffer));
        let choices = self.coming(None)?;
        let task = Task { stages: 0, sequence: 0, others: 0, batches: 1 };
        for words in self.words(&choices, None, &[task]) {
            self.engine.write(&bound, &words, 0)?;
        }
        Ok(())
    }

    /// The numbers of a coming step of these tensors; `None` stands for all.
    fn coming(&self, present: Option<&[bool]>) -> Result<Choices> {
        let (groups, mut course) = (&self.session.groups, self.session.counts.course.clone());
        let wrappers = groups.wrappers();
        course.step(groups, present, wrappers.batches(), !wrappers.skips())
    }

    /// Lets go of the buffers of the last steps. Bind groups are kept for the placements used last
    /// ([`Tuning::placements`](crate::Tuning)), and keep their buffers alive; the next step makes its own again.
    pub fn release_buffers(&mut self) {
        self.engine.release();
    }

    /// Bytes of the device's memory that the optimizer holds now.
    pub fn memory(&self) -> Memory {
        let [state, accumulated, scratch, tables, steps] = self.engine.memory();
        Memory { state, accumulated, scratch, tables, steps }
    }
}
