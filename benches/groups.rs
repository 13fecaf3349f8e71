//! The manager's index: a change of a label, and one more group.

use std::hint::black_box;

use criterion::Criterion;
use enlist::manager::index::Index;
use enlist::model::names::{GroupName, NodeId};
use enlist::{Group, Selector, Variables};

use crate::fleet::variables;

const NODES: usize = 20_000;

fn group(n: usize) -> (GroupName, Selector) {
    let group = Group {
        name: format!("group-{n}").parse().unwrap(),
        selector: format!("tenant=t-{n},zone in (eu-0,eu-1,eu-2)").parse().unwrap(),
        keyed_by: Vec::new(),
        port: None,
    };
    (group.name, group.selector)
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("group index");
    let nodes: Vec<NodeId> = (0..NODES).map(|n| format!("node-{n:06}").parse().unwrap()).collect();
    for groups in [100, 1_000] {
        let mut index = Index::default();
        for (n, node) in nodes.iter().enumerate() {
            index.put_node(node, &variables(n));
        }
        for n in 0..groups {
            let (name, selector) = group(n);
            index.put_group(&name, &selector);
        }
        let mut load = 0_u64;
        let labels: Vec<Variables> = (0..100).map(variables).collect();
        bench.bench_function(format!("change of a label, {groups} groups"), |bencher| {
            bencher.iter(|| {
                load += 1;
                let n = load as usize % labels.len();
                let mut variables = labels[n].clone();
                variables.insert("load", &load.to_string()).unwrap();
                black_box(index.put_node(&nodes[n], &variables))
            });
        });
        let (name, selector) = group(7);
        bench.bench_function(format!("one more group, {groups} groups"), |bencher| {
            bencher.iter(|| {
                index.remove_group(&name);
                black_box(index.put_group(&name, &selector))
            });
        });
    }
}
