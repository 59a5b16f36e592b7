//! The seller's side: invoices made by the wallet, and its word on whether they were paid.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tokio::time::Instant;

use super::answer::{Abilities, Direction, State, Transaction};
use super::client::NwcClient;
use super::connection::NwcConnection;
use super::error::{Code, NwcError};
use super::listener::Notification;
use super::listing::{Wanted, list};
use super::settings::NwcSettings;
use super::{LIST_TRANSACTIONS, LOOKUP_INVOICE, MAKE_INVOICE, PAYMENT_RECEIVED};
use crate::error::{Error, ErrorKind, Result};
use crate::payment::{
    BITCOIN_LIGHTNING_BOLT11, CheckProof, PayReq, PaymentOrder, PaymentProcessor, PaymentRequest,
    Pmi, RailError, Settlement, SettlementNotice, SettlementStatus, SettlementStream, Timestamp,
    Unit,
};
use crate::rails::lightning::bolt11::{self, Invoice};
use crate::rails::lightning::preimage::{Preimage, judge_preimage};
use crate::rails::lightning::proof::PreimageProofs;
use crate::relays::SKEW;

/// Invoices that are made at once. Look-ups have places of their own, so that none is waited for.
const MINTS_AT_ONCE: usize = 64;
/// Look-ups and listings at once.
const LOOKUPS_AT_ONCE: usize = 8;
/// Orders whose invoice is remembered, in case the same is ordered again.
const REMEMBERED: usize = 1024;
/// How long a listing may take, all its pages together: less than whoever asks is ready to wait.
const LISTING_WITHIN: Duration = Duration::from_secs(8);
/// Settlements that wait to be taken.
const QUEUE: usize = 1024;
/// How often an invoice is asked for again that the wallet was too busy to make.
const BUSY_PAUSES: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Takes payments by Lightning through a NIP-47 wallet.
///
/// The order's key is not known to the wallet, and needs not be: an invoice whose making was never answered is known to
/// nobody who could pay it, because it never leaves this process. What is made in its place is the only one that is ever
/// offered.
pub struct LightningNwcProcessor {
    pmi: Pmi,
    client: Arc<NwcClient>,
    settings: NwcSettings,
    /// Until the wallet says that it does not list.
    can_list: AtomicBool,
    mints: Semaphore,
    lookups: Semaphore,
    orders: Mutex<Orders>,
    stream: Mutex<Option<SettlementStream>>,
}

impl fmt::Debug for LightningNwcProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LightningNwcProcessor")
            .field("client", &self.client)
            .field("network", &self.settings.network)
            .finish_non_exhaustive()
    }
}

impl LightningNwcProcessor {
    /// Connects to the wallet, and makes sure that it can do what is needed.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config) if the wallet does not know the connection, forbids what is needed (which is named),
    /// or is on another network; [`Rail`](ErrorKind::Rail) if it cannot be reached or does not answer.
    pub async fn connect(connection: NwcConnection, settings: NwcSettings) -> Result<Self> {
        let wallet = connection.wallet();
        let deadline = Instant::now() + settings.start_within;
        let client = Arc::new(NwcClient::start(connection, true));
        tracing::info!(wallet, "waiting for the wallet's relay");
        client.ready(settings.start_within).await.map_err(|error| {
            Error::new(ErrorKind::Rail, "the wallet's relay cannot be reached").with_source(error)
        })?;
        tracing::info!(wallet, "waiting for the wallet");
        let left = deadline.saturating_duration_since(Instant::now());
        let abilities = client.abilities(left).await.map_err(unusable)?;
        check_abilities(&abilities, &settings)?;
        let notified = abilities.notifies(PAYMENT_RECEIVED);
        if !notified {
            tracing::warn!(
                wallet,
                "the wallet announces no payment_received notifications: payments are found by look-up, seconds later"
            );
        }
        let can_list = abilities.methods.is_some() && abilities.may(LIST_TRANSACTIONS);
        tracing::info!(wallet, notified, can_list, network = %settings.network, "the wallet can be paid");
        let (settled, stream) = mpsc::channel(QUEUE);
        if let Some(notifications) = client.notifications() {
            tokio::spawn(pass_on(notifications, settled));
        }
        Ok(Self {
            // The constant is a legal identifier, so this cannot fail; if it did, nothing would be sold.
            pmi: BITCOIN_LIGHTNING_BOLT11.parse()?,
            client,
            can_list: AtomicBool::new(can_list),
            mints: Semaphore::new(MINTS_AT_ONCE),
            lookups: Semaphore::new(LOOKUPS_AT_ONCE),
            orders: Mutex::default(),
            stream: Mutex::new(Some(stream)),
            settings,
        })
    }

