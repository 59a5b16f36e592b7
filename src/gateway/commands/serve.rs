//! `serve`: a stdio MCP server, sold over relays, over a pipe or over HTTP.
//!
//! The order of the start is the order in which mistakes are cheapest: config and prices, then the ledger, then the child
//! and the wallet, then the relays. The order of the end: nothing new is taken, what was taken is finished, and what cannot be finished in
//! time is in the ledger, where the next start finds it.

mod finish;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::gateway::args::ServeArgs;
use crate::gateway::call_check::ListedCalls;
use crate::gateway::child::{Catalogue, ChildCommand, Children, ServerIntroduction};
use crate::gateway::config::{LedgerPlace, Serving};
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::goods::Goods;
use crate::gateway::output::{self, Paint};
use crate::gateway::own_licences::OwnLicences;
use crate::gateway::stripe_shop::{self, StripeShop};
use crate::gateway::ways::Ways;
use crate::gateway::{config, entitling, keys, licence_http, revocations, shutdown, wire_up};
use crate::ledger::LicenceBooks;
use crate::server::{Counter, PaidServer, with_server_payments};
use crate::transport::ServerTransport;
use crate::transport::nostr::{Announcement, NostrKeys, NostrServerTransport};
use crate::wire::{method, raw};

pub(super) async fn run(args: &ServeArgs) -> Outcome {
    let mut serving = config::serving(args)?;
    if let Some(stripe) = &serving.selling.stripe {
        serving.selling.plans = stripe_shop::plans(stripe).await?;
    }
    let serving = serving;
    let prices = wire_up::price_list(&serving.selling)?;
    let command = ChildCommand::new(&args.command)
        .ok_or_else(|| Failure::usage("CMD: the MCP server to sell must follow --"))?;
    let stop = shutdown::requested()?;

    let keys = keys::of_server(&serving)?;
    let (npub, pubkey) = (keys.npub(), keys.server_pubkey());
    let books = wire_up::server_books(&serving.ledger).await?;
    let starting = open_shop(&serving, command, keys, books, &stop);
    let (children, ways, paid, goods) = tokio::select! {
        started = starting => started?,
        () = stop.cancelled() => return Ok(()),
    };

    if prices.entries().is_empty() {
        tracing::warn!("nothing has a price: everything is free");
    }
    if let Some(transport) = &ways.relays {
        tell_where(transport, &serving);
        if serving.publishing.announce {
            announce_changes(transport, &children);
        }
    }
    let drop_calls = CancellationToken::new();
    let mut served = Arc::clone(&paid) as Arc<dyn ServerTransport>;
    if !goods.tools.is_empty() {
        served = Counter::new(served, goods.tools.clone());
    }
    let work = tokio::spawn(children.serve(served, drop_calls.clone()));
    let ready = Ready {
        npub: &npub,
        pubkey: pubkey.to_string(),
        relays: &serving.relays,
        priced: prices.entries().len(),
        url: ways.http.as_ref().map(|http| http.url()),
    };
    match ways.stdio {
        // What is printed there is for the client.
        Some(_) => tracing::info!(
            npub,
            priced = ready.priced,
            "serving the program that started this one"
        ),
        None => ready.print(args.json),
    }
    let ends = [stop, ways.client_left()];
    finish::finish(work, &paid, &ends, &drop_calls).await
}

/// Everything that is served, ready to be served.
type Shop = (Children, Ways, Arc<PaidServer>, Arc<Goods>);

/// Starts the child, the wallet and the rest, in the order in which mistakes are cheapest.
async fn open_shop(
    serving: &Serving,
    command: ChildCommand,
    keys: NostrKeys,
    books: wire_up::Books,
    stop: &CancellationToken,
) -> Outcome<Shop> {
    let challenges = wire_up::challenges(&serving.selling.mpp, &keys)?;
    let (children, lightning, rates) = tokio::try_join!(
        async { Ok(Children::start(command, serving.isolation).await?) },
        wire_up::lightning(&serving.selling),
        wire_up::rates(&serving.selling.rates),
    )?;
    let check = serving
        .check_calls
        .then(|| ListedCalls::new(children.catalogue()));
    let own = own_licences(serving, &books, &keys)?;
    let catalogue = Arc::clone(&children.catalogue().borrow());
    let goods = Goods::new(&serving.selling, &books, own.as_ref(), &catalogue)?;
    let goods = Arc::new(goods);
    let entitling = &serving.selling.entitling;
    let mut entitlements = entitling::entitlements(entitling, &books, own.as_ref()).await?;
    let stripe = StripeShop::open(&serving.selling, &books).await?;
    entitlements.extend(stripe.iter().map(|shop| Arc::clone(&shop.plans)));
    let checkout = stripe.as_ref().and_then(|shop| shop.checkout.clone());
    let rails = wire_up::ServerRails {
        lightning,
        checkout,
        tokens: stripe.as_ref().and_then(|shop| shop.tokens.clone()),
        rates,
        challenges,
    };
    let payments = wire_up::server_payments(
        &serving.selling,
        books.ledger,
        check,
        rails,
        (entitlements, &goods),
    )?;
    let ways = Ways::open(serving, keys).await?;
    let paid = with_server_payments(wire_up::behind_the_gate(ways.joined())?, payments).await?;
    serve_licences(serving, &own, &books.licences, stop).await?;
    if let (Some(own), Some(relays)) = (own, &ways.relays) {
        revocations::publish(own, relays, &serving.relays, stop);
    }
    if let Some((shop, settings)) = stripe.as_ref().zip(serving.selling.stripe.as_ref()) {
        shop.keep(settings, stop).await?;
    }
    Ok((children, ways, paid, goods))
}

