//! The entries of the chunk table, each kind by the names of its words. One entry says what one workgroup works on.

/// How many words an entry of the chunk table has, whatever walk reads it.
pub const ENTRY_WORDS: usize = 16;

/// An entry of the chunk table: what one workgroup works on. An entry whose `len` is 0 asks for nothing.
pub trait Entry: Copy {
    /// The struct's name.
    const NAME: &'static str;
    /// What the struct is.
    const DOC: &'static str;
    /// Fields in order, and what each says.
    const FIELDS: &'static [(&'static str, &'static str)];

    /// The entry's words, as they stand in the table.
    fn words(self) -> [u32; ENTRY_WORDS];

    /// Makes the entry from its words in the table.
    fn read(words: [u32; ENTRY_WORDS]) -> Self;
}

/// Declares the entries of one kind of table.
macro_rules! entry {
    ($(#[doc = $about:literal])+ $entry:ident { $($(#[doc = $doc:literal])+ $field:ident,)+ }) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $entry {
            $($(#[doc = $doc])+ pub $field: u64,)+
        }

        impl Entry for $entry {
            const NAME: &'static str = stringify!($entry);
            const DOC: &'static str = concat!($($about),+);
            const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), concat!($($doc),+))),+];

            fn words(self) -> [u32; ENTRY_WORDS] {
                let mut words = [0; ENTRY_WORDS];
                for (word, field) in words.iter_mut().zip([$(self.$field),+]) {
                    *word = field as u32;
                }
                words
            }

            fn read(words: [u32; ENTRY_WORDS]) -> Self {
                let mut words = words.into_iter().map(u64::from);
                Self { $($field: words.next().unwrap_or(0)),+ }
            }
        }

        const _: () = assert!($entry::FIELDS.len() <= ENTRY_WORDS);
    };
}

entry! {
    /// Adjacent elements of a tensor, which one workgroup takes.
    Chunk {
        /// the tensor's place in the list
        tensor,
        /// how many elements the chunk has
        len,
        /// the piece of the tensor that the chunk belongs to
        piece,
        /// elements of the tensor before the first
        first,
        /// how many vectors of four of the bound state come before the chunk
        state,
        /// where the chunk's partial result stands in scratch, `ABSENT` where it is the tensor's only chunk
        partial,
        /// where the columns of the first element's matrix stand in the bound lines
        column_numbers,
        /// where what elements see of the first element's row stands in the bound lines
        seen_rows,
        /// rows of a matrix
        rows,
        /// columns of a matrix
        columns,
        /// the first element's row in its matrix
        top,
        /// the first element's column in its matrix
        left,
        /// where the last product of the tensor's matrix stands in the bound work buffer, or what
        /// is back from the bases
        product,
        /// where the first product finds that matrix, or where the tensor stands in the bases
        start,
        /// where the first product finds its transpose; with bases, words from the spread to the gradient
        turned,
        /// the tensor's stream of random numbers
        stream,
    }
}

entry! {
    /// A tensor whose chunks have left partial results, which one workgroup combines.
    TensorSums {
        /// the tensor's place in the list
        tensor,
        /// how many elements the tensor has
        len,
        /// how many partial results there are
        partials,
        /// words from one partial result to the next
        stride,
        /// where the first partial result stands in scratch
        partial,
        /// rows of the tensor's matrix, where its rule takes products
        rows,
        /// columns of that matrix
        columns,
    }
}

entry! {
    /// All tensors whose sums one workgroup combines.
    ModelSums {
        /// a place in the list of tensors, which the walk does not use
        tensor,
        /// 1, since there is something to combine
        len,
        /// how many tensors may have sums
        tensors,
    }
}

entry! {
    /// A rectangle of a matrix, or several whole matrices where these are small. One workgroup takes it.
    Tile {
        /// the tensor's place in the list
        tensor,
        /// how many elements the tile has
        len,
        /// the piece of the tensor that the tile belongs to
        piece,
        /// elements of the tensor before the first
        first,
        /// how many elements of a row lie in the tile
        width,
        /// where the sums over rows go: to the bound lines where matrices are small, else as shares to scratch
        row_sums,
        /// where the sums over columns go, likewise
        column_sums,
        /// where what elements see of the rows stands in the bound lines, where matrices are small
        seen_rows,
        /// rows of a matrix
        rows,
        /// columns of a matrix
        columns,
        /// where the last product has the first element's place in the bound work buffer
        product,
    }
}

entry! {
    /// A tile of a product of matrices, which one workgroup makes. Places and strides count vectors of four in the
    /// bound work buffer.
    MatrixTile {
        /// the tensor's place in the list
        tensor,
        /// rows of both factors: how many products a sum has
        len,
        /// where the first factor's columns start
        p,
        /// from one of its rows to the next
        p_stride,
        /// where the second factor's columns start
        q,
        /// from one of its rows to the next
        q_stride,
        /// where what is added to the product starts
        d,
        /// where the result starts
        c,
        /// from one of its rows to the next
        c_stride,
        /// where the result's transpose starts
        turned,
        /// from one of its rows to the next
        turned_stride,
        /// rows of the tile
        rows,
        /// columns of the tile
        columns,
        /// from the first place of the matrix to its second
        second,
    }
}

entry! {
    /// Some numbers that belong to a side of a tensor, or a side: what one workgroup of a walk over sides makes. Places
    /// are in the bound work buffer.
    SideTile {
        /// the tensor's place in the list
        tensor,
        /// how many numbers the workgroup makes
        len,
        /// how many numbers of the result come before them; of new bases, which tile or pair of blocks it is
        first,
        /// of new bases, the pair whose columns the workgroup turns
        second,
        /// of new bases, what the workgroup does
        part,
        /// the side's size
        size,
        /// elements from one index of the side to the next
        inner,
        /// how many products the sum of a Gram matrix has
        products,
        /// where the walk reads
        source,
        /// where the result starts
        to,
        /// where the basis starts; of the power iteration, where the Gram matrix starts
        matrix,
        /// where the notes on a new basis start
        notes,
    }
}

entry! {
    /// All rows of a matrix, or some of its columns, which one workgroup finishes.
    LinesOfMatrix {
        /// the tensor's place in the list
        tensor,
        /// how many rows or columns the workgroup finishes
        len,
        /// 0 for rows, 1 for columns
        are_columns,
        /// how many tiles have a share in each line
        shares,
        /// words from one tile's shares to the next tile's
        stride,
        /// where the first tile's shares stand in scratch
        share,
        /// where the lines' numbers stand in the bound lines
        numbers,
        /// where what elements see of the rows stands in the bound lines
        seen_rows,
        /// rows of the matrix
        rows,
        /// columns of the matrix
        columns,
    }
}
