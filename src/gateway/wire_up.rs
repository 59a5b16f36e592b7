//! From what was asked for to what works: keys, transports, ledgers, rails.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::args::{LinkArgs, PayingArgs, ServerArgs, WalletArgs, WalletsArgs};
use super::buying;
use super::call_check::ListedCalls;
use super::config::{self, LedgerPlace, LightningWallet, MppSettings, Rates, Selling, Serving};
#[cfg(feature = "testing")]
use super::crash_points;
use super::exit::{Failure, Outcome, with_causes};
use super::goods::{self, Goods};
use super::{home, keys, secrets};
use crate::client::ledger::{BuyerLedger, SqliteBuyerLedger};
use crate::client::policy::Advertised;
use crate::client::receipt::ReceiptFolder;
use crate::client::{AskBuyer, ClientPayments, ClientPaymentsBuilder, PaymentEvent};
use crate::error::ErrorKind;
use crate::gate::{ChallengeIssuer, PriceList};
#[cfg(feature = "postgres")]
use crate::ledger::PostgresLedger;
use crate::ledger::{Ledger, LicenceBooks, MemoryLedger, PurchaseBooks, SqliteLedger};
use crate::payment::{
    BearerToken, Entitlement, FixedRates, PaymentProcessor, PricedCapability, RateSource,
    ServerPubkey, StaticPrice, Unit,
};
use crate::rails::fake::{FakeHandler, FakeProcessor};
use crate::rails::lightning::lnbits::{LnbitsHandler, LnbitsProcessor};
use crate::rails::lightning::nwc::{LightningNwcHandler, LightningNwcProcessor, NwcSettings};
use crate::rails::rates::HttpRate;
use crate::server::{ServerPayments, ServerPaymentsBuilder, TopUpPrice};
use crate::transport::nostr::{
    NostrClientTransport, NostrKeys, NostrServerTransport, find_relays, parse_server,
};
use crate::transport::{ClientTransport, ServerTransport};
use crate::wire::mpp::ChallengeKeys;

/// The books of what was bought, in TOLLKEEPER_HOME.
pub(super) const BOOKS: &str = "buyer.db";

/// The folder of receipts, in TOLLKEEPER_HOME.
pub(super) const RECEIPTS: &str = "receipts";

/// How long the first relay may take to be ready.
const RELAY_PATIENCE: Duration = Duration::from_secs(30);

/// How long a start waits for the first rates.
const RATE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a call may wait for the page on which it can be bought.
const STRIPE_PATIENCE: Duration = Duration::from_secs(10);

/// The books at one place.
pub(super) struct Books {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) licences: Arc<dyn LicenceBooks>,
    pub(super) purchases: Arc<dyn PurchaseBooks>,
}

impl Books {
    fn kept_in<L: Ledger + LicenceBooks + PurchaseBooks + 'static>(ledger: L) -> Self {
        let ledger = Arc::new(ledger);
        Self {
            ledger: Arc::clone(&ledger) as _,
            purchases: Arc::clone(&ledger) as _,
            licences: ledger,
        }
    }
}

/// The books at `place`.
pub(super) async fn books_at(place: &LedgerPlace) -> Outcome<Books> {
    match place {
        LedgerPlace::Memory => {
            tracing::warn!(
                "ledger = \"memory\" is for trials: who paid and was not served yet is forgotten when this ends"
            );
            Ok(Books::kept_in(MemoryLedger::new()))
        }
        LedgerPlace::File(file) => {
            if let Some(folder) = file
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty())
            {
                home::make_folder(folder)?;
            }
            Ok(Books::kept_in(SqliteLedger::open(file)?))
        }
        #[cfg(feature = "postgres")]
        LedgerPlace::Postgres(config) => Ok(Books::kept_in(PostgresLedger::open(config).await?)),
    }
}

/// The books of purchases at `place`, for who only looks; `None` if there are none yet.
pub(super) async fn purchases_at(place: &LedgerPlace) -> Outcome<Option<Arc<dyn PurchaseBooks>>> {
    match place {
        LedgerPlace::Memory => Ok(None),
        LedgerPlace::File(file) if !file.is_file() => Ok(None),
        LedgerPlace::File(_) => Ok(Some(books_at(place).await?.purchases)),
        #[cfg(feature = "postgres")]
        LedgerPlace::Postgres(config) => Ok(Some(Arc::new(PostgresLedger::look(config).await?))),
    }
}

