//! The store: one conformance suite over the model in memory and both etcds, random scripts that compare all three, and what only
//! a real etcd can show.

mod cases;
mod clusters;
mod differential;
mod endpoints;
mod feed;
mod gated_feed;
mod secured;
pub(crate) mod subject;

use std::time::Instant;

use crate::support::etcd::{Etcd, EtcdVersion};
use subject::Subject;

/// Runs every case on one store, one after another; each has keys of its own.
async fn conform(subject: Subject) {
    macro_rules! run {
        ($($module:ident: $($case:ident),+;)+) => {
            $($(
                let began = Instant::now();
                let keys = concat!(stringify!($case), "/");
                println!("{} {}", subject.name(), stringify!($case));
                cases::$module::$case(&subject, keys).await;
                println!("  done in {:?}", began.elapsed());
            )+)+
        };
    }
    run! {
        range: limits_and_counts, a_page_is_pinned_to_its_revision, prefix_read_excludes_siblings, large_range_is_read_completely_in_pages,
            future_and_compacted_revisions_are_rejected, oversized_page_is_read_in_smaller_ones;
        txn: a_branch_is_chosen_by_compares, a_read_sees_the_writes_before_it, nested_compares_see_the_state_before,
            siblings_do_not_see_each_other, txn_without_writes_makes_no_revision, the_width_of_each_level_is_bounded,
            a_key_is_written_once, unknown_lease_fails_the_whole_txn, an_empty_range_is_a_compare, large_request_is_rejected;
        lease: keys_of_a_lease_expire_in_one_revision, a_beat_keeps_a_lease, revoked_lease_answers_that_it_is_gone,
            concurrent_beats_are_answered_for_their_leases, a_put_moves_its_key_to_its_lease;
        watch: events_come_in_order_after_created, a_resumed_watch_misses_nothing, one_revision_is_one_response,
            siblings_are_not_watched, large_responses_are_assembled, a_compacted_start_is_cancelled,
            a_start_in_the_future_shows_in_created, progress_is_answered, a_dropped_watch_is_cancelled,
            slow_readers_delay_no_other_call;
    }
}

#[tokio::test(start_paused = true)]
async fn the_model_conforms() {
    conform(Subject::memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_3_4_conforms() {
    conform(Subject::etcd(Etcd::start(EtcdVersion::V3_4)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_3_5_conforms() {
    conform(Subject::etcd(Etcd::start(EtcdVersion::V3_5)).await).await;
}
