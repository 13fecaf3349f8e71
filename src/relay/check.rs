//! Whether the copies are what the source holds. Pure; for `enlist check` and for tests.
//!
//! The exact question can be asked of a live system: read the destination, then the source *as of the checkpoint's
//! revision*. If that is compacted, a newer read of the source still proves some findings, and only those are told.

use crate::model::finding::Finding;
use crate::relay::diff::{CopyId, Mirror};
use crate::store::api::RangeResponse;
use crate::store::feed::Update;
use crate::store::keys::Prefix;

/// Compares `nodes/` of the source with `manager/nodes/` and `manager/checkpoint` of the destination; each read is of one
/// revision (its header's). A destination that no relay ever wrote has no findings.
pub fn check(source: (&Prefix, &RangeResponse), destination: (&Prefix, &RangeResponse)) -> Vec<Finding> {
    let mut mirror = Mirror::new(source.0.clone(), destination.0.clone());
    mirror.apply_source(reset(source.1));
    mirror.apply_destination(reset(destination.1));
    // A reader may have read all of `manager/`; what is not below `manager/nodes/` is the manager's.
    let copies = destination.0.folder("manager/nodes");
    let mut findings: Vec<Finding> = mirror
        .foreign()
        .iter()
        .filter(|key| copies.contains(key))
        .map(|key| {
            let message = "is no copy and not ours: the relay leaves it alone; delete it if nobody needs it";
            Finding::about("foreign-copy-key", destination.0.relative(key), message)
        })
        .collect();
    findings.extend(mirror.left_out().iter().map(|id| {
        let message = format!("is longer than {} bytes: it is not copied", crate::relay::diff::VALUE_BYTES_MAX);
        Finding::about("copy-left-out", source_key(id), message)
    }));
    match mirror.checkpoint().map(|seen| &seen.value) {
        None if mirror.copies() == 0 => {}
        None => findings
            .push(about_checkpoint("checkpoint-missing", "copies are there without it: no reader uses them until a relay runs")),
        Some(Err(error)) => findings.push(about_checkpoint("checkpoint-unreadable", &error.to_string())),
        Some(Ok(checkpoint)) if checkpoint.partial.is_some() => {
            findings.push(about_checkpoint("checkpoint-partial", "a cut is under way; if it stays, no relay runs"));
        }
        Some(Ok(checkpoint)) => {
            let exact = source.1.header.revision == checkpoint.revision;
            findings.extend(
                mirror
                    .differing()
                    .iter()
                    .filter(|id| {
                        // What changed at the source after the checkpoint is on its way.
                        exact || mirror.source_changed(id).is_some_and(|changed| changed <= checkpoint.revision)
                    })
                    .map(|id| difference(&mirror, id)),
            );
        }
    }
    findings.sort();
    findings
}

fn reset(read: &RangeResponse) -> Update {
    Update::Reset {
        revision: read.header.revision,
        cluster_id: read.header.cluster_id,
        kvs: read.kvs.clone(),
        stepped_back: false,
    }
}

fn difference(mirror: &Mirror, id: &CopyId) -> Finding {
    let (code, message) = match (mirror.wanted(id).is_some(), mirror.has_copy(id)) {
        (true, false) => ("copy-missing", "the source has it, the copies lack it"),
        (false, _) => ("copy-stale", "the copies have it, the source lacks it"),
        (true, true) => ("copy-differs", "the copy is not what the source holds, or is on a lease"),
    };
    Finding { code, keys: vec![format!("manager/{}", source_key(id)), source_key(id)], message: message.into() }
}

fn source_key((node, part): &CopyId) -> String {
    format!("nodes/{node}/{}", part.as_str())
}

fn about_checkpoint(code: &'static str, message: &str) -> Finding {
    Finding::about(code, "manager/checkpoint", message)
}
