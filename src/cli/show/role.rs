//! Roles, as `get roles` shows them: what the leader of each says of itself, and how many stand by.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Shown, Stores};
use crate::cli::content::{Content, decoded};
use crate::cli::leads::leaders;
use crate::plan::brake::BrakeState;
use crate::store::keys::{ParsedKey, Role};
use crate::store::wire::RoleReport;

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleObject {
    /// allocator, relay or manager.
    pub role: String,
    /// The instance that leads, e.g. `host-a/4711`; empty = none.
    pub leader: String,
    /// How many more instances stand by.
    pub standby: u64,
    /// The leader's version of enlist.
    pub version: String,
    /// The revision its view has seen.
    pub revision: i64,
    /// How far it is behind, in revisions; null = nobody leads who could say.
    pub lag: Option<i64>,
    /// Why its brake is on or was released, for people; empty = off.
    pub brake: String,
    /// The same for programs.
    pub brake_state: BrakeObject,
    /// What etcd refuses or fails to answer the leader, in words; empty = nothing.
    pub trouble: String,
    /// The last pass in words.
    pub last_pass: String,
    /// How many findings it has.
    pub findings: u64,
    /// Counters since this instance leads.
    pub counters: BTreeMap<String, u64>,
}

/// What a role's brake does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BrakeObject {
    /// off, on, released, or unknown: nobody leads who could say.
    pub state: String,
    /// When the leader first saw it so (RFC 3339); empty = unknown.
    pub since: String,
    /// Who released it last, e.g. `host-a/4711`; empty = nobody since it is on.
    pub released_by: String,
    /// When (RFC 3339); empty = unknown.
    pub released_at: String,
}

impl Shown for RoleObject {
    const SOURCE: &'static [&'static str] = &["brakes", "leaders/allocator", "roles"];
    const MANAGER: &'static [&'static str] = &["brakes", "leaders", "roles"];
    const HEADINGS: &'static [&'static str] = &["ROLE", "LEADER", "STANDBY", "LAG", "BRAKE", "FINDINGS", "LAST PASS", "TROUBLE"];
    const NARROW: &'static [&'static str] = &["LAST PASS", "FINDINGS", "STANDBY"];
    const WIDE: &'static [&'static str] = &["VERSION", "REVISION", "COUNTERS"];

    fn list(stores: Stores<'_>) -> Vec<Self> {
        // The allocator is the source's, relay and manager are the destination's.
        let home = |role: Role| if role == Role::Allocator { stores.source } else { stores.manager };
        Role::ALL.into_iter().filter_map(|role| home(role).map(|content| object(role, content))).collect()
    }

    fn name(&self) -> String {
        self.role.clone()
    }

    fn cells(&self, _now: SystemTime) -> Vec<String> {
        vec![
            self.role.clone(),
            self.leader.clone(),
            self.standby.to_string(),
            self.lag.map(|lag| lag.to_string()).unwrap_or_default(),
            self.brake_text(),
            self.findings.to_string(),
            self.last_pass.clone(),
            self.trouble.clone(),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        vec![self.version.clone(), self.revision.to_string(), super::pairs(&self.counters)]
    }
}

impl RoleObject {
    /// Its brake in words; empty = off, or unknown.
    fn brake_text(&self) -> String {
        match self.brake_state.state.as_str() {
            "off" | "unknown" => String::new(),
            state => format!("{state}: {}", self.why()),
        }
    }

    /// Why its brake is on or was released, and by whom.
    pub fn why(&self) -> String {
        let BrakeObject { released_by, released_at, .. } = &self.brake_state;
        match released_by.is_empty() {
            true => self.brake.clone(),
            false => format!("{} (released by {released_by} at {released_at})", self.brake),
        }
    }
}

/// Who released a role's brake, and when.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Release {
    by: String,
    since: String,
}

fn brake_object(role: Role, content: &Content, report: Option<&RoleReport>) -> BrakeObject {
    let state = match report {
        None => BrakeState::Unknown,
        // An older leader says only why.
        Some(report) => report.brake_state.unwrap_or(BrakeState::of(!report.brake.is_empty(), true)),
    };
    // One that is off has nothing to do with an earlier release.
    let stored = content.get(&content.prefix.brake(role)).filter(|_| matches!(state, BrakeState::On | BrakeState::Released));
    // Anything may be put there: only that the key is there counts.
    let release: Option<Release> = stored.map(|kv| serde_json::from_slice(&kv.value).unwrap_or_default());
    let since = report.map(|report| report.brake_since.clone()).unwrap_or_default();
    // A release from before this incident says nothing of it. (Times are for people; both are RFC 3339 in UTC.)
    let is_earlier = |release: &Release| state == BrakeState::On && release.since < since;
    let release = release.filter(|release| !is_earlier(release)).unwrap_or_default();
    BrakeObject { state: state.as_str().into(), since, released_by: release.by, released_at: release.since }
}

fn object(role: Role, content: &Content) -> RoleObject {
    let campaigns = content.parsed().filter(|(key, _)| matches!(key, ParsedKey::Leader(of, _) if *of == role)).count();
    let report = content.get(&content.prefix.role(role)).and_then(|kv| decoded::<RoleReport>(kv).ok());
    let leader = leaders(content).remove(&role);
    let leads = usize::from(report.is_some() || campaigns > 0);
    let standby = u64::try_from(campaigns.saturating_sub(leads)).unwrap_or_default();
    let name = role.to_string();
    let brake_state = brake_object(role, content, report.as_ref());
    match report {
        None => RoleObject {
            role: name,
            // It leads, and has not reported yet, or may not.
            leader: leader.unwrap_or_default(),
            standby,
            version: String::new(),
            revision: 0,
            lag: None,
            brake: String::new(),
            brake_state,
            trouble: String::new(),
            last_pass: String::new(),
            findings: 0,
            counters: BTreeMap::new(),
        },
        Some(report) => RoleObject {
            role: name,
            leader: report.identity,
            standby,
            version: report.version,
            revision: report.revision.0,
            lag: Some(report.lag),
            brake: report.brake,
            brake_state,
            trouble: report.trouble,
            last_pass: report.last_pass,
            findings: report.findings,
            counters: report.counters,
        },
    }
}

/// A relay that is well is behind for moments only; its report is a few seconds old.
pub const LATE_S: u64 = 30;

/// How late the copies are that groups rest on, in seconds; `None` = no relay leads.
pub fn copies_lag_s(manager: &Content) -> Option<u64> {
    let report = decoded::<RoleReport>(manager.get(&manager.prefix.role(Role::Relay))?).ok()?;
    Some(report.counters.get("lag_s").copied().unwrap_or_default())
}

/// What people should know who look at groups or members: that these rest on old copies.
pub fn stale_copies(manager: Option<&Content>) -> Option<String> {
    match copies_lag_s(manager?) {
        None => Some("no relay leads: what is shown rests on copies that nobody renews".into()),
        Some(late) if late >= LATE_S => Some(format!("the copies that this rests on are {late} s behind")),
        Some(_) => None,
    }
}
