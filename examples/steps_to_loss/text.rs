//! A transformer that guesses each next letter of a play.

use super::network::Network;
use super::tape::{Tape, Var};
use ndarray::{ArrayD, Ix2};
use rand::{RngExt, rngs::Xoshiro256PlusPlus};
use std::array;
use std::collections::BTreeSet;
use std::ops::Range;
use wgpu_optim::TensorSpec;

const WIDTH: usize = 32;
const LAYERS: usize = 2;
const HEADS: usize = 2;
/// Letters of a sample.
const WINDOW: usize = 32;

/// A play in samples of so many letters. The last tenth of them tests.
pub struct Text {
    /// How many different letters it has.
    kinds: usize,
    /// The play as numbers of letters.
    letters: Vec<usize>,
}

impl Text {
    pub fn new() -> Text {
        let text = include_str!("../../crates/wgpu-optim-burn/examples/data/coriolanus.txt");
        let kinds: Vec<char> = text.chars().collect::<BTreeSet<_>>().into_iter().collect();
        let number = |letter| kinds.binary_search(&letter).expect("a letter of the text");
        Text { letters: text.chars().map(number).collect(), kinds: kinds.len() }
    }

    /// How many samples there are; the last letter has none after it.
    fn samples(&self) -> usize {
        (self.letters.len() - 1) / WINDOW
    }

    /// The mean cross-entropy of the letters that follow those of a sample, each from itself and the letters before it.
    fn forward<'t>(&self, params: &[Var<'t>], sample: usize) -> Var<'t> {
        let letters = &self.letters[sample * WINDOW..][..=WINDOW];
        let [of_letters, of_places, layers @ .., out] = params else { unreachable!("as many as tensors") };
        let mut x = of_letters.rows(&letters[..WINDOW]) + *of_places;
        for layer in layers.chunks_exact(4) {
            let [attend, join, up, down] = layer else { unreachable!("four a layer") };
            x = x + attention(x.norm().times(*attend)).times(*join);
            x = x + x.norm().times(*up).relu().times(*down);
        }
        x.norm().times(*out).cross_entropy(&letters[1..])
    }
}

/// What each head gathers from the letters so far, side by side (Vaswani et al. 2017), from queries, keys and values,
/// which are side by side, too, each with the heads' columns in order.
fn attention<'t>(of: Var<'t>) -> Var<'t> {
    let width = WIDTH / HEADS;
    let heads: [Var<'t>; HEADS] = array::from_fn(|head| {
        let [query, key, value] = [0, 1, 2].map(|part| of.columns(part * WIDTH + head * width, width));
        let fits = query.times(key.transposed()).scaled(1.0 / (width as f32).sqrt());
        fits.causal_softmax().times(value)
    });
    Var::beside(&heads)
}

/// The parameters on a tape.
fn vars<'t>(tape: &'t Tape, params: &[ArrayD<f32>]) -> Vec<Var<'t>> {
    let matrix = |param: &ArrayD<f32>| param.clone().into_dimensionality::<Ix2>().expect("all tensors are matrices");
    params.iter().map(|param| tape.var(matrix(param))).collect()
}

impl Network for Text {
    fn tensors(&self) -> Vec<TensorSpec> {
        let mut tensors = vec![("letters".into(), [self.kinds, WIDTH]), ("places".into(), [WINDOW, WIDTH])];
        for layer in 0..LAYERS {
            tensors.extend([
                (format!("{layer}.attend"), [WIDTH, 3 * WIDTH]),
                (format!("{layer}.join"), [WIDTH, WIDTH]),
                (format!("{layer}.up"), [WIDTH, 4 * WIDTH]),
                (format!("{layer}.down"), [4 * WIDTH, WIDTH]),
            ]);
        }
        tensors.push(("out".into(), [WIDTH, self.kinds]));
        tensors.into_iter().map(|(name, shape)| TensorSpec::f32(name, shape)).collect()
    }

    /// Uniform values whose variance is one over the number of rows.
    fn start(&self, rng: &mut Xoshiro256PlusPlus) -> Vec<Vec<f32>> {
        let mut values = |tensor: TensorSpec| {
            let bound = (3.0 / tensor.shape[0] as f32).sqrt();
            (0..tensor.shape.iter().product()).map(|_| rng.random_range(-bound..bound)).collect()
        };
        self.tensors().into_iter().map(&mut values).collect()
    }

    fn train(&self) -> Range<usize> {
        0..self.samples() * 9 / 10
    }

    fn test(&self) -> Range<usize> {
        self.train().end..self.samples()
    }

    fn loss(&self, params: &[ArrayD<f32>], samples: Range<usize>) -> f32 {
        let count = samples.len() as f32;
        let losses = samples.map(|sample| {
            let tape = Tape::default();
            self.forward(&vars(&tape, params), sample).value()[(0, 0)]
        });
        losses.sum::<f32>() / count
    }

    fn gradients(&self, params: &[ArrayD<f32>], samples: &[usize]) -> Vec<Option<ArrayD<f32>>> {
        let mut sums: Vec<_> = params.iter().map(|param| ArrayD::zeros(param.raw_dim())).collect();
        for &sample in samples {
            let tape = Tape::default();
            let back = self.forward(&vars(&tape, params), sample).derivatives();
            sums.iter_mut().zip(back).for_each(|(sum, back)| *sum += &back);
        }
        sums.into_iter().map(|sum| Some(sum / samples.len() as f32)).collect()
    }
}
