//! One copy of a name that is met again soon.
//!
//! A store says the same names over and over: a node's id and installation in each of its keys, a pool's name and domain in each
//! claim out of it. With a copy each, names are most of what a view of a full store holds. This keeps the last names of a
//! thread, so that most of those that are equal are one. It is bounded, and nobody can tell but by counting bytes.

use std::cell::RefCell;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

/// Places for names. Node ids that pass by cost a place that a pool's name had now and then, which costs one more copy of that.
const PLACES: usize = 512;

thread_local! {
    static RECENT: RefCell<Vec<Arc<str>>> = RefCell::new(vec![Arc::from(""); PLACES]);
}

/// The text as a name: shared with one that was met a moment ago, if there was one.
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
    // Only a thread that is ending has none.
    found.ok().flatten().unwrap_or_else(|| Arc::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_that_follow_each_other_are_one_and_any_number_of_others_is_right() {
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
