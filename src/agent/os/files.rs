//! Files from templates: replaced atomically, mode and owner kept, untouched if the content stays.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};

use super::state::finish_replace;
use crate::agent::decide::applied::Given;
use crate::agent::host::HostError;
use crate::agent::settings::WriteFile;

/// Writes every file whose content changes. All are rendered before any is written.
///
/// # Errors
/// The first template or file that fails, with its name and, in a template, the line.
pub fn write_all(files: &[WriteFile], given: &Given, variables: &BTreeMap<String, String>) -> Result<(), HostError> {
    let rendered: Vec<(&WriteFile, String)> =
        files.iter().map(|file| Ok((file, render(&file.template, given, variables)?))).collect::<Result<_, HostError>>()?;
    for (file, text) in rendered {
        write(&file.file, text.as_bytes()).map_err(|error| HostError::failed(format!("file {}", file.file.display()), error))?;
    }
    Ok(())
}

/// Whether every template can be read and understood. What it names is known only when something is given.
///
/// # Errors
/// The first template that cannot, with its name and the line.
pub fn check(files: &[WriteFile]) -> Result<(), HostError> {
    files.iter().try_for_each(|file| {
        let failed = |error: &dyn std::fmt::Display| template_fault(&file.template, error);
        let text = read_template(&file.template).map_err(|error| failed(&error))?;
        let environment = environment().map_err(|error| failed(&error))?;
        let template = environment.template_from_str(&text).map_err(|error| failed(&error))?;
        match template.undeclared_variables(false).into_iter().filter(|name| !NAMES.contains(&name.as_str())).min() {
            Some(name) => Err(failed(&unknown(&name))),
            None => Ok(()),
        }
    })
}

/// What a template may name.
const NAMES: [&str; 10] = ["addresses", "generation", "id", "ip", "ip4", "ip6", "pool", "port", "ports", "variables"];

fn unknown(name: &str) -> String {
    let near = NAMES.iter().map(|known| (strsim::jaro_winkler(known, name), known)).max_by(|(a, _), (b, _)| a.total_cmp(b));
    let hint = near.filter(|(likeness, _)| *likeness > 0.7).map(|(_, near)| format!(", did you mean {near}?"));
    format!("{name:?} is not defined{} (known are {})", hint.unwrap_or_default(), NAMES.join(", "))
}

/// A template, or a file of variables, is at most this long: more is a mistake, or a device that never ends.
pub const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// Reads a text to its end, which must come within [`TEXT_BYTES_MAX`].
///
/// # Errors
/// What the file system says, or that it is too long or no text.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(std::io::Error::other(format!("is longer than {TEXT_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("is not UTF-8 text"))
}

/// Reads a template. Only a regular file: a pipe or a device gives its content once, or never ends.
fn read_template(path: &Path) -> std::io::Result<String> {
    check_regular(&fs::metadata(path)?)?;
    read_text(path)
}

fn check_regular(found: &fs::Metadata) -> std::io::Result<()> {
    if found.is_file() { Ok(()) } else { Err(std::io::Error::other("is not a regular file")) }
}

fn template_fault(template: &Path, error: &dyn std::fmt::Display) -> HostError {
    HostError::failed(format!("template {}", template.display()), error)
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // A line that holds only a block tag leaves no empty line, and the last line keeps its end.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax?);
    environment.set_formatter(|out, state, value| match value.is_none() {
        true => Err(minijinja::Error::new(ErrorKind::InvalidOperation, "what is to be written here was not given")),
        false => minijinja::escape_formatter(out, state, value),
    });
    Ok(environment)
}

/// What a template may name: `id ip ip4 ip6 addresses port ports pool generation variables`. An unknown name is an error;
/// `ip4`, `ip6` and `port` may be asked for with `if`, and are an error if they are to be written but were not given.
fn render(template: &Path, given: &Given, variables: &BTreeMap<String, String>) -> Result<String, HostError> {
    let failed = |error: &dyn std::fmt::Display| template_fault(template, error);
    let text = read_template(template).map_err(|error| failed(&error))?;
    let environment = environment().map_err(|error| failed(&error))?;
    let family = |v4: bool| given.addresses.iter().find(|ip| ip.is_ipv4() == v4).map(ToString::to_string);
    let ports: BTreeMap<String, u16> = given.ports.iter().map(|(name, port)| (name.to_string(), *port)).collect();
    let addresses: Vec<String> = given.addresses.iter().map(ToString::to_string).collect();
    let values = context! {
        id => given.id.as_str(),
        ip => addresses.first(),
        ip4 => family(true),
        ip6 => family(false),
        addresses => addresses,
        port => given.port(),
        ports => ports,
        pool => given.pool.as_str(),
        generation => given.generation.0,
        variables => variables,
    };
    environment.render_str(&text, values).map_err(|error| {
        let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
        failed(&format!("{error}{line}"))
    })
}

