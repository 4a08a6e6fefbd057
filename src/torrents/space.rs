//! How much room the data directory has, and the floor below which nothing more is stored.

/// Nothing is stored while less than this is free.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Floor {
    /// Of the file system's size: 5.0 is five per cent.
    Percent(f64),
    /// Bytes.
    Bytes(u64),
}
