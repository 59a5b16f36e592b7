//! Balances the books: what was paid, what the ledger says, what was executed, and what buyers have in hand.
//!
//! The ledger is believed in nothing that can be known otherwise: the till knows what was really paid, and the tool wrote
//! down what it really did.

use std::collections::HashSet;

use tollkeeper::ledger::{Entry, EntryState};

/// What is known of one call: those who share it share its payments.
pub(crate) struct Sold {
    /// What each of its payments is.
    pub(crate) price: u64,
    /// How many buyers have its result in hand.
    pub(crate) results: usize,
    /// What they paid, by reference.
    pub(crate) paid: HashSet<String>,
    /// Its executions: which process did each.
    pub(crate) executed_by: Vec<usize>,
    /// Its entries as each killed process left them, and which process that was.
    pub(crate) at_deaths: Vec<(usize, Vec<Entry>)>,
    /// Its entries after everything.
    pub(crate) entries: Vec<Entry>,
    /// How many of its executions were interrupted, as far as that is known otherwise than by those deaths.
    pub(crate) interrupted: usize,
}

fn settled(entries: &[Entry]) -> usize {
    entries
        .iter()
        .filter(|entry| entry.settlement.is_some())
        .count()
}

fn in_state(entries: &[Entry], state: EntryState) -> usize {
    entries.iter().filter(|entry| entry.state == state).count()
}

impl Sold {
    /// Everything that is wrong; empty if the books balance.
    pub(crate) fn wrongs(&self) -> Vec<String> {
        let mut wrongs = self
            .entries
            .iter()
            .filter_map(|entry| wrong_entry(entry, self.price))
            .collect::<Vec<_>>();
        let mut claim = |holds: bool, wrong: String| {
            if !holds {
                wrongs.push(wrong);
            }
        };

        // The books say what the till says.
        let references = self
            .entries
            .iter()
            .filter(|entry| entry.settlement.is_some());
        let on_the_books: Vec<&str> = references
            .filter_map(|entry| Some(entry.payment_request.as_ref()?.reference.as_str()))
            .collect();
        for reference in &self.paid {
            let times = on_the_books.iter().filter(|it| *it == reference).count();
            claim(
                times == 1,
                format!("{reference} was paid, and is on the books {times} times"),
            );
        }
        claim(
            on_the_books.len() == self.paid.len() && settled(&self.entries) == self.paid.len(),
            format!(
                "{} payments, {} settled entries",
                self.paid.len(),
                settled(&self.entries)
            ),
        );

        // One settlement: one result, or one live authorization.
        let delivered = in_state(&self.entries, EntryState::Delivered);
        let live = self
            .entries
            .iter()
            .filter(|entry| entry.is_authorization())
            .count();
        claim(
            settled(&self.entries) == delivered + live,
            format!(
                "{} settled, {delivered} delivered, {live} authorizations",
                settled(&self.entries)
            ),
        );
        claim(
            delivered == self.results,
            format!("{} results in hand, {delivered} delivered", self.results),
        );

        // No execution without a settled entry; more executions than deliveries only where a crash interrupted one.
        let mut interrupted = self.interrupted;
        for (process, entries) in &self.at_deaths {
            let executions = self.executed_by.iter().filter(|by| *by <= process).count();
            let most = settled(entries) + interrupted;
            claim(
                executions <= most,
                format!(
                    "when process {process} died: {executions} executions, at most {most} were paid for"
                ),
            );
            interrupted += in_state(entries, EntryState::Claimed);
        }
        let executions = self.executed_by.len();
        claim(
            executions >= delivered,
            format!("{executions} executions, {delivered} delivered"),
        );
        claim(
            executions <= delivered + interrupted,
            format!("{executions} executions, {delivered} delivered, {interrupted} interrupted"),
        );
        wrongs
    }
}

/// What is wrong with an entry after everything: nobody is being served any more.
fn wrong_entry(entry: &Entry, price: u64) -> Option<String> {
    let why = match entry.state {
        EntryState::Quoted => "a quote that no recovery has looked at",
        EntryState::Claimed => "claimed by nobody",
        EntryState::Settled if entry.waiting => "settled for a request that nobody serves",
        EntryState::Delivered if entry.response.is_none() => "delivered without a response",
        EntryState::Delivered if entry.claimed_by.is_none() => "delivered to nobody",
        _ if entry.amount.value() != price => "another price",
        _ if entry
            .settlement
            .as_ref()
            .is_some_and(|it| it.amount != entry.amount) =>
        {
            "another amount"
        }
        _ => return None,
    };
    Some(format!("{} is {}: {why}", entry.id.short(), entry.state))
}

/// The story of an entry, for people.
pub(crate) fn story(entry: &Entry) -> String {
    let mut story = format!(
        "entry {} claimed by {:?}",
        entry.id.short(),
        entry.claimed_by.map(|by| by.short())
    );
    for moment in &entry.history {
        let note = moment.note.as_deref().unwrap_or_default();
        story += &format!("\n      {} {} {note}", moment.at.as_millis(), moment.state);
    }
    story
}
