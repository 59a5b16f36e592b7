//! Transactions asked for together, page by page.
//!
//! Wallets differ in what they make of the parameters: some ignore the time, the offset or the wish for unpaid ones, some
//! give fewer than asked for. So nothing is taken for granted but what stands in the answer, and there is an end to it.

use std::collections::HashSet;

use serde_json::json;
use tokio::time::Instant;

use super::LIST_TRANSACTIONS;
use super::answer::{Direction, Transaction, read_listing};
use super::client::NwcClient;
use super::error::NwcError;

/// Transactions on a page: an answer must fit into what relays carry, and into NIP-44.
const PAGE: usize = 20;
/// A page with fewer is the last one. No wallet is known that gives so few at a time.
const SHORT: usize = PAGE / 2;
/// Pages of one listing, at most.
const MOST_PAGES: usize = 50;

/// What is listed.
pub(super) struct Wanted {
    /// Made at or after this time, in seconds.
    pub(super) from: u64,
    pub(super) direction: Direction,
    pub(super) unpaid: bool,
}

/// What was listed.
pub(super) struct Listed {
    pub(super) transactions: Vec<Transaction>,
    /// Nothing is missing, as far as the wallet goes.
    pub(super) complete: bool,
}

/// Lists until the wallet has no more, the time is over, or it is enough. What came before a page that failed counts.
pub(super) async fn list(
    client: &NwcClient,
    wanted: &Wanted,
    deadline: Instant,
) -> Result<Listed, NwcError> {
    let mut pages = Pages::new(wanted);
    for _ in 0..MOST_PAGES {
        let params = json!({
            "from": wanted.from,
            "limit": PAGE,
            "offset": pages.seen,
            "unpaid": wanted.unpaid,
            "type": match wanted.direction {
                Direction::Incoming => "incoming",
                Direction::Outgoing => "outgoing",
            },
        });
        let left = deadline.saturating_duration_since(Instant::now());
        let page = client.ask(LIST_TRANSACTIONS, params, left).await;
        match page.and_then(|result| read_listing(&result)) {
            Ok(page) => {
                if pages.take(page) {
                    return Ok(pages.into_listed(true));
                }
            }
            Err(error) if pages.seen == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(pages.into_listed(false))
}

struct Pages<'a> {
    wanted: &'a Wanted,
    seen: usize,
    hashes: HashSet<String>,
    transactions: Vec<Transaction>,
}

impl<'a> Pages<'a> {
    fn new(wanted: &'a Wanted) -> Self {
        Self {
            wanted,
            seen: 0,
            hashes: HashSet::new(),
            transactions: Vec::new(),
        }
    }

    /// Takes a page in. Whether it was the last one.
    fn take(&mut self, page: Vec<Transaction>) -> bool {
        let listed = page.len();
        self.seen += listed;
        let too_old = |t: &Transaction| t.created_at.is_some_and(|at| at < self.wanted.from);
        // The newest come first: behind a page of older ones there is nothing that was asked for.
        let past_the_end = page.iter().all(too_old);
        let mut fresh = 0;
        for transaction in page {
            let Some(hash) = transaction.payment_hash.clone() else {
                continue;
            };
            if !self.hashes.insert(hash) {
                continue;
            }
            fresh += 1;
            let asked_for = transaction
                .direction
                .is_none_or(|own| own == self.wanted.direction);
            if asked_for && !too_old(&transaction) {
                self.transactions.push(transaction);
            }
        }
        listed < SHORT || fresh == 0 || past_the_end
    }

    fn into_listed(self, complete: bool) -> Listed {
        Listed {
            transactions: self.transactions,
            complete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(hashes: std::ops::Range<usize>, created_at: u64) -> Vec<Transaction> {
        hashes
            .map(|n| {
                let value = json!({"payment_hash": format!("{n:x}"), "type": "incoming", "created_at": created_at});
                Transaction::read(&value).unwrap()
            })
            .collect()
    }

    const WANTED: Wanted = Wanted {
        from: 100,
        direction: Direction::Incoming,
        unpaid: false,
    };

    #[test]
    fn a_short_page_is_the_last() {
        let mut pages = Pages::new(&WANTED);
        assert!(!pages.take(page(0..20, 200)));
        assert!(
            !pages.take(page(20..30, 200)),
            "a wallet may give ten at a time"
        );
        assert!(pages.take(page(30..33, 200)));
        assert_eq!((pages.seen, pages.transactions.len()), (33, 33));
        assert!(Pages::new(&WANTED).take(Vec::new()));
    }

    #[test]
    fn a_wallet_that_ignores_the_offset_is_not_asked_for_ever() {
        let mut pages = Pages::new(&WANTED);
        assert!(!pages.take(page(0..20, 200)));
        assert!(pages.take(page(0..20, 200)));
        assert_eq!(pages.transactions.len(), 20);
    }

    #[test]
    fn a_wallet_that_ignores_the_time_is_followed_until_it_is_too_old() {
        let mut pages = Pages::new(&WANTED);
        assert!(!pages.take(page(0..20, 200)));
        assert!(pages.take(page(20..40, 99)));
        assert_eq!(pages.transactions.len(), 20);
    }

    #[test]
    fn what_was_not_asked_for_is_left_out() {
        let mut other = page(0..1, 200);
        other.extend(Transaction::read(
            &json!({"payment_hash": "ff", "type": "outgoing"}),
        ));
        other.extend(Transaction::read(&json!({"amount": 1})));
        let mut pages = Pages::new(&WANTED);
        pages.take(other);
        assert_eq!(pages.transactions.len(), 1);
    }
}
