//! What a child, a file and a hook are given; readiness; refused ports.

use enlist::model::status::Phase;
use enlist::store::keys::NodePart;

use super::{Lab, SOON, free_port_on, listen, until_file};
use crate::support::wait::until;

#[tokio::test]
async fn a_child_is_given_what_was_assigned_and_the_node_is_registered_once_it_listens() {
    let lab = Lab::start();
    let (ip, file) = ("127.61.0.1", lab.path("env"));
    let port = free_port_on(ip);
    let script = format!("env | grep ^ENLIST | LC_ALL=C sort > {0}.new; mv {0}.new {0}; exec sleep 600", file.display());
    let command = ["--var", "zone=eu-1", "--", "sh", "-c", &script];
    let mut agent = lab.agent("state", &command);
    let joining = lab.until_phase(Phase::Joining).await;
    assert_eq!(joining.generation.0, 0);
    let label = lab.label().await.unwrap();
    assert_eq!(label.variables.get("zone"), Some("eu-1"));
    assert!(label.variables.get("host/arch").is_some());

    let given = lab.assign(ip, port).await;
    let env = until_file(&file, |text| !text.is_empty()).await;
    let expected = format!(
        "ENLIST_GENERATION={}\nENLIST_ID=edge-7\nENLIST_IP4={ip}\nENLIST_IP={ip}\nENLIST_POOL=eu\nENLIST_PORT={port}\nENLIST_PORT_HTTP={port}\n",
        given.generation
    );
    assert_eq!(env, expected);
    assert_eq!(lab.status().await.unwrap().phase, Phase::Joining, "nobody listens yet");
    let listener = listen(ip, port);
    lab.until_registered(&given).await;
    drop(listener);

    // Restarted only when what it was given changes: a refreshed answer does nothing, another port does.
    std::fs::remove_file(&file).unwrap();
    let refreshed = lab.assign(ip, port).await;
    lab.until_registered(&refreshed).await;
    assert!(!file.exists(), "the child was restarted");
    let other = free_port_on(ip);
    lab.assign(ip, other).await;
    let env = until_file(&file, |text| !text.is_empty()).await;
    assert!(env.contains(&format!("ENLIST_PORT={other}\n")), "{env}");
    assert_eq!(agent.stop().await, 0);
    assert_eq!(lab.status().await.unwrap().phase, Phase::Stopped);
}

#[tokio::test]
async fn files_are_written_and_a_hook_that_fails_is_retried() {
    let lab = Lab::start();
    let (template, file, hooks, good) = (lab.path("in.j2"), lab.path("out.conf"), lab.path("hooks"), lab.path("good"));
    std::fs::write(&template, "listen {{ ip }}:{{ ports.http }};\n").unwrap();
    let write = format!("{}={}", file.display(), template.display());
    let hook = format!(
        "echo $ENLIST_EVENT $ENLIST_IP previous=$ENLIST_PREVIOUS_IP >> {}; test -e {} || {{ echo no such interface >&2; exit 4; }}",
        hooks.display(),
        good.display()
    );
    let mut agent = lab.agent("state", &["--write", &write, "--exec", &hook]);
    let first = lab.assign("127.61.0.2", 30_001).await;
    let failed = lab.until_phase(Phase::Failed).await;
    assert!(failed.message.contains("exit code 4: no such interface"), "{}", failed.message);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "listen 127.61.0.2:30001;\n");
    std::fs::write(&good, "").unwrap();
    lab.until_registered(&first).await;
    assert_eq!(lab.status().await.unwrap().message, "");
    let second = lab.assign("127.61.0.3", 30_001).await;
    lab.until_registered(&second).await;
    lab.delete(NodePart::Assignment).await;
    until_file(&hooks, |text| text.contains("withdrawn")).await;
    let text = std::fs::read_to_string(&hooks).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("assigned")).collect();
    assert!(text.lines().filter(|line| *line == "assigned 127.61.0.2 previous=").count() >= 2, "{text}");
    assert_eq!(lines, ["changed 127.61.0.3 previous=127.61.0.2", "withdrawn 127.61.0.3 previous="]);
    assert_eq!(agent.stop().await, 0);
}

#[tokio::test]
async fn a_port_that_the_host_uses_is_refused() {
    let lab = Lab::start();
    let ip = "127.61.0.4";
    // A listener on the wildcard counts as well.
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut agent = lab.agent("state", &["--no-ready-check", "--", "sleep", "600"]);
    lab.assign(ip, port).await;
    let failed = lab.until_phase(Phase::Failed).await;
    assert_eq!(failed.refused.iter().map(|r| (r.ip.to_string(), r.port)).collect::<Vec<_>>(), [(ip.to_owned(), port)]);
    let other = lab.assign(ip, free_port_on(ip)).await;
    lab.until_registered(&other).await;
    agent.stop().await;
}

#[tokio::test]
async fn the_temporary_endpoint_tells_who_it_is() {
    let lab = Lab::start();
    let mut agent = lab.agent("state", &[]);
    let given = lab.assign("127.61.0.5", 30_001).await;
    lab.until_registered(&given).await;
    let label = lab.label().await.unwrap();
    let face = until("the face of a registered node", SOON, || async {
        enlist::agent::os::endpoint::ask(label.temporary).await.filter(|face| face.phase == "registered")
    })
    .await;
    assert_eq!((face.id.as_str(), face.instance.as_str()), ("edge-7", label.instance.as_str()));
    assert_eq!((face.generation, face.addresses[0].to_string()), (given.generation.0, "127.61.0.5".to_owned()));
    agent.stop().await;
}
