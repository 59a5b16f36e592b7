//! `demo`: a paid call end to end in one process, with everything real but the money.
//!
//! A relay on the loopback, an MCP server behind the gate with a durable ledger, and a client with a budget that buys from
//! it. What is printed at the end is added up from the ledger and from what the server executed, and if the two do not
//! agree the demo fails.

mod buyer;
mod shop;
mod story;
mod tally;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::buyer::Buyer;
use self::shop::Shop;
use self::story::Story;
use self::tally::Tally;
use crate::gateway::args::DemoArgs;
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::home;
use crate::ledger::{Ledger, SqliteLedger};
use crate::rails::fake::FakeProcessor;
use crate::server::{PaidServer, ServerPayments, with_server_payments};
use crate::transport::ServerTransport;
use crate::transport::nostr::{DevRelay, NostrKeys, NostrServerTransport};
use crate::transport::rmcp::serve_rmcp;

/// How long the fake rail lets the money travel, so that there is something to watch.
const SETTLING: Duration = Duration::from_millis(150);
/// How long the end may take.
const CLOSING: Duration = Duration::from_secs(2);

pub(super) async fn run(args: &DemoArgs) -> Outcome {
    let story = Arc::new(Story::new(args.json));
    let folder = Folder::make()?;
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(folder.path().join("demo.db"))?);
    let relay = DevRelay::start(0).await?;
    story.relay(&relay.url());

    let shop = Shop::default();
    let keys = NostrKeys::generate();
    let (server, npub) = (keys.server_pubkey(), keys.npub());
    let paid = open_shop(keys, &relay, Arc::clone(&ledger)).await?;
    let handler = shop.clone();
    let transport = Arc::clone(&paid) as Arc<dyn ServerTransport>;
    let serving = tokio::spawn(serve_rmcp(transport, move |_client| handler.clone()));
    story.server(&npub, paid.gate().prices());

    let buyer = Buyer::connect(server, &relay, Arc::clone(&story)).await?;
    let bought = buyer.go_shopping().await?;
    paid.shutdown(CLOSING).await;
    serving.abort();
    relay.shutdown();

    let tally = Tally::add_up(&ledger, &bought, shop.executions()).await?;
    story.summary(&tally);
    match tally.balances() {
        true => Ok(()),
        false => Err(Failure::failed("the books and the executions do not agree")),
    }
}

/// The server's end of the relay, with the gate in front.
async fn open_shop(
    keys: NostrKeys,
    relay: &DevRelay,
    ledger: Arc<dyn Ledger>,
) -> Outcome<Arc<PaidServer>> {
    let transport: Arc<dyn ServerTransport> = NostrServerTransport::builder(keys)
        .relays([relay.url()])
        .connect()
        .await?;
    let payments = ServerPayments::builder()
        .prices(shop::prices()?)
        .resolve_price(shop::resolve_price)
        .processor(FakeProcessor::new().settling_after(SETTLING))
        .ledger(ledger)
        .build()?;
    Ok(with_server_payments(transport, payments).await?)
}

/// A folder that is gone when the demo is.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Outcome<Self> {
        let name = format!(
            "tollkeeper-demo-{}-{:08x}",
            std::process::id(),
            crate::gateway::wire_up::first_request_id()
        );
        let folder = std::env::temp_dir().join(name);
        home::make_folder(&folder)?;
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