fn holds(path: &Path, bytes: &[u8]) -> std::io::Result<bool> {
    let mut found = Vec::with_capacity(bytes.len() + 1);
    fs::File::open(path)?.take(bytes.len() as u64 + 1).read_to_end(&mut found)?;
    Ok(found == bytes)
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // A symbolic link keeps pointing where it does; the file behind it is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let before = fs::metadata(path).ok();
    if let Some(before) = &before {
        check_regular(before)?;
        if before.len() == bytes.len() as u64 && holds(path, bytes)? {
            return Ok(());
        }
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.is_dir() {
        return Err(std::io::Error::other(format!("the folder `{}` does not exist", dir.display())));
    }
    // The error names the temporary file, whose name differs at each try: a status must not change because of that.
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(|error| std::io::Error::from(error.kind()))?;
    file.write_all(bytes)?;
    let mode = before.as_ref().map_or(0o644, |before| before.mode() & 0o7777);
    if let Some(before) = before {
        // Only root may give a file away; then the mode alone is kept.
        let _ = std::os::unix::fs::fchown(file.as_file(), Some(before.uid()), Some(before.gid()));
    }
    // After the change of owner, which clears the set-id bits.
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    finish_replace(file, path, dir)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::agent::decide::fixtures;

    fn given() -> Given {
        Given::new(&fixtures::label(), &fixtures::bound(812, "10.0.0.7", &[("http", 30412)])).unwrap()
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_told_alike_each_time() {
        let (dir, file) = setup("{{ ip }}");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let missing = dir.path().join("missing/out.conf");
        for (target, told) in [
            (Path::new("/dev/full"), "is not a regular file"),
            (Path::new("/dev/zero"), "is not a regular file"),
            (&fifo, "is not a regular file"),
            (dir.path(), "is not a regular file"),
            (&missing, "does not exist"),
        ] {
            let files = [WriteFile { file: target.to_owned(), ..file.clone() }];
            let first = write_all(&files, &given(), &BTreeMap::new()).unwrap_err();
            assert!(first.to_string().contains(told) && first.to_string().contains(&*target.to_string_lossy()), "{first}");
            assert_eq!(write_all(&files, &given(), &BTreeMap::new()), Err(first));
        }
        for template in [Path::new("/dev/zero"), &fifo, dir.path()] {
            let files = [WriteFile { template: template.to_owned(), ..file.clone() }];
            assert!(check(&files).unwrap_err().to_string().contains("is not a regular file"));
            assert!(write_all(&files, &given(), &BTreeMap::new()).is_err());
        }
        fs::write(&file.template, "x".repeat(1024 * 1024 + 1)).unwrap();
        assert!(check(std::slice::from_ref(&file)).unwrap_err().to_string().contains("longer than"));
        assert!(read_text(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn a_longer_or_shorter_file_is_replaced() {
        let (_dir, file) = setup("{{ ip }}");
        for before in ["10.0.0.7 and more", "10", "", "10.0.0.8"] {
            fs::write(&file.file, before).unwrap();
            write_all(std::slice::from_ref(&file), &given(), &BTreeMap::new()).unwrap();
            assert_eq!(fs::read_to_string(&file.file).unwrap(), "10.0.0.7");
        }
    }

    fn setup(template: &str) -> (tempfile::TempDir, WriteFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = WriteFile { file: dir.path().join("out.conf"), template: dir.path().join("in.j2") };
        fs::write(&file.template, template).unwrap();
        (dir, file)
    }

    #[test]
    fn a_file_is_written_and_keeps_its_mode() {
        let (_dir, file) =
            setup("listen {{ ip }}:{{ ports.http }};  # {{ variables.zone }} {{ pool }}/{{ generation }} {{ id }}\n");
        let variables = BTreeMap::from([("zone".to_owned(), "eu-1".to_owned())]);
        write_all(std::slice::from_ref(&file), &given(), &variables).unwrap();
        assert_eq!(fs::read_to_string(&file.file).unwrap(), "listen 10.0.0.7:30412;  # eu-1 eu/812 edge-7\n");
        assert_eq!(fs::metadata(&file.file).unwrap().mode() & 0o7777, 0o644);

        fs::write(&file.file, "by hand").unwrap();
        fs::set_permissions(&file.file, fs::Permissions::from_mode(0o600)).unwrap();
        write_all(std::slice::from_ref(&file), &given(), &variables).unwrap();
        let after = fs::metadata(&file.file).unwrap();
        assert_eq!(after.mode() & 0o7777, 0o600);
        write_all(std::slice::from_ref(&file), &given(), &variables).unwrap();
        assert_eq!(fs::metadata(&file.file).unwrap().ino(), after.ino(), "an equal file was written again");
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let (dir, mut file) = setup("{{ port }}");
        let behind = dir.path().join("behind");
        fs::write(&behind, "").unwrap();
        file.file = dir.path().join("link");
        std::os::unix::fs::symlink(&behind, &file.file).unwrap();
        write_all(std::slice::from_ref(&file), &given(), &BTreeMap::new()).unwrap();
        assert!(fs::symlink_metadata(&file.file).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&behind).unwrap(), "30412");
    }

    #[test]
    fn a_template_that_names_what_is_not_there_changes_no_file() {
        let (dir, file) = setup("{{ ip }}\n{{ prot }}");
        let good = WriteFile { file: dir.path().join("good"), template: dir.path().join("good.j2") };
        fs::write(&good.template, "{{ ip }}").unwrap();
        let error = write_all(&[good.clone(), file.clone()], &given(), &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("in.j2") && error.contains('2'), "{error}");
        assert!(!good.file.exists() && !file.file.exists());
    }

    #[test]
    fn what_was_not_given_is_not_written() {
        let (_dir, file) = setup("{% if ip6 %}listen [{{ ip6 }}];\n{% endif %}listen {{ ip4 }};\n");
        write_all(std::slice::from_ref(&file), &given(), &BTreeMap::new()).unwrap();
        assert_eq!(fs::read_to_string(&file.file).unwrap(), "listen 10.0.0.7;\n");
        fs::write(&file.template, "\nlisten [{{ ip6 }}];\n").unwrap();
        let error = write_all(std::slice::from_ref(&file), &given(), &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("in.j2") && error.contains("line 2"), "{error}");
        assert_eq!(fs::read_to_string(&file.file).unwrap(), "listen 10.0.0.7;\n");
    }
}
