//! The books of the wallets: who has how much, which invoices there are, who paid them. No I/O, no clock, no faults.
//!
//! A payment moves money from one wallet to another in one step: there is no moment at which it is in both or in neither.
//! One that is held is nobody's until it is released or fails; it still counts in [`Books::total_msat`].

use std::collections::{BTreeMap, HashMap};

use super::invoice::{Made, PaymentHash, Wanted, payment_hash_of};
use super::method::Refusal;
use crate::payment::Timestamp;

/// How many transactions a wallet keeps.
const MOST: usize = 200_000;

/// Which wallet, by its place.
pub(super) type WalletIndex = usize;

/// Which way the money goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    Incoming,
    Outgoing,
}

/// How a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Settled,
    Expired,
    Failed,
}

/// An invoice that a wallet made, or a payment that it made.
#[derive(Debug, Clone)]
pub(super) struct Transaction {
    pub(super) direction: Direction,
    pub(super) state: State,
    pub(super) invoice: String,
    pub(super) wanted: Wanted,
    pub(super) payment_hash: PaymentHash,
    pub(super) preimage: [u8; 32],
    /// What is asked for or paid; `None` until an invoice without an amount is paid.
    pub(super) amount_msat: Option<u64>,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) settled_at: Option<Timestamp>,
}

impl Transaction {
    /// How it stands at `now`.
    pub(super) fn state_at(&self, now: Timestamp) -> State {
        match (self.direction, self.state) {
            (Direction::Incoming, State::Pending) if now >= self.expires_at => State::Expired,
            (_, state) => state,
        }
    }
}

/// Which transactions are listed (NIP-47, `list_transactions`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    /// Those that are not settled, too.
    pub(super) unpaid: bool,
    pub(super) direction: Option<Direction>,
    pub(super) offset: usize,
    pub(super) limit: usize,
}

/// Money that moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) payer: WalletIndex,
    pub(super) payee: WalletIndex,
    pub(super) payment_hash: PaymentHash,
    pub(super) amount_msat: u64,
}

/// What came of an attempt to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paid {
    Settled(Moved),
    Held(PaymentHash),
}

#[derive(Debug)]
pub(super) struct Books {
    accounts: Vec<Account>,
    /// Who made which invoice.
    makers: HashMap<PaymentHash, WalletIndex>,
    /// Payments that are pending: who pays.
    held: HashMap<PaymentHash, WalletIndex>,
}

#[derive(Debug, Default)]
struct Account {
    balance_msat: u64,
    transactions: BTreeMap<u64, Transaction>,
    by_hash: HashMap<(Direction, PaymentHash), u64>,
    next: u64,
}

impl Books {
    pub(super) fn new(balances_msat: impl IntoIterator<Item = u64>) -> Self {
        let accounts = balances_msat.into_iter().map(|balance_msat| Account {
            balance_msat,
            ..Account::default()
        });
        Self {
            accounts: accounts.collect(),
            makers: HashMap::new(),
            held: HashMap::new(),
        }
    }

    pub(super) fn balance_msat(&self, wallet: WalletIndex) -> u64 {
        self.accounts
            .get(wallet)
            .map_or(0, |account| account.balance_msat)
    }

    /// All money, that of held payments included. It never changes.
    #[cfg(test)]
    fn total_msat(&self) -> u64 {
        let held = self.held.iter().map(|(hash, payer)| {
            let payment = self.accounts[*payer].get(Direction::Outgoing, hash);
            payment.and_then(|payment| payment.amount_msat).unwrap()
        });
        let balances = self.accounts.iter().map(|account| account.balance_msat);
        balances.chain(held).sum()
    }

