//! What came in: entries added up by capability, client, rail and day, in memory that does not grow with their number.

use std::collections::BTreeMap;

use super::{BALANCE, Entry, EntryState};
use crate::payment::{Timestamp, Unit};

/// The most groups that are told apart. What comes beyond is added up under one name.
pub const MOST_GROUPS: usize = 10_000;

/// The name of what comes beyond.
const OTHERS: &str = "(others)";

/// What is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RevenueBy {
    /// What was sold.
    Capability,
    /// Who paid.
    Client,
    /// The payment method.
    Rail,
    /// The day on which the money came, in UTC.
    Day,
}

impl RevenueBy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Capability, Self::Client, Self::Rail, Self::Day];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capability => "capability",
            Self::Client => "client",
            Self::Rail => "rail",
            Self::Day => "day",
        }
    }
}

/// What one group adds up to, in one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Takings {
    /// How many payments came in.
    pub payments: u64,
    /// How much they brought.
    pub amount: u64,
    /// How many calls were delivered, paid for by a payment of their own or from an account.
    pub delivered: u64,
    /// How many payments are rights to a call that was not used yet.
    pub owed: u64,
    /// How many calls were paid from accounts. What filled those came in before.
    pub from_accounts: u64,
    /// How much of the accounts they took.
    pub drawn: u64,
}

impl Takings {
    fn add(&mut self, entry: &Entry, arrived: u64) {
        let one = |count: &mut u64| *count = count.saturating_add(1);
        if entry.pmi.as_str() == BALANCE {
            one(&mut self.from_accounts);
            self.drawn = self.drawn.saturating_add(arrived);
        } else {
            one(&mut self.payments);
            self.amount = self.amount.saturating_add(arrived);
        }
        match entry.state {
            EntryState::Delivered => one(&mut self.delivered),
            EntryState::Settled => one(&mut self.owed),
            _ => {}
        }
    }
}

/// One line of a report: the names of its group, in the order asked for, and what they add up to.
pub type RevenueLine<'a> = (&'a [String], &'a Unit, &'a Takings);

/// Adds entries up.
#[derive(Debug, Clone)]
pub struct Revenue {
    by: Vec<RevenueBy>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    groups: BTreeMap<(Vec<String>, String), (Unit, Takings)>,
    totals: BTreeMap<String, (Unit, Takings)>,
    overflowed: bool,
}

impl Revenue {
    /// Nothing yet. Tells apart what `by` names, in that order; counts what came in at or after `since`, and before `until`.
    #[must_use]
    pub fn new(by: Vec<RevenueBy>, since: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        Self {
            by,
            since,
            until,
            groups: BTreeMap::new(),
            totals: BTreeMap::new(),
            overflowed: false,
        }
    }

    /// Adds `entry`, if its money has come, in that time.
    pub fn add(&mut self, entry: &Entry) {
        let Some(settlement) = &entry.settlement else {
            return;
        };
        let settled = entry
            .history
            .iter()
            .find(|moment| moment.state == EntryState::Settled);
        let at = settled.map_or(entry.quoted_at, |moment| moment.at);
        if self.since.is_some_and(|since| at < since) || self.until.is_some_and(|until| at >= until)
        {
            return;
        }
        let (unit, arrived) = (settlement.amount.unit(), settlement.amount.value());
        let names = self.by.iter().map(|by| match by {
            RevenueBy::Capability => entry.capability.clone(),
            RevenueBy::Client => entry.client.to_string(),
            RevenueBy::Rail => entry.pmi.to_string(),
            RevenueBy::Day => at.to_date(),
        });
        let mut key = (names.collect::<Vec<_>>(), unit.to_string());
        if self.groups.len() >= MOST_GROUPS && !self.groups.contains_key(&key) {
            self.overflowed = true;
            key.0 = vec![OTHERS.to_owned(); self.by.len()];
        }
        let empty = || (unit.clone(), Takings::default());
        let group = self.groups.entry(key).or_insert_with(empty);
        group.1.add(entry, arrived);
        let total = self.totals.entry(unit.to_string()).or_insert_with(empty);
        total.1.add(entry, arrived);
    }

    /// The groups, in the order of their names.
    pub fn groups(&self) -> impl Iterator<Item = RevenueLine<'_>> {
        self.groups
            .iter()
            .map(|((names, _), (unit, takings))| (names.as_slice(), unit, takings))
    }

    /// The whole, by unit: two units never add.
    pub fn totals(&self) -> impl Iterator<Item = (&Unit, &Takings)> {
        self.totals.values().map(|(unit, takings)| (unit, takings))
    }

    /// Whether there were more groups than are told apart.
    #[must_use]
    pub const fn has_overflowed(&self) -> bool {
        self.overflowed
    }
}

