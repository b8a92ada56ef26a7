//! The one error type. Every message names the field or tensor, the value and the bound.

/// What can go wrong. Nothing has been dispatched and no state has changed when one is returned.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A number or choice outside its bound.
    #[error("{field} is {value}, must be {bound}")]
    Field {
        /// The option's name, as in JSON.
        field: String,
        /// What was given.
        value: String,
        /// What would have been accepted.
        bound: String,
    },
    /// A configuration that is not JSON, or holds a field that is unknown or of the wrong type.
    #[error("configuration: {path}: {message}")]
    Config {
        /// Where in the configuration, as `groups[0].lr`; `.` for the whole.
        path: String,
        /// What is wrong there.
        message: String,
    },
    /// Groups and tensors that do not fit together.
    #[error("groups[{group}]: {message}")]
    Group {
        /// The group's place in `groups`.
        group: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A name or pattern that matches no tensor.
    #[error("pattern {pattern} matches none of the {tensors} tensors")]
    Pattern {
        /// What was given.
        pattern: String,
        /// How many tensors there are.
        tensors: usize,
    },
    /// The same name twice in a list of tensors.
    #[error("tensor {tensor} is listed twice, at {first} and {second}")]
    TensorTwice {
        /// The name.
        tensor: String,
        /// Its first place in the list.
        first: usize,
        /// Its second place.
        second: usize,
    },
    /// A name that no tensor has.
    #[error("tensor {tensor} is unknown; there are {known}")]
    UnknownTensor {
        /// The name asked for.
        tensor: String,
        /// The names that exist.
        known: String,
    },
    /// A state slot that the tensor does not have.
    #[error("tensor {tensor} has no state slot {slot}; it has {known}")]
    UnknownSlot {
        /// The tensor's name.
        tensor: String,
        /// The slot asked for.
        slot: String,
        /// The slots that exist.
        known: String,
    },
    /// A shape or length that disagrees with the tensor's.
    #[error("{what} of tensor {tensor} has {found}, expected {expected}")]
    Shape {
        /// Parameter, gradient, a state slot, or values to write.
        what: String,
        /// The tensor's name.
        tensor: String,
        /// What was given.
        found: String,
        /// What the tensor's description says.
        expected: String,
    },
    /// Two lists of tensors whose lengths differ.
    #[error("{what} are {found}, expected {expected}: one a tensor, in the order given at creation")]
    Count {
        /// Which list.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The number of tensors.
        expected: usize,
    },
    /// A slice that cannot be bound.
    #[error("{what} of tensor {tensor}: {message}")]
    Slice {
        /// Parameter or gradient.
        what: &'static str,
        /// The tensor's name.
        tensor: String,
        /// The number that is wrong, and its bound.
        message: String,
    },
    /// Two parameters that share bytes.
    #[error("parameters {first} and {second} overlap: bytes {first_range} and {second_range} of one buffer")]
    Overlap {
        /// One tensor.
        first: String,
        /// Its bytes.
        first_range: String,
        /// The other tensor.
        second: String,
        /// Its bytes.
        second_range: String,
    },
    /// Values that a step writes and others that it reads or writes, which share bytes.
    #[error("{first} and {second} overlap: bytes {first_range} and {second_range} of one buffer")]
    Aliased {
        /// Parameter, gradient or output, and the tensor.
        first: String,
        /// Its bytes.
        first_range: String,
        /// The other one, which comes later in the buffer.
        second: String,
        /// Its bytes.
        second_range: String,
    },
    /// Values of 16 bits that a step writes, and others that lie in the other half of their last word of 4 bytes.
    #[error("{first} and {second} share a word of 4 bytes that a step writes: bytes {first_range} and {second_range}")]
    HalfWord {
        /// Parameter or output, and the tensor.
        first: String,
        /// Its bytes.
        first_range: String,
        /// The other one, which comes later in the buffer.
        second: String,
        /// Its bytes.
        second_range: String,
    },
    /// A tensor that does not fit one buffer of the device.
    #[error("tensor {tensor}: its {what} take {size_bytes} bytes, a buffer holds at most {page_bytes}")]
    TooLarge {
        /// The tensor's name.
        tensor: String,
        /// Values or state.
        what: &'static str,
        /// What it takes.
        size_bytes: u64,
        /// The largest page.
        page_bytes: u64,
    },
    /// A limit of the device that is too small.
    #[error("the device's {limit} is {found}, needed are {needed}")]
    Limit {
        /// The limit's name in `wgpu::Limits`.
        limit: &'static str,
        /// What the device has.
        found: u64,
        /// What is needed.
        needed: u64,
    },
    /// A `Gpu` other than the optimizer's.
    #[error("{what} belongs to another Gpu; clone one Gpu for everything on a device")]
    OtherGpu {
        /// What was given.
        what: &'static str,
    },
    /// No adapter, or none of that name.
    #[error("no adapter{wanted}; found: {found}")]
    NoAdapter {
        /// The name asked for, empty for any.
        wanted: String,
        /// All adapters there are.
        found: String,
    },
    /// A step or a move outside a step that comes out of turn: a look-ahead that is missing, doubled or for other
    /// tensors than the step, a step in evaluation.
    #[error("{what}: {message}")]
    Order {
        /// What was asked for.
        what: &'static str,
        /// What was done and what was expected.
        message: String,
    },
    /// A checkpoint that cannot be made, or that does not fit what is loaded from it.
    #[error("checkpoint: {what}: {message}")]
    Checkpoint {
        /// The rule, schedule, tensor, slot or count.
        what: String,
        /// What was found, and what was expected.
        message: String,
    },
    /// A file that cannot be written or read, or that is no sound checkpoint.
    #[error("{path}: {message}")]
    File {
        /// The path of the file.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// An encoded step that cannot be taken back.
    #[error("token: {message}")]
    EncodedStep {
        /// Why not.
        message: String,
    },
    /// What wgpu reported: validation, out of memory, a refused device.
    #[error("wgpu: {0}")]
    Wgpu(String),
    /// The device is gone; buffers on it are lost. Open another one, and load the last checkpoint.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
    /// The device has not finished its work in time ([`Gpu::set_deadline`](crate::Gpu::set_deadline)). The work may
    /// finish yet: ask again, or take the device for lost.
    #[error("the device has not finished its work within the deadline of {seconds} s")]
    Deadline {
        /// The deadline.
        seconds: f64,
    },
}

/// `Result` with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// Refuses a value: the error names field, value and bound.
///
/// # Errors
/// Always [`Error::Field`].
pub fn refuse<T>(field: impl Into<String>, value: impl ToString, bound: impl Into<String>) -> Result<T> {
    Err(refusal(field.into(), value.to_string(), bound.into()))
}

/// The one body of [`refuse`].
fn refusal(field: String, mut value: String, bound: String) -> Error {
    // `Display` writes 1e-60 with all its zeros. JSON's reader of numbers is in every build; the standard library's
    // would bring tables of its own.
    if let Some(number) = serde_json::from_str::<serde_json::Number>(&value).ok().and_then(|number| number.as_f64()) {
        let short = format!("{number:e}");
        if value.len() > 12 && short.len() < value.len() {
            value = short;
        }
    }
    Error::Field { field, value, bound }
}

/// `value` must be at least 0 and finite, also after rounding to f32.
///
/// # Errors
/// [`Error::Field`], naming field, value and bound.
pub fn at_least_zero(field: &str, value: f64) -> Result<()> {
    if value >= 0.0 && (value as f32).is_finite() { Ok(()) } else { refuse(field, value, "at least 0 and finite") }
}

/// `value` must be at least 0 and below 1, also after rounding to f32.
///
/// # Errors
/// [`Error::Field`], naming field, value and bound.
pub fn below_one(field: &str, value: f64) -> Result<()> {
    if value >= 0.0 && (value as f32) < 1.0 { Ok(()) } else { refuse(field, value, "at least 0 and below 1") }
}

/// `value` must be above 0 and finite, also after rounding to f32.
///
/// # Errors
/// [`Error::Field`], naming field, value and bound.
pub fn above_zero(field: &str, value: f64) -> Result<()> {
    let rounded = value as f32;
    if rounded > 0.0 && rounded.is_finite() { Ok(()) } else { refuse(field, value, "above 0 and finite in f32") }
}
