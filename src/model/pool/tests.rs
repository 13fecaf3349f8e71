//! Text forms of a pool's fields, and every rule of `fault`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

fn pool(change: impl FnOnce(&mut Pool)) -> Pool {
    let mut pool = Pool::named("eu".parse().unwrap(), "default".parse().unwrap());
    pool.cidrs = nets(&["10.20.0.0/16", "fd00:20::/64"]);
    change(&mut pool);
    pool
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn reserve(pool: &mut Pool, node: &str, addresses: &[&str]) {
    pool.reserve.insert(node.parse().unwrap(), addresses.iter().map(|ip| ip.parse().unwrap()).collect());
}

#[test]
fn ports_are_a_range_or_one() {
    let check = |text: &str, range: Option<(u16, u16)>| {
        assert_eq!(text.parse::<PortRange>().ok().map(|r| (r.first, r.last)), range, "{text:?}");
    };
    check("30000-32767", Some((30000, 32767)));
    check("1-65535", Some((1, 65535)));
    check("8080", Some((8080, 8080)));
    check(" 80 - 90 ", Some((80, 90)));
    for bad in ["", "-", "0", "0-5", "5-4", "80-", "-80", "1-65536", "80-90-100", "http", "+80", "8 0"] {
        check(bad, None);
    }
    assert_eq!(PORTS_DEFAULT.to_string(), "30000-32767");
    assert_eq!(PORTS_DEFAULT.count(), 2768);
    assert_eq!(PortRange { first: 1, last: 65535 }.count(), 65535);
    assert!(PORTS_DEFAULT.contains(30000) && PORTS_DEFAULT.contains(32767) && !PORTS_DEFAULT.contains(32768));
}

#[test]
fn move_at_once_is_a_share_or_a_count() {
    let check = |text: &str, of_95: Option<usize>| {
        let read = text.parse::<AtOnce>().ok();
        assert_eq!(read.map(|at_once| at_once.of(95)), of_95, "{text:?}");
        assert_eq!(read.map(|at_once| at_once.to_string()), of_95.map(|_| text.to_owned()));
    };
    for (text, of_95) in [("10%", 9), ("1%", 1), ("100%", 95), ("5", 5), ("1", 1), ("4294967295", 4_294_967_295)] {
        check(text, Some(of_95));
    }
    for bad in ["", "%", "0", "0%", "101%", "-1", "+1", "1.5%", "10 %", "all", "4294967296"] {
        check(bad, None);
    }
    assert_eq!(AtOnce::default().of(0), 1);
}

#[test]
fn words_are_stored_words() {
    for (word, sharing) in [("exclusive", Sharing::Exclusive), ("shared", Sharing::Shared), ("host", Sharing::Host)] {
        assert_eq!(word.parse::<Sharing>().unwrap(), sharing);
        assert_eq!(sharing.to_string(), word);
    }
    assert_eq!("Keep".parse::<OnMismatch>().unwrap_err(), "\"Keep\" is not one of keep, move");
    assert_eq!("move".parse::<OnIsolation>().unwrap_err(), "\"move\" is not one of keep, withdraw");
}

#[test]
fn good_pools_have_no_fault() {
    let good = |change: fn(&mut Pool)| assert_eq!(pool(change).fault(), None);
    good(|_| {});
    good(|p| p.cidrs = nets(&["0.0.0.0/0"]));
    good(|p| p.cidrs = nets(&["10.0.0.0/24", "10.0.1.0/24", "10.9.0.7/32"]));
    good(|p| p.exclude = nets(&["10.20.0.0/24", "10.20.0.0/16", "10.20.1.5/32", "192.0.2.0/24"]));
    good(|p| (p.sharing, p.cidrs) = (Sharing::Host, Vec::new()));
    good(|p| p.cooldown = Duration::ZERO);
    good(|p| (p.on_isolation, p.hold) = (OnIsolation::Withdraw, WITHDRAW_HOLD_MIN));
    good(|p| p.hold = TERM_MAX);
    good(|p| {
        reserve(p, "edge-7", &["10.20.9.9", "fd00:20::9"]);
        reserve(p, "edge-8", &["fd00:20::"]);
    });
    good(|p| {
        p.cidrs = nets(&["10.0.0.0/31", "10.0.0.4/32"]);
        reserve(p, "a", &["10.0.0.0"]);
        reserve(p, "b", &["10.0.0.1"]);
        reserve(p, "c", &["10.0.0.4"]);
    });
}

#[test]
fn every_fault_names_its_field() {
    let bad = |change: fn(&mut Pool), expected: &str| assert_eq!(pool(change).fault().unwrap_or_default(), expected);
    bad(|p| p.cidrs.clear(), "cidrs: with sharing exclusive at least one is needed, e.g. [10.20.0.0/16]");
    bad(
        |p| p.cidrs = nets(&["10.20.0.5/16"]),
        "cidrs: 10.20.0.5/16 has bits set after its prefix: 10.20.0.0/16 is meant, or 10.20.0.5?",
    );
    bad(
        |p| p.cidrs = nets(&["10.1.0.0/16", "10.3.0.0/16", "10.0.0.0/8"]),
        "cidrs: 10.1.0.0/16 is part of 10.0.0.0/8 already: name each address once",
    );
    bad(
        |p| p.cidrs = nets(&["10.0.0.0/8", "10.0.0.0/8"]),
        "cidrs: 10.0.0.0/8 is part of 10.0.0.0/8 already: name each address once",
    );
    bad(
        |p| p.cidrs = nets(&["::ffff:10.0.0.0/104"]),
        "cidrs: ::ffff:10.0.0.0/104 is IPv4 written as IPv6: one address has one spelling",
    );
    bad(|p| p.cidrs = vec!["10.0.0.0/32".parse().unwrap(); LIST_MAX + 1], "cidrs: 10001 are listed, at most 10000 are allowed");
    bad(
        |p| p.exclude = nets(&["10.20.0.1/24"]),
        "exclude: 10.20.0.1/24 has bits set after its prefix: 10.20.0.0/24 is meant, or 10.20.0.1?",
    );
    bad(|p| p.ports = PortRange { first: 0, last: 9 }, "ports: 0-9 is not FIRST-LAST, each 1 to 65535");
    bad(|p| p.ports = PortRange { first: 9, last: 8 }, "ports: 9-8 is not FIRST-LAST, each 1 to 65535");
}

#[test]
fn reservations_can_be_kept() {
    let bad = |change: fn(&mut Pool), expected: &str| assert_eq!(pool(change).fault().unwrap_or_default(), expected);
    bad(|p| reserve(p, "a", &["10.21.0.1"]), "reserve: a: 10.21.0.1 is not in cidrs");
    bad(|p| reserve(p, "a", &[]), "reserve: a: one address, or one of each family, is needed");
    bad(|p| reserve(p, "a", &["10.20.0.1", "10.20.0.2"]), "reserve: a: one address, or one of each family, is needed");
    bad(
        |p| reserve(p, "a", &["10.20.0.0"]),
        "reserve: a: 10.20.0.0 is the network or broadcast address of 10.20.0.0/16, which is never given",
    );
    bad(
        |p| reserve(p, "a", &["10.20.255.255"]),
        "reserve: a: 10.20.255.255 is the network or broadcast address of 10.20.0.0/16, which is never given",
    );
    bad(
        |p| {
            p.exclude = nets(&["10.20.1.0/28", "10.20.1.0/24", "10.20.1.4/32"]);
            reserve(p, "a", &["10.20.1.200"]);
        },
        "reserve: a: 10.20.1.200 is in exclude (10.20.1.0/24), which is never given",
    );
    bad(
        |p| {
            reserve(p, "a", &["10.20.0.1"]);
            reserve(p, "b", &["10.20.0.1"]);
        },
        "reserve: b: 10.20.0.1 is reserved for a already",
    );
    bad(
        |p| {
            p.sharing = Sharing::Host;
            reserve(p, "a", &["10.20.0.1"]);
        },
        "reserve: with sharing host every node has its own address: nothing can be reserved",
    );
}

#[test]
fn terms_are_whole_seconds_within_bounds() {
    let bad = |change: fn(&mut Pool), expected: &str| assert_eq!(pool(change).fault().unwrap_or_default(), expected);
    bad(|p| p.hold = Duration::ZERO, "hold: 0s is too short, at least 1s is needed");
    bad(|p| p.hold = Duration::from_millis(1500), "hold: 1s 500ms is not whole seconds");
    bad(
        |p| (p.on_isolation, p.hold) = (OnIsolation::Withdraw, Duration::from_secs(29)),
        "hold: 29s is too short, at least 30s is needed with on_isolation withdraw",
    );
    bad(|p| p.hold = TERM_MAX + Duration::from_secs(1), "hold: 315360001s is too long, at most 3650d is allowed");
    bad(|p| p.cooldown = TERM_MAX + Duration::from_secs(1), "cooldown: 315360001s is too long, at most 3650d is allowed");
    bad(|p| p.cooldown = Duration::from_millis(1), "cooldown: 1ms is not whole seconds");
}

#[test]
fn all_faults_are_told_at_once() {
    let faulty = pool(|p| {
        p.cidrs.clear();
        p.hold = Duration::ZERO;
    });
    let fields: Vec<_> = faulty.faults().iter().map(|fault| fault.field).collect();
    assert_eq!(fields, ["cidrs", "hold"]);
}

#[test]
fn what_only_a_document_must_not_say() {
    let check = |change: &dyn Fn(&mut Pool), expected: &[&str]| {
        let pool = pool(change);
        assert_eq!(pool.faults(), [], "a stored pool goes on");
        assert_eq!(pool.slips().iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    };
    check(&|_| {}, &[]);
    check(&|pool| pool.exclude = nets(&["10.20.0.0/24", "10.0.0.0/8", "fd00:20::7/128"]), &[]);
    check(
        &|pool| pool.exclude = nets(&["10.21.0.0/24", "10.20.0.1/32", "10.19.255.255/32", "fd00:21::/64"]),
        &[
            "exclude: 10.21.0.0/24 is outside of cidrs: there is nothing to exclude",
            "exclude: 10.19.255.255/32 is outside of cidrs: there is nothing to exclude",
            "exclude: fd00:21::/64 is outside of cidrs: there is nothing to exclude",
        ],
    );
    for (net, what) in [
        ("0.0.0.0/8", "the unspecified address"),
        ("224.0.0.0/24", "multicast addresses"),
        ("239.255.255.0/24", "multicast addresses"),
        ("255.255.255.255/32", "the broadcast address 255.255.255.255"),
        ("::/64", "the unspecified address"),
        ("ff02::/64", "multicast addresses"),
    ] {
        check(&|pool| pool.cidrs = nets(&[net]), &[&format!("cidrs: {net} holds {what}, which no node can have")]);
    }
    // Which hosts' own addresses count is another question.
    check(&|pool| (pool.cidrs, pool.sharing) = (nets(&["0.0.0.0/0", "::/0"]), Sharing::Host), &[]);
    check(
        &|pool| reserve(pool, "a", &["fd00:20::"]),
        &["reserve: a: fd00:20:: is the subnet-router anycast address of fd00:20::/64, which is never given"],
    );
}
