//! One copy of a name that occurs again soon.
//!
//! A store repeats the same names: the id and installation of a node in each of its keys, the name and domain of a pool
//! in each claim from it. With a copy each, names are most of the memory of a view of a full store. This bounded cache
//! keeps the last names of a thread, so that most equal names share one copy; only the memory use shows it.

use std::cell::RefCell;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

/// Slots for names. A node id that takes the slot of a pool's name now and then costs one more copy of that name.
const PLACES: usize = 512;

thread_local! {
    static RECENT: RefCell<Vec<Arc<str>>> = RefCell::new(vec![Arc::from(""); PLACES]);
}

/// The text as a name: a recent copy if there is one.
pub(super) fn shared(text: &str) -> Arc<str> {
    let place = BuildHasherDefault::<DefaultHasher>::default().hash_one(text) as usize % PLACES;
    let found = RECENT.try_with(|recent| {
        let mut recent = recent.try_borrow_mut().ok()?;
        let slot = recent.get_mut(place)?;
        if **slot != *text {
            *slot = Arc::from(text);
        }
        Some(slot.clone())
    });
    // Only a thread that is ending has no cache.
    found.ok().flatten().unwrap_or_else(|| Arc::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_names_share_one_copy_and_every_name_is_right() {
        let first = shared("edge-7");
        assert!(Arc::ptr_eq(&first, &shared("edge-7")));
        for n in 0..10 * PLACES {
            let name = format!("edge-{n}");
            assert_eq!(&*shared(&name), name);
        }
        assert_eq!(&*shared("edge-7"), "edge-7");
        assert_eq!(&*first, "edge-7");
    }
}
