//! One relay, one paid server on it, one scripted wallet: everything that a scenario needs, and nothing shared.

use std::sync::Arc;
use std::time::Duration;

use nostr_sdk::prelude::Keys;
use serde_json::json;
use tokio::task::JoinHandle;
use tollkeeper::ledger::{Entry, EntryFilter, Ledger, MemoryLedger};
use tollkeeper::server::{PaidServer, ServerPayments, ServerPaymentsBuilder, with_server_payments};
use tollkeeper::testing::{ProcessorControl, ScriptedProcessor, TestClock};
use tollkeeper::transport::nostr::{
    EncryptionMode, GiftWrapMode, NostrKeys, NostrServerTransport, ServerInfo,
};

use super::faulty_relay::FaultyRelay;
use super::raw::{Raw, Via};
use super::tools::Tools;

/// Longer than anything takes that works.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// After a later call was answered, what was to happen has happened; this is for what takes a task or two more.
const QUIET: Duration = Duration::from_millis(150);

/// The payment method of the server's first wallet.
pub(crate) const PMI: &str = "scripted";

pub(crate) struct World {
    pub(crate) relay: FaultyRelay,
    pub(crate) server: Arc<PaidServer>,
    pub(crate) keys: Keys,
    pub(crate) rail: ProcessorControl,
    pub(crate) tools: Tools,
    pub(crate) clock: Arc<TestClock>,
    ledger: Arc<MemoryLedger>,
    handler: JoinHandle<()>,
}

type Change = Box<dyn FnOnce(ServerPaymentsBuilder) -> ServerPaymentsBuilder>;

/// Says how a [`World`] is to be.
pub(crate) struct WorldBuilder {
    changes: Vec<Change>,
    prices: Vec<String>,
    encryption: EncryptionMode,
    gift_wrap: GiftWrapMode,
}

impl World {
    pub(crate) fn builder() -> WorldBuilder {
        WorldBuilder {
            changes: Vec::new(),
            prices: ["add", "slow", "big", "listy"]
                .map(|tool| format!("tool:{tool}=7 sat"))
                .to_vec(),
            encryption: EncryptionMode::Optional,
            gift_wrap: GiftWrapMode::Optional,
        }
    }

    pub(crate) async fn start() -> Self {
        Self::builder().start().await
    }

    /// A client with keys of its own, which says everything by `via`.
    pub(crate) async fn client(&self, via: Via) -> Raw<'_> {
        Raw::connect(self, Keys::generate(), via).await
    }

    /// A way of speaking that the server takes as it is set up.
    fn any_via(&self) -> Via {
        let kinds: Vec<u16> = self
            .relay
            .filters()
            .iter()
            .flat_map(|filter| filter.kinds.iter().flatten().map(|kind| kind.as_u16()))
            .collect();
        Via::ALL
            .into_iter()
            .find(|via| kinds.contains(&via.kind()))
            .unwrap()
    }

    /// Waits until everything that was said before has been dealt with: a later call of somebody else is answered.
    pub(crate) async fn quiet(&self) {
        let other = self.client(self.any_via()).await;
        let call = other.call(json!("barrier"), "free", json!({}));
        other.send(&call).await;
        other.result(&call).await;
        tokio::time::sleep(QUIET).await;
    }

    pub(crate) async fn entries(&self) -> Vec<Entry> {
        self.ledger
            .list(&EntryFilter::new(Vec::new(), 100_000))
            .await
            .unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.handler.abort();
    }
}

impl WorldBuilder {
    /// Sells this instead of the usual.
    pub(crate) fn prices(mut self, prices: &[&str]) -> Self {
        self.prices = prices.iter().map(ToString::to_string).collect();
        self
    }

    /// Changes how the server is paid; what is added comes behind the scripted wallet.
    pub(crate) fn payments(
        mut self,
        change: impl FnOnce(ServerPaymentsBuilder) -> ServerPaymentsBuilder + 'static,
    ) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    pub(crate) fn modes(mut self, encryption: EncryptionMode, gift_wrap: GiftWrapMode) -> Self {
        (self.encryption, self.gift_wrap) = (encryption, gift_wrap);
        self
    }

    pub(crate) async fn start(self) -> World {
        let relay = FaultyRelay::start().await;
        let keys = NostrKeys::generate();
        let raw_keys = Keys::parse(&keys.reveal_secret_hex()).unwrap();
        let transport = NostrServerTransport::builder(keys)
            .relays([relay.url()])
            .encryption(self.encryption)
            .gift_wrap(self.gift_wrap)
            .server_info(ServerInfo::new(
                Some("Scenario".to_owned()),
                None,
                None,
                None,
            ))
            .connect()
            .await
            .unwrap();
        let (processor, rail) = ScriptedProcessor::new(PMI.parse().unwrap());
        let (ledger, clock) = (Arc::new(MemoryLedger::new()), Arc::new(TestClock::new()));
        let prices = self.prices.iter().map(|price| price.parse().unwrap());
        let payments = ServerPayments::builder()
            .prices(prices)
            .processor(processor)
            .ledger(Arc::clone(&ledger) as _)
            .clock(Arc::clone(&clock) as _);
        let payments = self
            .changes
            .into_iter()
            .fold(payments, |payments, change| change(payments));
        let server = with_server_payments(transport, payments.build().unwrap())
            .await
            .unwrap();
        let tools = Tools::new();
        let handler = tokio::spawn(tools.clone().serve(Arc::clone(&server) as _));
        World {
            relay,
            server,
            keys: raw_keys,
            rail,
            tools,
            clock,
            ledger,
            handler,
        }
    }
}
