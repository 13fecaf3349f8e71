//! The file of `--passwords`: lines of `NAME:PASSWORD`, or `NAME` alone.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::exit::Fault;
use crate::store::users::Login;

/// Reads it.
pub fn read(path: &Path) -> anyhow::Result<BTreeMap<String, Login>> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Fault::Usage(format!("failed to read {}: {error}", path.display())))?;
    Ok(parse(&text).map_err(|reason| Fault::Usage(format!("{}: {reason}", path.display())))?)
}

/// Empty lines and lines that begin with `#` are skipped. A password may contain colons and ends with its line.
fn parse(text: &str) -> Result<BTreeMap<String, Login>, String> {
    let mut logins = BTreeMap::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
        let (name, login) = match line.split_once(':') {
            Some((_, "")) => return Err(format!("line {}: the password is empty", at + 1)),
            Some((name, password)) => (name, Login::Password(password.to_owned())),
            None => (line.trim_end(), Login::Certificate),
        };
        if logins.insert(name.to_owned(), login).is_some() {
            return Err(format!("line {}: user `{name}` is listed twice", at + 1));
        }
    }
    Ok(logins)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn password_may_contain_colons() {
        let logins = parse("# of the roles\n\nenlist-relay:a:b \nedge-7\n").unwrap();
        assert_eq!(logins["enlist-relay"], Login::Password("a:b ".into()));
        assert_eq!(logins["edge-7"], Login::Certificate);
        assert_eq!(parse("a:").unwrap_err(), "line 1: the password is empty");
        assert_eq!(parse("a:1\na:2").unwrap_err(), "line 2: user `a` is listed twice");
    }
}
