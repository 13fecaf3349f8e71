//! Reading a range of any size, in pages.

use super::api::{Header, Key, KeyRange, KeyValue, RangeRequest, RangeResponse, Store, StoreError};
use crate::model::names::Revision;

/// Keys of the first page: 5,000 labels of usual size are 2–3 MiB and take 10–12 ms to serve.
const FIRST_KEYS: i64 = 5_000;
/// … and of a later one of a large range, while a page is not larger than [`PAGE_BYTES`]. For each page etcd walks over all
/// that is left of the range, so a read of a million keys in small pages takes most of its time for that.
const KEYS_MAX: i64 = 40_000;
/// A page that is larger than this is not followed by one with more keys.
const PAGE_BYTES: usize = 4 << 20;

/// A range that is read page by page. All pages are of one revision.
#[derive(Debug)]
pub struct Pages {
    store: Store,
    /// What is asked next; `None` = everything was read.
    next: Option<RangeRequest>,
    header: Option<Header>,
}

impl Store {
    /// Reads a range page by page, all of it as of one revision: the one given, or the one at which the first page is
    /// answered.
    pub fn pages(&self, range: KeyRange, revision: Option<Revision>) -> Pages {
        let next = RangeRequest { limit: FIRST_KEYS, revision, ..RangeRequest::all(range) };
        Pages { store: self.clone(), next: Some(next), header: None }
    }

    /// Reads everything in a range as of one revision, in pages, so that no page is too large for the transport.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Compacted`] if a compaction overtook the reading. An incomplete read is an error,
    /// never a shorter answer.
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
    /// The next page; `None` after the last. (After an error it may be asked for again.)
    ///
    /// # Errors
    /// See [`Store::read_all`].
    pub async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, StoreError> {
        let Some(request) = &mut self.next else { return Ok(None) };
        let page = loop {
            match self.store.range(request.clone()).await {
                // Values so large that a page of them does not fit into one answer: smaller pages.
                Err(StoreError::TooLarge) if request.limit > 1 => request.limit /= 4,
                page => break page?,
            }
        };
        let header =
            *self.header.get_or_insert(Header { revision: request.revision.unwrap_or(page.header.revision), ..page.header });
        match page.kvs.last().filter(|_| page.more) {
            None => self.next = None,
            Some(last) => {
                request.range.start = after(&last.key);
                request.revision = Some(header.revision);
                if request.limit >= FIRST_KEYS && bytes(&page.kvs) <= PAGE_BYTES {
                    request.limit = (request.limit * 2).min(KEYS_MAX);
                }
            }
        }
        Ok(Some(page.kvs))
    }

    /// Who answered, and the revision of what was read. Nobody before the first page.
    pub fn header(&self) -> Header {
        self.header.unwrap_or_default()
    }
}

/// The first key after this one.
pub(super) fn after(key: &Key) -> Key {
    let mut bytes = key.as_bytes().to_vec();
    bytes.push(0);
    Key::from(bytes)
}

fn bytes(kvs: &[KeyValue]) -> usize {
    kvs.iter().map(|kv| kv.key.as_bytes().len() + kv.value.len()).sum()
}
