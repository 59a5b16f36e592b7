//! What can be chosen, on both sides.

use std::sync::Arc;
use std::time::Duration;

use crate::payment::{Clock, SystemClock};
use crate::rails::lightning::Network;

/// How a NIP-47 wallet is used.
#[derive(Debug, Clone)]
pub struct NwcSettings {
    pub(super) network: Network,
    pub(super) start_within: Duration,
    pub(super) answer_within: Duration,
    pub(super) pay_within: Duration,
    pub(super) clock: Arc<dyn Clock>,
}

impl Default for NwcSettings {
    fn default() -> Self {
        Self {
            network: Network::Mainnet,
            start_within: Duration::from_secs(30),
            answer_within: Duration::from_secs(20),
            pay_within: Duration::from_secs(60),
            clock: Arc::new(SystemClock),
        }
    }
}

impl NwcSettings {
    /// On mainnet, with patience for wallets far away.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Invoices of this network and no other. What is not mainnet is not money.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// How long the start may take: to reach a relay of the wallet, and the wallet. 30 s.
    #[must_use]
    pub fn start_within(mut self, limit: Duration) -> Self {
        self.start_within = limit;
        self
    }

    /// How long a request that moves no money waits for its answer. 20 s.
    #[must_use]
    pub fn answer_within(mut self, limit: Duration) -> Self {
        self.answer_within = limit;
        self
    }

    /// How long a payment waits for its answer before its outcome is unknown. 60 s.
    #[must_use]
    pub fn pay_within(mut self, limit: Duration) -> Self {
        self.pay_within = limit;
        self
    }

    /// Another clock than the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}
