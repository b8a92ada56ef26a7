//! Moves of the parameters outside a step, on the CPU: look-ahead, evaluation, and the running mean. And how
//! parameters go between memory, the rule, and what the state keeps of them.

use ndarray::ArrayD;

use super::Reference;
use crate::error::Result;
use crate::groups::{Record, Records};
use crate::rule::{Move, Precision};
use crate::wrappers::{self, Ema, Moving};

impl<F: Precision> Reference<F> {
    /// Moves every parameter to where the coming step's gradient is to be computed.
    ///
    /// # Errors
    /// [`Error::Order`](crate::Error) where no option asks for it or one is pending; [`Error::Count`](crate::Error),
    /// [`Error::Shape`](crate::Error).
    pub fn look_ahead(&mut self, params: &mut [ArrayD<F>]) -> Result<()> {
        self.check("parameters", params.len(), |i| params[i].shape().to_vec())?;
        let moved = |i: usize| !self.session.groups.is_frozen(i) && self.session.groups.rule_of(i).needs_look_ahead();
        let mut order = self.session.order.clone();
        self.session.between_steps("look-ahead")?;
        order.look(self.session.groups.have_move(Move::LookAhead), (0..params.len()).map(moved).collect())?;
        let records = self.session.groups.moved(&self.session.counts, Moving::Rule(Move::LookAhead), moved)?;
        self.session.order = order;
        for (i, param) in params.iter().enumerate() {
            let (before, whole) = (self.slot_of(i, "skip_nonfinite"), self.whole(i, param, records.of(i)));
            self.elements[i][before].iter_mut().zip(whole).for_each(|(before, p)| *before = p);
        }
        self.moved(Move::LookAhead, params, &records);
        Ok(())
    }

    /// As [`Optimizer::eval`](crate::Optimizer::eval).
    ///
    /// # Errors
    /// [`Error::Order`](crate::Error), [`Error::Count`](crate::Error) or [`Error::Shape`](crate::Error).
    pub fn eval(&mut self, params: &mut [ArrayD<F>]) -> Result<()> {
        self.check("parameters", params.len(), |i| params[i].shape().to_vec())?;
        self.session.between_steps("evaluation")?;
        let records = self.session.groups.moved(&self.session.counts, Moving::Rule(Move::Evaluation), |_| true)?;
        self.session.order.evaluate(self.has_eval(), records.clone())?;
        self.moved(Move::Evaluation, params, &records);
        Ok(())
    }

    /// As [`Optimizer::train`](crate::Optimizer::train).
    ///
    /// # Errors
    /// [`Error::Order`](crate::Error), [`Error::Count`](crate::Error) or [`Error::Shape`](crate::Error).
    pub fn train(&mut self, params: &mut [ArrayD<F>]) -> Result<()> {
        self.check("parameters", params.len(), |i| params[i].shape().to_vec())?;
        let records = self.session.order.train()?;
        self.moved(Move::Training, params, &records);
        Ok(())
    }

    pub(super) fn moved(&mut self, to: Move, params: &mut [ArrayD<F>], records: &Records) {
        for (i, param) in params.iter_mut().enumerate() {
            let Some(record) = records.of(i) else { continue };
            let mut values = self.whole(i, param, Some(record));
            let rule = self.session.groups.rule_of(i);
            F::kernel(rule).moved(to, &record.hyper, &mut values, &self.elements[i][..rule.names().state.len()]);
            self.keep(i, &mut values);
            self.land(i, param, values);
        }
    }

    /// A tensor's parameters as its rule sees them: those in memory, or what the state keeps of them. The first step of
    /// a tensor takes those in memory.
    pub(super) fn whole(&self, i: usize, param: &ArrayD<F>, record: Option<&Record>) -> Vec<F> {
        let mut values = param.iter().copied().collect::<Vec<_>>();
        if record.is_some_and(|record| record.common.first == 0.0) {
            if let Some((keeper, slot)) = self.session.groups.keeper(i) {
                F::hooks(keeper).whole(&mut values, &self.elements[i][slot]);
            }
        }
        values
    }

    /// Keeps the parameters as the rule left them, and leaves what is to stand in memory.
    pub(super) fn keep(&mut self, i: usize, values: &mut [F]) {
        if let Some((keeper, slot)) = self.session.groups.keeper(i) {
            F::hooks(keeper).keep(values, &mut self.elements[i][slot]);
        }
    }

    /// Stores new values of a parameter as its format holds them.
    pub(super) fn land(&self, i: usize, param: &mut ArrayD<F>, values: Vec<F>) {
        let dtype = self.session.tensors[i].dtype;
        param.iter_mut().zip(values).for_each(|(place, value)| *place = F::of(dtype.round(value.f64())));
    }

    /// As [`Optimizer::swap_ema`](crate::Optimizer::swap_ema).
    ///
    /// # Errors
    /// [`Error::Order`](crate::Error), [`Error::Count`](crate::Error) or [`Error::Shape`](crate::Error).
    pub fn swap_ema(&mut self, params: &mut [ArrayD<F>]) -> Result<()> {
        self.check("parameters", params.len(), |i| params[i].shape().to_vec())?;
        self.session.between_steps("swap")?;
        self.session.check_swap()?;
        let to = Moving::Wrapper("ema", Ema::SWAP);
        let records = self.session.order.swap(|| self.session.groups.moved(&self.session.counts, to, |_| true))?;
        self.move_by("ema", Ema::SWAP, params, &records);
        Ok(())
    }

    /// Makes a wrapper's move.
    fn move_by(&mut self, name: &str, to: usize, params: &mut [ArrayD<F>], records: &Records) {
        let wrappers = self.session.groups.wrappers().clone();
        let Some((at, wrapper)) = wrappers.iter().enumerate().find(|(_, wrapper)| wrapper.name() == name) else {
            return;
        };
        for (i, param) in params.iter_mut().enumerate() {
            let Some(record) = records.of(i) else { continue };
            let numbers = wrappers.with_decided(&record.wrapped, |_| F::one());
            let slot = self.session.groups.rule_of(i).names().state.len() + wrappers::place(name);
            let mut values = self.whole(i, param, Some(record));
            F::hooks(wrapper).moved(to, &numbers[at], &mut values, &mut self.elements[i][slot]);
            if !Moving::Wrapper(wrapper.name(), to).reads() {
                self.keep(i, &mut values);
            }
            self.land(i, param, values);
        }
    }

    /// As [`Optimizer::ema_into`](crate::Optimizer::ema_into).
    ///
    /// # Errors
    /// [`Error::Order`](crate::Error), [`Error::Count`](crate::Error) or [`Error::Shape`](crate::Error).
    pub fn ema_into(&mut self, params: &mut [ArrayD<F>]) -> Result<()> {
        self.check("parameters", params.len(), |i| params[i].shape().to_vec())?;
        self.session.check_ema()?;
        self.session.order.in_training("ema")?;
        let records = self.session.groups.moved(&self.session.counts, Moving::Wrapper("ema", Ema::READ), |_| true)?;
        self.move_by("ema", Ema::READ, params, &records);
        Ok(())
    }
}
