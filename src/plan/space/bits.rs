//! A hierarchical bitmap over all 128-bit numbers, which finds the next number that is not taken.
//!
//! Numbers are kept in pages of 4,096: a page with at most six numbers is a list of 16 bytes, a fuller one is 64 words
//! of 64 bits. So a fully taken /8 needs 2 MiB, and in an IPv6 /64, where each address has its own page, no page needs
//! 512 bytes. The set of *full pages* is again such a bitmap, one level up: a search takes one step per level, however
//! full the space is.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

/// A page holds 2¹² numbers.
const PAGE_BITS: u32 = 12;
/// A map with room for more pages than this shrinks when only an eighth of the room is used.
const SHRINK_FROM: usize = 4_096;
/// The length of the list. With their count six numbers need 16 bytes, as much as the variant for a fuller page.
const FEW: usize = 6;

/// A set of numbers that finds the next number that is not in it.
#[derive(Debug, Clone, Default)]
pub struct Bits {
    // Code looks up single pages and never needs an order: with ten million pages the way down a tree is eight cache
    // misses. (When the map doubles, all pages move: with millions of pages about a second, once.)
    pages: HashMap<u128, Page, BuildHasherDefault<DefaultHasher>>,
    /// The numbers of the pages without a free number; `None` until such a page exists.
    full_pages: Option<Box<Bits>>,
}

#[derive(Debug, Clone)]
enum Page {
    Few(Few),
    Many(Box<Words>),
}

/// A few numbers of a page, sorted.
#[derive(Debug, Clone, Default)]
struct Few {
    count: u8,
    offsets: [u16; FEW],
}

/// A page as bits.
#[derive(Debug, Clone)]
struct Words {
    words: [u64; 64],
    /// The words without a free bit.
    full_words: u64,
}

impl Bits {
    /// Adds a number. Returns whether it was absent before.
    pub fn insert(&mut self, number: u128) -> bool {
        let page_number = number >> PAGE_BITS;
        let page = self.pages.entry(page_number).or_insert_with(|| Page::Few(Few::default()));
        let added = page.insert(offset(number));
        if added && page.is_full() {
            self.full_pages.get_or_insert_default().insert(page_number);
        }
        added
    }

    /// Removes a number. Returns whether it was present.
    pub fn remove(&mut self, number: u128) -> bool {
        let page_number = number >> PAGE_BITS;
        let Some(page) = self.pages.get_mut(&page_number) else { return false };
        let was_full = page.is_full();
        let removed = page.remove(offset(number));
        if page.is_empty() {
            self.pages.remove(&page_number);
            if self.pages.capacity() > SHRINK_FROM && self.pages.len() < self.pages.capacity() / 8 {
                self.pages.shrink_to(self.pages.len() * 2);
            }
        }
        if removed
            && was_full
            && let Some(full) = &mut self.full_pages
        {
            full.remove(page_number);
            if full.is_empty() {
                self.full_pages = None;
            }
        }
        removed
    }

    /// Whether the set holds a number.
    pub fn contains(&self, number: u128) -> bool {
        self.pages.get(&(number >> PAGE_BITS)).is_some_and(|page| page.contains(offset(number)))
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// The smallest number from `number` on that is not in the set; `None` when all up to 2¹²⁸−1 are.
    pub fn next_clear(&self, number: u128) -> Option<u128> {
        let page_number = number >> PAGE_BITS;
        let Some(page) = self.pages.get(&page_number) else { return Some(number) };
        if let Some(offset) = page.next_clear(offset(number)) {
            return Some(page_number << PAGE_BITS | u128::from(offset));
        }
        let above = page_number + 1;
        let page_number = match &self.full_pages {
            Some(full) => full.next_clear(above)?,
            None => above,
        };
        if page_number > u128::MAX >> PAGE_BITS {
            return None;
        }
        let offset = self.pages.get(&page_number).map_or(Some(0), |page| page.next_clear(0))?;
        Some(page_number << PAGE_BITS | u128::from(offset))
    }
}

/// The position within a page.
fn offset(number: u128) -> u32 {
    (number & ((1 << PAGE_BITS) - 1)) as u32
}

impl Page {
    fn insert(&mut self, offset: u32) -> bool {
        match self {
            Page::Many(words) => words.insert(offset),
            Page::Few(few) => {
                let Err(at) = few.find(offset) else { return false };
                if !few.insert(at, offset) {
                    let mut words = Box::new(Words { words: [0; 64], full_words: 0 });
                    for listed in few.listed() {
                        words.insert(u32::from(*listed));
                    }
                    words.insert(offset);
                    *self = Page::Many(words);
                }
                true
            }
        }
    }

