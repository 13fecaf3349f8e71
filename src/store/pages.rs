//! Reads a range of any size in pages.

use std::time::Duration;

use tokio::time::Instant;

use super::api::{Header, KeyRange, KeyValue, RangeRequest, RangeResponse, Store, StoreError};
use crate::model::names::Revision;

/// Keys of the first page: 5,000 labels of usual size are 2–3 MiB and take 10–12 ms to serve.
const FIRST_KEYS: i64 = 5_000;
/// Keys of a later page of a large range, at most. For each page etcd walks over the whole rest of the range, so small
/// pages take most of the time of a read of a million keys.
const KEYS_MAX: i64 = 40_000;
/// After a page larger than this the pages stop growing.
const GROWS_BYTES: usize = 4 << 20;
/// Pages stop growing too after one that took longer: twice as many keys must come within half of a call's time-out (5
/// s), the time that a read waits for its first endpoint when it has another.
const GROWS_WITHIN: Duration = Duration::from_secs(1);

/// A range read page by page. All pages are of one revision.
#[derive(Debug)]
pub struct Pages {
    store: Store,
    /// The next request; `None` = everything was read.
    next: Option<RangeRequest>,
    header: Option<Header>,
}

impl Store {
    /// Reads a range page by page, all of it as of one revision: the given one, or that of the first answer.
    pub fn pages(&self, range: KeyRange, revision: Option<Revision>) -> Pages {
        let next = RangeRequest { limit: FIRST_KEYS, revision, ..RangeRequest::all(range) };
        Pages { store: self.clone(), next: Some(next), header: None }
    }

    /// Reads everything in a range as of one revision, in pages, so that no page is too large for the transport.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Compacted`] if a compaction overtook the reading. An incomplete read is an
    /// error, never a shorter answer.
    pub async fn read_all(&self, range: KeyRange, revision: Option<Revision>) -> Result<RangeResponse, StoreError> {
        let mut pages = self.pages(range, revision);
        let mut kvs = Vec::new();
        while let Some(page) = pages.next().await? {
            kvs.extend(page);
        }
        let count = i64::try_from(kvs.len()).unwrap_or(i64::MAX);
        Ok(RangeResponse { header: pages.header(), kvs, more: false, count })
    }
}

impl Pages {
    /// Reads the next page; `None` after the last. (After an error the caller may ask for it again.)
    ///
    /// # Errors
    /// See [`Store::read_all`].
    pub async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, StoreError> {
        let Some(request) = &mut self.next else { return Ok(None) };
        let (page, took) = loop {
            let began = Instant::now();
            match self.store.range(request.clone()).await {
                // Large values: a page of them does not fit into one answer, so pages become smaller.
                Err(StoreError::TooLarge) if request.limit > 1 => request.limit /= 4,
                // The line has become slow since the pages grew.
                Err(StoreError::Timeout { .. }) if request.limit > FIRST_KEYS => request.limit = FIRST_KEYS,
                page => break (page?, began.elapsed()),
            }
        };
        let header =
            *self.header.get_or_insert(Header { revision: request.revision.unwrap_or(page.header.revision), ..page.header });
        match page.kvs.last().filter(|_| page.more) {
            None => self.next = None,
            Some(last) => {
                request.range.start = last.key.successor();
                request.revision = Some(header.revision);
                if request.limit >= FIRST_KEYS && bytes(&page.kvs) <= GROWS_BYTES && took <= GROWS_WITHIN {
                    request.limit = (request.limit * 2).min(KEYS_MAX);
                }
            }
        }
        Ok(Some(page.kvs))
    }

    /// The header of the answers, with the revision of the read. The default header before the first page.
    pub fn header(&self) -> Header {
        self.header.unwrap_or_default()
    }
}

fn bytes(kvs: &[KeyValue]) -> usize {
    kvs.iter().map(|kv| kv.key.as_bytes().len() + kv.value.len()).sum()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::{Arc, Mutex};

    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;
    use crate::store::api::{Op, Txn};
    use crate::store::around::Around;
    use crate::store::memory::MemoryEtcd;

    /// A line that carries this many keys in a second, and the requests sent over it. No call waits longer than a
    /// time-out.
    #[derive(Debug)]
    struct Line {
        inner: Store,
        keys_per_s: f64,
        asked: Arc<Mutex<Vec<i64>>>,
    }

    const TIMEOUT: Duration = Duration::from_secs(5);

    impl Around for Line {
        fn inner(&self) -> &Store {
            &self.inner
        }

        fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, StoreError>> {
            async move {
                self.asked.lock().unwrap().push(request.limit);
                let response = self.inner.range(request).await?;
                let takes = Duration::from_secs_f64(response.kvs.len() as f64 / self.keys_per_s);
                tokio::time::sleep(takes.min(TIMEOUT)).await;
                if takes > TIMEOUT { Err(StoreError::Timeout { milliseconds: 5_000 }) } else { Ok(response) }
            }
            .boxed()
        }
    }

    async fn full(keys: usize) -> Store {
        let store = MemoryEtcd::default().store();
        let puts: Vec<Op> = (0..keys).map(|key| Op::put(format!("/n/{key:06}"), "v")).collect();
        for some in puts.chunks(128) {
            store.txn(Txn { then: some.to_vec(), ..Txn::default() }).await.unwrap();
        }
        store
    }

    /// The limits of the pages requested over a line of this speed.
    async fn asked(store: &Store, keys_per_s: f64) -> Vec<i64> {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let line = Store::new(Arc::new(Line { inner: store.clone(), keys_per_s, asked: asked.clone() }));
        let read = line.read_all(KeyRange::prefix("/n/"), None).await.unwrap();
        let expected = store.range(RangeRequest::all(KeyRange::prefix("/n/"))).await.unwrap();
        assert_eq!((read.kvs, read.header, read.count), (expected.kvs, expected.header, expected.count));
        asked.lock().unwrap().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn pages_grow_while_they_come_quickly() {
        let store = full(100_000).await;
        assert_eq!(asked(&store, 1e9).await, [5_000, 10_000, 20_000, 40_000, 40_000]);
        // The third page takes more than a second.
        assert_eq!(asked(&store, 19_000.0).await, [5_000, 10_000, 20_000, 20_000, 20_000, 20_000, 20_000]);
        // Each page takes more than a second.
        assert_eq!(asked(&store, 4_000.0).await, [5_000; 20]);
    }

    #[tokio::test(start_paused = true)]
    async fn page_that_times_out_is_read_in_smaller_ones() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let line = Line { inner: full(30_000).await, keys_per_s: 3_000.0, asked: asked.clone() };
        let mut pages = Store::new(Arc::new(line)).pages(KeyRange::prefix("/n/"), None);
        pages.next.as_mut().unwrap().limit = 20_000;
        let mut keys = 0;
        while let Some(page) = pages.next().await.unwrap() {
            keys += page.len();
        }
        assert_eq!(keys, 30_000);
        assert_eq!(*asked.lock().unwrap(), [20_000, 5_000, 5_000, 5_000, 5_000, 5_000, 5_000]);
    }
}
