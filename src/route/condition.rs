use super::pattern::Captures;
use super::reading::readings;
use super::{MAX_HOST, Rule, covers, host};
use crate::config::{HostPattern, Match};
use crate::message::{Readings, RequestHead};

/// Conditions that stand by themselves, outside of the order of routes.
#[derive(Debug)]
pub struct Condition {
    hosts: Vec<HostPattern>,
    rule: Rule,
}

impl Condition {
    pub fn new(matches: &Match) -> Self {
        Self {
            hosts: matches.hosts.clone(),
            rule: Rule::new(matches),
        }
    }

    /// Whether they hold for a request in any way in which a server may read its path; then what they capture of it.
    pub fn captures<'a>(&'a self, head: &'a RequestHead) -> Option<Captures<'a>> {
        let mut buffer = [0; MAX_HOST];
        let here = match host(&head.authority, &mut buffer) {
            Some(host) => self.hosts.is_empty() || self.hosts.iter().any(|pattern| covers(pattern, host)),
            None => self.hosts.is_empty(),
        };
        let path = head.path();
        let holds = here
            && if head.target.path_readings() == Readings::One {
                self.rule.matches(head, path.as_bytes())
            } else {
                let readings = readings(path.as_bytes());
                readings.is_ok_and(|readings| readings.iter().any(|reading| self.rule.matches(head, reading)))
            };
        let patterns = [self.rule.path.as_ref(), self.rule.prefix.as_ref()];
        holds.then(|| Captures::new(patterns, path))
    }
}