/// The books that a server sells with: those at `place`.
pub(super) async fn server_books(place: &LedgerPlace) -> Outcome<Books> {
    let books = books_at(place).await?;
    #[cfg(feature = "testing")]
    let books = Books {
        ledger: crash_points::ledger(books.ledger)?,
        ..books
    };
    Ok(books)
}

/// The server's end of the relays, ready for requests.
pub(super) async fn server_transport(
    serving: &Serving,
    keys: NostrKeys,
) -> Outcome<Arc<NostrServerTransport>> {
    let transport = NostrServerTransport::builder(keys)
        .relays(serving.relays.clone())
        .encryption(serving.encryption)
        .server_info(serving.publishing.info.clone())
        .bootstrap_relays(serving.publishing.bootstrap_relays.clone())
        .ready_timeout(RELAY_PATIENCE)
        .connect()
        .await?;
    Ok(transport)
}

/// The ways to the server, as the gate uses them.
pub(super) fn behind_the_gate(
    transport: Arc<dyn ServerTransport>,
) -> Outcome<Arc<dyn ServerTransport>> {
    #[cfg(feature = "testing")]
    let transport = crash_points::transport(transport)?;
    Ok(transport)
}

/// What a server is paid by, beside play money.
pub(super) struct ServerRails {
    pub(super) lightning: Option<Arc<dyn PaymentProcessor>>,
    /// Pages of Stripe Checkout for single calls.
    pub(super) checkout: Option<Arc<dyn PaymentProcessor>>,
    /// Shared payment tokens of Stripe, for clients that pay by challenge.
    pub(super) tokens: Option<Arc<dyn PaymentProcessor>>,
    pub(super) rates: Option<Arc<dyn RateSource>>,
    pub(super) challenges: Option<ChallengeIssuer>,
}

/// In whose name challenges are made, and what they are signed with: a secret made from the server's key, behind those that are
/// set.
pub(super) fn challenges(mpp: &MppSettings, keys: &NostrKeys) -> Outcome<Option<ChallengeIssuer>> {
    if !mpp.enabled {
        return Ok(None);
    }
    let derived = ChallengeKeys::derived_from(keys.reveal_secret_hex().as_bytes())?;
    let signed_with = match secrets::read(secrets::MPP_SECRET_KEY)? {
        Some(set) => ChallengeKeys::new(set.split_whitespace())
            .map_err(|error| Failure::usage(format!("{}: {error}", secrets::MPP_SECRET_KEY)))?
            .accepting(&derived),
        None => derived,
    };
    let realm = mpp
        .realm
        .clone()
        .unwrap_or_else(|| format!("nostr:{}", keys.server_pubkey()));
    Ok(Some(ChallengeIssuer::new(realm, signed_with)))
}

