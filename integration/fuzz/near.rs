//! Texts that are nearly right: good ones, changed a few times. A parser stops at the first byte of random text, but
//! reads far into these. A failing text shrinks to the fewest changes that still fail.

use proptest::prelude::*;
use serde_json::Value as Json;

/// A change of a text. Positions are fractions of its length, so that they are valid in every text.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Cut {
        at: u16,
        length: u8,
    },
    Insert {
        at: u16,
        what: String,
    },
    Double {
        at: u16,
        length: u8,
    },
    Flip {
        at: u16,
        bits: u8,
    },
    /// Replaces a scalar, if the text is JSON.
    Scalar {
        which: u8,
        what: usize,
    },
    /// Drops, doubles or renames a field, if the text is JSON.
    Field {
        which: u8,
        how: u8,
    },
}

/// Pieces that often break parsers.
const TOKENS: [&str; 40] = [
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ":",
    ",",
    "-",
    "/",
    "..",
    ".",
    "=",
    "!",
    "<",
    ">",
    " ",
    "\n",
    "\t",
    "\0",
    "\u{7f}",
    "é",
    "\u{feff}",
    "\u{202e}",
    "null",
    "true",
    "-1",
    "1e400",
    "18446744073709551616",
    "\\u0000",
    "\\ud800",
    "&a",
    "*a",
    "!!map",
    "---\n",
    "%",
    "#",
    "::ffff:10.0.0.1",
];

fn scalars() -> [Json; 16] {
    let long = "a".repeat(300);
    [
        Json::Null,
        true.into(),
        0.into(),
        (-1).into(),
        65536.into(),
        u64::MAX.into(),
        i64::MIN.into(),
        1.5.into(),
        "".into(),
        " ".into(),
        "::".into(),
        "010.0.0.1".into(),
        long.into(),
        Json::Array(Vec::new()),
        serde_json::json!({"v": 1}),
        "a\u{0}b".into(),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let token = proptest::sample::select(TOKENS.to_vec()).prop_map(str::to_owned);
    let text = prop_oneof![4 => token, 1 => any::<char>().prop_map(String::from), 1 => "[ -~]{1,12}"];
    prop_oneof![
        (any::<u16>(), 1..20_u8).prop_map(|(at, length)| Change::Cut { at, length }),
        (any::<u16>(), text).prop_map(|(at, what)| Change::Insert { at, what }),
        (any::<u16>(), 1..60_u8).prop_map(|(at, length)| Change::Double { at, length }),
        (any::<u16>(), any::<u8>()).prop_map(|(at, bits)| Change::Flip { at, bits }),
        (any::<u8>(), 0..16_usize).prop_map(|(which, what)| Change::Scalar { which, what }),
        (any::<u8>(), 0..3_u8).prop_map(|(which, how)| Change::Field { which, how }),
    ]
}

/// One of the good texts, changed. Sometimes it is no longer text.
pub(crate) fn near(good: Vec<String>) -> impl Strategy<Value = Vec<u8>> {
    (proptest::sample::select(good), proptest::collection::vec(change(), 0..6)).prop_map(|(text, changes)| {
        let mut bytes = text.into_bytes();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        bytes
    })
}

/// Like [`near`], for parsers that only take text.
pub(crate) fn near_text(good: &[&str]) -> impl Strategy<Value = String> + use<> {
    let good = good.iter().map(|text| (*text).to_owned()).collect();
    near(good).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let place = |at: u16| usize::from(at) * bytes.len() / usize::from(u16::MAX);
    let span = |at: u16, length: u8| place(at)..(place(at) + usize::from(length)).min(bytes.len());
    match change {
        Change::Cut { at, length } => drop(bytes.drain(span(*at, *length))),
        Change::Insert { at, what } => drop(bytes.splice(place(*at)..place(*at), what.bytes())),
        Change::Double { at, length } => {
            let again = bytes[span(*at, *length)].to_vec();
            bytes.splice(place(*at)..place(*at), again);
        }
        Change::Flip { at, bits } => {
            let place = place(*at);
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= bits;
            }
        }
        Change::Scalar { which, what } => edit(bytes, |json| {
            let count = count(json);
            replace(json, &mut (usize::from(*which) % count.max(1)), &scalars()[*what]);
        }),
        Change::Field { which, how } => edit(bytes, |json| field(json, usize::from(*which), *how)),
    }
}

fn edit(bytes: &mut Vec<u8>, edit: impl FnOnce(&mut Json)) {
    if let Ok(mut json) = serde_json::from_slice(bytes) {
        edit(&mut json);
        *bytes = json.to_string().into_bytes();
    }
}

fn count(json: &Json) -> usize {
    match json {
        Json::Object(map) => map.values().map(count).sum(),
        Json::Array(list) => list.iter().map(count).sum(),
        _ => 1,
    }
}

fn replace(json: &mut Json, left: &mut usize, with: &Json) -> bool {
    match json {
        Json::Object(map) => map.values_mut().any(|value| replace(value, left, with)),
        Json::Array(list) => list.iter_mut().any(|value| replace(value, left, with)),
        scalar if *left == 0 => {
            *scalar = with.clone();
            true
        }
        _ => {
            *left -= 1;
            false
        }
    }
}

fn field(json: &mut Json, which: usize, how: u8) {
    let Json::Object(map) = json else { return };
    let Some(name) = map.keys().nth(which % map.len().max(1)).cloned() else { return };
    let Some(value) = map.remove(&name) else { return };
    match how {
        0 => {}
        1 => drop(map.insert(format!("{name}x"), value)),
        _ => drop(map.insert(name, Json::Array(vec![value.clone(), value]))),
    }
}
