//! The wallets as their owner sees them: made, started, steered, ended.

use std::sync::Arc;
use std::time::Duration;

use nostr::{Filter, Keys, Kind, RelayUrl};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::books::{Moved, WalletIndex};
use super::connection::ConnectionUri;
use super::faults::Faults;
use super::method::{Method, Refusal};
use super::service::{House, Service};
use crate::error::{Error, ErrorKind, Result};
use crate::rails::lightning::Network;
use crate::relays::{Delivery, Interest, Relays, Subscription, parse_urls};

/// The wallet that is paid.
const SELLER: &str = "seller";
/// The wallet that pays.
const BUYER: &str = "buyer";
/// What each wallet holds unless told otherwise, in sats.
const BALANCE_SATS: u64 = 100_000;
/// More than there is; so that no sum of balances overflows.
const MOST_SATS: u64 = 21_000_000 * 100_000_000;
/// How long the first relay is waited for unless told otherwise.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Wallets for development, served until this is dropped. See the [module](super).
#[derive(Debug)]
pub struct FakeWallets {
    house: Arc<House>,
    seller: FakeWallet,
    buyer: FakeWallet,
    others: Vec<FakeWallet>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _guard: DropGuard,
}

/// Says which wallets there are to be.
#[derive(Debug)]
pub struct FakeWalletsBuilder {
    relays: Vec<String>,
    seller: Faults,
    buyer: Faults,
    others: Vec<(String, Faults)>,
    balance_sats: u64,
    network: Network,
    ready_timeout: Duration,
}

/// One of the wallets. Clones are the same wallet.
#[derive(Debug, Clone)]
pub struct FakeWallet {
    house: Arc<House>,
    wallet: WalletIndex,
    service: Arc<Service>,
}

impl FakeWallets {
    /// Two wallets, `seller` and `buyer`.
    #[must_use]
    pub fn builder() -> FakeWalletsBuilder {
        FakeWalletsBuilder {
            relays: Vec::new(),
            seller: Faults::default(),
            buyer: Faults::default(),
            others: Vec::new(),
            balance_sats: BALANCE_SATS,
            network: Network::Regtest,
            ready_timeout: READY_TIMEOUT,
        }
    }

    /// All wallets: the seller's, the buyer's, and the others in the order in which they were named.
    pub fn all(&self) -> impl Iterator<Item = &FakeWallet> {
        [&self.seller, &self.buyer].into_iter().chain(&self.others)
    }

    /// The wallet of that name.
    #[must_use]
    pub fn wallet(&self, name: &str) -> Option<&FakeWallet> {
        self.all().find(|wallet| wallet.name() == name)
    }

    /// The wallet of the one who sells.
    #[must_use]
    pub fn seller(&self) -> &FakeWallet {
        &self.seller
    }

    /// The wallet of the one who buys.
    #[must_use]
    pub fn buyer(&self) -> &FakeWallet {
        &self.buyer
    }

    /// How many payments are [held](super::Hold).
    #[must_use]
    pub fn held(&self) -> usize {
        self.house.held().len()
    }

    /// Lets all held payments arrive. Returns how many there were.
    pub async fn release(&self) -> usize {
        let mut count = 0;
        for hash in self.house.held() {
            count += usize::from(self.house.release(&hash).await);
        }
        count
    }

    /// Lets all held payments fail: the money goes back. Returns how many there were.
    #[must_use = "it may be none"]
    pub fn fail(&self) -> usize {
        let held = self.house.held();
        held.iter().filter(|hash| self.house.fail(hash)).count()
    }

    /// Ends the wallets, and with them all that they held.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        for service in &self.house.services {
            service.relays.shutdown().await;
        }
        self.tasks.wait().await;
    }
}

impl FakeWalletsBuilder {
    /// The relays on which the wallets are reached.
    #[must_use]
    pub fn relays<T: Into<String>>(mut self, relays: impl IntoIterator<Item = T>) -> Self {
        self.relays.extend(relays.into_iter().map(Into::into));
        self
    }

    /// One more wallet.
    #[must_use]
    pub fn wallet(mut self, name: impl Into<String>) -> Self {
        self.others.push((name.into(), Faults::default()));
        self
    }

    /// What each wallet holds at first, in sats.
    #[must_use]
    pub fn balance_sats(mut self, sats: u64) -> Self {
        self.balance_sats = sats;
        self
    }

    /// The network of the invoices. Regtest unless told otherwise.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// What is wrong with the wallets: one of them if it is `named`, else all.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if there is no wallet of that name, or what `change` says.
    pub fn faults(
        mut self,
        named: Option<&str>,
        mut change: impl FnMut(&mut Faults) -> Result<()>,
    ) -> Result<Self> {
        let mut found = false;
        let pair = [(SELLER, &mut self.seller), (BUYER, &mut self.buyer)];
        let others = self.others.iter_mut();
        let others = others.map(|(name, faults)| (name.as_str(), faults));
        for (name, faults) in pair.into_iter().chain(others) {
            if named.is_none_or(|named| named == name) {
                found = true;
                change(faults)?;
            }
        }
        if !found {
            let name = named.unwrap_or_default();
            return Err(Error::config(format!("there is no wallet {name:?}")));
        }
        Ok(self)
    }