/// Prices, rails, rules and ledger of a server.
pub(super) fn server_payments(
    selling: &Selling,
    ledger: Arc<dyn Ledger>,
    check: Option<ListedCalls>,
    rails: ServerRails,
    (entitlements, goods): (Vec<Arc<dyn Entitlement>>, &Arc<Goods>),
) -> Outcome<ServerPayments> {
    let mut builder = ServerPayments::builder()
        .prices(all_prices(selling)?)
        .balances(selling.balance.is_some())
        .check_call(goods::check_call(Arc::clone(goods), check))
        .ledger(ledger)
        .payment_ttl(selling.payment_ttl)
        .interaction(selling.interaction)
        .limits(selling.limits)
        .rate_max_age(selling.rates.max_age)
        .rate_margin(selling.rates.margin);
    let ServerRails {
        lightning,
        checkout,
        tokens,
        rates,
        challenges,
    } = rails;
    if let Some(pace) = selling.offers_per_minute {
        builder = builder.settings(|rules| rules.offers_per_minute = pace);
    }
    if let Some(issuer) = challenges {
        let implied = selling.mpp.implies_gating;
        builder = builder
            .challenges(issuer)
            .settings(|rules| rules.challenges_imply_gating = implied);
    }
    if let Some(rates) = rates {
        builder = builder.rates(rates);
    }
    if let Some(settings) = &selling.balance {
        let lapses = settings.lapses_after;
        builder = builder.settings(|rules| rules.balances_lapse_after = lapses);
    }
    if let Some(top_up) = &goods.top_up {
        builder = builder.resolve_price(TopUpPrice::new(top_up.clone(), StaticPrice));
    }
    for entitlement in entitlements {
        builder = builder.shared_entitlement(entitlement);
    }
    if !selling.plans.is_empty() {
        // A customer and a page are two questions to Stripe.
        builder = builder.settings(|rules| rules.entitlement_timeout = STRIPE_PATIENCE);
    }
    // In this order: what is paid in a moment before what takes a person.
    for processor in [lightning, checkout, tokens].into_iter().flatten() {
        builder = builder.shared_processor(processor);
    }
    if let Some(travels) = selling.fake {
        tracing::warn!("the fake rail settles by itself: what is sold for it is given away");
        builder = with_fake_rail(builder, travels);
    }
    Ok(builder.build()?)
}

fn with_fake_rail(builder: ServerPaymentsBuilder, travels: Duration) -> ServerPaymentsBuilder {
    #[cfg(feature = "testing")]
    if let Some(till) = crash_points::Till::from_environment() {
        return builder.processor(till);
    }
    builder.processor(FakeProcessor::new().settling_after(travels))
}

/// The wallet that takes payments by Lightning, connected and found able to.
pub(super) async fn lightning(selling: &Selling) -> Outcome<Option<Arc<dyn PaymentProcessor>>> {
    let wallet = match &selling.wallet {
        None => return Ok(None),
        Some(LightningWallet::Nwc(wallet)) => wallet,
        Some(LightningWallet::Lnbits(config)) => {
            let processor = LnbitsProcessor::connect(config.clone()).await?;
            return Ok(Some(Arc::new(processor)));
        }
    };
    let settings = NwcSettings::new().network(wallet.network);
    match LightningNwcProcessor::connect(wallet.connection.clone(), settings).await {
        Ok(processor) => Ok(Some(Arc::new(processor))),
        Err(error) => {
            let text = format!("{}: {}", secrets::NWC_CONNECTION, with_causes(&error));
            Err(match error.kind() {
                ErrorKind::Config => Failure::usage(text),
                _ => Failure::failed(text),
            })
        }
    }
}

/// Where rates come from, if any are configured. Those of services are asked for from now on, and waited for a while: the
/// first calls shall find them.
pub(super) async fn rates(rates: &Rates) -> Outcome<Option<Arc<dyn RateSource>>> {
    let mut sources: Vec<Arc<dyn RateSource>> = Vec::new();
    if !rates.fixed.is_empty() {
        sources.push(Arc::new(FixedRates::new(rates.fixed.clone())));
    }
    let begun = tokio::time::Instant::now();
    let services: Vec<HttpRate> = rates
        .sources
        .iter()
        .map(|source| HttpRate::start(source.clone()))
        .collect::<Result<_, _>>()?;
    for (service, source) in services.into_iter().zip(&rates.sources) {
        let first = tokio::time::timeout_at(begun + RATE_PATIENCE, service.latest()).await;
        if !matches!(first, Ok(Some(_))) {
            tracing::error!(
                unit = %source.unit(),
                "there is no rate yet; what is priced in this unit cannot be sold until there is one"
            );
        }
        sources.push(Arc::new(service));
    }
    Ok((!sources.is_empty()).then(|| Arc::new(sources) as Arc<dyn RateSource>))
}

/// The price list, with every mistake that can be seen without a server.
pub(super) fn price_list(selling: &Selling) -> Outcome<PriceList> {
    PriceList::new(all_prices(selling)?).map_err(|error| Failure::usage(format!("price: {error}")))
}

