//! The label that an agent writes: what its settings and its host say. It never says anything of what was assigned.

use std::net::SocketAddr;

use tracing::warn;

use crate::agent::decide::identity::Me;
use crate::agent::exit::Ending;
use crate::agent::host::Host;
use crate::agent::settings::AgentSettings;
use crate::model::label::{LABEL_BYTES_MAX, Label};
use crate::model::variables::Variables;
use crate::reconcile::Context;
use crate::store::wire::Stored;

/// The label of these settings on this host.
pub(super) fn make_label(
    settings: &AgentSettings,
    me: &Me,
    temporary: SocketAddr,
    host: &dyn Host,
    context: &Context,
) -> Result<Label, Ending> {
    let mut variables = Variables::default();
    if !settings.no_host_facts {
        for (name, value) in host.facts() {
            if settings.set.get(&name) == Some(&None) {
                continue;
            }
            if let Err(error) = variables.insert(&name, &value) {
                warn!(%error, "a fact of the host is left out");
            }
        }
    }
    for (name, value) in settings.said_variables() {
        variables.insert(&name, &value).map_err(|error| Ending::Settings(error.to_string()))?;
    }
    let label = Label {
        id: me.id.clone(),
        instance: me.instance.clone(),
        boot: me.boot.clone(),
        run: me.run.clone(),
        temporary,
        variables,
        description: settings.description.clone(),
        since: context.wall.now(),
        ports: settings.ports.clone(),
        want: settings.want.clone(),
        holding: None,
        ephemeral: settings.ephemeral,
        annotations: settings.annotations.clone(),
    };
    if let Some(fault) = label.fault() {
        return Err(Ending::Settings(fault));
    }
    let bytes = label.encode().len();
    if bytes > LABEL_BYTES_MAX {
        return Err(Ending::Settings(format!("the label has {bytes} bytes, at most {LABEL_BYTES_MAX} are allowed")));
    }
    Ok(label)
}
