//! Moves of the parameters outside a step: look-ahead, evaluation and the way back, the running mean.

use std::sync::Arc;

use super::history::Leaves;
use super::{EncodedStep, Encoding, Optimizer, Run};
use crate::clock::Order;
use crate::course::{Choices, Task};
use crate::error::{Error, Result};
use crate::gpu::{Bound, Buffers, Part, Work};
use crate::rule::Move;
use crate::words::stage;
use crate::wrappers::{Ema, Moving};

impl Optimizer {
    /// Encodes the look-ahead: moves the parameters to where the coming step's gradients are to be computed
    /// (`Nesterov::LookAhead`). The step must then have a gradient for the same tensors: leave a tensor that will have
    /// none out of `params`.
    ///
    /// # Errors
    /// [`Error::Order`] where no option asks for it or one is pending; buffers as in [`encode`](Self::encode).
    pub fn encode_look_ahead<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
    ) -> Result<EncodedStep> {
        let params = params.into();
        self.take_reports()?;
        self.session.between_steps("look-ahead")?;
        let bound = self.engine.bind(&params, Work::Move(Moving::Rule(Move::LookAhead)))?;
        let present = self.session.groups.present(params.present());
        let moved = |i: usize| {
            present.as_ref().is_none_or(|present| present[i]) && self.session.groups.rule_of(i).needs_look_ahead()
        };
        let mut order = self.session.order.clone();
        order.look(
            self.session.groups.have_move(Move::LookAhead),
            (0..self.session.tensors.len()).map(moved).collect(),
        )?;
        let choices = self.session.counts.course.moved(&self.session.groups, Moving::Rule(Move::LookAhead), moved)?;
        self.commit_move(encoder, bound, &choices, order, Leaves::Moved)
    }

    /// [`encode_look_ahead`](Self::encode_look_ahead) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn look_ahead<'a>(&mut self, params: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_look_ahead(encoder, params))
    }

    /// Encodes the move of the parameters to where the model is to be evaluated, for rules that train it elsewhere
    /// ([`has_eval`](Self::has_eval)); [`encode_train`](Self::encode_train) leads back, to rounding.
    /// In between a step is an error. The way back takes the same numbers, whatever is set or fed in between.
    ///
    /// # Errors
    /// [`Error::Order`] where no rule has such a move or the parameters stand there already; buffers as in
    /// [`encode`](Self::encode), all parameters given.
    pub fn encode_eval<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
    ) -> Result<EncodedStep> {
        let params = params.into();
        self.take_reports()?;
        self.session.between_steps("evaluation")?;
        let bound = self.bind_all(&params, Moving::Rule(Move::Evaluation))?;
        let choices =
            self.session.counts.course.moved(&self.session.groups, Moving::Rule(Move::Evaluation), |_| true)?;
        let mut order = self.session.order.clone();
        order.evaluate(self.has_eval(), choices.clone())?;
        self.commit_move(encoder, bound, &choices, order, Leaves::Moved)
    }

    /// Encodes the way back from [`encode_eval`](Self::encode_eval).
    ///
    /// # Errors
    /// The same.
    pub fn encode_train<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
    ) -> Result<EncodedStep> {
        let params = params.into();
        self.take_reports()?;
        let bound = self.bind_all(&params, Moving::Rule(Move::Training))?;
        let mut order = self.session.order.clone();
        let choices = order.train()?;
        self.commit_move(encoder, bound, &choices, order, Leaves::Moved)
    }

    /// Encodes the swap of the parameters with their running mean (`ema`), which is to be evaluated, and the way back
    /// with the next call: no byte is copied elsewhere, and none is lost. In between a step is an error. A tensor
    /// before its first step stays as it is.
    ///
    /// # Errors
    /// [`Error::Config`] without `ema`, [`Error::Field`] with `debias` ([`encode_ema_into`](Self::encode_ema_into)
    /// copies that mean), [`Error::Order`] in evaluation or between a look-ahead or a micro-batch and its step; buffers
    /// as in [`encode`](Self::encode), all parameters given.
    pub fn encode_swap_ema<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: impl Into<Buffers<'a>>,
    ) -> Result<EncodedStep> {
        let params = params.into();
        self.take_reports()?;
        self.session.between_steps("swap")?;
        self.session.check_swap()?;
        let bound = self.bind_all(&params, Moving::Wrapper("ema", Ema::SWAP))?;
        let mut order = self.session.order.clone();
        let numbers =
            || self.session.counts.course.moved(&self.session.groups, Moving::Wrapper("ema", Ema::SWAP), |_| true);
        let choices = order.swap(numbers)?;
        self.commit_move(encoder, bound, &choices, order, Leaves::Moved)
    }

    /// Encodes a copy of the running mean of the parameters, as it is to be read, into other buffers. Tensors before
    /// their first step are left alone there.
    ///
    /// # Errors
    /// [`Error::Config`] without `ema`, [`Error::Order`] in evaluation or while the parameters are swapped with it;
    /// buffers as in [`encode`](Self::encode).
    pub fn encode_ema_into<'a>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        copy: impl Into<Buffers<'a>>,
    ) -> Result<EncodedStep> {
        let copy = copy.into();
        self.take_reports()?;
        self.session.check_ema()?;
        self.session.order.in_training("ema")?;
        let bound = self.bind_all(&copy, Moving::Wrapper("ema", Ema::READ))?;
        let choices =
            self.session.counts.course.moved(&self.session.groups, Moving::Wrapper("ema", Ema::READ), |_| true)?;
        self.commit_move(encoder, bound, &choices, self.session.order.clone(), Leaves::Update)
    }

    /// [`encode_swap_ema`](Self::encode_swap_ema) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn swap_ema<'a>(&mut self, params: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_swap_ema(encoder, params))
    }

    /// [`encode_ema_into`](Self::encode_ema_into) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn ema_into<'a>(&mut self, copy: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_ema_into(encoder, copy))
    }

    /// [`encode_eval`](Self::encode_eval) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn eval<'a>(&mut self, params: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_eval(encoder, params))
    }

    /// [`encode_train`](Self::encode_train) into an encoder of its own, submitted.
    ///
    /// # Errors
    /// The same.
    pub fn train<'a>(&mut self, params: impl Into<Buffers<'a>>) -> Result<()> {
        self.submit(|optimizer, encoder| optimizer.encode_train(encoder, params))
    }

    /// Binds all parameters for a move.
    fn bind_all(&mut self, params: &Buffers, to: Moving) -> Result<Arc<Bound>> {
        let bound = self.engine.bind(params, Work::Move(to))?;
        match params.present().and_then(|present| present.iter().position(|present| !present)) {
            Some(i) => Err(Error::Slice {
                what: "parameter",
                tensor: self.session.tensors[i].name.clone(),
                message: "is missing; all parameters move together".into(),
            }),
            None => Ok(bound),
        }
    }

    pub(super) fn commit_move(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        bound: Arc<Bound>,
        choices: &Choices,
        order: Order<Choices>,
        leaves: Leaves,
    ) -> Result<EncodedStep> {
        let task = Task { stages: stage::SELECT, sequence: self.coming_sequence(), others: 0, batches: 1 };
        let words = self.words(choices, None, &[task]);
        let run = |words| Run { bound: bound.clone(), part: Part::Whole, words, renewals: vec![] };
        let runs = words.into_iter().map(run).collect();
        let encoding = self.encoding(runs, self.session.counts.course.clone(), order);
        self.commit(encoder, Encoding { leaves, ..encoding })
    }
}
