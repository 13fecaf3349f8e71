//! Errors of the client crate → [`StoreError`], and what may be done after each: was anything sent, is the endpoint suspect, is
//! it the token. By gRPC code and by etcd's words, which have been stable since 3.0 (`api/v3rpc/rpctypes/error.go`).

use etcd_client::Error;
use tonic::{Code, Status};

use super::dial::{DialError, DialFault};
use crate::model::names::Revision;
use crate::store::api::StoreError;

/// What etcd says of a token that is older than the last change of users and roles.
const OLD_TOKEN: &str = "revision of auth store is old";

/// A call that failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// What the caller is told.
    pub(super) error: StoreError,
    /// The request had no effect for certain: even a write may be tried again elsewhere.
    pub(super) no_effect: bool,
    /// The endpoint, not the request, is to blame: try another.
    pub(super) endpoint: bool,
    /// The token is to blame: authenticate anew. Such a request had no effect.
    pub(super) token: bool,
    /// … because users changed while the request was under way: the same token may be good again.
    pub(super) old: bool,
    /// A member answered that it cannot serve just now: an election is under way.
    pub(super) soon: bool,
    /// The connection broke before the request was sent: make another.
    pub(super) gone: bool,
}

impl Failure {
    /// The request is to blame.
    pub(super) fn request(error: StoreError) -> Self {
        Failure { error, no_effect: false, endpoint: false, token: false, old: false, soon: false, gone: false }
    }

    /// The token is to blame.
    pub(super) fn token(reason: String) -> Self {
        let old = reason.contains(OLD_TOKEN);
        Failure { old, token: true, no_effect: true, ..Failure::request(StoreError::Refused(reason)) }
    }

    fn endpoint(error: StoreError, no_effect: bool) -> Self {
        Failure { error, no_effect, endpoint: true, token: false, old: false, soon: false, gone: false }
    }

    /// No answer in time.
    pub(super) fn timeout(milliseconds: u64) -> Self {
        Failure::endpoint(StoreError::Timeout { milliseconds }, false)
    }

    /// The endpoint may not be used, because of the cluster that it is of.
    pub(super) fn other_cluster(words: String) -> Self {
        Failure::endpoint(StoreError::OtherCluster(words), true)
    }

    /// No answer in time, but before the request was sent.
    pub(super) fn not_connected(endpoint: &str, reason: &str) -> Self {
        let error = StoreError::Unreachable { endpoints: endpoint.to_owned(), reason: reason.to_owned() };
        Failure::endpoint(error, true)
    }
}

/// What an error of the client means.
pub(super) fn classify(error: Error, endpoint: &str) -> Failure {
    match error {
        Error::GRpcStatus(status) => classify_status(&status, endpoint),
        Error::LeaseKeepAliveError(text) if text.contains("not found") => Failure::request(StoreError::NoLease),
        // The rest comes from inside the client: a closed stream, a broken channel.
        other => Failure::endpoint(StoreError::Broken(other.to_string()), false),
    }
}

fn classify_status(status: &Status, endpoint: &str) -> Failure {
    let chain = chain(status);
    if let Some(dial) = chain.iter().find_map(|error| error.downcast_ref::<DialError>()) {
        return match dial.kind {
            DialFault::Refused => Failure::endpoint(StoreError::Refused(format!("{endpoint}: {}", dial.reason)), true),
            DialFault::Unreached => Failure::not_connected(endpoint, &dial.reason),
            DialFault::Gone => Failure { gone: true, ..Failure::not_connected(endpoint, &dial.reason) },
        };
    }
    if !chain.is_empty() {
        let words: Vec<String> = chain.iter().map(|error| error.to_string()).collect();
        return transport(words, endpoint);
    }
    from_server(status.code(), status.message(), endpoint)
}

/// The causes of an error, outermost first.
fn chain(status: &Status) -> Vec<&(dyn std::error::Error + 'static)> {
    let mut causes = Vec::new();
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        causes.push(error);
        next = error.source();
    }
    causes
}

/// The connection broke. In TLS 1.3 a server tells only after the handshake that it does not take our certificate.
fn transport(mut words: Vec<String>, endpoint: &str) -> Failure {
    words.dedup();
    if let Some(alert) = words.iter().find(|text| text.contains("fatal alert")) {
        let hint = of_alert(alert).map(|hint| format!(" ({hint})")).unwrap_or_default();
        return Failure::endpoint(StoreError::Refused(format!("{endpoint}: TLS: {alert}{hint}")), true);
    }
    let text = words.pop().unwrap_or_else(|| "transport error".to_owned());
    Failure::endpoint(StoreError::Broken(format!("{endpoint}: {text}")), false)
}

/// What to do about what a server says of our certificate.
fn of_alert(alert: &str) -> Option<&'static str> {
    [
        ("CertificateRequired", "etcd wants a client certificate: name one by --cert and --key"),
        ("UnknownCA", "etcd does not know the authority that signed the client certificate"),
        ("CertificateExpired", "the client certificate has expired"),
        ("BadCertificate", "etcd does not take the client certificate"),
    ]
    .into_iter()
    .find_map(|(name, hint)| alert.contains(name).then_some(hint))
}