    /// How long the first relay is waited for.
    #[must_use]
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// Starts them; they can be asked from then on.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if what was said cannot be; [`Transport`](crate::ErrorKind::Transport) if no
    /// relay is ready in time.
    pub async fn start(self) -> Result<FakeWallets> {
        let count = u64::try_from(self.others.len() + 2).unwrap_or(u64::MAX);
        let all = self.balance_sats.checked_mul(count);
        if all.is_none_or(|sats| sats > MOST_SATS) {
            return Err(Error::config(format!(
                "the wallets can hold {MOST_SATS} sats together"
            )));
        }
        let urls = parse_urls(&self.relays)?;
        let mut queues = Vec::new();
        let mut open = |name: &str, faults| {
            let (service, queue) = open_service(name, faults, urls.clone());
            queues.push(queue);
            service
        };
        let (seller, buyer) = (open(SELLER, self.seller), open(BUYER, self.buyer));
        let mut services = vec![Arc::clone(&seller), Arc::clone(&buyer)];
        services.extend(
            self.others
                .into_iter()
                .map(|(name, faults)| open(&name, faults)),
        );
        let balances = vec![self.balance_sats * 1000; services.len()];
        let house = Arc::new(House::new(balances, self.network, services));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        for (wallet, queue) in queues.into_iter().enumerate() {
            tasks.spawn(Arc::clone(&house).serve(wallet, queue, stop.clone()));
        }
        tasks.close();
        let handle = |wallet, service: &Arc<Service>| FakeWallet {
            house: Arc::clone(&house),
            wallet,
            service: Arc::clone(service),
        };
        let others = house.services.iter().enumerate().skip(2);
        let wallets = FakeWallets {
            seller: handle(0, &seller),
            buyer: handle(1, &buyer),
            others: others
                .map(|(wallet, service)| handle(wallet, service))
                .collect(),
            _guard: stop.clone().drop_guard(),
            house: Arc::clone(&house),
            stop,
            tasks,
        };
        for service in &wallets.house.services {
            service.relays.ready(self.ready_timeout).await?;
            service.say_what_it_can().await?;
        }
        Ok(wallets)
    }
}

impl FakeWallet {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.service.name
    }

    /// What connects a program with it.
    #[must_use]
    pub fn connection(&self) -> ConnectionUri {
        let Service { keys, client, .. } = &*self.service;
        let relays = self.service.relays.urls().cloned().collect();
        ConnectionUri::new(keys.public_key(), relays, client)
    }

    /// What it holds, in thousandths of a sat. What is on its way is in no wallet.
    #[must_use]
    pub fn balance_msat(&self) -> u64 {
        self.house.balance_msat(self.wallet)
    }

    /// Changes what is wrong with it, from the next request on.
    pub fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.service.change(change);
    }

    /// Puts everything right.
    pub fn heal(&self) {
        self.change(|faults| *faults = Faults::default());
    }

    /// How often `method` was asked for, whether it was answered or not.
    #[must_use]
    pub fn asked(&self, method: Method) -> u64 {
        self.service.asked(method)
    }

    /// How often anything was asked for.
    #[must_use]
    pub fn asked_in_all(&self) -> u64 {
        Method::ALL.iter().map(|method| self.asked(*method)).sum()
    }

    /// Makes an invoice without being asked over a relay, with its faults.
    ///
    /// # Errors
    ///
    /// [`Rail`](crate::ErrorKind::Rail) if there can be no such invoice.
    pub fn make_invoice(
        &self,
        amount_msat: u64,
        description: &str,
        expiry: Duration,
    ) -> Result<String> {
        let params = json!({
            "amount": amount_msat, "description": description, "expiry": expiry.as_secs(),
        });
        let made = self.ask(Method::MakeInvoice, &params).map_err(said_no)?;
        Ok(made.0["invoice"].as_str().unwrap_or_default().to_owned())
    }

    /// Pays an invoice without being asked over a relay; both sides are notified. Honest whatever its faults, but for
    /// [`hold`](Faults::hold).
    ///
    /// # Errors
    ///
    /// [`Rail`](crate::ErrorKind::Rail) if it cannot be paid.
    pub async fn pay(&self, invoice: &str) -> Result<()> {
        let params = json!({ "invoice": invoice });
        let paid = self.ask(Method::PayInvoice, &params).map_err(said_no)?;
        if let Some(moved) = paid.1 {
            self.house.tell_of(&moved).await;
        }
        Ok(())
    }

    fn ask(&self, method: Method, params: &Value) -> Result<(Value, Option<Moved>), Refusal> {
        let faults = self.service.faults();
        self.house.desk(self.wallet, &faults, |desk| {
            let done = desk.answer(method, params)?;
            Ok((done.result, done.moved))
        })
    }
}

/// A wallet that is connected, and what its relays deliver.
fn open_service(
    name: &str,
    faults: Faults,
    urls: Vec<RelayUrl>,
) -> (Arc<Service>, mpsc::Receiver<Delivery>) {
    let (keys, client) = (Keys::generate(), Keys::generate());
    let filter = Filter::new()
        .pubkey(keys.public_key())
        .kind(Kind::WalletConnectRequest);
    let subscription = Subscription {
        keys: keys.clone(),
        interests: vec![Interest::Recent(filter)],
    };
    let (relays, queue) = Relays::spawn(urls, &subscription);
    let service = Service::new(name.to_owned(), faults, keys, client, relays);
    (Arc::new(service), queue)
}

fn said_no(refusal: Refusal) -> Error {
    Error::new(
        ErrorKind::Rail,
        format!("the wallet says {}", refusal.as_str()),
    )
}
