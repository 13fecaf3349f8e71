//! What the agent says of its node changes while it runs: by other code of its process, by a request on this host, or because its
//! settings were read again. Addresses and ports are never changed here: the allocator answers to the new label.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::label::make_label;
use super::state::Doing;
use super::{Actor, Order, boxed, work};
use crate::agent::exit::Ending;
use crate::agent::host::{ChangeRequest, HostError};
use crate::agent::settings::AgentSettings;
use crate::model::label::Label;
use crate::store::wire::Encoded;

/// Where the answer to a request goes.
pub(super) type Reply = oneshot::Sender<Result<String, String>>;
/// What a reload brought back, and who waits for it.
pub(super) type Reloaded = (Result<AgentSettings, HostError>, Vec<Reply>);

impl Actor {
    /// Other code of this process orders something.
    pub(super) fn obey_order(&mut self, order: Order) {
        match order {
            Order::Leave(request) => self.ending = Some((Ending::Left, Some(request))),
            Order::Variables(variables, reply) => {
                let result = self.change_settings(|settings| settings.variables = variables);
                // Whoever asked may have gone.
                let _ = reply.send(result.map(drop));
            }
        }
    }

    /// Somebody on this host asks for something.
    pub(super) fn obey_request(&mut self, request: ChangeRequest) {
        match request {
            ChangeRequest::Set(variables, reply) => {
                let result = self.change_settings(|settings| settings.set.extend(variables));
                let text = |changed| if changed { "variables changed" } else { "nothing changed" };
                let _ = reply.send(result.map(|changed| text(changed).to_owned()));
            }
            ChangeRequest::Reload(reply) => {
                self.reload_asked.push(reply);
                self.begin_reload();
            }
        }
    }

    /// A reload under way may have read its files already: whoever asks meanwhile gets one more.
    fn begin_reload(&mut self) {
        if self.reload.is_none() && !self.reload_asked.is_empty() {
            let (replies, reads) = (std::mem::take(&mut self.reload_asked), self.host.reload());
            self.reload = boxed(async move { (reads.await, replies) });
        }
    }

    /// The settings were read again, or cannot be: then all stays as it is.
    pub(super) fn reloaded(&mut self, (read, replies): Reloaded) {
        let result = read.map_err(|error| error.to_string()).and_then(|new| {
            let mut restart = Vec::new();
            let changed = self.change_settings(|settings| restart = settings.take_over(new))?;
            let mut text = if changed { "settings changed" } else { "nothing changed" }.to_owned();
            if !restart.is_empty() {
                text.push_str(&format!("; a change of {} needs a restart", restart.join(", ")));
            }
            Ok(text)
        });
        match &result {
            Ok(text) => info!(note = text, "settings read again"),
            Err(error) => warn!(error, "settings cannot be read again; going on with those of before"),
        }
        replies.into_iter().for_each(|reply| drop(reply.send(result.clone())));
        self.begin_reload();
    }

    /// Changes settings, and the label if it says something else then. On an error nothing is changed.
    fn change_settings(&mut self, change: impl FnOnce(&mut AgentSettings)) -> Result<bool, String> {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let made = make_label(&settings, &self.me, self.label.temporary, &*self.host, &self.context)
            .map_err(|ending| ending.alone().error().unwrap_or_default())?;
        let says_other = made.variables != self.label.variables || made.description != self.label.description;
        let changed = says_other || settings != self.settings;
        self.settings = settings;
        if says_other {
            // The next look at the sub-tree finds that another label stands there, and writes this one.
            self.label = Arc::new(Encoded::new(Label { holding: self.label.holding.clone(), ..made }));
            self.host.set_variables(self.settings.said_variables());
            self.files_stale = true;
        }
        Ok(changed)
    }

    /// Writes files again that name variables. The next apply writes them anyway.
    pub(super) fn refresh_files(&mut self) {
        if !self.files_stale || self.doing != Doing::Nothing || !self.started {
            return;
        }
        self.files_stale = false;
        if let Some(given) = self.given.clone() {
            self.doing = Doing::Refreshing;
            self.work = boxed(work::refresh(self.host.clone(), given));
        }
    }
}