    /// Writes an invoice of `wallet` down.
    pub(super) fn add_invoice(
        &mut self,
        wallet: WalletIndex,
        wanted: Wanted,
        made: Made,
    ) -> Result<Transaction, Refusal> {
        let account = self.accounts.get_mut(wallet).ok_or(Refusal::Internal)?;
        let forgotten = account.make_room(wanted.made_at)?;
        let transaction = Transaction {
            direction: Direction::Incoming,
            state: State::Pending,
            invoice: made.invoice,
            payment_hash: made.payment_hash,
            preimage: made.preimage,
            amount_msat: wanted.amount_msat,
            created_at: wanted.made_at,
            expires_at: wanted.made_at.plus(wanted.expiry),
            settled_at: None,
            wanted,
        };
        account.add(transaction.clone());
        if let Some(hash) = forgotten {
            self.makers.remove(&hash);
        }
        self.makers.insert(made.payment_hash, wallet);
        Ok(transaction)
    }

    /// Pays `invoice` from `payer`, all of it or nothing. `hold` leaves the payment pending.
    pub(super) fn pay(
        &mut self,
        payer: WalletIndex,
        invoice: &str,
        amount_msat: Option<u64>,
        hold: bool,
        now: Timestamp,
    ) -> Result<Paid, Refusal> {
        let hash = payment_hash_of(invoice).ok_or(Refusal::Other)?;
        let payee = self.makers.get(&hash).copied();
        let payee = payee.ok_or(Refusal::PaymentFailed)?;
        let account = self.accounts.get(payee).ok_or(Refusal::Internal)?;
        let asked = account.get(Direction::Incoming, &hash);
        let asked = asked
            .filter(|asked| asked.invoice == invoice.trim())
            .ok_or(Refusal::PaymentFailed)?
            .clone();
        if asked.state_at(now) != State::Pending {
            return Err(Refusal::PaymentFailed);
        }
        // It is on its way; whoever asks twice must not pay twice.
        if self.held.contains_key(&hash) {
            return Err(Refusal::Other);
        }
        let amount = match (asked.amount_msat, amount_msat) {
            (Some(asked), None) => asked,
            (Some(asked), Some(amount)) if amount == asked => asked,
            (None, Some(amount)) if amount > 0 => amount,
            _ => return Err(Refusal::Other),
        };
        let payment = Transaction {
            direction: Direction::Outgoing,
            state: State::Pending,
            amount_msat: Some(amount),
            created_at: now,
            settled_at: None,
            ..asked
        };
        let account = self.accounts.get_mut(payer).ok_or(Refusal::Internal)?;
        let left = account.balance_msat.checked_sub(amount);
        let left = left.ok_or(Refusal::InsufficientBalance)?;
        if let Some(hash) = account.make_room(now)? {
            self.makers.remove(&hash);
        }
        account.balance_msat = left;
        account.add(payment);
        self.held.insert(hash, payer);
        if hold {
            return Ok(Paid::Held(hash));
        }
        let moved = self.release(&hash, now).ok_or(Refusal::Internal)?;
        Ok(Paid::Settled(moved))
    }

    /// Lets a held payment arrive. `None` if there is none.
    pub(super) fn release(&mut self, hash: &PaymentHash, now: Timestamp) -> Option<Moved> {
        let payee = self.makers.get(hash).copied()?;
        let payer = self.held.remove(hash)?;
        let payment = self.accounts.get_mut(payer)?;
        let payment = payment.get_mut(Direction::Outgoing, hash)?;
        payment.state = State::Settled;
        payment.settled_at = Some(now);
        let amount = payment.amount_msat?;
        let account = self.accounts.get_mut(payee)?;
        // All money together was counted when the wallets were filled, so the sum has room.
        account.balance_msat = account.balance_msat.saturating_add(amount);
        let invoice = account.get_mut(Direction::Incoming, hash)?;
        invoice.state = State::Settled;
        invoice.settled_at = Some(now);
        invoice.amount_msat = Some(amount);
        Some(Moved {
            payer,
            payee,
            payment_hash: *hash,
            amount_msat: amount,
        })
    }

