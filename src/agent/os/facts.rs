//! Facts of the host as variables: `host/arch`, `host/os`, `host/kernel`, `host/cpus`, `host/memory-gib`,
//! `host/hostname`.

use std::collections::BTreeMap;
use std::fs;

/// The host's name.
pub fn hostname() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_else(|_| "unknown".into())
}

/// The facts. Facts that cannot be read are left out.
pub fn gather() -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value.map(|value| make_valid(&value)).filter(|value| !value.is_empty()) {
            facts.insert(format!("host/{name}"), value);
        }
    };
    add("arch", Some(std::env::consts::ARCH.to_owned()));
    add("os", os(&fs::read_to_string("/etc/os-release").unwrap_or_default()).or(Some("linux".into())));
    add("kernel", fs::read_to_string("/proc/sys/kernel/osrelease").ok());
    add("cpus", std::thread::available_parallelism().ok().map(|n| n.to_string()));
    add("memory-gib", fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_gib(&text)));
    add("hostname", Some(hostname()));
    facts
}

/// The distribution's id, e.g. `debian`.
fn os(release: &str) -> Option<String> {
    release.lines().find_map(|line| line.strip_prefix("ID=")).map(|id| id.trim_matches('"').to_owned())
}

/// Memory in whole GiB, rounded: the kernel keeps some of it, so that 64 GiB show as 62.7.
fn memory_gib(meminfo: &str) -> Option<String> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(((kib + 512 * 1024) / (1024 * 1024)).to_string())
}

/// Makes a valid value of a variable: other bytes become `-`, ends are trimmed to a letter or digit, at most 63
/// characters.
fn make_valid(value: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let text: String = value.trim().chars().map(|c| if good(c) { c } else { '-' }).collect();
    let no_end = |c: char| !c.is_ascii_alphanumeric();
    let text: String = text.trim_start_matches(no_end).chars().take(63).collect();
    text.trim_end_matches(no_end).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::variables::{check_name, check_value};

    #[test]
    fn facts_are_valid_variables() {
        let facts = gather();
        for name in ["arch", "os", "kernel", "cpus", "hostname", "memory-gib"] {
            assert!(facts.contains_key(&format!("host/{name}")), "{name} is missing in {facts:?}");
        }
        for (name, value) in facts {
            assert_eq!((check_name(&name), check_value(&value)), (Ok(()), Ok(())), "{name}={value}");
        }
    }

    #[test]
    fn invalid_values_become_valid() {
        assert_eq!(make_valid(" 6.1.0+deb (x86)\n"), "6.1.0-deb--x86");
        assert_eq!(make_valid("--"), "");
        assert_eq!(make_valid(&format!("{}-tail", "a".repeat(62))), "a".repeat(62));
        assert_eq!(os("NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n").as_deref(), Some("debian"));
        assert_eq!(memory_gib("MemTotal:       65746216 kB\n").as_deref(), Some("63"));
    }
}
