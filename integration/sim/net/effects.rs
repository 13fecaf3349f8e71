//! What the faults did: each knob must have had an effect on somebody, or it proves nothing.

/// Counts of effects, not of faults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Connections that were open at a member when it crashed.
    pub(super) torn: u64,
    /// The same, and nothing told their clients.
    pub(super) torn_silently: u64,
    /// Attempts to connect to a member that was just starting.
    pub(super) dials_refused: u64,
    /// Attempts to connect over a link that is cut.
    pub(super) dials_lost: u64,
    /// Pieces that clients sent into a link that is cut.
    pub(super) sent_into_cut: u64,
    /// Pieces that clients sent, while they could hear the member, and it not them.
    pub(super) sent_unheard: u64,
    /// Pieces that arrived later.
    pub(super) sent_held: u64,
    /// Pieces that a member answered and nobody heard.
    pub(super) answers_unheard: u64,
    /// Pieces sent to a member that stands still.
    pub(super) sent_to_paused: u64,
    /// Requests that a member without a leader left waiting.
    pub(super) waited: u64,
    /// … and of these, writes that were done although their client was told that they were not known to be.
    pub(super) done_unknown: u64,
    /// Requests that a member refused because it knows of no leader.
    pub(super) no_leader: u64,
    /// Watches and keep-alives that ended for that.
    pub(super) streams_ended: u64,
    /// Elections of another leader.
    pub(super) elections: u64,
    /// Calls with a token that the member did not know.
    pub(super) tokens_unknown: u64,
    /// Calls with a token older than the users.
    pub(super) tokens_old: u64,
    /// Watches refused for their token.
    pub(super) watches_refused: u64,
    /// Times that somebody proved who he is.
    pub(super) authenticated: u64,
    /// Calls and watches that came too late for what they asked for.
    pub(super) compacted: u64,
    /// Watches that the server broke.
    pub(super) watches_broken: u64,
    /// Leases ended by an operator.
    pub(super) expired: u64,
}

impl Effects {
    /// With names, and how often each must have been seen in a hundred runs: well below what was seen, so that chance does not fail a
    /// run, and a knob that was lost does.
    fn all(&self) -> [(&'static str, u64, u64); 21] {
        [
            ("connections torn", self.torn, 300),
            ("connections torn silently", self.torn_silently, 150),
            ("dials refused", self.dials_refused, 50),
            ("dials lost", self.dials_lost, 300),
            ("sent into a cut", self.sent_into_cut, 1000),
            ("sent unheard", self.sent_unheard, 120),
            ("sent and held", self.sent_held, 200),
            ("answers unheard", self.answers_unheard, 200),
            ("sent to a paused member", self.sent_to_paused, 1000),
            ("requests without a leader that waited", self.waited, 80),
            ("writes done whose outcome was not told", self.done_unknown, 2),
            ("requests refused for want of a leader", self.no_leader, 500),
            ("streams ended for want of a leader", self.streams_ended, 400),
            ("elections", self.elections, 40),
            ("tokens unknown", self.tokens_unknown, 100),
            ("tokens too old", self.tokens_old, 40),
            ("watches refused for a token", self.watches_refused, 3),
            ("authentications", self.authenticated, 800),
            ("too late for a compaction", self.compacted, 40),
            ("watches broken", self.watches_broken, 150),
            ("leases ended", self.expired, 8),
        ]
    }
}

/// The sums over all runs are large enough.
pub(super) fn assert_enough(runs: &[Effects]) {
    let mut sums: Vec<(&str, u64, u64)> = Effects::default().all().to_vec();
    for run in runs {
        sums.iter_mut().zip(run.all()).for_each(|(sum, (_, count, _))| sum.1 += count);
    }
    eprintln!("{:?}", sums.iter().map(|(name, count, _)| (*name, *count)).collect::<Vec<_>>());
    for (name, seen, in_a_hundred) in sums {
        let least = in_a_hundred * runs.len() as u64 / 100;
        assert!(seen >= least, "{name}: {seen} in {} runs, at least {least} are expected", runs.len());
    }
}
