//! Parses a selector, and matches it with the variables of a node.

use std::hint::black_box;

use criterion::Criterion;
use enlist::Selector;

use crate::fleet::variables;

const SELECTORS: [(&str, &str); 3] = [
    ("one exact", "role=web"),
    ("three kinds", "role=web,zone in (eu-0,eu-1,eu-2),!drained"),
    ("ten of all kinds", "a,!b,c=1,d!=2,e in (x,y,z),f notin (x,y,z),g>5,h<9,role=web,zone=eu-1"),
];

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("selector");
    let variables = variables(7);
    for (name, text) in SELECTORS {
        group.bench_function(format!("parse, {name}"), |bencher| {
            bencher.iter(|| black_box(text).parse::<Selector>().unwrap());
        });
        let selector: Selector = text.parse().unwrap();
        group.bench_function(format!("match, {name}"), |bencher| {
            bencher.iter(|| selector.matches(black_box(&variables)));
        });
    }
}
