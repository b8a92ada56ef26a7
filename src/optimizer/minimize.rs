//! Minimising by line searches on the device: the caller encodes loss and gradient, and a few numbers of each trial
//! come back.

use super::history::Leaves;
use super::{EncodedStep, Optimizer, Role};
use crate::error::Result;
use crate::gpu::{Arena, Buffers, Grads, Slice, Work};
use crate::history;
use crate::line_search::{Ground, Minimum, Seen, descend};
use crate::rule::Move;
use crate::wrappers::Moving;

impl Optimizer {
    /// Minimises a function, for a rule with a [line search](crate::LineSearch): takes directions and looks along each
    /// for a length at which the strong Wolfe conditions hold, until there is a reason to stop. A later call goes on
    /// with the same history.
    ///
    /// `evaluate` encodes the loss and its gradient for the parameters as `params` holds them then: the gradient into
    /// `grads`, the loss as one f32 into `loss`. It is called once an evaluation. The parameters and the loss need
    /// `COPY_SRC` usage, the parameters `COPY_DST`, too. An arena of the parameters' size keeps the point that a search
    /// starts from. Parameters, gradients and all products stay on the device: of each evaluation and each direction
    /// the numbers of the model are read back.
    ///
    /// A trial whose loss or gradient is not finite counts as too far. Whatever the reason to stop, the parameters
    /// stand where the loss was found that is returned; the gradients may be those of a trial elsewhere.
    ///
    /// ```no_run
    /// use wgpu_optim::{Arena, Error, Gpu, Lbfgs, LineSearch, Optimizer, Slice, TensorSpec, wgpu};
    ///
    /// async fn fit(
    ///     gpu: &Gpu,
    ///     params: &Arena,
    ///     grads: &Arena,
    ///     loss: &wgpu::Buffer,
    ///     encode_loss_and_gradient: impl FnMut(&mut wgpu::CommandEncoder),
    /// ) -> Result<(), Error> {
    ///     let rule = Lbfgs { line_search: LineSearch::StrongWolfe, max_iter: 100, ..Lbfgs::default() };
    ///     let mut lbfgs = Optimizer::new(gpu, params.tensors(), rule)?;
    ///     let found = lbfgs.minimize(params, grads, Slice::new(loss, 0, 4), encode_loss_and_gradient).await?;
    ///     println!("loss {} after {} evaluations: {:?}", found.loss, found.evaluations, found.stop);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) where the rule has no line search; buffers as in [`encode`](Self::encode),
    /// and those that cannot be copied. Nothing has changed then. [`Error::Wgpu`](crate::Error::Wgpu) for what
    /// `evaluate` encodes wrongly, and a lost device.
    pub async fn minimize<'a>(
        &mut self,
        params: impl Into<Buffers<'a>>,
        grads: impl Into<Buffers<'a>>,
        loss: Slice<'a>,
        evaluate: impl FnMut(&mut wgpu::CommandEncoder),
    ) -> Result<Minimum> {
        self.minimize_with(params.into(), grads.into(), loss, evaluate, false).await
    }

    /// [`minimize`](Self::minimize), blocking.
    ///
    /// # Errors
    /// The same.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn minimize_blocking<'a>(
        &mut self,
        params: impl Into<Buffers<'a>>,
        grads: impl Into<Buffers<'a>>,
        loss: Slice<'a>,
        evaluate: impl FnMut(&mut wgpu::CommandEncoder),
    ) -> Result<Minimum> {
        pollster::block_on(self.minimize_with(params.into(), grads.into(), loss, evaluate, true))
    }

    async fn minimize_with<'a>(
        &mut self,
        params: Buffers<'a>,
        grads: Buffers<'a>,
        loss: Slice<'a>,
        evaluate: impl FnMut(&mut wgpu::CommandEncoder),
        wait: bool,
    ) -> Result<Minimum> {
        let stopping = self.session.check_search()?;
        loss.check_loss()?;
        let gpu = self.engine.gpu().clone();
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let slices = params.all_slices(&gpu, &self.session.tensors, usage)?;
        let origin = Arena::new(&gpu, &self.session.tensors)?;
        let grads = Grads::new(grads);
        let mut ground = OnDevice { optimizer: self, params, slices, grads, loss, evaluate, origin, step: 0.0, wait };
        descend(&mut ground, &stopping).await
    }

    /// Encodes a look at the gradient, whose product with the direction and whose size join the numbers of the model.
    fn encode_probe(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: &Buffers,
        grads: &Grads,
    ) -> Result<EncodedStep> {
        self.take_reports()?;
        let zeros = self.zeros(grads)?;
        let filled = zeros.as_ref().map(|zeros| self.filled(grads, zeros)).transpose()?;
        let grads = filled.as_ref().unwrap_or(grads);
        let present = self.present(grads);
        let bound = self.engine.bind(params, Work::Probe(grads))?;
        let to = Moving::Rule(Move::Trial);
        let takes_part = |i: usize| present.as_ref().is_none_or(|present| present[i]);
        let choices = self.session.counts.course.moved(&self.session.groups, to, takes_part)?;
        self.commit_move(encoder, bound, &choices, self.session.order.clone(), Leaves::Update)
    }

    /// Encodes a move along the direction.
    fn encode_trial(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        params: &Buffers,
        length: f64,
    ) -> Result<EncodedStep> {
        self.take_reports()?;
        let to = Moving::Rule(Move::Trial);
        let bound = self.engine.bind(params, Work::Move(to))?;
        let mut groups = self.session.groups.clone();
        groups.set_lr(length)?;
        let present = groups.present(None);
        let takes_part = |i: usize| present.as_ref().is_none_or(|present| present[i]);
        let choices = self.session.counts.course.moved(&groups, to, takes_part)?;
        self.commit_move(encoder, bound, &choices, self.session.order.clone(), Leaves::Moved)
    }
}

