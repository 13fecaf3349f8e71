//! Nodes as numbers, and for each variable, and each of its values, the bitmap of the nodes that have it. Pure.
//!
//! Operations on whole bitmaps answer a selector without a look at single nodes. A node keeps its number until it is
//! removed; then another node may get the number, so that bitmaps stay dense. No answer may show the number of a node.

use std::borrow::Cow;
use std::collections::BTreeMap;

use roaring::{MultiOps, RoaringBitmap};

use crate::model::names::NodeId;
use crate::model::selector::{Operator, Requirement, Selector};
use crate::model::variables::Variables;

/// All nodes, by their variables and values.
#[derive(Debug, Clone, Default)]
pub(super) struct Sets {
    numbers: BTreeMap<NodeId, u32>,
    /// The names by number; `None` = the number is free.
    names: Vec<Option<NodeId>>,
    free: Vec<u32>,
    all: RoaringBitmap,
    by_key: BTreeMap<String, Having>,
}

/// The nodes that have a variable.
#[derive(Debug, Clone, Default)]
struct Having {
    any: RoaringBitmap,
    by_value: BTreeMap<String, RoaringBitmap>,
}

impl Sets {
    /// Adds a node, or moves it from its former variables to the present ones. Returns its number.
    pub(super) fn put(&mut self, node: &NodeId, before: &Variables, now: &Variables) -> u32 {
        let number = self.number(node);
        for (key, value) in before.iter().filter(|(key, value)| now.get(key) != Some(value)) {
            self.take(number, key, value);
        }
        for (key, value) in now.iter().filter(|(key, value)| before.get(key) != Some(value)) {
            let having = self.by_key.entry(key.to_owned()).or_default();
            having.any.insert(number);
            having.by_value.entry(value.to_owned()).or_default().insert(number);
        }
        number
    }

    /// Removes a node, given its present variables. Returns its former number.
    pub(super) fn remove(&mut self, node: &NodeId, variables: &Variables) -> Option<u32> {
        let number = self.numbers.remove(node)?;
        for (key, value) in variables.iter() {
            self.take(number, key, value);
        }
        self.all.remove(number);
        if let Some(name) = self.names.get_mut(number as usize) {
            *name = None;
        }
        self.free.push(number);
        Some(number)
    }

    /// The nodes of a bitmap.
    pub(super) fn nodes<'s>(&'s self, bitmap: &'s RoaringBitmap) -> impl Iterator<Item = &'s NodeId> {
        bitmap.iter().filter_map(|number| self.names.get(number as usize)?.as_ref())
    }

    /// All nodes that match.
    pub(super) fn matching(&self, selector: &Selector) -> RoaringBitmap {
        let (narrowing, excluding): (Vec<_>, Vec<_>) = selector.requirements().iter().partition(|r| r.needs_key());
        let mut narrowing: Vec<Cow<'_, RoaringBitmap>> = narrowing.into_iter().map(|r| self.concerned(r)).collect();
        // The smallest bitmap comes first: a node that it excludes costs nothing in later steps.
        narrowing.sort_by_key(|bitmap| bitmap.len());
        let mut narrowing = narrowing.into_iter();
        let mut found = narrowing.next().map_or_else(|| self.all.clone(), Cow::into_owned);
        narrowing.for_each(|bitmap| found &= &*bitmap);
        for requirement in excluding {
            found -= &*self.concerned(requirement);
        }
        found
    }

    /// The number of nodes that meet a requirement that needs its variable.
    pub(super) fn count(&self, requirement: &Requirement) -> u64 {
        self.concerned(requirement).len()
    }

    /// The nodes that decide a requirement: those that meet it if it needs its variable, else those that fail it.
    fn concerned(&self, requirement: &Requirement) -> Cow<'_, RoaringBitmap> {
        let Some(having) = self.by_key.get(requirement.key()) else { return Cow::Owned(RoaringBitmap::new()) };
        match requirement.operator() {
            Operator::Exists | Operator::NotExists => Cow::Borrowed(&having.any),
            Operator::Greater | Operator::Less => {
                let meets = |(value, _): &(&String, &RoaringBitmap)| requirement.matches_value(Some(value));
                Cow::Owned(having.by_value.iter().filter(meets).map(|(_, bitmap)| bitmap).union())
            }
            Operator::Equals | Operator::DoubleEquals | Operator::In | Operator::NotEquals | Operator::NotIn => {
                let bitmaps = || requirement.values().iter().filter_map(|value| having.by_value.get(value));
                match (bitmaps().next(), bitmaps().nth(1)) {
                    (Some(only), None) => Cow::Borrowed(only),
                    _ => Cow::Owned(bitmaps().union()),
                }
            }
        }
    }

    fn number(&mut self, node: &NodeId) -> u32 {
        if let Some(number) = self.numbers.get(node) {
            return *number;
        }
        // etcd can hold far fewer nodes than there are numbers: with a label of 200 bytes each they would need 800 GiB.
        let number = self.free.pop().unwrap_or_else(|| u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        let at = number as usize;
        if self.names.len() <= at {
            self.names.resize(at + 1, None);
        }
        if let Some(name) = self.names.get_mut(at) {
            *name = Some(node.clone());
        }
        self.numbers.insert(node.clone(), number);
        self.all.insert(number);
        number
    }

    /// Removes a node from the sets of a variable and deletes the sets that become empty.
    fn take(&mut self, number: u32, key: &str, value: &str) {
        let Some(having) = self.by_key.get_mut(key) else { return };
        having.any.remove(number);
        if let Some(bitmap) = having.by_value.get_mut(value) {
            bitmap.remove(number);
            if bitmap.is_empty() {
                having.by_value.remove(value);
            }
        }
        if having.by_value.is_empty() {
            self.by_key.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        let mut variables = Variables::default();
        pairs.iter().for_each(|(key, value)| variables.insert(key, value).unwrap());
        variables
    }

    #[test]
    fn freed_number_is_reused_without_old_matches() {
        let mut sets = Sets::default();
        let [a, b]: [NodeId; 2] = ["a", "b"].map(|id| id.parse().unwrap());
        let eu = variables(&[("zone", "eu")]);
        sets.put(&a, &Variables::default(), &eu);
        let number = sets.remove(&a, &eu);
        assert!(sets.by_key.is_empty() && sets.all.is_empty() && sets.numbers.is_empty());
        let us = variables(&[("zone", "us")]);
        assert_eq!(Some(sets.put(&b, &Variables::default(), &us)), number);
        let matching = |text: &str| sets.matching(&text.parse().unwrap());
        assert!(matching("zone=eu").is_empty());
        assert_eq!(sets.nodes(&matching("zone")).collect::<Vec<_>>(), [&b]);
        assert_eq!(sets.nodes(&matching("zone!=eu,!gpu")).collect::<Vec<_>>(), [&b]);
    }

    #[test]
    fn node_with_a_changed_value_leaves_the_old_sets() {
        let mut sets = Sets::default();
        let a: NodeId = "a".parse().unwrap();
        let (before, now) = (variables(&[("zone", "eu"), ("role", "web")]), variables(&[("zone", "us"), ("role", "web")]));
        sets.put(&a, &Variables::default(), &before);
        sets.put(&a, &before, &now);
        for (text, found) in [("zone=eu", 0), ("zone=us,role=web", 1), ("zone in (eu,us)", 1), ("zone notin (us)", 0)] {
            assert_eq!(sets.matching(&text.parse().unwrap()).len(), found, "{text}");
        }
    }
}