    /// Lets a held payment fail: the money goes back. `None` if there is none.
    pub(super) fn fail(&mut self, hash: &PaymentHash) -> Option<()> {
        let payer = self.held.remove(hash)?;
        let account = self.accounts.get_mut(payer)?;
        let payment = account.get_mut(Direction::Outgoing, hash)?;
        payment.state = State::Failed;
        let amount = payment.amount_msat?;
        account.balance_msat = account.balance_msat.saturating_add(amount);
        Some(())
    }

    /// The payments that are held.
    pub(super) fn held(&self) -> Vec<PaymentHash> {
        self.held.keys().copied().collect()
    }

    /// An invoice of `wallet`, else a payment of it.
    pub(super) fn find(&self, wallet: WalletIndex, hash: &PaymentHash) -> Option<&Transaction> {
        let account = self.accounts.get(wallet)?;
        account
            .get(Direction::Incoming, hash)
            .or_else(|| account.get(Direction::Outgoing, hash))
    }

    /// A payment of `wallet`.
    pub(super) fn payment(&self, wallet: WalletIndex, hash: &PaymentHash) -> Option<&Transaction> {
        self.accounts.get(wallet)?.get(Direction::Outgoing, hash)
    }

    /// The newest invoice of `wallet`.
    pub(super) fn newest_invoice(&self, wallet: WalletIndex) -> Option<&Transaction> {
        let transactions = self.accounts.get(wallet)?.transactions.values();
        transactions
            .rev()
            .find(|transaction| transaction.direction == Direction::Incoming)
    }

    /// The transactions of `wallet`, newest first.
    pub(super) fn list(
        &self,
        wallet: WalletIndex,
        query: &Query,
        now: Timestamp,
    ) -> Vec<&Transaction> {
        let Some(account) = self.accounts.get(wallet) else {
            return Vec::new();
        };
        account
            .transactions
            .values()
            .rev()
            .filter(|transaction| {
                (query.unpaid || transaction.state_at(now) == State::Settled)
                    && query
                        .direction
                        .is_none_or(|direction| transaction.direction == direction)
                    && (query.from..=query.until).contains(&transaction.created_at)
            })
            .skip(query.offset)
            .take(query.limit)
            .collect()
    }
}

impl Account {
    fn get(&self, direction: Direction, hash: &PaymentHash) -> Option<&Transaction> {
        self.transactions
            .get(self.by_hash.get(&(direction, *hash))?)
    }

    fn get_mut(&mut self, direction: Direction, hash: &PaymentHash) -> Option<&mut Transaction> {
        self.transactions
            .get_mut(self.by_hash.get(&(direction, *hash))?)
    }

    fn add(&mut self, transaction: Transaction) {
        let key = (transaction.direction, transaction.payment_hash);
        // A payment that failed may be tried again: the last attempt is the one that is looked up.
        self.by_hash.insert(key, self.next);
        self.transactions.insert(self.next, transaction);
        self.next += 1;
    }

