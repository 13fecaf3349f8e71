//! Which servers are known to lose watch events: a warning, once per process. They are worked with all the same: views verify
//! slowly in the background and drop what is not newer than what they have.

use std::sync::Once;

/// Warns, the first time it is called with a version below 3.4.38 / 3.5.22 / 3.6.2.
pub(super) fn warn_once(version: &str) {
    static ONCE: Once = Once::new();
    if has_known_watch_faults(version) {
        ONCE.call_once(|| {
            tracing::warn!(
                version,
                "this etcd has known faults in watches and leases; 3.4.38, 3.5.22, 3.6.2 or newer is recommended"
            );
        });
    }
}

/// Fixed in 3.4.38, 3.5.22 and 3.6.2. What cannot be read is taken for new.
fn has_known_watch_faults(version: &str) -> bool {
    let mut parts = version.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let (Some(major), Some(minor), patch) = (parts.next(), parts.next(), parts.next().unwrap_or(0)) else {
        return false;
    };
    match (major, minor) {
        (3, 0..=3) => true,
        (3, 4) => patch < 38,
        (3, 5) => patch < 22,
        (3, 6) => patch < 2,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_known_faults() {
        for old in ["3.4.23", "3.4.37", "3.5.16", "3.5.21", "3.6.0", "3.6.1-rc.1", "3.3.27"] {
            assert!(has_known_watch_faults(old), "{old}");
        }
        for new in ["3.4.38", "3.5.22", "3.6.2", "3.7.0", "4.0.0", "", "unknown"] {
            assert!(!has_known_watch_faults(new), "{new}");
        }
    }
}
