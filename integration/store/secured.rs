//! TLS and authentication of real etcds.

use std::time::Duration;

use enlist::Store;
use enlist::model::names::Revision;
use enlist::store::api::{KeyRange, Op, StoreError, Txn, WatchRequest};
use enlist::store::etcd::StoreSettings;

use super::subject::{LIMIT, events, next};
use crate::support::certs::Certs;
use crate::support::etcd::{Etcd, EtcdOptions, EtcdVersion};
use crate::support::wait;

fn put(key: &str) -> Txn {
    Txn { then: vec![Op::put(key, "x")], ..Txn::default() }
}

async fn refusal(settings: StoreSettings) -> String {
    match Store::connect(settings.clone()).await {
        Err(StoreError::Refused(reason)) => reason,
        other => panic!("{settings:?}: {other:?}"),
    }
}

#[tokio::test]
async fn tls_is_spoken_and_its_refusals_say_why() {
    for version in EtcdVersion::ALL {
        let certs = Certs::generate();
        let etcd = Etcd::start_with(version, &EtcdOptions { tls: Some(certs.clone()), ..EtcdOptions::default() });
        let good = etcd.settings();
        let store = Store::connect(good.clone()).await.unwrap();
        store.txn(put("a")).await.unwrap();
        let mut watch = store.watch(WatchRequest { range: KeyRange::one("a"), start: Revision(1), beside: false }).await.unwrap();
        next(&mut watch).await;
        assert_eq!(events(&mut watch, 1).await.len(), 1);

        let by_name = StoreSettings { endpoints: vec![etcd.endpoint.replace("127.0.0.1", "https://localhost")], ..good.clone() };
        Store::connect(by_name).await.unwrap();
        let unverified = StoreSettings { cacert: None, insecure_skip_tls_verify: true, ..good.clone() };
        Store::connect(unverified).await.unwrap();

        let wrong_ca = StoreSettings { cacert: Some(Certs::generate().ca()), ..good.clone() };
        let reason = refusal(wrong_ca).await;
        assert!(reason.contains("certificate") && !reason.contains('\n'), "{reason}");
        let system_ca = StoreSettings { cacert: None, ..good.clone() };
        assert!(refusal(system_ca).await.contains("certificate"));
        let no_certificate = StoreSettings { cert: None, key: None, ..good.clone() };
        assert!(refusal(no_certificate).await.contains("TLS"));
        let no_key = StoreSettings { key: None, ..good.clone() };
        assert!(refusal(no_key).await.contains("without its key"));
        let no_file = StoreSettings { cacert: Some("/absent/ca.pem".into()), ..good.clone() };
        assert!(refusal(no_file).await.contains("/absent/ca.pem"));
        // Plain text to a TLS port: the connection just breaks.
        let plain = StoreSettings { endpoints: vec![format!("http://{}", etcd.endpoint)], ..StoreSettings::default() };
        assert!(Store::connect(plain).await.is_err());
    }
}

#[tokio::test]
async fn tls_to_a_plain_port_says_what_may_be_wrong() {
    let etcd = Etcd::start(EtcdVersion::V3_4);
    let settings = StoreSettings::endpoints([format!("https://{}", etcd.endpoint)]);
    // A plain etcd answers nothing to TLS.
    let error = Store::connect(settings).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreachable { reason, .. } if reason.contains("TLS")), "{error:?}");
}

#[tokio::test]
async fn renewed_certificates_are_used_without_a_restart() {
    let certs = Certs::generate();
    let mut etcd = Etcd::start_with(EtcdVersion::V3_5, &EtcdOptions { tls: Some(certs.clone()), ..EtcdOptions::default() });
    let store = Store::connect(etcd.settings()).await.unwrap();
    store.txn(put("a")).await.unwrap();
    // Another authority altogether: with what was read at the start nothing would work.
    certs.renew();
    etcd.restart();
    wait::until("the store works again", LIMIT, || async { store.txn(put("b")).await.ok() }).await;
    store.watch(WatchRequest { range: KeyRange::one("a"), start: Revision(1), beside: false }).await.unwrap();
}

/// A connection that lives never shows its certificate again: without a look at the files a renewal would show only when the old one
/// has expired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_replaced_when_certificates_change() {
    let certs = Certs::generate();
    let etcd = Etcd::start_with(EtcdVersion::V3_5, &EtcdOptions { tls: Some(certs.clone()), ..EtcdOptions::default() });
    let store = Store::connect(etcd.settings()).await.unwrap();
    let mut watch = store.watch(WatchRequest { range: KeyRange::one("a"), start: Revision::NONE, beside: false }).await.unwrap();
    next(&mut watch).await;
    let (lease, _) = store.grant(60).await.unwrap();
    let mut kept = store.keep_alive(lease).await.unwrap();
    assert_eq!(kept.beat().await, Ok(60));
    let began = tokio::time::Instant::now();
    // The same certificate in a new file, as a renewal leaves it; the key a moment later.
    for file in [certs.client_cert(), certs.client_key()] {
        let text = std::fs::read(&file).unwrap();
        std::fs::write(file.with_extension("new"), text).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    }
    assert!(tokio::time::timeout(LIMIT, watch.next()).await.expect("the watch goes on").unwrap().is_err());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    store.txn(put("a")).await.unwrap();
    assert_eq!(kept.beat().await, Ok(60));
    // Half of a change: the connections stay, and what is under way goes on.
    let mut watch = store.watch(WatchRequest { range: KeyRange::one("a"), start: Revision::NONE, beside: false }).await.unwrap();
    next(&mut watch).await;
    std::fs::write(certs.client_cert(), "no certificate").unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(5), watch.next()).await.is_err());
    store.txn(put("a")).await.unwrap();
}

