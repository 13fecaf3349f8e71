//! Which servers are known to lose watch events, and which let users past their grants: a warning for each, once per process.
//! They are worked with all the same: views verify slowly in the background and drop what is not newer than what they have.

use std::sync::Once;

/// Warns, the first time it is called with a version below 3.4.38 / 3.5.22 / 3.6.2, and, the first time it is called with a
/// user, below 3.5.33 / 3.6.14 / 3.7.1.
pub(super) fn warn_once(version: &str, has_user: bool) {
    static WATCHES: Once = Once::new();
    static USERS: Once = Once::new();
    if has_known_watch_faults(version) {
        WATCHES.call_once(|| {
            tracing::warn!(
                version,
                "this etcd has known faults in watches and leases; 3.4.38, 3.5.22, 3.6.2 or newer is recommended"
            );
        });
    }
    if has_user && lets_users_past_grants(version) {
        USERS.call_once(|| {
            tracing::warn!(
                version,
                "etcd users of this version protect from mistakes only: a hostile user reads and writes past its grants; \
                 3.5.33, 3.6.14, 3.7.1 or newer is recommended"
            );
        });
    }
}

/// Fixed in 3.4.38, 3.5.22 and 3.6.2.
fn has_known_watch_faults(version: &str) -> bool {
    is_below(version, &[(4, 38), (5, 22), (6, 2)])
}

/// The last of these fixes (GHSA-xg4h-6gfc-h4m8) is in 3.5.33, 3.6.14 and 3.7.1; 3.4 does not get it.
fn lets_users_past_grants(version: &str) -> bool {
    is_below(version, &[(5, 33), (6, 14), (7, 1)])
}

/// Whether a 3.x version is older than the fix of its minor version, or than the oldest minor version that has one. What cannot
/// be read counts as new.
fn is_below(version: &str, fixed: &[(u32, u32)]) -> bool {
    let mut parts = version.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let (Some(major), Some(minor), patch) = (parts.next(), parts.next(), parts.next().unwrap_or(0)) else {
        return false;
    };
    let oldest = fixed.first().is_some_and(|(oldest, _)| minor < *oldest);
    major < 3 || (major == 3 && (oldest || fixed.iter().any(|(of, from)| minor == *of && patch < *from)))
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

    #[test]
    fn grants_hold_from_three_fixed_versions_on() {
        for old in ["3.4.23", "3.4.99", "3.5.16", "3.5.32", "3.6.13", "3.7.0", "3.3.27", "2.3.8"] {
            assert!(lets_users_past_grants(old), "{old}");
        }
        for new in ["3.5.33", "3.6.14", "3.7.1", "3.8.0", "4.0.0", "", "unknown"] {
            assert!(!lets_users_past_grants(new), "{new}");
        }
    }
}