#[cfg(test)]
mod tests {
    use super::super::{NewEntry, Transition};
    use super::*;
    use crate::payment::{
        Amount, ClientPubkey, InvocationIdentity, PayReq, PaymentInteraction, PaymentRequest,
        RequestEventId, Settlement,
    };

    const DAY: u64 = 86_400;

    fn paid(n: u32, pmi: &str, amount: &str, at: u64) -> Entry {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let amount: Amount = amount.parse().unwrap();
        let mut entry = Entry::quoted(NewEntry {
            id: RequestEventId::from_bytes(id),
            client: ClientPubkey::from_bytes([(n % 3) as u8; 32]),
            identity: InvocationIdentity::from_bytes([1; 32]),
            capability: format!("tool:{}", n % 2),
            interaction: PaymentInteraction::ExplicitGating,
            pmi: pmi.parse().unwrap(),
            amount: amount.clone(),
            description: String::new(),
            meta: None,
            request: None,
            route: String::new(),
            deadline: Timestamp::from_secs(at),
            quoted_at: Timestamp::from_secs(at),
        });
        let request = PaymentRequest::new(entry.pmi.clone(), amount.clone(), PayReq::new("x"), "r");
        let moves = [
            Transition::Issue {
                payment_request: request,
                watch_until: Timestamp::from_secs(at),
            },
            Transition::Settle(Settlement::new(amount, "r")),
        ];
        for transition in moves {
            let _ = entry.make(transition, Timestamp::from_secs(at));
        }
        entry
    }

    #[test]
    fn what_came_in_is_told_apart_and_units_never_add() {
        let mut revenue = Revenue::new(vec![RevenueBy::Rail, RevenueBy::Day], None, None);
        for (n, pmi, amount, day) in [
            (0, "a", "7 sats", 0),
            (1, "a", "5 sats", 0),
            (2, "a", "5 sats", 1),
            (3, "b", "0.50 usd", 1),
            (4, BALANCE, "9 sats", 1),
        ] {
            revenue.add(&paid(n, pmi, amount, day * DAY));
        }
        let mut unpaid = paid(9, "a", "100 sats", 0);
        unpaid.settlement = None;
        revenue.add(&unpaid);
        let lines: Vec<(String, u64)> = revenue
            .groups()
            .map(|(names, unit, t)| (format!("{} {unit}", names.join(" ")), t.amount))
            .collect();
        let expected = [
            ("a 1970-01-01 sats", 12),
            ("a 1970-01-02 sats", 5),
            ("b 1970-01-02 usd-cents", 50),
            ("balance 1970-01-02 sats", 0),
        ];
        assert_eq!(lines, expected.map(|(name, n)| (name.to_owned(), n)));
        let totals: Vec<_> = revenue.totals().collect();
        assert_eq!(totals.len(), 2);
        let sats = totals[0].1;
        assert_eq!((sats.payments, sats.amount, sats.owed), (3, 17, 4));
        assert_eq!((sats.from_accounts, sats.drawn), (1, 9));
    }

    #[test]
    fn only_the_time_asked_for_counts() {
        let (since, until) = (Timestamp::from_secs(DAY), Timestamp::from_secs(2 * DAY));
        let mut revenue = Revenue::new(vec![], Some(since), Some(until));
        for (n, at) in [(0, DAY - 1), (1, DAY), (2, 2 * DAY - 1), (3, 2 * DAY)] {
            revenue.add(&paid(n, "a", "1 sats", at));
        }
        assert_eq!(revenue.totals().next().unwrap().1.payments, 2);
    }

    #[test]
    fn memory_does_not_grow_with_the_number_of_groups() {
        let mut revenue = Revenue::new(vec![RevenueBy::Day], None, None);
        let most = MOST_GROUPS as u32;
        for n in 0..most + 50 {
            revenue.add(&paid(n, "a", "1 sats", u64::from(n) * DAY));
        }
        assert!(revenue.has_overflowed());
        assert_eq!(revenue.groups().count(), MOST_GROUPS + 1);
        assert_eq!(
            revenue.totals().next().unwrap().1.amount,
            u64::from(most + 50)
        );
    }
}
