//! Every word that the host and the shaders share, by name: the words of a step, the words that stay on the device, the
//! partial results, and the entries of the chunk table. Only descriptions of such words may live here, and the texts
//! that follow from them.
//!
//! From one description come the offsets in Rust and the constants and structs in WGSL, so an offset is written nowhere
//! else. A table below is a list of names, each with its number of words; a name's offset is the sum of the numbers
//! before it. `LEN` is the number of words of the whole table.

use crate::tensor::ALIGNMENT;

mod entries;
mod wgsl;

pub use entries::{Chunk, ENTRY_WORDS, Entry, LinesOfMatrix, MatrixTile, ModelSums, SideTile, TensorSums, Tile};
pub use wgsl::{constants, entry, marks, parts, rows, stages};

/// A name of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// The name, in capitals.
    pub name: &'static str,
    /// Words before it.
    pub at: usize,
    /// What stands there.
    pub doc: &'static str,
}

/// Declares a table of words as a module: a constant for each name, `LEN`, and the list that WGSL is generated from.
macro_rules! table {
    ($(#[doc = $about:literal])+ $table:ident { $(#[doc = $doc:literal] $name:ident: $len:expr,)+ }) => {
        $(#[doc = $about])+
        pub mod $table {
            use crate::words::Word;

            #[repr(C)]
            #[expect(non_snake_case, reason = "only the offsets of the fields are used")]
            struct Layout {
                $($name: [u32; $len],)+
            }

            $(
                #[doc = $doc]
                pub const $name: usize = std::mem::offset_of!(Layout, $name) / 4;
            )+

            /// Words of the table.
            pub const LEN: usize = size_of::<Layout>() / 4;

            /// All names, in order.
            pub const WORDS: &[Word] = &[$(Word { name: stringify!($name), at: $name, doc: $doc }),+];
        }
    };
}

table! {
    /// What a shader has measured of gradients, and of parameters where the clip asks for them. Each sum of squares
    /// stands in two numbers, so that none overflows: `Squares` in `src/control.rs`.
    measured {
        /// f32: the sum of squares of the gradients below 2^32.
        GRADS_SMALL: 1,
        /// f32: the sum of squares of the other gradients.
        GRADS_LARGE: 1,
        /// f32: the sum of squares of the parameters below 2^32.
        PARAMS_SMALL: 1,
        /// f32: the sum of squares of the other parameters.
        PARAMS_LARGE: 1,
        /// The worst kind of gradient: 0 where all are fit for use, else a number of `NonFinite`.
        KIND: 1,
    }
}

table! {
    /// The words of one dispatch. They start at a multiple of 256 bytes, before the words of the step.
    dispatch {
        /// The first entry of the table.
        FIRST: 1,
        /// The entry behind the last one.
        END: 1,
        /// Where the row of piece 0 would stand, counted from this dispatch's words, modulo 2^32.
        ROWS: 1,
        /// Where the words of the step stand, counted from this dispatch's words.
        STEP: 1,
    }
}

table! {
    /// Where the values of a piece of a tensor lie in this step: in which bound page, and how many elements of the page
    /// come before the first. Where parameters have one page and gradients one, and the new parameters replace the old
    /// ones, a row ends before `OUT`.
    row {
        /// Elements before the tensor's parameters, modulo 2^32: the page need not hold the tensor's first.
        PARAM: 1,
        /// Elements before its gradients, likewise.
        GRAD: 1,
        /// Elements before the place that its new parameters go to, likewise.
        OUT: 1,
        /// The page of the parameters.
        PARAM_PAGE: 1,
        /// The page of the gradients.
        GRAD_PAGE: 1,
        /// The page that the new parameters go to, `ABSENT` for a tensor that is not in this step.
        OUT_PAGE: 1,
    }
}

table! {
    /// A partial result of a rule's sums.
    sum {
        /// f32: the first number of `measure`, combined.
        FIRST: 1,
        /// f32: the second number of `measure`, combined.
        SECOND: 1,
    }
}

table! {
    /// The inner products of one row of a history, as a partial result. The first row has the gradient's with itself,
    /// the second those of the last step's pair, and each row behind them those of a pair that is kept.
    inner {
        /// f32: of the movement with the gradient; in the first row, of the gradient with itself.
        MOVED_GRAD: 1,
        /// f32: of the movement with the last change of the gradient; in the first row, the gradient's sizes added up.
        MOVED_CHANGE: 1,
        /// f32: of the change with the gradient.
        CHANGE_GRAD: 1,
        /// f32: of the change with the last change of the gradient.
        CHANGE_CHANGE: 1,
        /// f32: of the change with the last movement.
        CHANGE_MOVED: 1,
    }
}

table! {
    /// The first words of control: what stays on the device from step to step. Behind them stand the words of each
    /// tensor. A report is a copy of the words before `OTHERS`.
    control {
        /// f32: what the coming loss is multiplied by. The caller may bind it, so it is the first word.
        SCALE: 1,
        /// f32: one over the loss scale of the step's gradients.
        UNSCALE: 1,
        /// How many good steps there have been since the loss scale changed last.
        GOOD: 1,
        /// 0 where the step is applied, 1 where it is skipped, `OUT_OF_TURN` where it ran behind a later one.
        SKIPPED: 1,
        /// f32: the loss scale of the step's gradients.
        SCALE_USED: 1,
        /// What was measured of all gradients together.
        ALL: crate::words::measured::LEN,
        /// The number of the step or move that ran last.
        SEQUENCE: 1,
        /// The first tensor whose gradient no step can use, or `ABSENT`.
        CULPRIT: 1,
        /// The worst kind of number in that gradient.
        CULPRIT_KIND: 1,
        /// What was measured of all gradients of each other optimizer that shares the decision.
        OTHERS: crate::words::measured::LEN * crate::words::OTHERS_MOST,
    }
}

table! {
    /// The words of one tensor in control.
    tensor {
        /// Where the tensor's record starts in control, or `ABSENT`, or `UNDONE`.
        RECORD: 1,
        /// f32: a clip multiplies the tensor's gradients by this power of two first,
        COARSE: 1,
        /// f32: and by this number after that.
        FINE: 1,
        /// Which of the states that the host reckons with the tensor's clock is in.
        STATE: 1,
        /// What was measured of the tensor's gradients.
        MEASURED: crate::words::measured::LEN,
    }
}

table! {
    /// The first of the norms in control. Behind it stands the norm of each tensor's gradients.
    norms {
        /// f32: the norm of all gradients.
        ALL: 1,
    }
}

table! {
    /// The first words of a step whose update the device decides. Behind them stands one word for each tensor: 0 where
    /// the tensor has a gradient, else `ABSENT`.
    step {
        /// How many tensors there are.
        TENSORS: 1,
        /// What the walk `decide` does: bits of `stage`.
        STAGES: 1,
        /// Where the step says which class each tensor is in: one word a tensor, `ABSENT` for a tensor that sits out.
        CLASS_OF: 1,
        /// Where the words of the classes stand in the step.
        CLASSES: 1,
        /// How many classes there are.
        CLASSES_COUNT: 1,
        /// Where records stand in control.
        RECORDS: 1,
        /// How many words a record has.
        RECORD_LEN: 1,
        /// Where norms stand in control.
        NORMS: 1,
        /// The number of this step or move. Numbers grow in the order of encoding.
        SEQUENCE: 1,
        /// f32: the clip's limit.
        CLIP_LIMIT: 1,
        /// f32: the least norm that an adaptive clip takes parameters to have.
        CLIP_EPS: 1,
        /// Which of the options that the device writes is the clip's limit, or `ABSENT`.
        CLIP_OPTION: 1,
        /// Whether a step may be skipped.
        SKIPS: 1,
        /// After how many good steps the loss scale grows; 0 without loss scale.
        INTERVAL: 1,
        /// f32: what the loss scale grows by.
        GROWTH: 1,
        /// f32: what the loss scale shrinks by.
        BACKOFF: 1,
        /// f32: how many micro-batches the step has.
        BATCHES: 1,
        /// Where the options that the device writes stand in control.
        OPTIONS: 1,
        /// How many such options there are.
        OPTIONS_COUNT: 1,
        /// How many other optimizers share the decision.
        OTHERS: 1,
    }
}

table! {
    /// The words of one class in a step: tensors whose clocks are in one state, whichever that is.
    class {
        /// The first tensor of the class.
        TENSOR: 1,
        /// The number of the first state in the class's table.
        FIRST: 1,
        /// How many states the table has.
        STATES: 1,
        /// Where the table stands in the step: `state::LEN` words for each number from `FIRST` on.
        TABLE: 1,
    }
}

table! {
    /// The words of one state in the table of a class.
    state {
        /// Where the numbers of the record stand in the step, or `ABSENT` where the class sits out.
        RECORD: 1,
        /// The number of the state that follows where the step is applied.
        APPLIED: 1,
    }
}

/// What the walk `decide` does, a bit for each task.
pub mod stage {
    /// The walk adds up what was measured of the tensors.
    pub const MEASURE: u32 = 1;
    /// The walk decides whether the step is skipped, and moves the loss scale.
    pub const DECIDE: u32 = 2;
    /// The walk picks the records of the true states.
    pub const SELECT: u32 = 4;
    /// The walk moves on to the next states.
    pub const ADVANCE: u32 = 8;
}

/// What a workgroup of the walk `bases` does.
pub mod part {
    /// It copies columns of a Gram matrix, where rotations start.
    pub const COPY: u64 = 0;
    /// It rotates the columns of a pair of blocks, where they meet their own rows.
    pub const PAIRS: u64 = 1;
    /// It turns the rows of a pair where they meet the columns of another.
    pub const BLOCKS: u64 = 2;
    /// It turns the columns of a pair in some rows of the new basis.
    pub const VECTORS: u64 = 3;
    /// It scales columns, where reflections start.
    pub const SCALE: u64 = 4;
    /// It finds the reflections of columns, or takes them.
    pub const REFLECTIONS: u64 = 5;
}

/// How many optimizers may share a decision, beside the one that decides.
pub const OTHERS_MOST: usize = 6;

/// Stands for a record: the tensor has no gradient in this step, or the step is skipped.
pub const ABSENT: u32 = 0xffff_ffff;

/// Stands for a record: the step is skipped, and its look-ahead is undone.
pub const UNDONE: u32 = 0xffff_fffe;

/// In `control::SKIPPED`: the step ran behind one that was encoded later.
pub const OUT_OF_TURN: u32 = 2;

/// How many words a report has.
pub const REPORT_WORDS: usize = control::OTHERS;

/// How many words a partial result of the walk that measures gradients has.
pub const NORM_WORDS: u64 = measured::LEN as u64;

/// How many words a partial result of a rule's sums has.
pub const SUM_WORDS: u64 = sum::LEN as u64;

/// How many words the inner products of one row of a history have.
pub const INNER_WORDS: u64 = inner::LEN as u64;

/// Where things stand in control, in words.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// How many tensors there are.
    pub tensors: usize,
    /// How many words a record has.
    pub record: usize,
    /// Where the norms start.
    pub norms: usize,
    /// Where the options that the device writes start.
    pub options: usize,
    /// Where the records start.
    pub records: usize,
}

impl Layout {
    /// The layout of `control` for so many tensors, with so many options that the device writes, and so many words in
    /// each record. What the caller may bind starts at a multiple of [`ALIGNMENT`].
    pub fn new(tensors: usize, options: usize, record: usize) -> Self {
        let align = |words: usize| words.next_multiple_of(ALIGNMENT as usize / 4);
        let norms = align(Self::of_tensor(tensors));
        let first_option = align(norms + norms::LEN + tensors);
        Self { tensors, record, norms, options: first_option, records: align(first_option + options) }
    }

    /// How many words `control` has, with a record for every tensor.
    pub fn words(&self) -> usize {
        self.records + self.record * self.tensors.max(1)
    }

    /// Where the words of a tensor start.
    pub fn of_tensor(tensor: usize) -> usize {
        control::LEN + tensor::LEN * tensor
    }

    /// How many norms there are: that of all gradients, and those of each tensor's.
    pub fn norms_len(&self) -> usize {
        norms::LEN + self.tensors
    }
}

const _: () = assert!(control::SCALE == 0, "the loss scale is bound alone, and bindings start on 256 bytes");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_table_stand_one_behind_the_other() {
        assert_eq!((control::SCALE, control::ALL, control::SEQUENCE), (0, 5, 5 + measured::LEN));
        assert_eq!(control::LEN, control::OTHERS + OTHERS_MOST * measured::LEN);
        assert_eq!(tensor::LEN, 4 + measured::LEN);
        let text = constants("SUM", sum::WORDS, sum::LEN);
        assert!(
            text.contains("const SUM_SECOND: u32 = 1u; //") && text.contains("const SUM_WORDS: u32 = 2u;"),
            "{text}"
        );
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let tile = Tile { tensor: 1, len: 2, width: 3, columns: 4, ..Tile::default() };
        assert_eq!(Tile::read(tile.words()), tile);
        let text = entry::<TensorSums>(true);
        assert!(text.contains("let b = tables[4u * i + 1u];") && !text.contains("let c"), "{text}");
        assert!(text.contains("        a.w,\n        b.x,\n        b.y,\n        b.z,\n    );"), "{text}");
        assert!(!text.contains("clocks[row"), "{text}");
        let text = entry::<Chunk>(true);
        assert!(text.contains("        d.w,\n        clocks[row + ROW_PARAM] + a.w,"), "{text}");
        assert!(text.contains("clocks[row + ROW_OUT_PAGE]") && !entry::<Chunk>(false).contains("ROW_OUT"), "{text}");
    }

    #[test]
    fn what_the_caller_binds_starts_on_256_bytes() {
        for (tensors, options) in [(0, 0), (1, 1), (1000, 5)] {
            let layout = Layout::new(tensors, options, 17);
            for start in [layout.norms, layout.options, layout.records] {
                assert_eq!(start % (ALIGNMENT as usize / 4), 0);
            }
            assert!(layout.norms >= Layout::of_tensor(tensors) && layout.options >= layout.norms + layout.norms_len());
        }
    }
}
