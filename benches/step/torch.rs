//! PyTorch's optimizers beside ours: a Python program that times them, asked a row at a time.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use wgpu_optim::TensorSpec;

use crate::Result;

pub struct Torch {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The version of PyTorch, and its device.
    pub name: String,
    /// The rows that it has an optimizer for.
    pub rows: Vec<String>,
}

impl Torch {
    /// Starts the program with this Python.
    pub fn start(python: &Path) -> Result<Torch> {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/step/pytorch.py");
        let child = Command::new(python).arg(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("--torch {}: {error}", python.display()))?;
        let (asks, answers) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut torch = Torch { child, asks, answers: BufReader::new(answers), name: String::new(), rows: vec![] };
        let mut answer = torch.answer()?;
        torch.name = serde_json::from_value(answer["torch"].take())?;
        torch.rows = serde_json::from_value(answer["rules"].take())?;
        Ok(torch)
    }

    /// The median nanoseconds of a step, where PyTorch has such an optimizer.
    pub fn step_ns(&mut self, rule: &str, tensors: &[TensorSpec], time: Duration) -> Result<Option<f64>> {
        let shapes: Vec<_> = tensors.iter().map(|tensor| &tensor.shape).collect();
        let format = tensors.first().map_or("f32", |tensor| tensor.dtype.name());
        let ask = json!({"rule": rule, "shapes": shapes, "format": format, "seconds": time.as_secs_f64()});
        writeln!(self.asks, "{ask}")?;
        Ok(self.answer()?["ns"].as_f64())
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err(format!("--torch: {}, whose reason stands above", self.child.wait()?).into()),
            _ => Ok(serde_json::from_str(&line)?),
        }
    }
}