/// An etcd with authentication: root, and `reader` who may read under `r/` only. Tokens live for two seconds.
fn with_users(version: EtcdVersion) -> Etcd {
    with_users_and(version, EtcdOptions { flags: vec!["--auth-token-ttl=2".into()], ..EtcdOptions::default() })
}

fn with_users_and(version: EtcdVersion, options: EtcdOptions) -> Etcd {
    let etcd = Etcd::start_with(version, &options);
    for arguments in [
        "user add root:secret",
        "user add reader:word",
        "role add reading",
        "role grant-permission reading read r/ r0",
        "user grant-role reader reading",
        "role add root",
        "user grant-role root root",
        "auth enable",
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        if let Err(error) = etcd.etcdctl(&arguments) {
            // 3.5 makes the role `root` by itself.
            assert!(error.contains("already exists"), "{arguments:?}: {error}");
        }
    }
    etcd
}

fn login(etcd: &Etcd, user: &str) -> StoreSettings {
    StoreSettings { user: Some(user.to_owned()), ..etcd.settings() }
}

#[tokio::test]
async fn a_wrong_user_is_refused_with_the_reason() {
    for version in EtcdVersion::ALL {
        let etcd = with_users(version);
        for user in ["root:wrong", "nobody:x", "root:"] {
            let reason = refusal(login(&etcd, user)).await;
            assert!(reason.contains("authentication failed"), "{user}: {reason}");
        }
        let anonymous = etcd.store();
        assert!(matches!(anonymous.get("r/a").await, Err(StoreError::Refused(_))));
        let root = Store::connect(login(&etcd, "root:secret")).await.unwrap();
        let written = root.txn(put("r/a")).await.unwrap().header.revision;
        let reader = Store::connect(login(&etcd, "reader:word")).await.unwrap();
        assert!(reader.get("r/a").await.unwrap().1.is_some());
        for (denied, what) in [(reader.txn(put("r/a")).await.err(), "write r/a"), (reader.get("s").await.err(), "read s")] {
            let words = format!("permission denied: user \"reader\" may not {what}");
            assert_eq!(denied, Some(StoreError::Refused(words)));
        }
        let watched = reader.watch(WatchRequest { range: KeyRange::one("s"), start: written, beside: false }).await.err();
        assert!(watched.unwrap().to_string().contains("user \"reader\" may not watch s"));
        let watch = |range| reader.watch(WatchRequest { range, start: written, beside: false });
        assert!(matches!(watch(KeyRange::prefix("s/")).await.err(), Some(StoreError::Refused(_))));
        let mut allowed = watch(KeyRange::prefix("r/")).await.unwrap();
        next(&mut allowed).await;
        assert_eq!(events(&mut allowed, 1).await.len(), 1);
    }
}

#[tokio::test]
async fn a_user_is_no_harm_where_there_is_no_authentication() {
    let etcd = Etcd::start(EtcdVersion::V3_4);
    let store = Store::connect(login(&etcd, "root:secret")).await.unwrap();
    store.txn(put("a")).await.unwrap();
    store.watch(WatchRequest { range: KeyRange::one("a"), start: Revision(1), beside: false }).await.unwrap();
}

#[tokio::test]
async fn an_expired_token_is_renewed_for_calls_watches_and_beats() {
    for version in EtcdVersion::ALL {
        let etcd = with_users(version);
        let store = Store::connect(login(&etcd, "root:secret")).await.unwrap();
        let (lease, _) = store.grant(60).await.unwrap();
        let mut keep_alive = store.keep_alive(lease).await.unwrap();
        let mut beats = 0;
        let began = tokio::time::Instant::now();
        // Longer than three lives of a token; each turn goes on only when everything works.
        while began.elapsed() < Duration::from_secs(7) {
            let revision = store.txn(put("a")).await.unwrap().header.revision;
            let mut watch =
                store.watch(WatchRequest { range: KeyRange::one("a"), start: revision, beside: false }).await.unwrap();
            next(&mut watch).await;
            events(&mut watch, 1).await;
            beats += i64::from(keep_alive.beat().await.unwrap() > 0);
            // The pause is the point: tokens that are used live on.
            tokio::time::sleep(Duration::from_millis(2_300)).await;
        }
        assert!(beats >= 3);
        // Users and roles change: every token is then older than the users' store.
        etcd.etcdctl(&["--user", "root:secret", "user", "add", "later:x"]).unwrap();
        store.txn(put("a")).await.unwrap();
        store.watch(WatchRequest { range: KeyRange::one("a"), start: Revision(1), beside: false }).await.unwrap();
        store.grant(60).await.unwrap();
    }
}

