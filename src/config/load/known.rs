//! Which settings there are, and which one was probably meant by a name that is none.

use serde_json::Value as Json;

use super::ConfigError;
use crate::config::sections::Settings;

/// Every key there is, as `section.key`.
pub fn known_keys() -> Vec<String> {
    let Ok(Json::Object(sections)) = serde_json::to_value(Settings::default()) else { return Vec::new() };
    let key = |section: &str, keys: &Json| match keys {
        Json::Object(keys) => keys.keys().map(|key| format!("{section}.{key}")).collect(),
        _ => Vec::new(),
    };
    sections.iter().flat_map(|(section, keys)| key(section, keys)).collect()
}

/// Refuses a key that does not exist. Entries of a setting that is a map (`agent.variables.zone`) may have any name.
pub(super) fn check(origin: &str, key: &str) -> Result<(), ConfigError> {
    let keys = known_keys();
    let is_entry = |known: &String| key.strip_prefix("agent.variables.").is_some() && known == "agent.variables";
    if keys.iter().any(|known| known == key || is_entry(known)) {
        return Ok(());
    }
    Err(ConfigError::Unknown { origin: origin.into(), key: key.into(), hint: hint(key, &keys) })
}

/// The nearest name, else what is allowed there.
fn hint(key: &str, keys: &[String]) -> String {
    if let Some(near) = nearest(key, keys) {
        return format!("did you mean {near}?");
    }
    let section = key.split('.').next().unwrap_or_default();
    let in_section: Vec<&str> = keys.iter().filter_map(|known| known.strip_prefix(section)?.strip_prefix('.')).collect();
    if !in_section.is_empty() {
        return format!("section {section} has {}", in_section.join(", "));
    }
    let mut sections: Vec<&str> = keys.iter().filter_map(|known| known.split('.').next()).collect();
    sections.dedup();
    format!("sections are {}", sections.join(", "))
}

/// The known key that looks most like `key`, if any looks like it at all.
fn nearest(key: &str, keys: &[String]) -> Option<String> {
    let (section, name) = key.rsplit_once('.').unwrap_or_default();
    let name = if section.is_empty() { key } else { name };
    keys.iter()
        .filter_map(|known| {
            let (its_section, its_name) = known.split_once('.')?;
            let names = strsim::jaro_winkler(its_name, name);
            let score = if its_section == section {
                names
            } else {
                // A right name in the wrong section is as near as a slip of the pen.
                strsim::jaro_winkler(known, key).max(names - 0.05)
            };
            Some((score, known))
        })
        .filter(|(score, _)| *score > 0.7)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known.clone())
}
