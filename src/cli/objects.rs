//! Which objects a command is about: `KIND NAME…`, or `KIND/NAME…` as `get -o name` of other tools prints them. Pure.

use super::exit::Fault;
use super::get::{Kind, parse_kind};

/// The first word of such a command: a kind, or one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Which kind.
    pub kind: Kind,
    /// Which of them, if the word says so.
    name: Option<String>,
}

/// Reads `KIND` or `KIND/NAME`.
///
/// # Errors
/// As [`parse_kind`], and when nothing follows the slash.
pub fn parse_spec(text: &str) -> Result<Spec, String> {
    match text.split_once('/') {
        None => Ok(Spec { kind: parse_kind(text)?, name: None }),
        Some((_, "")) => Err("a name is missing after the slash".into()),
        Some((kind, name)) => Ok(Spec { kind: parse_kind(kind)?, name: Some(name.to_owned()) }),
    }
}

impl Spec {
    /// The objects that this word and those after it name, each once, in the order given. Empty = the kind alone was given.
    ///
    /// # Errors
    /// When the first word is `KIND/NAME` and a later one is not.
    pub fn objects(&self, more: &[String]) -> Result<Vec<(Kind, String)>, Fault> {
        let mut objects: Vec<(Kind, String)> = Vec::with_capacity(more.len() + 1);
        let later = more.iter().map(|word| match &self.name {
            None => Ok((self.kind, word.clone())),
            Some(_) if !word.contains('/') => Err(Fault::Usage(format!("`{word}` is not KIND/NAME, as the words before it are"))),
            Some(_) => match parse_spec(word).map_err(Fault::Usage)? {
                Spec { kind, name: Some(name) } => Ok((kind, name)),
                Spec { .. } => Err(Fault::Usage(format!("`{word}` names no object"))),
            },
        });
        let first = self.name.iter().map(|name| Ok((self.kind, name.clone())));
        for object in first.chain(later) {
            let object = object?;
            if !objects.contains(&object) {
                objects.push(object);
            }
        }
        Ok(objects)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn objects(line: &str) -> Result<Vec<(Kind, String)>, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse_spec(&words[0])?.objects(&words[1..]).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_kind_with_names_or_each_with_its_kind() {
        let of = |kind, name: &str| (kind, name.to_owned());
        assert_eq!(objects("pools"), Ok(vec![]));
        assert_eq!(objects("pool eu us eu"), Ok(vec![of(Kind::Pool, "eu"), of(Kind::Pool, "us")]));
        assert_eq!(objects("pool/eu group/web"), Ok(vec![of(Kind::Pool, "eu"), of(Kind::Group, "web")]));
        // The name of a keyed group and of a member has a slash itself.
        assert_eq!(objects("members web/a"), Ok(vec![of(Kind::Member, "web/a")]));
        assert_eq!(objects("group/web/zone=eu-1"), Ok(vec![of(Kind::Group, "web/zone=eu-1")]));
        assert!(objects("pool/eu us").unwrap_err().contains("`us` is not KIND/NAME"));
        assert!(objects("pool/").is_err() && objects("pol/eu").unwrap_err().contains("did you mean pools?"));
    }
}
