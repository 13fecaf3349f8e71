//! Labels and groups of the groups' bench: every node belongs to one tenant, each group is of one tenant.
//!
//! The nodes that are changed are those of the first tenants, who have a group at every number of groups: so all that differs
//! is how many groups there are that the change does not concern.

use anyhow::ensure;

use super::nodes::{id, values};
use crate::model::group::Group;
use crate::model::label::Label;
use crate::model::names::{GroupName, NodeId};
use crate::model::selector::Selector;
use crate::model::variables::Variables;

/// Every tenant of the fewest groups needs a node.
pub const NODES_MIN: u32 = 20;

/// Who belongs to whom.
#[derive(Debug, Clone, Copy)]
pub struct Tenants {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many tenants they are of: as many as there are groups at the most.
    tenants: usize,
    /// Those that have a group whatever the number of groups.
    always: usize,
}

impl Tenants {
    /// For these nodes and numbers of groups.
    ///
    /// # Errors
    /// When there are fewer nodes than tenants that are to be changed.
    pub fn new(nodes: usize, fewest_groups: usize, most_groups: usize) -> anyhow::Result<Tenants> {
        ensure!(nodes >= fewest_groups, "there must be at least as many nodes as groups at the fewest, {fewest_groups}");
        Ok(Tenants { nodes, tenants: most_groups, always: fewest_groups })
    }

    /// Which tenant a node is of, until it is moved.
    pub fn tenant(&self, node: usize) -> usize {
        node % self.tenants
    }

    /// A node, by number, that has a group whatever the number of groups: another one for each change, in turns.
    pub fn changed(&self, change: usize) -> usize {
        let whole = self.nodes / self.tenants;
        let rest = (self.nodes % self.tenants).min(self.always);
        let count = (whole * self.always + rest).max(1);
        let n = change % count;
        (n / self.always) * self.tenants + n % self.always
    }

    /// What the n-th node says of itself; `load` is what changes.
    ///
    /// # Errors
    /// None for names that this file makes.
    pub fn variables(&self, node: usize, load: usize) -> anyhow::Result<Variables> {
        self.variables_of(node, self.tenant(node), load)
    }

    fn variables_of(&self, node: usize, tenant: usize, load: usize) -> anyhow::Result<Variables> {
        let mut variables = Variables::default();
        variables.insert("tenant", &format!("t-{tenant}"))?;
        variables.insert("zone", ["eu-1", "eu-2", "us-1"].get(node % 3).copied().unwrap_or_default())?;
        variables.insert("role", "web")?;
        variables.insert("gpu", &(node % 4).to_string())?;
        variables.insert("load", &format!("l-{load}"))?;
        Ok(variables)
    }

    /// The label of a node.
    ///
    /// # Errors
    /// None for names that this file makes.
    pub fn label(&self, node: usize, load: usize) -> anyhow::Result<Label> {
        Ok(Label { variables: self.variables(node, load)?, ..values(node)?.label })
    }

    /// The label of a node that has moved to another tenant.
    ///
    /// # Errors
    /// None for names that this file makes.
    pub fn moved(&self, node: usize, tenant: usize) -> anyhow::Result<Label> {
        Ok(Label { variables: self.variables_of(node, tenant, 0)?, ..values(node)?.label })
    }

    /// How many nodes are in the first groups together.
    pub fn members(&self, groups: usize) -> usize {
        (0..self.nodes).filter(|node| self.tenant(*node) < groups).count()
    }

    /// The definition of a tenant's group: in turns of the forms that people write.
    ///
    /// # Errors
    /// None for selectors that this file makes.
    pub fn group(tenant: usize) -> anyhow::Result<Group> {
        let selector = match tenant % 4 {
            0 => format!("tenant=t-{tenant}"),
            1 => format!("tenant=t-{tenant},zone in (eu-1,eu-2,us-1)"),
            2 => format!("role=web,tenant in (t-{tenant},none-{tenant})"),
            _ => format!("tenant=t-{tenant},!drained,gpu<9"),
        };
        let selector = selector.parse::<Selector>().map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Group { name: group_name(tenant)?, selector, keyed_by: Vec::new(), port: "main".parse().ok() })
    }
}

/// A tenant's group.
///
/// # Errors
/// None for numbers.
pub fn group_name(tenant: usize) -> anyhow::Result<GroupName> {
    Ok(format!("group-{tenant}").parse()?)
}

/// All nodes' ids and variables, by number.
///
/// # Errors
/// None for names that this file makes.
pub fn all_variables(tenants: &Tenants) -> anyhow::Result<Vec<(NodeId, Variables)>> {
    (0..tenants.nodes).map(|n| Ok((id(n)?, tenants.variables(n, 0)?))).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn only_nodes_that_have_a_group_at_every_number_are_changed_and_each_is_in_one() {
        let tenants = Tenants::new(100, 10, 30).unwrap();
        let changed: BTreeSet<usize> = (0..1_000).map(|n| tenants.changed(n)).collect();
        assert_eq!(changed.len(), 40, "10 tenants with a node in 0..30, 30..60, 60..90, 90..100");
        for node in changed {
            let variables = tenants.variables(node, 5).unwrap();
            let matching = (0..30).filter(|tenant| Tenants::group(*tenant).unwrap().selector.matches(&variables));
            assert_eq!(matching.collect::<Vec<_>>(), [node % 30]);
            assert!(node % 30 < 10);
        }
        assert_eq!((tenants.members(10), tenants.members(30)), (40, 100));
    }
}
