//! Sorted, disjoint, inclusive ranges of numbers. A /8 less ten thousand exclusions is ten thousand ranges, a huge IPv6
//! exclusion is one: no code here loops over single addresses.

/// Sorted, disjoint, inclusive ranges that do not touch each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    ranges: Vec<(u128, u128)>,
    /// The count of numbers before each range, saturating.
    before: Vec<u128>,
}

impl Ranges {
    /// Merges ranges in any order, nested, overlapping or repeated. Each needs `first ≤ last`.
    pub fn new(mut ranges: Vec<(u128, u128)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                // `first` directly after the former end: the ranges touch and become one.
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self::of_sorted(merged)
    }

    fn of_sorted(ranges: Vec<(u128, u128)>) -> Self {
        let mut count = 0u128;
        let before = ranges
            .iter()
            .map(|range| {
                let before = count;
                count = count.saturating_add(length(range));
                before
            })
            .collect();
        Self { ranges, before }
    }

    /// Whether the ranges are empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The count of numbers; `u128::MAX` also means 2¹²⁸.
    pub fn count(&self) -> u128 {
        match (self.before.last(), self.ranges.last()) {
            (Some(before), Some(range)) => before.saturating_add(length(range)),
            _ => 0,
        }
    }

    /// Whether `number` is in a range.
    pub fn contains(&self, number: u128) -> bool {
        self.range_at_or_after(number).is_some_and(|(first, _)| *first <= number)
    }

    /// The smallest number from `number` on that is in a range, if any.
    pub fn at_or_after(&self, number: u128) -> Option<u128> {
        self.range_at_or_after(number).map(|(first, _)| number.max(*first))
    }

    /// The lowest number.
    pub fn first(&self) -> Option<u128> {
        self.ranges.first().map(|(first, _)| *first)
    }

    /// The number at a position, `0 ≤ position < count`.
    pub fn nth(&self, position: u128) -> Option<u128> {
        let at = self.before.partition_point(|before| *before <= position).checked_sub(1)?;
        let (first, last) = self.ranges.get(at)?;
        let number = first.checked_add(position - self.before.get(at)?)?;
        (number <= *last).then_some(number)
    }

    /// The numbers here that are not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Ranges) -> Ranges {
        let mut left = Vec::with_capacity(self.ranges.len());
        let mut cuts = other.ranges.iter().peekable();
        for &(first, last) in &self.ranges {
            let mut start = Some(first);
            while let (Some(from), Some(&&(cut_first, cut_last))) = (start, cuts.peek()) {
                if cut_last < from {
                    cuts.next();
                    continue;
                }
                if cut_first > last {
                    break;
                }
                if cut_first > from {
                    left.push((from, cut_first - 1));
                }
                // The next range needs a cut that reaches beyond this one too.
                start = cut_last.checked_add(1).filter(|next| *next <= last);
            }
            if let Some(from) = start {
                left.push((from, last));
            }
        }
        Self::of_sorted(left)
    }

    /// A number that both have, if there is one.
    pub fn common(&self, other: &Ranges) -> Option<u128> {
        let (mut a, mut b) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(&&(a_first, a_last)), Some(&&(b_first, b_last))) = (a.peek(), b.peek()) {
            let first = a_first.max(b_first);
            if first <= a_last.min(b_last) {
                return Some(first);
            }
            if a_last < b_last {
                a.next()
            } else {
                b.next()
            };
        }
        None
    }

    fn range_at_or_after(&self, number: u128) -> Option<&(u128, u128)> {
        self.ranges.get(self.ranges.partition_point(|(_, last)| *last < number))
    }
}

fn length((first, last): &(u128, u128)) -> u128 {
    (last - first).saturating_add(1)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use proptest::prelude::*;

    fn ranges(list: &[(u128, u128)]) -> Ranges {
        Ranges::new(list.to_vec())
    }

    #[test]
    fn unsorted_nested_overlapping_touching_ranges_merge() {
        assert_eq!(ranges(&[(8, 9), (0, 5), (2, 3), (4, 6), (10, 10)]), ranges(&[(0, 6), (8, 10)]));
        assert_eq!(ranges(&[(0, 6), (8, 10)]).count(), 10);
    }

    #[test]
    fn huge_range_is_skipped_in_one_step() {
        let pool = ranges(&[(0, u128::MAX)]).minus(&ranges(&[(1, u128::MAX - 1)]));
        assert_eq!(pool, ranges(&[(0, 0), (u128::MAX, u128::MAX)]));
        assert_eq!(pool.at_or_after(1), Some(u128::MAX));
        assert_eq!(pool.nth(1), Some(u128::MAX));
        assert_eq!(pool.nth(2), None);
        assert_eq!(ranges(&[(0, u128::MAX)]).count(), u128::MAX);
    }

    #[test]
    fn common_number_is_found() {
        assert_eq!(ranges(&[(0, 3), (9, 12)]).common(&ranges(&[(4, 8), (12, 20)])), Some(12));
        assert_eq!(ranges(&[(0, 3)]).common(&ranges(&[(4, 8)])), None);
    }

    proptest! {
        #[test]
        fn ranges_agree_with_a_plain_set(
            list in proptest::collection::vec((0u128..60, 0u128..9), 0..6),
            cuts in proptest::collection::vec((0u128..60, 0u128..9), 0..6),
        ) {
            let close = |list: &[(u128, u128)]| list.iter().map(|(a, n)| (*a, a + n)).collect::<Vec<_>>();
            let has = |list: &[(u128, u128)], x: u128| list.iter().any(|(a, n)| (*a..=a + n).contains(&x));
            let left = Ranges::new(close(&list)).minus(&Ranges::new(close(&cuts)));
            let plain: Vec<u128> = (0..80).filter(|x| has(&list, *x) && !has(&cuts, *x)).collect();
            prop_assert_eq!(left.count(), plain.len() as u128);
            for x in 0..80 {
                prop_assert_eq!(left.contains(x), plain.contains(&x));
                prop_assert_eq!(left.at_or_after(x), plain.iter().copied().find(|y| *y >= x));
            }
            for (position, x) in plain.iter().enumerate() {
                prop_assert_eq!(left.nth(position as u128).unwrap(), *x);
            }
        }
    }
}