/// What is priced: what was asked for, and what the server sells itself.
fn all_prices(selling: &Selling) -> Outcome<Vec<PricedCapability>> {
    let mut prices = selling.prices.clone();
    if let Some(settings) = &selling.balance {
        let nothing = Books::kept_in(MemoryLedger::new());
        prices.push(goods::top_up_tool(settings, &nothing)?.priced()?);
    }
    if let Some(settings) = &selling.licence_sale {
        prices.push(settings.priced()?);
    }
    for plan in &selling.plans {
        prices.extend(plan.priced()?);
    }
    Ok(prices)
}

/// The client's end of the relays, ready for requests.
pub(super) async fn client_transport(args: &ServerArgs) -> Outcome<Arc<NostrClientTransport>> {
    link(&args.server, &args.link).await
}

/// The client's end of the relays that `args` name, for one server.
pub(super) async fn link(server: &str, args: &LinkArgs) -> Outcome<Arc<NostrClientTransport>> {
    let (server, named) =
        parse_server(server).map_err(|error| Failure::usage(format!("SERVER: {error}")))?;
    let relays = relays_of(&server, args, &named).await?;
    let keys = keys::of_client(args)?;
    let transport = NostrClientTransport::builder(keys, server)
        .relays(relays)
        .encryption(args.encryption)
        .ready_timeout(RELAY_PATIENCE.min(Duration::from_secs(args.timeout)))
        .connect()
        .await?;
    Ok(transport)
}

/// Where a server is reached (N-35): on the relays that were named, else on those of its nprofile, else on those that it
/// lists on the discovery relays, else on these themselves.
async fn relays_of(
    server: &ServerPubkey,
    args: &LinkArgs,
    hinted: &[String],
) -> Outcome<Vec<String>> {
    let known = config::client_relays(&args.relays, hinted)?;
    if !known.is_empty() {
        return Ok(known);
    }
    let discovery = config::discovery_relays(&args.discovery_relays)?;
    if discovery.is_empty() {
        return Err(Failure::usage(
            "relays: none is known for this server: --relay URL, TOLLKEEPER_RELAYS, an nprofile, or --discovery-relay URL to \
             ask where it is found",
        ));
    }
    let patience = RELAY_PATIENCE.min(Duration::from_secs(args.timeout));
    let listed = find_relays(server, &discovery, patience).await?;
    if listed.is_empty() {
        tracing::warn!("the server lists no relays there; trying the discovery relays themselves");
        return Ok(discovery);
    }
    tracing::info!(relays = listed.len(), "the server lists its relays");
    Ok(listed)
}

/// How a client pays: inside the budget and the policy, by the books, and telling `on_event` what it does.
pub(super) async fn client_payments(
    paying: &PayingArgs,
    asker: Option<Arc<dyn AskBuyer>>,
    on_event: impl Fn(&PaymentEvent) + Send + Sync + 'static,
) -> Outcome<ClientPayments> {
    let mut builder = ClientPayments::builder()
        .budget(paying.budget.clone())
        .on_event(on_event);
    if let Some(per_call) = &paying.per_call {
        builder = builder.per_call(per_call.clone());
    }
    if let Some(interaction) = paying.payment_interaction {
        builder = builder.interaction(interaction);
    }
    if paying.pay {
        builder = builder.pay_explicit_gating();
    }
    if let Some(licence) = licence(paying)? {
        builder = builder.licence(licence);
    }
    if let Some(asker) = asker {
        builder = builder.ask(asker);
    }
    match home::folder() {
        Ok(home) => {
            let soon = paying.budget.value() > 0;
            let (policy, limits_at) = buying::policy(&home, &paying.policy)?;
            // Rates are asked for only where something may have to be converted: a limit, or a price in a list.
            let foreign = !policy.currencies().is_empty()
                || *paying.budget.unit() != Unit::SATS
                || policy.advertised != Advertised::Off;
            if foreign && let Some(source) = rates(&limits_at).await? {
                builder = builder.rates(source, limits_at.max_age);
            }
            builder = by_the_books(builder, &home, soon)?.policy(policy);
        }
        // Nothing can be paid, so nothing has to be written down.
        Err(_) if paying.budget.value() == 0 => {}
        Err(error) => return Err(error.into()),
    }
    builder = with_wallets(builder, paying.allow_fake, &paying.wallet).await?;
    Ok(builder.build()?)
}