/// Every change of a user makes all tokens old. A client with many calls under way logs in once for all of them: each login costs
/// etcd a password hash of some 50 ms, and calls have a time-out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_with_an_old_token_log_in_once() {
    for version in EtcdVersion::ALL {
        let etcd = with_users(version);
        let store = Store::connect(login(&etcd, "root:secret")).await.unwrap();
        let name = r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Authenticate",grpc_service="etcdserverpb.Auth",grpc_type="unary"}"#;
        let logins = || etcd.metric(name);
        etcd.etcdctl(&["--user", "root:secret", "user", "add", "later:x"]).unwrap();
        let before = logins();
        assert!(before > 0.0, "the metric is there");
        let calls = (0..60).map(|call| store.txn(put(&format!("k{call}"))));
        for answer in futures::future::join_all(calls).await {
            answer.unwrap();
        }
        let more = logins() - before;
        assert!(more <= 3.0, "{more} logins");
    }
}

/// Users are added and deleted 20 times a second while others write. etcd refuses what is under way then, and it had no effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_fails_while_users_change() {
    // The cheapest password hash: the point is not how long a login takes.
    let flags = vec!["--bcrypt-cost=4".into()];
    let etcd = with_users_and(EtcdVersion::V3_5, EtcdOptions { flags, ..EtcdOptions::default() });
    let store = Store::connect(login(&etcd, "root:secret")).await.unwrap();
    let options = etcd_client::ConnectOptions::new().with_user("root", "secret").with_auto_token_refresh(true);
    let mut users = etcd_client::Client::connect([etcd.endpoint.clone()], Some(options)).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (store, stopped) = (store.clone(), stopped.clone());
            tokio::spawn(async move {
                let (mut written, mut failed) = (0, Vec::new());
                while !*stopped.borrow() {
                    match store.txn(put(&format!("k{writer}"))).await {
                        Ok(_) => written += 1,
                        Err(error) => failed.push(error),
                    }
                }
                (written, failed)
            })
        })
        .collect();
    let mut every = tokio::time::interval(Duration::from_millis(50));
    let mut changes = 0;
    while changes < 80 {
        every.tick().await;
        let name = format!("u{changes}");
        // What changes the users is refused for the same reason now and then.
        changes += i32::from(users.user_add(name, "x", None).await.is_ok());
    }
    stop.send_replace(true);
    let mut all = 0;
    for writer in writers {
        let (written, failed) = writer.await.unwrap();
        assert_eq!(failed, [], "of {written}");
        all += written;
    }
    assert!(all > 400, "only {all} writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_password_is_read_from_its_file() {
    let flags = vec!["--bcrypt-cost=4".into()];
    let etcd = with_users_and(EtcdVersion::V3_5, EtcdOptions { flags, ..EtcdOptions::default() });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    let settings = StoreSettings { user: Some("root".into()), password_file: Some(file.clone()), ..etcd.settings() };
    let store = Store::connect(settings).await.unwrap();
    store.txn(put("a")).await.unwrap();
    let options = etcd_client::ConnectOptions::new().with_user("root", "secret");
    let client = etcd_client::Client::connect([etcd.endpoint.clone()], Some(options)).await.unwrap();
    client.auth_client().user_change_password("root", "other").await.unwrap();
    // Until the file has it, calls are refused; then they work within 5 s, however often they were refused before.
    let refused = wait::until("the old password is refused", LIMIT, || async { store.txn(put("a")).await.err() }).await;
    assert!(refused.to_string().contains("authentication failed"), "{refused}");
    for _ in 0..20 {
        assert!(matches!(store.txn(put("a")).await, Err(StoreError::Refused(_))));
    }
    std::fs::write(&file, "other\n").unwrap();
    wait::until("the new password is used", Duration::from_secs(5), || async { store.txn(put("a")).await.ok() }).await;
}

#[tokio::test]
async fn authentication_that_is_switched_on_later_is_taken_up() {
    let etcd = Etcd::start(EtcdVersion::V3_5);
    let store = Store::connect(login(&etcd, "root:secret")).await.unwrap();
    store.txn(put("a")).await.unwrap();
    for arguments in ["user add root:secret", "user grant-role root root", "auth enable"] {
        etcd.etcdctl(&arguments.split(' ').collect::<Vec<_>>()).unwrap();
    }
    store.txn(put("a")).await.unwrap();
    store.watch(WatchRequest { range: KeyRange::one("a"), start: Revision(1), beside: false }).await.unwrap();
}
