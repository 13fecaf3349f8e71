//! A bar on stderr for people; nothing where stderr is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar, or nothing. It goes when it is dropped.
pub struct Bar(ProgressBar);

impl Bar {
    /// For so many steps of something.
    pub fn new(what: impl Into<String>, steps: usize) -> Bar {
        let bar = ProgressBar::new(steps as u64);
        // A constant template: that it is valid is what the test below is for.
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(what.into());
        Bar(bar)
    }

    /// So many more are done.
    pub fn add(&self, steps: usize) {
        self.0.inc(steps as u64);
    }

    /// So many are done.
    pub fn set(&self, steps: usize) {
        self.0.set_position(steps as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

const TEMPLATE: &str = "{msg:24} {wide_bar} {pos}/{len} {per_sec} {eta}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