/// Our own licences, where they count or are sold.
fn own_licences(
    serving: &Serving,
    books: &wire_up::Books,
    keys: &NostrKeys,
) -> Outcome<Option<OwnLicences>> {
    let licence = serving.selling.entitling.licence.as_ref();
    if !licence.is_some_and(|licence| licence.own) {
        return Ok(None);
    }
    match &serving.ledger {
        LedgerPlace::File(file) => OwnLicences::beside(file, keys, books).map(Some),
        LedgerPlace::Memory => Err(Failure::usage(
            "ledger: licences of our own need a file, where they are remembered",
        )),
        #[cfg(feature = "postgres")]
        LedgerPlace::Postgres(_) => Err(Failure::usage(
            "ledger: licences of our own are signed with keys beside a ledger file; they are not sold from a database yet",
        )),
    }
}

/// Serves the feed and the verification of our own licences, where that is asked for.
async fn serve_licences(
    serving: &Serving,
    own: &Option<OwnLicences>,
    books: &Arc<dyn LicenceBooks>,
    stop: &CancellationToken,
) -> Outcome {
    let Some(address) = serving.licence_http else {
        return Ok(());
    };
    let own = own.clone().ok_or_else(|| {
        Failure::usage("licence_http: needs licences of our own: [licence_sale], or own = true")
    })?;
    let issuer = entitling::own_issuer(&own, books).await?;
    let bound = licence_http::serve(address, own, issuer, stop.clone()).await?;
    tracing::info!(address = %bound, "serving what verifiers of licences ask");
    Ok(())
}

/// What is printed once calls can be taken. Other programs rely on the names and their order.
#[derive(serde::Serialize)]
#[serde(tag = "event", rename = "ready")]
struct Ready<'a> {
    pubkey: String,
    npub: &'a str,
    relays: &'a [String],
    priced: usize,
    /// Where it is served over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl Ready<'_> {
    fn print(&self, as_json: bool) {
        if as_json {
            output::json(self);
            return;
        }
        let paint = Paint::stdout();
        let relays: String = self
            .relays
            .iter()
            .map(|relay| format!(" --relay {relay}"))
            .collect();
        output::line(&paint.bold(&format!("serving as {}", self.npub)));
        output::line(&format!("prices      {}", self.priced));
        if let Some(url) = &self.url {
            output::line(&format!("url         {url}"));
        }
        if self.relays.is_empty() {
            return;
        }
        output::line(&format!("relays      {}", self.relays.join(", ")));
        output::line(&format!(
            "look at it  tollkeeper inspect {}{relays}",
            self.npub
        ));
    }
}

/// Publishes where the server is found and who it is, as far as that is wanted. It serves all the same if that fails.
fn tell_where(transport: &Arc<NostrServerTransport>, serving: &Serving) {
    let (transport, relay_list) = (Arc::clone(transport), serving.publishing.relay_list);
    let profile = serving.publishing.profile.clone();
    tokio::spawn(async move {
        if relay_list && let Err(error) = transport.publish_relay_list().await {
            tracing::warn!(%error, "the list of relays was not published");
        }
        if let Some(profile) = profile
            && let Err(error) = transport.publish_profile(&profile).await
        {
            tracing::warn!(%error, "the profile was not published");
        }
    });
}

/// Announces the server now and whenever what it offers changes.
fn announce_changes(transport: &Arc<NostrServerTransport>, children: &Children) {
    let (transport, introduction) = (Arc::clone(transport), children.introduction());
    let mut catalogue = children.catalogue();
    tokio::spawn(async move {
        loop {
            let announcement = announcement(&introduction, &catalogue.borrow_and_update());
            match transport.announce(&announcement).await {
                Ok(()) => tracing::info!("announced"),
                Err(error) => tracing::warn!(%error, "not everything was announced"),
            }
            if catalogue.changed().await.is_err() {
                return;
            }
        }
    });
}

fn announcement(introduction: &ServerIntroduction, catalogue: &Catalogue) -> Announcement {
    let list = |list: &str| catalogue.as_result(list).and_then(|list| raw(&list).ok());
    let mut announcement = Announcement::new();
    announcement.initialize = raw(introduction.result()).ok();
    announcement.tools = list(method::TOOLS_LIST);
    announcement.resources = list(method::RESOURCES_LIST);
    announcement.templates = list(method::RESOURCE_TEMPLATES_LIST);
    announcement.prompts = list(method::PROMPTS_LIST);
    announcement
}