    async fn make(&self, order: &PaymentOrder) -> std::result::Result<PaymentRequest, RailError> {
        let _place = self
            .mints
            .acquire()
            .await
            .map_err(|_| RailError::unknown("closed"))?;
        let params = json!({
            "amount": bolt11::msat_of(&order.amount)?,
            "description": bolt11::description_of(order),
            "expiry": order.ttl.as_secs().max(1),
        });
        let mut pauses = BUSY_PAUSES.into_iter();
        let made = loop {
            let asked = self
                .client
                .ask(MAKE_INVOICE, params.clone(), self.settings.answer_within);
            match (asked.await, pauses.next()) {
                (Err(NwcError::Said(Code::RateLimited, _)), Some(pause)) => {
                    tokio::time::sleep(pause).await;
                }
                (made, _) => break Transaction::read(&made?),
            }
        };
        let made = made.ok_or_else(|| RailError::invalid("the wallet made no invoice"))?;
        let text = made
            .invoice
            .as_deref()
            .ok_or_else(|| RailError::invalid("the wallet made no invoice"))?;
        let invoice = bolt11::check_made(
            text,
            order,
            self.settings.network,
            self.settings.clock.now(),
        )?;
        if !made.is_about(&invoice.payment_hash) {
            return Err(RailError::invalid(
                "the wallet names another payment hash than its invoice",
            ));
        }
        let pay_req = PayReq::new(text);
        let request = PaymentRequest::new(
            self.pmi.clone(),
            order.amount.clone(),
            pay_req,
            invoice.payment_hash,
        );
        Ok(request.expiring(invoice.expires_at))
    }
}

/// Says what is missing, and where to allow it.
fn check_abilities(abilities: &Abilities, settings: &NwcSettings) -> Result<()> {
    let missing: Vec<&str> = [MAKE_INVOICE, LOOKUP_INVOICE]
        .into_iter()
        .filter(|method| !abilities.may(method))
        .collect();
    if !missing.is_empty() {
        return Err(Error::config(format!(
            "the wallet does not permit {} on this connection; allow it in the wallet, or make a connection that may receive",
            missing.join(" and ")
        )));
    }
    match abilities.network {
        Some(network) if network != settings.network => Err(Error::config(format!(
            "the wallet is on {network}, where {} is expected; if that is meant, set the network to {network}",
            settings.network
        ))),
        _ => Ok(()),
    }
}

/// Why the wallet cannot be used, for whoever starts this.
fn unusable(error: NwcError) -> Error {
    match error {
        NwcError::Said(Code::Unauthorized, _) => Error::config(
            "the wallet does not know this connection (UNAUTHORIZED): it was removed, or belongs to another wallet",
        ),
        NwcError::Silent => Error::new(
            ErrorKind::Rail,
            "the wallet does not answer; it may be offline, or does not know this connection",
        ),
        error => Error::new(ErrorKind::Rail, error.to_string()),
    }
}

#[async_trait]
impl PaymentProcessor for LightningNwcProcessor {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    fn accepts(&self, unit: &Unit) -> bool {
        *unit == Unit::SATS
    }

    async fn create_payment_required(
        &self,
        order: &PaymentOrder,
    ) -> std::result::Result<PaymentRequest, RailError> {
        let cell = self
            .orders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .of(&order.idempotency_key);
        // Two who order the same at once wait for one invoice.
        cell.get_or_try_init(|| self.make(order)).await.cloned()
    }

