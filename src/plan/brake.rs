//! The brake: when many nodes fall silent at once, nothing is taken away. Stateless: every leader sees the same.

/// At least so many silent nodes …
pub const SILENT_MIN: usize = 3;
/// … and at least this share of the bound ones, in per cent. (Eureka's self-preservation uses 15 %.)
pub const SILENT_PERCENT_MIN: usize = 15;
/// A hold that ends while the brake is on is put again once, for this long.
pub const EXTENSION_S: u64 = 3600;
/// After that at most this share of the bound nodes a minute is released, in per cent.
pub const RELEASE_PERCENT_PER_MINUTE: usize = 15;

/// What the brake sees in one snapshot; counted in [`Index`](crate::plan::index::Index).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Brake {
    /// Nodes that have addresses (or addresses in `leaving`).
    pub bound: usize,
    /// Those of them that are silent. Stopped ones do not count.
    pub silent: usize,
}

impl Brake {
    /// Whether nothing may be taken away.
    ///
    /// ```
    /// use enlist::plan::brake::Brake;
    /// assert!(Brake { bound: 20, silent: 3 }.is_on());
    /// assert!(!Brake { bound: 21, silent: 3 }.is_on()); // 14.3 %
    /// assert!(!Brake { bound: 3, silent: 1 }.is_on()); // one of three is no mass loss
    /// ```
    pub fn is_on(self) -> bool {
        self.silent >= SILENT_MIN && self.silent * 100 >= self.bound * SILENT_PERCENT_MIN
    }
}