/// A function on the device, and the optimizer that minimises it.
struct OnDevice<'a, 'b, E> {
    optimizer: &'a mut Optimizer,
    params: Buffers<'b>,
    /// The parameters, one slice a tensor.
    slices: Vec<Slice<'b>>,
    grads: Grads<'b>,
    loss: Slice<'b>,
    evaluate: E,
    /// The parameters that the search along the direction started from.
    origin: Arena,
    /// The length that the device knows of.
    step: f64,
    wait: bool,
}

impl<E> OnDevice<'_, '_, E> {
    /// Encodes a copy of the parameters to where the search starts, or back from there.
    fn copy(slices: &[Slice], origin: &Arena, encoder: &mut wgpu::CommandEncoder, is_back: bool) {
        for (i, params) in slices.iter().enumerate() {
            let origin = origin.slice_at(i);
            let (from, to) = if is_back { (&origin, params) } else { (params, &origin) };
            // Copies go by words of 4 bytes.
            let bytes = params.size.next_multiple_of(4);
            encoder.copy_buffer_to_buffer(from.buffer, from.offset, to.buffer, to.offset, bytes);
        }
    }

    async fn numbers(&self) -> Result<history::Numbers<f64>> {
        let Optimizer { engine, session, .. } = &*self.optimizer;
        let numbers = engine.numbers_of_model(session.groups.rule(0), self.wait).await?;
        Ok(history::Numbers::read(std::array::from_fn(|i| numbers.get(i).copied().unwrap_or(0.0).into())))
    }
}

impl<E: FnMut(&mut wgpu::CommandEncoder)> Ground for OnDevice<'_, '_, E> {
    async fn evaluate(&mut self) -> Result<Seen> {
        let Self { optimizer, params, grads, evaluate, .. } = self;
        let cleared = optimizer.to_clear(grads)?;
        optimizer.submit(|optimizer, encoder| {
            for (buffer, offset, size) in &cleared {
                encoder.clear_buffer(buffer, *offset, Some(*size));
            }
            evaluate(encoder);
            optimizer.encode_probe(encoder, params, grads)
        })?;
        let loss = self.optimizer.engine.read_number(&self.loss, self.wait).await?.into();
        let history::Numbers { along, grad_max, direction_max, .. } = self.numbers().await?;
        Ok(Seen { loss, slope: along, grad_max, direction_max })
    }

    async fn turn(&mut self) -> Result<[f64; 2]> {
        let Self { optimizer, params, slices, grads, origin, .. } = self;
        optimizer.submit(|optimizer, encoder| {
            Self::copy(slices, origin, encoder, false);
            let encoding = optimizer.prepare_step(params, grads, None, Role::Alone)?;
            optimizer.commit(encoder, encoding)
        })?;
        let history::Numbers { slope, step, .. } = self.numbers().await?;
        self.step = step;
        Ok([slope, step])
    }

    fn go(&mut self, length: f64) -> Result<f64> {
        let Self { optimizer, params, slices, origin, .. } = self;
        let length = f64::from(length as f32);
        if length == 0.0 {
            let gpu = optimizer.engine.gpu().clone();
            let mut encoder = gpu.encoder()?;
            Self::copy(slices, origin, &mut encoder, true);
            gpu.submit(encoder)?;
            return Ok(length);
        }
        optimizer.submit(|optimizer, encoder| {
            Self::copy(slices, origin, encoder, true);
            optimizer.encode_trial(encoder, params, length)
        })?;
        Ok(length)
    }

    fn settle(&mut self, length: f64) -> Result<()> {
        if length != self.step {
            let Optimizer { engine, session, .. } = &*self.optimizer;
            engine.set_state(&session.groups, 0, "step", &[length as f32])?;
        }
        Ok(())
    }
}
