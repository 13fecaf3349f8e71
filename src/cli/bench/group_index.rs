//! The manager's index alone: a label's change, a group more, memory.

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::fleet_of_labels::{Tenants, all_variables, group_name};
use super::numbers::{memory as resident, thread_seconds};
use crate::manager::index::Index;

/// Groups that are taken out and added again, for the cost of a group more.
const ADDED: usize = 200;

/// What it costs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct IndexFigures {
    /// Microseconds of processor time for a label's change that touches no other group.
    pub change_us: f64,
    /// Selectors that were held against the label for it.
    pub evaluations: f64,
    /// Microseconds of processor time for a group more.
    pub add_group_us: f64,
    /// How many members such a group has.
    pub members: f64,
}

/// What it takes in memory.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// Bytes for a node with five variables.
    pub node_bytes: f64,
    /// Bytes for a group with its members.
    pub group_bytes: f64,
}

fn index(tenants: &Tenants, groups: usize) -> anyhow::Result<Index> {
    let mut index = Index::default();
    for (node, variables) in all_variables(tenants)? {
        index.put_node(&node, &variables);
    }
    for tenant in 0..groups {
        index.put_group(&group_name(tenant)?, &Tenants::group(tenant)?.selector);
    }
    Ok(index)
}

/// Measures it at so many groups.
///
/// # Errors
/// When a change touches another group, which would make the figures worthless.
pub fn measure(tenants: &Tenants, groups: usize, changes: usize) -> anyhow::Result<IndexFigures> {
    let mut index = index(tenants, groups)?;
    let labels = (0..changes).map(|n| {
        let node = tenants.changed(n);
        Ok((super::nodes::id(node)?, tenants.variables(node, n + 1)?))
    });
    let labels = labels.collect::<anyhow::Result<Vec<_>>>()?;
    let (before, mut touched) = (index.evaluations(), 0);
    let began = thread_seconds()?;
    for (node, variables) in &labels {
        touched += index.put_node(node, variables).len();
    }
    let change_us = (thread_seconds()? - began) * 1e6 / changes as f64;
    ensure!(touched == changes, "{changes} changes of labels touched {touched} groups, and should have touched one each");
    let evaluations = (index.evaluations() - before) as f64 / changes as f64;

    let count = groups.min(ADDED);
    let added = (0..count).map(|n| {
        let tenant = n * groups / count;
        Ok((group_name(tenant)?, Tenants::group(tenant)?.selector))
    });
    let added = added.collect::<anyhow::Result<Vec<_>>>()?;
    for (name, _) in &added {
        index.remove_group(name);
    }
    let (began, mut members) = (thread_seconds()?, 0);
    for (name, selector) in &added {
        members += index.put_group(name, selector).len();
    }
    let add_group_us = (thread_seconds()? - began) * 1e6 / count as f64;
    Ok(IndexFigures { change_us, evaluations, add_group_us, members: members as f64 / count as f64 })
}

/// What the process grows by. Only true while it has not given back memory before.
///
/// # Errors
/// When `/proc` is not there.
pub fn memory(tenants: &Tenants, groups: usize) -> anyhow::Result<Memory> {
    let look = || resident(std::process::id() as i32).map(|bytes| bytes as f64).context("/proc/self/status is not there");
    let variables = all_variables(tenants)?;
    let mut index = Index::default();
    let empty = look()?;
    for (node, variables) in &variables {
        index.put_node(node, variables);
    }
    let nodes = look()?;
    for tenant in 0..groups {
        index.put_group(&group_name(tenant)?, &Tenants::group(tenant)?.selector);
    }
    let all = look()?;
    Ok(Memory { node_bytes: (nodes - empty) / tenants.nodes as f64, group_bytes: (all - nodes) / groups as f64 })
}