/// What etcd itself answered.
fn from_server(code: Code, message: &str, endpoint: &str) -> Failure {
    let says = |words: &str| message.contains(words);
    let text = message.trim_start_matches("etcdserver: ").to_owned();
    if says("required revision has been compacted") {
        return Failure::request(StoreError::Compacted(Revision::NONE));
    }
    if says("required revision is a future revision") {
        return Failure::request(StoreError::Future);
    }
    if says("too many operations in txn request") {
        return Failure::request(StoreError::TooManyOps);
    }
    // Of a request, or (found here, not there) of an answer.
    if says("decoded message length too large")
        || says("request is too large")
        || (code == Code::ResourceExhausted && says("larger than max"))
    {
        return Failure::request(StoreError::TooLarge);
    }
    if says("requested lease not found") {
        return Failure::request(StoreError::NoLease);
    }
    if says("database space exceeded") {
        return Failure::request(StoreError::NoSpace);
    }
    if is_token_trouble(code, message) {
        return Failure::token(text);
    }
    if is_refusal(code, message) {
        return Failure::request(StoreError::Refused(text));
    }
    // Turned away before anything was proposed.
    if says("no leader") || says("too many requests") || says("rpc not supported for learner") {
        return Failure { soon: true, ..Failure::not_connected(endpoint, &text) };
    }
    // Plain HTTP: a proxy without an etcd behind it, or something else altogether. Another endpoint may be one.
    if says("grpc-status header missing") {
        let words = format!("{endpoint}: what answers there is no etcd ({text})");
        return Failure::endpoint(StoreError::Broken(words), false);
    }
    match code {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted => {
            let soon = says("leader changed");
            Failure { soon, ..Failure::endpoint(StoreError::Broken(format!("{endpoint}: {text}")), false) }
        }
        _ => Failure::request(StoreError::Other(text)),
    }
}

/// A token that ran out, or is older than a change of users and roles; auth that was switched on under a client without one.
fn is_token_trouble(code: Code, message: &str) -> bool {
    code == Code::Unauthenticated
        || ["invalid auth token", OLD_TOKEN, "user name is empty"].iter().any(|words| message.contains(words))
}

fn is_refusal(code: Code, message: &str) -> bool {
    code == Code::PermissionDenied
        || ["permission denied", "authentication failed", "authentication is not enabled", "user name not found"]
            .iter()
            .any(|words| message.contains(words))
}

/// Whether a watch that was created and cancelled at once was refused for its token. 3.4 says `Unauthenticated`, 3.5 also
/// `PermissionDenied`; a permission that is truly missing looks the same, so one retry with a new token decides.
pub(super) fn is_watch_refusal(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    ["permission", "unauthenticated", "auth token", "auth store", "user name is empty"].iter().any(|words| reason.contains(words))
}

/// Whether auth is off at a server that was given a user: then calls go without, as etcdctl's do.
pub(super) fn is_auth_off(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, message: &str) -> Failure {
        classify(Error::GRpcStatus(Status::new(code, message)), "h:1")
    }

    #[test]
    fn each_word_of_etcd_has_its_error() {
        let check = |code, message: &str, expected: StoreError| assert_eq!(of(code, message).error, expected, "{message}");
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        check(Code::OutOfRange, compacted, StoreError::Compacted(Revision::NONE));
        check(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision", StoreError::Future);
        check(Code::InvalidArgument, "etcdserver: too many operations in txn request", StoreError::TooManyOps);
        check(Code::InvalidArgument, "etcdserver: request is too large", StoreError::TooLarge);
        let grpc = "grpc: received message larger than max (3000012 vs. 2097152)";
        check(Code::ResourceExhausted, grpc, StoreError::TooLarge);
        let answer = "Error, decoded message length too large: found 70000000 bytes, the limit is: 67108864 bytes";
        check(Code::OutOfRange, answer, StoreError::TooLarge);
        check(Code::NotFound, "etcdserver: requested lease not found", StoreError::NoLease);
        check(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", StoreError::NoSpace);
        check(Code::PermissionDenied, "etcdserver: permission denied", StoreError::Refused("permission denied".into()));
        let wrong = "authentication failed, invalid user ID or password";
        check(Code::InvalidArgument, &format!("etcdserver: {wrong}"), StoreError::Refused(wrong.into()));
        let web = "grpc-status header missing, mapped from HTTP status code 404";
        check(Code::Unimplemented, web, StoreError::Broken(format!("h:1: what answers there is no etcd ({web})")));
        let duplicate = "etcdserver: duplicate key given in txn request";
        check(Code::InvalidArgument, duplicate, StoreError::Other("duplicate key given in txn request".into()));
    }

    #[test]
    fn only_what_was_never_proposed_may_be_written_again() {
        assert!(of(Code::Unavailable, "etcdserver: no leader").no_effect);
        let unknown = of(Code::Unauthenticated, "etcdserver: invalid auth token");
        assert!(unknown.token && !unknown.old);
        let old = of(Code::InvalidArgument, "etcdserver: revision of auth store is old");
        assert!(old.token && old.old && old.no_effect);
        let lost = of(Code::Unavailable, "etcdserver: request timed out");
        assert!(!lost.no_effect && lost.endpoint && lost.error.is_unknown_outcome());
    }
}