/// The wallets that pay. What is named first is paid with first, if the server takes both: play money before money.
async fn with_wallets(
    mut builder: ClientPaymentsBuilder,
    fake: bool,
    wallet: &WalletArgs,
) -> Outcome<ClientPaymentsBuilder> {
    if fake {
        builder = with_fake_wallet(builder)?;
    }
    Ok(match config::paying_wallet(wallet)? {
        None => builder,
        Some(LightningWallet::Nwc(wallet)) => {
            let settings = NwcSettings::new().network(wallet.network);
            builder.handler(LightningNwcHandler::new(wallet.connection, settings)?)
        }
        Some(LightningWallet::Lnbits(config)) => {
            let handler = LnbitsHandler::new(&config)?;
            handler.check().await?;
            builder.handler(handler)
        }
    })
}

/// The books and the receipts in `home`. Books that are needed `soon` are opened while other things are prepared.
fn by_the_books(
    builder: ClientPaymentsBuilder,
    home: &Path,
    soon: bool,
) -> Outcome<ClientPaymentsBuilder> {
    // A folder that cannot be made is complained about by the books, when something is to be paid.
    let _ = home::make_folder(home);
    Ok(builder
        .ledger(books(home, soon)?)
        .receipts(ReceiptFolder::new(home.join(RECEIPTS))))
}

/// The books of what was bought, in `home`.
pub(super) fn buyer_ledger(home: &Path) -> Outcome<Arc<dyn BuyerLedger>> {
    books(home, false)
}

fn books(home: &Path, soon: bool) -> Outcome<Arc<dyn BuyerLedger>> {
    let file = home.join(BOOKS);
    let ledger: Arc<dyn BuyerLedger> = match soon {
        true => Arc::new(SqliteBuyerLedger::open_soon(file)?),
        false => Arc::new(SqliteBuyerLedger::new(file)?),
    };
    #[cfg(feature = "testing")]
    let ledger = crash_points::buyer_ledger(ledger)?;
    Ok(ledger)
}

/// Wallets to be asked about former payments, with the books of `home`: nothing can be paid with it.
pub(super) async fn look_up_only(home: &Path, wallets: &WalletsArgs) -> Outcome<ClientPayments> {
    let builder = by_the_books(ClientPayments::builder(), home, false)?;
    let builder = with_wallets(builder, wallets.allow_fake, &wallets.wallet).await?;
    Ok(builder.build()?)
}

fn with_fake_wallet(builder: ClientPaymentsBuilder) -> Outcome<ClientPaymentsBuilder> {
    #[cfg(feature = "testing")]
    if let Some(purse) = crash_points::Purse::from_environment()? {
        return Ok(builder.handler(purse));
    }
    Ok(builder.handler(FakeHandler::new()))
}

/// The client's end of the relays, as the payer uses it.
pub(super) fn behind_the_payer(
    transport: Arc<NostrClientTransport>,
) -> Outcome<Arc<dyn ClientTransport>> {
    let transport: Arc<dyn ClientTransport> = transport;
    #[cfg(feature = "testing")]
    let transport = crash_points::client_transport(transport)?;
    Ok(transport)
}

/// The licence to show: from the file that was named, else from the environment.
fn licence(paying: &PayingArgs) -> Outcome<Option<BearerToken>> {
    let (text, key) = match &paying.licence_file {
        Some(file) => (Some(home::read_secret(file)?), "--licence-file"),
        None => (
            secrets::read(secrets::LICENCE_TOKEN)?,
            secrets::LICENCE_TOKEN,
        ),
    };
    let Some(text) = text else { return Ok(None) };
    match BearerToken::new(text.trim()) {
        Some(token) => Ok(Some(token)),
        None => Err(Failure::usage(format!(
            "{key}: must hold one licence, of at most {} characters",
            BearerToken::LONGEST
        ))),
    }
}

/// The id of the first request of a run.
///
/// An event's id is a hash of what it says, its second and its author: two runs under one key that count from the same
/// number would say the same thing under the same id.
pub(super) fn first_request_id() -> i64 {
    let random = RandomState::new().hash_one(std::process::id());
    i64::from(u32::try_from(random >> 32).unwrap_or_default())
}
