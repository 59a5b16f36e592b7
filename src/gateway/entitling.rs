//! From what was set up to the entitlements that the server asks, in their order.

use std::sync::Arc;
use std::time::Duration;

use super::config::{Entitling, IssuerSettings, LicenceSettings, VerifyAt};
use super::exit::{Failure, Outcome};
use super::own_licences::{self, OwnLicences};
use super::secrets;
use super::wire_up::Books;
use crate::entitlement::licence::{Issuer, IssuerApi, Key, KeyFile, Licences, OwnFeed, VerifyMode};
use crate::entitlement::{AllowedClients, ClientPace, DeniedClients, FreePerDay};
use crate::ledger::{FreeCalls, LicenceBooks};
use crate::payment::{Entitlement, WhenUnknown};

/// How often the ledger is asked which of our own licences were taken back.
const OWN_FEED_EVERY: Duration = Duration::from_secs(10);

/// The entitlements, in their order.
pub(super) async fn entitlements(
    entitling: &Entitling,
    books: &Books,
    own: Option<&OwnLicences>,
) -> Outcome<Vec<Arc<dyn Entitlement>>> {
    let mut asked: Vec<Arc<dyn Entitlement>> = Vec::new();
    for name in &entitling.order {
        match *name {
            "deny" => asked.push(Arc::new(DeniedClients::new(entitling.deny.clone()))),
            "allow" => asked.push(Arc::new(AllowedClients::new(entitling.allow.clone()))),
            "pace" => {
                if let Some((per_minute, burst)) = entitling.pace {
                    asked.push(Arc::new(ClientPace::new(per_minute, burst)?));
                }
            }
            "free_per_day" => {
                if let Some(limits) = entitling.free_per_day {
                    let ledger = Arc::clone(&books.ledger) as Arc<dyn FreeCalls>;
                    asked.push(Arc::new(FreePerDay::new(ledger, limits)?));
                }
            }
            _ => {
                if let Some(settings) = &entitling.licence {
                    asked.push(Arc::new(licences(settings, &books.licences, own).await?));
                }
            }
        }
    }
    Ok(asked)
}

async fn licences(
    settings: &LicenceSettings,
    books: &Arc<dyn LicenceBooks>,
    own: Option<&OwnLicences>,
) -> Outcome<Licences> {
    let mut issuers = Vec::new();
    if let Some(own) = own.filter(|_| settings.own) {
        issuers.push(own_issuer(own, books).await?);
    }
    for issuer in &settings.issuers {
        let started = issuer_of(issuer, settings.issuers.len() == 1, books).await;
        issuers.push(started.map_err(|failure| {
            let what = failure.message();
            Failure::usage(format!(
                "entitlements.licence.issuer {}: {what}",
                issuer.name
            ))
        })?);
    }
    let when = match settings.refuse_unknown {
        true => WhenUnknown::Refuse,
        false => WhenUnknown::Pay,
    };
    Ok(Licences::new(issuers)
        .covering(settings.covers.clone())
        .required(settings.required)
        .telling_handlers(settings.tell_handler)
        .when_unknown(when))
}

/// Ourselves: keys from the file beside the ledger, revocations from the ledger.
pub(super) async fn own_issuer(
    own: &OwnLicences,
    books: &Arc<dyn LicenceBooks>,
) -> Outcome<Issuer> {
    let feed = OwnFeed::new(Arc::clone(books));
    let issuer = Issuer::builder(own_licences::ISSUER, &own.server_id)
        .keys(own.keys.load()?)
        .key_source(Arc::new(own.keys.clone()))
        .public_licences()
        .feed(Arc::new(feed))
        .poll_every(OWN_FEED_EVERY)
        .start(Arc::clone(books))
        .await?;
    // Nothing that was taken back counts again, not even in the first second.
    issuer.read_feed().await?;
    Ok(issuer)
}

/// Starts one issuer. What the environment holds is meant for the only one, or for AI Coach.
async fn issuer_of(
    settings: &IssuerSettings,
    only: bool,
    books: &Arc<dyn LicenceBooks>,
) -> Outcome<Issuer> {
    let meant = only || settings.name == "aicoach.pw";
    let secret = |name| match meant {
        true => secrets::read(name),
        false => Ok(None),
    };
    let mut builder = Issuer::builder(&settings.name, &settings.server_id)
        .mode(match settings.mode {
            VerifyAt::Local => VerifyMode::Local,
            VerifyAt::Remote => VerifyMode::Remote,
            VerifyAt::LocalThenRemote => VerifyMode::LocalThenRemote,
        })
        .leeway(settings.leeway)
        .most_clients(settings.max_clients)
        .poll_every(settings.poll_every)
        .fail_closed_after(settings.fail_closed_after);
    let file = settings.keys_file.as_ref().map(KeyFile::new);
    // What was fetched once is known, whether the issuer can be reached now or not.
    let kept = file.as_ref().map(KeyFile::load).transpose()?;
    let mut keys = kept.unwrap_or_default();
    if let Some(secret) = secret(secrets::AICOACH_SIGNING_SECRET)? {
        keys = keys.with_unnamed(Key::new(secret.trim().as_bytes())?);
    }
    builder = builder.keys(keys);
    let api_key = secret(secrets::AICOACH_API_KEY)?;
    if let Some(url) = &settings.url {
        let key = api_key.as_deref().map(str::trim);
        let mut api = IssuerApi::new(url, &settings.server_id, key)?;
        if let Some(file) = &file {
            api = api.keeping_keys_in(file.clone());
        }
        let api = Arc::new(api);
        builder = builder
            .feed(Arc::clone(&api) as _)
            .remote(Arc::clone(&api) as _);
        if key.is_some() {
            builder = builder.key_source(api);
        } else if let Some(file) = file {
            builder = builder.key_source(Arc::new(file));
        }
    } else {
        tracing::warn!(
            issuer = settings.name,
            "without the address of its issuer, a licence that was taken back counts until it runs out"
        );
        if let Some(file) = file {
            builder = builder.key_source(Arc::new(file));
        }
    }
    Ok(builder.start(Arc::clone(books)).await?)
}
