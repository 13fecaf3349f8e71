//! A second watch for a view whose watch lags: it is drained while the first one catches up, and goes on from there.

use std::collections::VecDeque;

use futures::FutureExt;
use futures::future::{BoxFuture, select_all};

use super::Ahead;
use crate::model::names::Revision;
use crate::store::api::{Event, StoreError, Watch, WatchMessage};
use crate::store::watch::lag_of;

/// A watch that starts at the present and takes over from one that lags, once that has told everything up to its start.
///
/// At more than about 8,000 revisions a second a watch that fell behind once (a moment without the processor is enough) never
/// catches up: etcd gives it at most 1,000 revisions in a round, and decodes all that it is behind in each. One that starts
/// at the present is served at once.
pub(super) struct Relief {
    ahead: Ahead,
    /// What it told meanwhile: left unread, it would lag as well.
    told: VecDeque<WatchMessage>,
    /// Of keys and values in it.
    bytes: usize,
    /// The revision of its last event.
    upto: Revision,
    /// Events of a message that is not complete yet.
    unfinished: usize,
}

impl Relief {
    /// One that told nothing yet.
    pub(super) fn new(ahead: Ahead) -> Relief {
        Relief { upto: ahead.header.revision, ahead, told: VecDeque::new(), bytes: 0, unfinished: 0 }
    }

    /// It tells everything after this.
    pub(super) fn start(&self) -> Revision {
        self.ahead.header.revision
    }

    /// Keys and values that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps what it told. Answers by how many revisions it lags.
    pub(super) fn keep(&mut self, message: WatchMessage) -> i64 {
        let mut lag = 0;
        if let WatchMessage::Events { header, events, fragment } = &message {
            self.bytes += events.iter().map(bytes).sum::<usize>();
            self.upto = events.last().map_or(self.upto, Event::revision);
            self.unfinished += events.len();
            if !fragment {
                lag = lag_of(header, self.upto, std::mem::take(&mut self.unfinished));
            }
        }
        self.told.push_back(message);
        lag
    }

    /// It goes on with what it has told.
    pub(super) fn into_ahead(self) -> Ahead {
        let Relief { ahead: Ahead { watch, header }, told, .. } = self;
        Ahead { watch: Box::new(Told { told, watch }), header }
    }
}

fn bytes(event: &Event) -> usize {
    let value = if let Event::Put(kv) = event { kv.value.len() } else { 0 };
    event.key().as_bytes().len() + value
}

/// What one of them tells, and which. One that has told all up to the start of the next is not asked any more. Cancel-safe.
pub(super) async fn next_of(reliefs: &mut VecDeque<Relief>) -> (usize, Option<Result<WatchMessage, StoreError>>) {
    let starts: Vec<Revision> = reliefs.iter().skip(1).map(Relief::start).collect();
    let is_done = |(index, relief): &(usize, &mut Relief)| starts.get(*index).is_some_and(|next| relief.upto >= *next);
    let asked = reliefs.iter_mut().enumerate().filter(|relief| !is_done(relief));
    let next: Vec<_> = asked.map(|(index, relief)| relief.ahead.watch.next().map(move |message| (index, message))).collect();
    if next.is_empty() {
        return std::future::pending().await;
    }
    select_all(next).await.0
}

/// A watch whose first messages were received already.
struct Told {
    told: VecDeque<WatchMessage>,
    watch: Box<dyn Watch>,
}

impl Watch for Told {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchMessage, StoreError>>> {
        async {
            match self.told.pop_front() {
                Some(message) => Some(Ok(message)),
                None => self.watch.next().await,
            }
        }
        .boxed()
    }

    fn request_progress(&mut self) -> BoxFuture<'_, ()> {
        self.watch.request_progress()
    }
}
