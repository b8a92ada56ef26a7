//! Minimising by line searches on the CPU.

use ndarray::ArrayD;

use super::Reference;
use crate::error::Result;
use crate::history;
use crate::line_search::{Ground, Minimum, Seen, at_once, descend};
use crate::parts;
use crate::rule::{Move, Precision};
use crate::wrappers::Moving;

impl<F: Precision> Reference<F> {
    /// Minimises a function as `Optimizer::minimize` does, to equal bits in f32 where the losses and gradients are
    /// equal. `evaluate` returns the loss and its gradient, one array a tensor, for the parameters that it is given.
    ///
    /// ```
    /// use ndarray::arr1;
    /// use wgpu_optim::{Lbfgs, LineSearch, Reference, Stop, TensorSpec};
    ///
    /// let rule = Lbfgs { line_search: LineSearch::StrongWolfe, ..Lbfgs::default() };
    /// let mut lbfgs = Reference::<f64>::new(&rule.into(), &[TensorSpec::f32("xy", [2])])?;
    /// let mut params = [arr1(&[1.0, 10.0]).into_dyn()];
    /// // A valley: 50 x^2 + y^2/2.
    /// let found = lbfgs.minimize(&mut params, |params| {
    ///     let [x, y] = [params[0][0], params[0][1]];
    ///     (50.0 * x * x + 0.5 * y * y, vec![arr1(&[100.0 * x, y]).into_dyn()])
    /// })?;
    /// assert_eq!(found.stop, Stop::ChangeSmall);
    /// assert!(params[0].iter().all(|x| x.abs() < 1e-6), "{}", params[0]);
    /// # Ok::<(), wgpu_optim::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) where the rule has no line search; [`Error::Count`](crate::Error::Count)
    /// or [`Error::Shape`](crate::Error::Shape) where arrays and tensors disagree.
    pub fn minimize(
        &mut self,
        params: &mut [ArrayD<F>],
        evaluate: impl FnMut(&[ArrayD<F>]) -> (F, Vec<ArrayD<F>>),
    ) -> Result<Minimum> {
        let stopping = self.session.check_search()?;
        self.check("parameters", params.len(), |i| params[i].shape().to_vec())?;
        let origin = params.to_vec();
        at_once(descend(&mut OnCpu { reference: self, params, evaluate, grads: vec![], origin }, &stopping))
    }
}

/// A function on the CPU, and the reference that minimises it.
struct OnCpu<'a, F, E> {
    reference: &'a mut Reference<F>,
    params: &'a mut [ArrayD<F>],
    evaluate: E,
    /// The last gradient.
    grads: Vec<Option<ArrayD<F>>>,
    /// The parameters that the search along the direction started from.
    origin: Vec<ArrayD<F>>,
}

impl<F: Precision, E> OnCpu<'_, F, E> {
    /// A number of the model by its name.
    fn number(&mut self, name: &str) -> &mut F {
        let place = history::NAMES.iter().position(|known| *known == name).expect("a number of a history");
        &mut self.reference.model[place]
    }
}

impl<F: Precision, E: FnMut(&[ArrayD<F>]) -> (F, Vec<ArrayD<F>>)> Ground for OnCpu<'_, F, E> {
    async fn evaluate(&mut self) -> Result<Seen> {
        let Self { reference, params, evaluate, .. } = self;
        let (loss, grads) = evaluate(params);
        reference.check("gradients", grads.len(), |i| grads[i].shape().to_vec())?;
        let groups = &reference.session.groups;
        let row = |i: usize| {
            let place = groups.rule_of(i).names().state.iter().position(|name| *name == "d");
            let (grad, d) = (&grads[i], &reference.elements[i][place.expect("a rule with a history has this field")]);
            let grad: Vec<F> = grad.iter().copied().collect();
            let len = if groups.is_frozen(i) { 0 } else { grad.len() };
            let of = |i: usize| history::of_trial(grad[i], d[i]);
            vec![parts::tree([F::zero(); 5], history::combine_trial, len, of)]
        };
        let rows = history::add_up((0..grads.len()).map(row).collect(), history::combine_trial);
        let [slope, grad_max, direction_max, ..] = rows.first().copied().unwrap_or([F::zero(); 5]).map(F::f64);
        self.grads = grads.into_iter().map(Some).collect();
        Ok(Seen { loss: loss.f64(), slope, grad_max, direction_max })
    }

    async fn turn(&mut self) -> Result<[f64; 2]> {
        self.origin = self.params.to_vec();
        self.reference.take_step(self.params, &self.grads)?;
        Ok([self.number("slope").f64(), self.number("step").f64()])
    }

    fn go(&mut self, length: f64) -> Result<f64> {
        let length = F::of(length).f64();
        self.params.clone_from_slice(&self.origin);
        if length != 0.0 {
            let Self { reference, params, .. } = self;
            let mut groups = reference.session.groups.clone();
            groups.set_lr(length)?;
            let moves = |i: usize| !groups.is_frozen(i);
            let records = groups.moved(&reference.session.counts, Moving::Rule(Move::Trial), moves)?;
            reference.moved(Move::Trial, params, &records);
        }
        Ok(length)
    }

    fn settle(&mut self, length: f64) -> Result<()> {
        *self.number("step") = F::of(length);
        Ok(())
    }
}