    async fn lookup_payment(
        &self,
        request: &PaymentRequest,
    ) -> std::result::Result<SettlementStatus, RailError> {
        let _place = self
            .lookups
            .acquire()
            .await
            .map_err(|_| RailError::unknown("closed"))?;
        let params = json!({ "payment_hash": request.reference });
        match self
            .client
            .ask(LOOKUP_INVOICE, params, self.settings.answer_within)
            .await
        {
            Ok(result) => {
                let found = Transaction::read(&result)
                    .ok_or_else(|| RailError::invalid("the wallet describes no invoice"))?;
                status_of(&found, request, self.settings.clock.now())
            }
            // A wallet that does not know an invoice that it made is out of order; the payer may have paid it all the same.
            Err(error) => Err(error.into()),
        }
    }

    async fn list_settled(
        &self,
        made_since: Timestamp,
    ) -> std::result::Result<Option<Vec<SettlementNotice>>, RailError> {
        if !self.can_list.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let _place = self
            .lookups
            .acquire()
            .await
            .map_err(|_| RailError::unknown("closed"))?;
        let wanted = Wanted {
            from: made_since.minus(SKEW).as_secs(),
            direction: Direction::Incoming,
            unpaid: false,
        };
        match list(&self.client, &wanted, Instant::now() + LISTING_WITHIN).await {
            Ok(listed) => Ok(Some(
                listed.transactions.iter().filter_map(notice_of).collect(),
            )),
            Err(error) if error.code().is_some_and(Code::is_for_good) => {
                self.can_list.store(false, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn settlements(&self) -> Option<SettlementStream> {
        self.stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn proofs(&self) -> Option<&dyn CheckProof> {
        Some(&PreimageProofs)
    }
}

/// What a look-up says about `request`.
fn status_of(
    found: &Transaction,
    request: &PaymentRequest,
    now: Timestamp,
) -> std::result::Result<SettlementStatus, RailError> {
    if !found.is_about(&request.reference) {
        return Err(RailError::invalid(
            "the wallet describes another payment than it was asked for",
        ));
    }
    if found.direction == Some(Direction::Outgoing) {
        return Err(RailError::invalid(
            "the wallet describes money that it spent",
        ));
    }
    Ok(match found.state {
        State::Settled => {
            if judge_preimage(found.preimage.as_deref(), &request.reference) == Preimage::Differs {
                return Err(RailError::invalid(
                    "the wallet says that an invoice was paid, and shows a preimage that is not its own",
                ));
            }
            // What it does not say is what the invoice asked for: less than that, no Lightning node accepts.
            let amount = match found.amount_msat {
                Some(msat) => bolt11::sats_of(msat)
                    .ok_or_else(|| RailError::invalid("the wallet names more than there is"))?,
                None => request.amount.clone(),
            };
            SettlementStatus::Settled(settlement(amount, &request.reference, found))
        }
        State::Expired | State::Failed => SettlementStatus::Expired,
        State::Pending if request.expires_at.is_some_and(|at| at < now) => {
            SettlementStatus::Expired
        }
        State::Pending => SettlementStatus::Pending,
    })
}

/// What a wallet says by itself, or in a listing, about money that came in. A hint, if it does not say all.
fn notice_of(transaction: &Transaction) -> Option<SettlementNotice> {
    if transaction.direction == Some(Direction::Outgoing) || transaction.state != State::Settled {
        return None;
    }
    let hash = transaction.payment_hash.clone()?;
    let proven = judge_preimage(transaction.preimage.as_deref(), &hash) != Preimage::Differs;
    let asked = || {
        Invoice::parse(transaction.invoice.as_deref()?)
            .ok()
            .filter(|i| i.payment_hash == hash)?
            .amount_msat
    };
    let amount = transaction
        .amount_msat
        .or_else(asked)
        .and_then(bolt11::sats_of);
    let settlement = amount
        .filter(|_| proven)
        .map(|amount| settlement(amount, &hash, transaction));
    Some(SettlementNotice::new(hash, settlement))
}

fn settlement(amount: crate::payment::Amount, hash: &str, transaction: &Transaction) -> Settlement {
    let mut settlement = Settlement::new(amount, hash);
    settlement.settled_at = transaction.settled_at.map(Timestamp::from_secs);
    settlement
}

/// Passes on what the wallet says by itself. One that came too early (a held payment) is a hint like any other.
async fn pass_on(mut from: mpsc::Receiver<Notification>, to: mpsc::Sender<SettlementNotice>) {
    while let Some(notification) = from.recv().await {
        if let Some(notice) = read_notice(notification)
            && to.send(notice).await.is_err()
        {
            return;
        }
    }
}

fn read_notice(notification: Notification) -> Option<SettlementNotice> {
    let Notification {
        kind,
        mut transaction,
    } = notification;
    if kind != PAYMENT_RECEIVED {
        return None;
    }
    let hash = transaction.payment_hash.clone()?;
    // Some say it by the name of the notification alone.
    if transaction.state == State::Pending && !transaction.says_state {
        transaction.state = State::Settled;
    }
    // One that comes too early, for an invoice that was only made, is a mistake that wallets make; the preimage, which they
    // show for what was paid, tells them apart. Without it, the wallet's books are asked.
    let proven = matches!(
        judge_preimage(transaction.preimage.as_deref(), &hash),
        Preimage::Matches(_)
    );
    let notice = notice_of(&transaction).filter(|_| proven);
    Some(notice.unwrap_or_else(|| SettlementNotice::new(hash, None)))
}

/// The invoices of the last orders.
#[derive(Default)]
struct Orders {
    made: HashMap<String, Arc<OnceCell<PaymentRequest>>>,
    order: VecDeque<String>,
}

impl Orders {
    fn of(&mut self, key: &str) -> Arc<OnceCell<PaymentRequest>> {
        if let Some(cell) = self.made.get(key) {
            return Arc::clone(cell);
        }
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.made.remove(&oldest);
        }
        let cell = Arc::<OnceCell<PaymentRequest>>::default();
        self.made.insert(key.to_owned(), Arc::clone(&cell));
        self.order.push_back(key.to_owned());
        cell
    }
}

#[cfg(test)]
mod tests {
    use nostr::hashes::{Hash, sha256};
    use serde_json::Value;

    use super::*;
    use crate::payment::Amount;
    use crate::rails::lightning::Network;

    fn hash() -> String {
        sha256::Hash::hash(&[1; 32]).to_string()
    }

    fn request() -> PaymentRequest {
        let amount: Amount = "10 sats".parse().unwrap();
        let pmi = BITCOIN_LIGHTNING_BOLT11.parse().unwrap();
        PaymentRequest::new(pmi, amount, PayReq::new("lnbc"), hash())
            .expiring(Timestamp::from_secs(2000))
    }

    fn status(value: &Value) -> std::result::Result<SettlementStatus, RailError> {
        status_of(
            &Transaction::read(value).unwrap(),
            &request(),
            Timestamp::from_secs(1000),
        )
    }

    fn arrived(value: &Value) -> u64 {
        match status(value).unwrap() {
            SettlementStatus::Settled(settlement) => settlement.amount.value(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_look_up_says_what_arrived_in_whole_sats() {
        let hash = hash();
        assert_eq!(
            arrived(&json!({"state": "settled", "amount": 10_000, "payment_hash": hash})),
            10
        );
        assert_eq!(
            arrived(&json!({"state": "settled", "amount": 9_999, "payment_hash": hash})),
            9
        );
        assert_eq!(
            arrived(&json!({"settled_at": 1500, "payment_hash": hash})),
            10,
            "what was asked for"
        );
        let preimage = "01".repeat(32);
        assert_eq!(
            arrived(&json!({"state": "settled", "amount": 10_000, "preimage": preimage})),
            10
        );
    }

    #[test]
    fn what_contradicts_itself_is_not_believed() {
        for odd in [
            json!({"state": "settled", "payment_hash": "ab"}),
            json!({"state": "settled", "type": "outgoing", "payment_hash": hash()}),
            json!({"state": "settled", "preimage": "02".repeat(32), "payment_hash": hash()}),
        ] {
            assert!(status(&odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn what_is_not_paid_is_pending_until_it_expires() {
        assert_eq!(
            status(&json!({"state": "pending"})).unwrap(),
            SettlementStatus::Pending
        );
        assert_eq!(
            status(&json!({"state": "accepted"})).unwrap(),
            SettlementStatus::Pending
        );
        assert_eq!(
            status(&json!({"state": "expired"})).unwrap(),
            SettlementStatus::Expired
        );
        let later = Timestamp::from_secs(3000);
        let pending = Transaction::read(&json!({})).unwrap();
        assert_eq!(
            status_of(&pending, &request(), later).unwrap(),
            SettlementStatus::Expired
        );
    }

    fn notice(kind: &str, value: &Value) -> Option<SettlementNotice> {
        let transaction = Transaction::read(value)?;
        read_notice(Notification {
            kind: kind.into(),
            transaction,
        })
    }

    #[test]
    fn a_notification_settles_only_if_it_says_all_and_is_right() {
        let hash = hash();
        let full = json!({"type": "incoming", "payment_hash": hash, "amount": 10_000, "preimage": "01".repeat(32), "settled_at": 1500});
        let settlement = notice(PAYMENT_RECEIVED, &full).unwrap().settlement.unwrap();
        assert_eq!(
            (settlement.amount.value(), settlement.settled_at),
            (10, Some(Timestamp::from_secs(1500)))
        );
        assert_eq!(settlement.reference, hash, "never the preimage");
        let proven = "01".repeat(32);
        let bare = json!({"payment_hash": hash, "amount": 10_000, "preimage": proven});
        assert!(
            notice(PAYMENT_RECEIVED, &bare)
                .unwrap()
                .settlement
                .is_some()
        );
        for hint in [
            json!({"payment_hash": hash, "amount": 10_000, "state": "settled"}),
            json!({"payment_hash": hash, "amount": 10_000}),
            json!({"payment_hash": hash}),
            json!({"payment_hash": hash, "amount": 10_000, "preimage": "02".repeat(32)}),
            json!({"payment_hash": hash, "amount": 10_000, "state": "accepted"}),
            json!({"payment_hash": hash, "amount": 10_000, "state": "pending"}),
        ] {
            assert_eq!(
                notice(PAYMENT_RECEIVED, &hint).unwrap().settlement,
                None,
                "{hint}"
            );
        }
        assert_eq!(notice("payment_sent", &full), None);
        assert_eq!(notice(PAYMENT_RECEIVED, &json!({"amount": 10_000})), None);
    }

    #[test]
    fn a_missing_permission_is_named() {
        let methods =
            |list: &[&str]| Abilities::read(&json!({ "methods": list, "network": "mainnet" }));
        let check = |abilities: &Abilities| check_abilities(abilities, &NwcSettings::new());
        assert!(check(&methods(&["make_invoice", "lookup_invoice"])).is_ok());
        let error = check(&methods(&["get_info", "make_invoice"])).unwrap_err();
        assert!(
            error.to_string().contains("lookup_invoice")
                && !error.to_string().contains("make_invoice")
        );
        let regtest = Abilities {
            network: Some(Network::Regtest),
            ..Abilities::default()
        };
        assert!(check(&regtest).unwrap_err().to_string().contains("regtest"));
        assert!(check_abilities(&regtest, &NwcSettings::new().network(Network::Regtest)).is_ok());
    }

    #[tokio::test]
    async fn the_same_order_is_the_same_invoice() {
        let mut orders = Orders::default();
        let first = orders.of("a");
        assert!(
            first
                .get_or_try_init(|| async { Err(RailError::unknown("lost")) })
                .await
                .is_err()
        );
        assert!(
            first
                .get_or_try_init(|| async { Ok::<_, RailError>(request()) })
                .await
                .is_ok()
        );
        assert!(orders.of("a").initialized());
        for n in 0..REMEMBERED {
            orders.of(&n.to_string());
        }
        assert!(!orders.of("a").initialized(), "bounded");
        assert_eq!(
            (orders.made.len(), orders.order.len()),
            (REMEMBERED, REMEMBERED)
        );
    }
}
