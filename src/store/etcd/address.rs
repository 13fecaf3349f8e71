//! Endpoints as people write them → where to dial and whether with TLS. Pure.

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Host name or IP address, IPv6 without brackets.
    pub(super) host: String,
    /// Port.
    pub(super) port: u16,
    /// Whether TLS is spoken.
    pub(super) tls: bool,
}

/// The text without what stands before an `@`: it may be a password.
fn without_password(text: &str) -> String {
    let Some((before, host)) = text.rsplit_once('@') else { return text.to_owned() };
    let scheme = before.find("://").and_then(|at| before.get(..at + 3)).unwrap_or_default();
    format!("{scheme}…@{host}")
}

impl Address {
    /// Reads `host:port`, `http://host:port`, `https://host:port`; `tls` says what no scheme means.
    pub(super) fn parse(text: &str, tls: bool) -> Result<Address, String> {
        let shown = without_password(text);
        let wrong = |why: &str| format!("endpoint {shown:?} {why}: expected host:port, http://host:port or https://host:port");
        let trimmed = text.trim();
        if trimmed.contains('@') {
            return Err(wrong("carries a user, which is given by --user and --password-file"));
        }
        let (tls, rest) = match trimmed.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(wrong("has an unknown scheme")),
            None => (tls, trimmed),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("names no port"))?;
        let port = port.parse().map_err(|_| wrong("has no valid port"))?;
        let host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(wrong("has no valid IPv6 address in its brackets")),
            None if host.contains([':', '/', '@', ' ']) || host.is_empty() => return Err(wrong("has no valid host")),
            None => host,
        };
        Ok(Address { host: host.to_owned(), port, tls })
    }

    /// `host:port`, IPv6 in brackets.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn what_people_write() {
        let check = |text: &str, tls: bool, host: &str, port: u16, expected_tls: bool| {
            let address = Address::parse(text, tls).unwrap();
            assert_eq!(address, Address { host: host.into(), port, tls: expected_tls }, "{text}");
        };
        check("127.0.0.1:2379", false, "127.0.0.1", 2379, false);
        check("etcd.example:2379", true, "etcd.example", 2379, true);
        check("http://h:1/", true, "h", 1, false);
        check("https://[fd00::1]:2379", false, "fd00::1", 2379, true);
        check("[::1]:2379", false, "::1", 2379, false);
        for bad in ["", "host", "host:", "host:x", "host:70000", "ftp://h:1", "::1:2379", "[x]:1", "http://u@h:1", ":2379"] {
            assert!(Address::parse(bad, false).is_err(), "{bad}");
        }
        for secret in ["http://u:pw@h:1", "u:pw@h:1", "https://u:p@w@h:x"] {
            let said = Address::parse(secret, false).unwrap_err();
            assert!(!said.contains("pw") && !said.contains("p@w") && said.contains("--user"), "{said}");
        }
        assert_eq!(Address::parse("https://[fd00::1]:2379", false).unwrap().authority(), "[fd00::1]:2379");
    }
}