    /// Forgets the oldest transaction if there are too many, unless it could still change. Returns its hash if it was an
    /// invoice.
    fn make_room(&mut self, now: Timestamp) -> Result<Option<PaymentHash>, Refusal> {
        if self.transactions.len() < MOST {
            return Ok(None);
        }
        let oldest = self.transactions.first_entry().ok_or(Refusal::Internal)?;
        if oldest.get().state_at(now) == State::Pending {
            return Err(Refusal::QuotaExceeded);
        }
        let (number, oldest) = oldest.remove_entry();
        let key = (oldest.direction, oldest.payment_hash);
        if self.by_hash.get(&key) == Some(&number) {
            self.by_hash.remove(&key);
        }
        Ok((oldest.direction == Direction::Incoming).then_some(oldest.payment_hash))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::invoice::{Description, Signer};
    use super::*;
    use crate::rails::lightning::Network;

    const SELLER: WalletIndex = 0;
    const BUYER: WalletIndex = 1;
    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn books() -> (Books, Signer) {
        (Books::new([0, 100_000]), Signer::generate())
    }

    fn invoice(books: &mut Books, signer: &Signer, amount: Option<u64>, at: u64) -> Transaction {
        let wanted = Wanted {
            network: Network::Regtest,
            amount_msat: amount,
            description: Description::Text(String::new()),
            made_at: START.plus(Duration::from_secs(at)),
            expiry: Duration::from_secs(60),
        };
        let made = signer.make(wanted.clone()).unwrap();
        books.add_invoice(SELLER, wanted, made).unwrap()
    }

    fn everything() -> Query {
        Query {
            from: Timestamp::from_millis(0),
            until: Timestamp::from_millis(u64::MAX),
            unpaid: true,
            direction: None,
            offset: 0,
            limit: usize::MAX,
        }
    }

    #[test]
    fn a_payment_moves_the_money_once() {
        let (mut books, signer) = books();
        let asked = invoice(&mut books, &signer, Some(7_000), 0);
        let paid = books
            .pay(BUYER, &asked.invoice, None, false, START)
            .unwrap();
        let moved = Moved {
            payer: BUYER,
            payee: SELLER,
            payment_hash: asked.payment_hash,
            amount_msat: 7_000,
        };
        assert_eq!(paid, Paid::Settled(moved));
        assert_eq!(
            (books.balance_msat(SELLER), books.balance_msat(BUYER)),
            (7_000, 93_000)
        );
        assert_eq!(
            books.pay(BUYER, &asked.invoice, None, false, START),
            Err(Refusal::PaymentFailed)
        );
        assert_eq!(books.balance_msat(BUYER), 93_000);
        let seen = |wallet| books.find(wallet, &asked.payment_hash).unwrap();
        for wallet in [SELLER, BUYER] {
            assert_eq!(seen(wallet).state, State::Settled);
            assert_eq!(seen(wallet).settled_at, Some(START));
        }
        assert_eq!(seen(SELLER).direction, Direction::Incoming);
        assert_eq!(seen(BUYER).direction, Direction::Outgoing);
    }

    #[test]
    fn what_cannot_be_paid_costs_nothing() {
        let (mut books, signer) = books();
        let dear = invoice(&mut books, &signer, Some(100_001), 0);
        let free = invoice(&mut books, &signer, None, 0);
        let fair = invoice(&mut books, &signer, Some(1_000), 0);
        let mut pay = |invoice: &str, amount, at| {
            let now = START.plus(Duration::from_secs(at));
            books.pay(BUYER, invoice, amount, false, now).unwrap_err()
        };
        assert_eq!(pay(&dear.invoice, None, 0), Refusal::InsufficientBalance);
        assert_eq!(pay(&free.invoice, None, 0), Refusal::Other);
        assert_eq!(pay(&fair.invoice, Some(999), 0), Refusal::Other);
        assert_eq!(pay(&fair.invoice, None, 60), Refusal::PaymentFailed);
        assert_eq!(pay("lnbcrt1", None, 0), Refusal::Other);
        let foreign = Signer::generate().make(fair.wanted.clone()).unwrap();
        assert_eq!(pay(&foreign.invoice, None, 0), Refusal::PaymentFailed);
        assert_eq!(books.balance_msat(BUYER), 100_000);
        assert!(books.list(BUYER, &everything(), START).is_empty());
        assert_eq!(
            books
                .pay(BUYER, &free.invoice, Some(5), false, START)
                .map(|_| books.balance_msat(SELLER)),
            Ok(5)
        );
    }

    #[test]
    fn a_held_payment_is_released_or_fails_once() {
        let (mut books, signer) = books();
        let [good, bad] = [0, 1].map(|at| invoice(&mut books, &signer, Some(1_000), at));
        for asked in [&good, &bad] {
            let held = books.pay(BUYER, &asked.invoice, None, true, START).unwrap();
            assert_eq!(held, Paid::Held(asked.payment_hash));
            let again = books.pay(BUYER, &asked.invoice, None, true, START);
            assert_eq!(again, Err(Refusal::Other), "it is on its way");
        }
        assert_eq!(
            (books.balance_msat(SELLER), books.balance_msat(BUYER)),
            (0, 98_000)
        );
        assert_eq!(books.total_msat(), 100_000);
        // Money on its way arrives after the expiry, too.
        let late = START.plus(Duration::from_secs(3600));
        assert!(books.release(&good.payment_hash, late).is_some());
        assert!(books.release(&good.payment_hash, late).is_none());
        assert!(books.fail(&good.payment_hash).is_none());
        assert!(books.fail(&bad.payment_hash).is_some());
        assert!(books.release(&bad.payment_hash, late).is_none());
        assert_eq!(
            (books.balance_msat(SELLER), books.balance_msat(BUYER)),
            (1_000, 99_000)
        );
        let state = |wallet, asked: &Transaction| {
            books
                .find(wallet, &asked.payment_hash)
                .unwrap()
                .state_at(late)
        };
        assert_eq!(
            (state(SELLER, &good), state(BUYER, &good)),
            (State::Settled, State::Settled)
        );
        assert_eq!(
            (state(SELLER, &bad), state(BUYER, &bad)),
            (State::Expired, State::Failed)
        );
    }

    #[test]
    fn a_list_is_newest_first_and_can_be_cut() {
        let (mut books, signer) = books();
        let made: Vec<Transaction> = (0..6)
            .map(|at| invoice(&mut books, &signer, Some(1_000), at))
            .collect();
        for asked in &made[2..5] {
            books
                .pay(BUYER, &asked.invoice, None, false, START)
                .unwrap();
        }
        let seconds = |query: Query| -> Vec<u64> {
            books
                .list(SELLER, &query, START)
                .iter()
                .map(|row| row.created_at.as_secs() - START.as_secs())
                .collect()
        };
        assert_eq!(seconds(everything()), [5, 4, 3, 2, 1, 0]);
        let settled = Query {
            unpaid: false,
            ..everything()
        };
        assert_eq!(seconds(settled), [4, 3, 2]);
        assert_eq!(
            seconds(Query {
                offset: 1,
                limit: 1,
                ..settled
            }),
            [3]
        );
        let from = START.plus(Duration::from_secs(3));
        assert_eq!(
            seconds(Query {
                from,
                ..everything()
            }),
            [5, 4, 3]
        );
        assert_eq!(
            seconds(Query {
                from,
                until: from,
                ..everything()
            }),
            [3]
        );
        let direction = Some(Direction::Outgoing);
        assert!(
            seconds(Query {
                direction,
                ..everything()
            })
            .is_empty()
        );
        assert_eq!(
            books
                .list(
                    BUYER,
                    &Query {
                        direction,
                        ..everything()
                    },
                    START
                )
                .len(),
            3
        );
    }

    proptest! {
        /// Whatever is done in whatever order, no money is made or lost, and no invoice is paid twice.
        #[test]
        fn money_is_kept(steps in proptest::collection::vec((0..4u8, 0..4usize, 0..2usize), 1..60)) {
            let signer = Signer::generate();
            let mut books = Books::new([50_000, 50_000]);
            let invoices: Vec<Transaction> =
                (0..4).map(|n| invoice(&mut books, &signer, Some(1_000 << n), n)).collect();
            let mut arrived = [0; 4];
            for (step, which, wallet) in steps {
                let asked = &invoices[which];
                match step {
                    0 => {
                        if let Ok(Paid::Settled(_)) = books.pay(wallet, &asked.invoice, None, false, START) {
                            arrived[which] += 1;
                        }
                    }
                    1 => { let _ = books.pay(wallet, &asked.invoice, None, true, START); }
                    2 => {
                        if books.release(&asked.payment_hash, START).is_some() {
                            arrived[which] += 1;
                        }
                    }
                    _ => { books.fail(&asked.payment_hash); }
                }
                prop_assert_eq!(books.total_msat(), 100_000);
            }
            prop_assert!(arrived.iter().all(|times| *times <= 1));
        }
    }
}