    fn remove(&mut self, offset: u32) -> bool {
        match self {
            Page::Many(words) => words.remove(offset),
            Page::Few(few) => few.find(offset).map(|at| few.remove(at)).is_ok(),
        }
    }

    fn contains(&self, offset: u32) -> bool {
        match self {
            Page::Many(words) => words.contains(offset),
            Page::Few(few) => few.find(offset).is_ok(),
        }
    }

    fn next_clear(&self, offset: u32) -> Option<u32> {
        match self {
            Page::Many(words) => words.next_clear(offset),
            Page::Few(few) => few.next_clear(offset),
        }
    }

    fn is_full(&self) -> bool {
        matches!(self, Page::Many(words) if words.full_words == u64::MAX)
    }

    fn is_empty(&self) -> bool {
        match self {
            Page::Many(words) => words.words.iter().all(|word| *word == 0),
            Page::Few(few) => few.count == 0,
        }
    }
}

impl Few {
    fn listed(&self) -> &[u16] {
        self.offsets.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// The index of an offset in the list, or the index at which it would be inserted.
    fn find(&self, offset: u32) -> Result<usize, usize> {
        self.listed().binary_search_by_key(&offset, |listed| u32::from(*listed))
    }

    /// Inserts at `at` if there is room. Returns whether there was.
    fn insert(&mut self, at: usize, offset: u32) -> bool {
        let count = usize::from(self.count);
        if count == FEW {
            return false;
        }
        self.offsets.copy_within(at..count, at + 1);
        if let Some(place) = self.offsets.get_mut(at) {
            // A page's offsets are below 2¹².
            *place = offset as u16;
        }
        self.count += 1;
        true
    }

    fn remove(&mut self, at: usize) {
        self.offsets.copy_within(at + 1..usize::from(self.count), at);
        self.count -= 1;
    }

    fn next_clear(&self, offset: u32) -> Option<u32> {
        let mut free = offset;
        for listed in self.listed() {
            free += u32::from(u32::from(*listed) == free);
        }
        Some(free).filter(|free| free >> PAGE_BITS == 0)
    }
}

impl Words {
    fn insert(&mut self, offset: u32) -> bool {
        let (at, bit) = (offset / 64, 1u64 << (offset % 64));
        let Some(word) = self.words.get_mut(at as usize) else { return false };
        let added = *word & bit == 0;
        *word |= bit;
        if *word == u64::MAX {
            self.full_words |= 1 << at;
        }
        added
    }

    fn remove(&mut self, offset: u32) -> bool {
        let (at, bit) = (offset / 64, 1u64 << (offset % 64));
        let Some(word) = self.words.get_mut(at as usize) else { return false };
        let removed = *word & bit != 0;
        *word &= !bit;
        if removed {
            self.full_words &= !(1 << at);
        }
        removed
    }

    fn contains(&self, offset: u32) -> bool {
        self.words.get(offset as usize / 64).is_some_and(|word| word & (1 << (offset % 64)) != 0)
    }

