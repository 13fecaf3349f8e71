//! A store whose answers are spoilt on demand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::model::names::Revision;
use crate::store::api::{Header, RangeRequest, RangeResponse, Store, StoreError, Watch, WatchMessage, WatchRequest};
use crate::store::around::Around;

/// What is spoilt.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// One for each next read: its error, or `None` = let it pass.
    pub(super) reads: VecDeque<Option<StoreError>>,
    /// Every watch is refused with this.
    pub(super) refused: Option<StoreError>,
    /// One for each next watch.
    pub(super) watches: VecDeque<Spoilt>,
    /// What watches were asked for, and when.
    pub(super) opened: Vec<(Revision, Instant)>,
}

/// What is spoilt in one watch.
#[derive(Debug, Clone, Default)]
pub(super) struct Spoilt {
    /// Its member is so many revisions behind when it is created.
    pub(super) behind: i64,
    /// It ends, without an error, after so many messages.
    pub(super) ends_after: Option<usize>,
    /// It says nothing after so many messages.
    pub(super) silent_after: Option<usize>,
    /// Said right after "created".
    pub(super) says: Vec<WatchMessage>,
}

/// A store whose answers are spoilt.
#[derive(Debug, Clone)]
pub(super) struct Doctored {
    pub(super) inner: Store,
    pub(super) script: Arc<Mutex<Script>>,
}

impl Around for Doctored {
    fn inner(&self) -> &Store {
        &self.inner
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
        match self.script.lock().unwrap().reads.pop_front().flatten() {
            Some(error) => async move { Err(error) }.boxed(),
            None => self.inner.range(request).boxed(),
        }
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Box<dyn Watch>, StoreError>> {
        async move {
            let (refused, spoilt) = {
                let mut script = self.script.lock().unwrap();
                script.opened.push((request.start, Instant::now()));
                (script.refused.clone(), script.watches.pop_front().unwrap_or_default())
            };
            if let Some(error) = refused {
                return Err(error);
            }
            let inner = self.inner.watch(request).await?;
            Ok(Box::new(SpoiltWatch { inner, spoilt, said: 0 }) as Box<dyn Watch>)
        }
        .boxed()
    }
}

struct SpoiltWatch {
    inner: Box<dyn Watch>,
    spoilt: Spoilt,
    said: usize,
}

impl SpoiltWatch {
    async fn spoilt_next(&mut self) -> Option<Result<WatchMessage, StoreError>> {
        if self.spoilt.silent_after.is_some_and(|after| self.said >= after) {
            return std::future::pending().await;
        }
        if self.spoilt.ends_after.is_some_and(|after| self.said >= after) {
            return None;
        }
        let message = match self.said {
            0 => self.inner.next().await,
            _ if !self.spoilt.says.is_empty() => Some(Ok(self.spoilt.says.remove(0))),
            _ => self.inner.next().await,
        };
        self.said += 1;
        match message {
            Some(Ok(WatchMessage::Created(header))) => {
                let revision = Revision(header.revision.0 - self.spoilt.behind);
                Some(Ok(WatchMessage::Created(Header { revision, ..header })))
            }
            other => other,
        }
    }
}

impl Watch for SpoiltWatch {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<WatchMessage, StoreError>>> {
        self.spoilt_next().boxed()
    }

    fn request_progress(&mut self) -> BoxFuture<'_, ()> {
        self.inner.request_progress()
    }
}
