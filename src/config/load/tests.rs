//! Layers, unknown keys, wrong values; and the file for people against the built-in defaults.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

const FOR_PEOPLE: &str = include_str!("../../../config/enlist.toml");

fn with_file(text: &str) -> (tempfile::TempDir, Inputs) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enlist.toml");
    std::fs::write(&path, text).unwrap();
    (folder, Inputs { file: Some(path), ..Inputs::default() })
}

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_file_for_people_equals_the_defaults_and_names_every_setting() {
    let (_folder, inputs) = with_file(FOR_PEOPLE);
    let loaded = load(&inputs).unwrap();
    assert_eq!(loaded.settings, Settings::default());
    let named: Vec<String> = loaded.origins.into_keys().collect();
    let mut all = known_keys();
    all.sort();
    assert_eq!(named, all);
}

#[test]
fn every_setting_has_its_line_of_why() {
    let mut before = "";
    for line in FOR_PEOPLE.lines() {
        let is_setting = line.contains(" = ") && !line.starts_with('#');
        assert!(!is_setting || before.starts_with("# "), "no comment above: {line}");
        before = line;
    }
}

#[test]
fn later_layers_win() {
    let (_folder, mut inputs) = with_file("[source]\nprefix = \"/file\"\nuser = \"file\"\nendpoints = [\"file:1\"]\n");
    inputs.environment = environment(&[
        ("ENLIST__SOURCE__PREFIX", "/variable"),
        ("ENLIST__SOURCE__ENDPOINTS", "a:1,b:2"),
        ("ENLIST__SOURCE__PASSWORD", "007"),
        ("ENLIST__RELAY__ADOPT", "true"),
        ("ENLIST_SOURCE_PREFIX", "/not-a-setting"),
        ("ENLIST_PORT", "tcp://10.0.0.1:80"),
    ]);
    inputs.flags = vec![("--prefix", "source.prefix", "/flag".into())];
    let loaded = load(&inputs).unwrap();
    assert_eq!(loaded.settings.source.prefix, "/flag");
    assert_eq!(loaded.settings.source.user, "file");
    assert_eq!(loaded.settings.source.password, "007");
    assert_eq!(loaded.settings.source.endpoints.0, ["a:1", "b:2"]);
    assert!(loaded.settings.relay.adopt);
    assert_eq!(loaded.origins["source.prefix"], "flag --prefix");
    assert_eq!(loaded.origins["source.password"], "variable ENLIST__SOURCE__PASSWORD");
}

#[test]
fn variables_of_a_node_may_have_any_name_in_a_file() {
    let (_folder, inputs) = with_file("[agent.variables]\nzone = \"eu-1\"\n\"example.com/rack\" = \"r2\"\n");
    let loaded = load(&inputs).unwrap();
    assert_eq!(loaded.settings.agent.variables["example.com/rack"], "r2");
    assert_eq!(loaded.settings.agent.variables["zone"], "eu-1");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let check = |file: &str, variables: &[(&str, &str)], expected: &str| {
        let (folder, mut inputs) = with_file(file);
        inputs.environment = environment(variables);
        let message = load(&inputs).unwrap_err().to_string();
        let message = message.replace(&folder.path().display().to_string(), "");
        assert!(message.contains(expected), "{message}\ndoes not say\n{expected}");
    };
    check("[source]\nendpoint = \"x\"\n", &[], "/enlist.toml:2: unknown setting source.endpoint; did you mean source.endpoints?");
    check("[soruce]\nprefix = \"/x\"\n", &[], "unknown setting soruce.prefix; did you mean source.prefix?");
    check("[allocator]\nleader_ttl = \"9s\"\n", &[], "did you mean roles.leader_ttl?");
    check("prefix = \"/x\"\n", &[], "unknown setting prefix; did you mean");
    check("[source\n", &[], "/enlist.toml:1: unclosed table");
    check(
        "",
        &[("ENLIST__SOURCE__PREFX", "/x")],
        "variable ENLIST__SOURCE__PREFX: unknown setting source.prefx; did you mean source.prefix?",
    );
    check("", &[("ENLIST__LOG__FORMAT", "xml")], "log.format");
    check("[roles]\nleader_ttl = \"ten\"\n", &[], "setting roles.leader_ttl (/enlist.toml:2): \"ten\" is not a duration");
    check("\n[relay]\nadopt = \"perhaps\"\n", &[], "setting relay.adopt (/enlist.toml:3): ");
    check("relay.adopt = \"perhaps\"\n", &[], "setting relay.adopt (/enlist.toml:1): ");
    let unit = "setting source.dial_timeout (/enlist.toml:3): \"5\" is not a duration (it has no unit: 5s?)";
    check("[source]\n\ndial_timeout = 5\n", &[], unit);
    check("", &[("ENLIST__NOPE__X", "1")], "unknown setting nope.x; sections are agent, allocator,");
    check("[log]\nqq = 1\n", &[], "unknown setting log.qq; section log has format, level");
}

#[test]
fn a_file_that_is_named_must_exist() {
    let inputs = Inputs { file: Some("/nonexistent/enlist.toml".into()), ..Inputs::default() };
    assert!(matches!(load(&inputs), Err(ConfigError::File { .. })));
}

#[test]
fn a_variable_that_is_empty_is_an_error_that_names_it() {
    for (name, value) in [("ENLIST__SOURCE__ENDPOINTS", ""), ("ENLIST__SOURCE__PREFIX", " "), ("ENLIST__AGENT__PORTS", ",")] {
        let inputs = Inputs { environment: environment(&[("ENLIST__LOG__LEVEL", "info"), (name, value)]), ..Inputs::default() };
        let said = load(&inputs).unwrap_err().to_string();
        assert_eq!(said, format!("variable {name} is empty: unset it, or give it a value"));
    }
    // Hooks and children are given such ones; they are no settings.
    let inputs = Inputs { environment: environment(&[("ENLIST_IP6", "")]), ..Inputs::default() };
    assert!(load(&inputs).is_ok());
}