    fn next_clear(&self, offset: u32) -> Option<u32> {
        let (at, bit) = (offset / 64, offset % 64);
        let word = self.words.get(at as usize)?;
        let clear = !word & (u64::MAX << bit);
        if clear != 0 {
            return Some(at * 64 + clear.trailing_zeros());
        }
        // Words after this one; a shift by 64 would be an overflow, hence the two steps.
        let free_words = !self.full_words & ((u64::MAX << at) << 1);
        if free_words == 0 {
            return None;
        }
        let at = free_words.trailing_zeros();
        let word = self.words.get(at as usize)?;
        Some(at * 64 + (!word).trailing_zeros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn next_clear_skips_a_run_over_many_pages() {
        let mut bits = Bits::default();
        let start = (1u128 << 64) - 5_000; // across the 64-bit boundary
        for number in start..start + 40_000 {
            assert!(bits.insert(number));
        }
        assert_eq!(bits.next_clear(start - 1), Some(start - 1));
        assert_eq!(bits.next_clear(start), Some(start + 40_000));
        assert_eq!(bits.next_clear(start + 20_000), Some(start + 40_000));
    }

    /// The costliest free number: the last one, behind all taken ones. A search number by number, or word by word,
    /// would take hundreds of times as long in the fullest space as in the emptiest.
    #[test]
    fn next_clear_costs_the_same_at_1_and_at_99_9_per_cent() {
        const NUMBERS: u128 = 1 << 16;
        let cost = |per_mille: u128| {
            let mut bits = Bits::default();
            let taken = NUMBERS * per_mille / 1000;
            (0..taken).for_each(|number| assert!(bits.insert(number)));
            let search = || {
                let start = std::time::Instant::now();
                for number in 0..20_000 {
                    assert_eq!(bits.next_clear(std::hint::black_box(number % taken)), Some(taken));
                }
                start.elapsed()
            };
            // The fastest of several runs: other load on the machine is not part of the cost.
            (0..5).map(|_| search()).min().unwrap_or_default()
        };
        let costs = [10, 500, 999].map(cost);
        assert!(costs[1] < costs[0] * 20 && costs[2] < costs[0] * 20, "1 %, 50 %, 99.9 %: {costs:?}");
    }

    #[test]
    fn largest_number_can_be_taken() {
        let mut bits = Bits::default();
        for number in u128::MAX - 5_000..=u128::MAX {
            bits.insert(number);
        }
        assert_eq!(bits.next_clear(u128::MAX - 5_000), None);
        assert_eq!(bits.next_clear(u128::MAX - 5_001), Some(u128::MAX - 5_001));
    }

    #[test]
    fn list_of_few_is_as_small_as_the_pointer_to_many() {
        assert_eq!(size_of::<Page>(), 16);
    }

    /// The pages of a few numbers, with the first and last number of a page, as lists and as bits.
    #[test]
    fn few_and_many_numbers_behave_the_same() {
        for count in [1, FEW as u128, FEW as u128 + 1, 20] {
            for start in [0, 5, 4_096 - count, 4_096 - count / 2] {
                let mut bits = Bits::default();
                (start..start + count).rev().for_each(|number| assert!(bits.insert(number) && !bits.insert(number)));
                assert_eq!(bits.next_clear(start), Some(start + count));
                assert!(bits.contains(start) && bits.contains(start + count - 1) && !bits.contains(start + count));
                let middle = start + count / 2;
                assert!(bits.remove(middle) && !bits.remove(middle) && !bits.contains(middle));
                assert_eq!(bits.next_clear(start), Some(middle));
                assert!(bits.insert(middle));
                (start..start + count).for_each(|number| assert!(bits.remove(number)));
                assert!(bits.is_empty());
            }
        }
    }

    #[test]
    fn unused_room_is_released() {
        let mut bits = Bits::default();
        let numbers = || (0..50_000_u128).map(|n| n << 20);
        numbers().for_each(|number| assert!(bits.insert(number)));
        assert!(bits.pages.capacity() >= 50_000);
        numbers().skip(1_000).for_each(|number| assert!(bits.remove(number)));
        assert!(bits.pages.capacity() < 16 * 1_000, "{}", bits.pages.capacity());
        assert!(numbers().take(1_000).all(|number| bits.contains(number)));
    }

    proptest! {
        #[test]
        fn next_clear_agrees_with_a_plain_set(
            runs in proptest::collection::vec((any::<bool>(), 0u128..20_000, 1u128..6_000), 0..8),
            from in 0u128..26_000,
        ) {
            let mut bits = Bits::default();
            let mut plain = BTreeSet::new();
            for (is_added, start, length) in runs {
                for number in start..start + length {
                    if is_added {
                        prop_assert_eq!(bits.insert(number), plain.insert(number));
                    } else {
                        prop_assert_eq!(bits.remove(number), plain.remove(&number));
                    }
                }
            }
            prop_assert_eq!(bits.is_empty(), plain.is_empty());
            let mut expected = from;
            while plain.contains(&expected) {
                expected += 1;
            }
            prop_assert_eq!(bits.next_clear(from), Some(expected));
            prop_assert_eq!(bits.contains(from), plain.contains(&from));
        }
    }
}
