//! A first copy of more than 10 MiB takes several transactions; relays are killed at every step of it.

use enlist::model::names::Revision;
use enlist::store::api::{Op, Txn};
use enlist::store::feed::{Feed, FeedSettings, Scope, Update};

use super::*;

const NODES: usize = 250;

async fn fill(pair: &Pair) {
    let large = "x".repeat(45_000);
    let nodes: Vec<usize> = (0..NODES).collect();
    for chunk in nodes.chunks(25) {
        let put = |node: &usize| {
            let key = format!("{SOURCE}/nodes/n{node:03}/label");
            Op::put(key, label(&format!("n{node:03}"), &[], &large))
        };
        pair.from.txn(Txn { then: chunk.iter().map(put).collect(), ..Txn::default() }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_at_each_part_goes_on_where_it_was() {
    let pair = Pair::start(EtcdVersion::V3_5, EtcdVersion::V3_4);
    fill(&pair).await;
    // Killed as soon as the destination shows one part more.
    let range = KeyRange::one(format!("{DESTINATION}/manager/checkpoint"));
    let mut kills = 0;
    loop {
        let rng = fastrand::Rng::with_seed(kills);
        let mut feed = Feed::open(pair.to.clone(), Scope::one(range.clone()), FeedSettings::default(), rng);
        // A killed relay's next part may still have been on its way.
        let Update::Reset { kvs, .. } = feed.next().await else { panic!("a feed begins with everything") };
        let stored = kvs.first().map(|kv| Checkpoint::decode(&kv.value).unwrap());
        if stored.as_ref().is_some_and(|checkpoint| checkpoint.partial.is_none()) {
            break;
        }
        assert!(stored.is_none_or(|checkpoint| checkpoint.revision == Revision::NONE));
        let relay = pair.relay(&format!("r{kills}"));
        loop {
            let update = tokio::time::timeout(LIMIT, feed.next()).await.unwrap();
            if matches!(update, Update::Events { events, .. } if !events.is_empty()) {
                break;
            }
        }
        drop(relay);
        kills += 1;
    }
    assert!(kills >= 3, "the relay was killed {kills} times");
    assert!(pair.is_equal().await);
    let (complete, partial) = pair.assert_cuts(Revision(1)).await;
    assert!(complete >= 1 && partial >= 1, "{complete} complete, {partial} partial states");
}
